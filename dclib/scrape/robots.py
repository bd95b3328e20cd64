"""May this URL be fetched? robots.txt under RFC 9309, and two newer files of the same kind."""

import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from protego import Protego

from dclib.scrape.optouts import AGENT, content_usage_rules, matches, reserved_locations

ROBOTS_BYTES = 500 * 1024  # what RFC 9309 asks us to read
FRESH_SECONDS = 24 * 3600
LONGEST_DELAY = 30.0  # seconds between requests that a robots.txt can ask for


class Robots:
    """Rules of every origin (scheme, host, port), read once and kept for a day.

    `get(url)` returns (status, content) after redirects, and raises what it likes when the server
    cannot be asked; that is passed on, and means "not now" for every URL of this origin.
    """

    def __init__(
        self, get: Callable[[str], tuple[int, bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.get, self.clock = get, clock
        self._rules: dict[str, Rules] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def rules(self, url: str) -> "Rules":
        """What the origin of a URL allows: everything after a 4xx (RFC 9309, 2.3.1.3)."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url)).lower()
        with self._lock:
            lock = self._locks.setdefault(origin, threading.Lock())
        with lock:  # the first thread asks, the others wait for its answer
            known = self._rules.get(origin)
            if known is None or self.clock() - known.read_at > FRESH_SECONDS:
                known = self._rules[origin] = self._read(origin)
            return known

    def _read(self, origin: str) -> "Rules":
        status, content = self.get(f"{origin}/robots.txt")
        text = content.decode("utf-8-sig", errors="replace") if status == 200 else ""
        status, content = self.get(f"{origin}/.well-known/tdmrep.json")
        reserved = reserved_locations(content) if status == 200 else []
        return Rules(text, reserved, self.clock())


class Rules:
    """What one origin allows, by its robots.txt and by the locations that it has reserved."""

    def __init__(self, robots_txt: str, reserved: list[str], read_at: float) -> None:
        self.robots = Protego.parse(robots_txt)
        self.closed_to_training = content_usage_rules(robots_txt)
        self.reserved, self.read_at = reserved, read_at

    def refusal(self, url: str) -> tuple[str, str] | None:
        """(reason, detail) why a URL may not be fetched, or None."""
        if not self.robots.can_fetch(url, AGENT):
            return "robots.txt", "robots.txt does not allow this address"
        parts = urlsplit(url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        if any(matches(pattern, path) for pattern in self.closed_to_training):
            return "opt-out", "Content-Usage in robots.txt: train-ai=n"
        if any(matches(pattern, path) for pattern in self.reserved):
            return "opt-out", "tdmrep.json reserves the rights"
        return None

    def delay(self) -> float:
        """Seconds between two requests that robots.txt asks for, at most `LONGEST_DELAY`."""
        seconds = self.robots.crawl_delay(AGENT) or 0.0
        rate = self.robots.request_rate(AGENT)
        if rate is not None and rate.requests:
            seconds = max(seconds, rate.seconds / rate.requests)
        return min(seconds, LONGEST_DELAY)
