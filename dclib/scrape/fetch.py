"""Fetch pages and pictures as a guest: announced, slowly, within limits, and not where unwanted."""

import email.utils
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

import requests
from urllib3 import BaseHTTPResponse, HTTPHeaderDict
from urllib3.exceptions import HTTPError

from dclib import __version__
from dclib.scrape.guard import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    Deadline,
    NotAllowed,
    check_url,
    guarded_session,
)
from dclib.scrape.robots import AGENT, ROBOTS_BYTES, Robots, header_optout
from dclib.scrape.sources import PAGE_BYTES, Page, host

PICTURE_BYTES = 20_000_000  # of a file, at most
SECONDS = 40.0  # for one request, from the connection to the last byte
ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 4, 1.0, 20.0
LONGEST_RETRY_AFTER = 3600.0
REDIRECTS = 5
BUSY = {408, 425, 429, 500, 502, 503, 504}  # worth another try
PAGE_TYPES = "text/html,application/json;q=0.9,*/*;q=0.5"
PICTURE_TYPES = "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5"
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


class FetchError(Exception):
    """A URL that gave nothing: `reason` in a few words, `later` if another run may succeed."""

    def __init__(self, reason: str, detail: str = "", later: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.later = reason, detail, later


class Fetcher:
    """Everything that a site may expect of a robot, in one place; safe to use from many threads.

    Args:
        contact: an e-mail address or web page of the person who runs this; part of every request.
        rate: requests a second and host (robots.txt can lower it).
        opening: (address, port) of one local server that may be asked although it is private.
        seconds: for one request, from the connection to the last byte.
        hosts: limits to share or to replace, a `dclib.scrape.fetch.Hosts`.

    Raises ValueError for a contact at which nobody can be reached.
    """

    def __init__(
        self,
        contact: str,
        rate: float = 1.0,
        opening: tuple[str, int] | None = None,
        seconds: float = SECONDS,
        hosts: Hosts | None = None,
    ) -> None:
        self.opening, self.seconds = opening, seconds
        self.hosts = hosts or Hosts(rate)
        self.session = guarded_session(opening)
        self.session.headers["User-Agent"] = user_agent(contact)
        self.robots = Robots(self._robots_file)

    def page(self, url: str, api: bool = False) -> Page:
        """A web page or, with `api`, the answer of a documented interface (robots.txt is for
        crawlers and not asked there). Raises FetchError."""
        return self._follow(url, PAGE_BYTES, {"Accept": PAGE_TYPES}, heed=not api)

    def picture(self, url: str) -> Page:
        """The file at `url`, undecoded. Raises FetchError."""
        headers = {"Accept": PICTURE_TYPES, "Accept-Encoding": "identity"}
        return self._follow(url, PICTURE_BYTES, headers, heed=True)

    def _follow(self, url: str, cap: int, headers: dict[str, str], heed: bool) -> Page:
        """Through redirects to the end. `heed`: follow robots.txt and opt-outs on the way."""
        for _ in range(REDIRECTS + 1):
            if heed:
                self._ask_rules(url)
            answer = self._persist(url, cap, headers, heed)
            if answer.status == 200:
                plain = {name.lower(): value for name, value in answer.headers.items()}
                return Page(url, answer.content, plain)
            if not answer.target:
                raise FetchError(f"http {answer.status}", url)
            url = _redirected(url, answer.target)
        raise FetchError("redirects", f"more than {REDIRECTS}")

    def _ask_rules(self, url: str) -> None:
        self._check(url)
        try:
            rules = self.robots.rules(url)
        except FetchError as error:
            if error.later:  # RFC 9309, 2.3.1.4: unreachable means that everything is disallowed
                raise FetchError("robots.txt unknown", str(error), later=True) from error
            raise
        if refusal := rules.refusal(url):
            raise FetchError(*refusal)
        self.hosts.slow_down(host(url), rules.delay())

    def _robots_file(self, url: str) -> tuple[int, bytes]:
        """(status, content) of robots.txt and its like, after at most five redirects.

        Raises FetchError where it cannot be reached, which is any 5xx (RFC 9309, 2.3.1.4).
        """
        for _ in range(REDIRECTS + 1):
            answer = self._persist(url, ROBOTS_BYTES, {"Accept": "*/*"}, cut=True)
            if answer.status >= 500:
                raise FetchError(f"http {answer.status}", host(url), later=True)
            if not answer.target:
                return answer.status, answer.content
            url = _redirected(url, answer.target)
        return 404, b""  # RFC 9309, 2.3.1.2: too many redirects count as unavailable

    def _persist(
        self, url: str, cap: int, headers: dict[str, str], heed: bool = False, cut: bool = False
    ) -> "_Answer":
        """One answer, after up to `ATTEMPTS` tries with exponential back-off and full jitter."""
        name, failed = host(url), 0
        while True:
            try:
                answer = self._once(url, cap, headers, heed, cut)
                self.hosts.succeeded(name)
                return answer
            except Postponed as error:
                raise FetchError("host busy", f"{name} {error}", later=True) from error
            except FetchError as error:
                if not error.later:
                    raise
                longest = min(LONGEST_WAIT, FIRST_WAIT * 2**failed)
                failed += 1
                if failed == ATTEMPTS:
                    self.hosts.failed(name)
                    raise
                self.hosts.sleep(random.uniform(0, longest))

    def _once(
        self, url: str, cap: int, headers: dict[str, str], heed: bool, cut: bool
    ) -> "_Answer":
        """One request, opt-outs read before the body. Raises FetchError and Postponed."""
        self._check(url)
        with self.hosts.turn(host(url)), Deadline(self.seconds) as deadline:
            try:
                with self.session.get(
                    url,
                    headers={"Accept-Encoding": "gzip"} | headers,
                    timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
                    stream=True,
                    allow_redirects=False,
                ) as response:
                    answer = self._read(response, cap, heed, cut)
                if not deadline.passed:  # otherwise the end may be where we cut it off
                    return answer
                raise requests.exceptions.ReadTimeout
            except NotAllowed as error:
                raise FetchError("address not allowed", str(error)) from error
            except (HTTPError, OSError, ValueError, zlib.error) as error:
                if deadline.passed:
                    detail = f"not done after {self.seconds:g} s"
                    raise FetchError("too slow", detail, later=True) from error
                raise _explain(error) from error

    def _read(self, response: requests.Response, cap: int, heed: bool, cut: bool) -> "_Answer":
        status, headers = response.status_code, response.raw.headers
        if status in BUSY:
            wait = retry_after(headers.get("Retry-After"), time.time())
            if wait is not None:
                self.hosts.postpone(host(response.url), min(wait, LONGEST_RETRY_AFTER))
            raise FetchError(f"http {status}", host(response.url), later=True)
        target = headers.get("Location") if 300 <= status < 400 else None
        if heed and status == 200 and (directive := header_optout(headers)):
            raise FetchError("opt-out", directive)
        content = read_body(response.raw, cap, cut) if status == 200 else b""
        return _Answer(status, headers, content, target)

    def _check(self, url: str) -> None:
        try:
            check_url(url, self.opening)
        except NotAllowed as error:
            raise FetchError("address not allowed", str(error)) from error


@dataclass
class _Answer:
    status: int
    headers: HTTPHeaderDict
    content: bytes
    target: str | None  # where a redirect leads


def user_agent(contact: str) -> str:
    """`dclib/0.1.0 (contact) python-requests/2.34`. Raises ValueError without a real contact."""
    contact = contact.strip()
    known = re.fullmatch(r"[^\s@()]+@[^\s@()]+\.\w+|https?://[^\s()]+\.\w[^\s()]*", contact)
    if not known or re.search(r"\bexample\b", contact):
        raise ValueError(
            f"contact is {contact!r}: give your own e-mail address or web page, so that a site can "
            "reach you instead of blocking you."
        )
    return f"{AGENT}/{__version__} ({contact}) python-requests/{requests.__version__}"


def read_body(raw: BaseHTTPResponse, cap: int, cut: bool = False) -> bytes:
    """The decoded body of urllib3's response, at most `cap` bytes, however it was packed.

    Counted after unpacking, a piece at a time, so that a small file cannot become a large one in
    memory. With `cut` the rest is left unread, otherwise FetchError is raised; it is, too, for a
    packing that was not asked for or has no end. zlib.error is passed on.
    """
    encoding = raw.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise FetchError("encoding", f"packed as {encoding[:60]}, which was not asked for")
    length = raw.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > cap and not cut:
        raise FetchError("too many bytes", f"{int(length):,} announced, {cap:,} allowed")
    unpack = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    body = bytearray()
    while len(body) <= cap and (piece := raw.read(65536, decode_content=False)):
        body += unpack.decompress(piece, cap + 1 - len(body)) if unpack else piece
    if len(body) > cap and not cut:
        raise FetchError("too many bytes", f"more than {cap:,}")
    if unpack and not unpack.eof and len(body) <= cap:
        raise FetchError("cut off", "the packed answer has no end", later=True)
    return bytes(body[:cap])


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, or None if it is missing or nonsense.

    `now`: seconds since 1970, for headers with a date (RFC 9110, 10.2.3).
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*\d+\s*", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def _redirected(url: str, target: str) -> str:
    try:
        new = urljoin(url, target.encode("latin-1").decode("utf-8", errors="replace"))
    except ValueError as error:
        raise FetchError("address not allowed", f"a redirect to {target[:200]}") from error
    if url.startswith("https:") and not new.startswith("https:"):
        raise FetchError("address not allowed", "a redirect from https to http")
    return new


def _explain(error: Exception) -> FetchError:
    """A FetchError for what requests (all of it OSError), urllib3 and zlib raise."""
    text = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError("tls", text)
    if isinstance(error, ValueError):  # no such address can be asked for
        return FetchError("address not allowed", text)
    if isinstance(error, zlib.error):
        return FetchError("cut off", text, later=True)
    return FetchError("connection", text, later=True)
