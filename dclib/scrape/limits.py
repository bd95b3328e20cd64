"""How often a host may be asked, shared by all threads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CONNECTIONS = 2  # at once to one host: what Wikimedia asks of robots
PATIENCE = 60.0  # seconds that a request waits; a host that asks for longer is left for another run
FAILURES, PAUSE = 5, 300.0  # after so many failures in a row, leave a host alone for so long


class Postponed(Exception):
    """The host is to be left alone for longer than we wait."""


class Hosts:
    """A token bucket, a time not to ask before, and a count of failures for every host.

    Args:
        rate: requests a second and host; `burst` of them may come at once.
        connections: requests under way at a time to one host.
        clock, sleep: seconds and waiting, for tests that take no time.
    """

    def __init__(
        self,
        rate: float = 1.0,
        burst: int = 2,
        connections: int = CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.interval, self.burst, self.connections = 1 / rate, burst, connections
        self.clock, self.sleep = clock, sleep
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Wait until a request may start, and count it. Raises Postponed beyond `PATIENCE`."""
        state = self._state(host)
        with state.slots:
            while (wait := self._reserve(state)) > 0:
                self.sleep(wait)
            yield

    def _reserve(self, state: "_Host") -> float:
        """Take a token and return 0, or return the seconds to wait for one."""
        with self._lock:
            now = self.clock()
            start = max(state.ready - (self.burst - 1) * state.interval, state.not_before)
            if start - now > PATIENCE:
                raise Postponed(f"asks to be left alone for another {start - now:.0f} s")
            if start > now:
                return start - now
            state.ready = max(state.ready, now) + state.interval
            return 0

    def slow_down(self, host: str, seconds: float) -> None:
        """At most one request in `seconds`, as robots.txt may ask."""
        state = self._state(host)
        state.interval = max(state.interval, seconds)

    def postpone(self, host: str, seconds: float) -> None:
        """Nobody asks `host` again before `seconds` have passed."""
        state = self._state(host)
        with self._lock:
            state.not_before = max(state.not_before, self.clock() + seconds)

    def failed(self, host: str) -> None:
        """Count a failure; too many in a row and the host is left alone for a while."""
        state = self._state(host)
        state.failures += 1
        if state.failures >= FAILURES:
            self.postpone(host, PAUSE)

    def succeeded(self, host: str) -> None:
        """The count of failures starts again."""
        self._state(host).failures = 0

    def _state(self, host: str) -> "_Host":
        with self._lock:
            return self._hosts.setdefault(host, _Host(self.interval, self.connections))


class _Host:
    def __init__(self, interval: float, connections: int) -> None:
        self.interval, self.ready, self.not_before, self.failures = interval, 0.0, 0.0, 0
        self.slots = threading.BoundedSemaphore(connections)
