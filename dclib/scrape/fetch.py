"""Fetch pages and pictures as a guest: announced, slowly, within limits, and not where unwanted."""

import random
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import requests
from urllib3 import HTTPHeaderDict, Retry
from urllib3.exceptions import HTTPError, InvalidHeader

from dclib import __version__
from dclib.scrape import guard
from dclib.scrape.html import may_be_check, page_optouts
from dclib.scrape.optouts import AGENT, header_optout
from dclib.scrape.robots import ROBOTS_BYTES, Robots
from dclib.scrape.sources import FetchError, Page, host, join, reading

SECONDS = 40.0  # for one request, from the connection to the last byte
ATTEMPTS, FIRST_WAIT = 4, 1.0  # the longest wait before a new try doubles each time
LONGEST_RETRY_AFTER = 3600.0  # seconds
REDIRECTS = 5
BUSY = {408, 425, 429, 500, 502, 503, 504}  # worth another try
SHUT = {202, 403, 405}  # for robots, or for this network: perhaps not tomorrow, perhaps not at home
WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<!--|<(!doctype )?(html|head|body|title|meta|script)\b|$)"
)
CONNECTIONS = 2  # at once to one host: what Wikimedia asks of robots
PATIENCE = 60.0  # seconds that a request waits; a host that asks for longer is left for another run
FAILURES, PAUSE = 5, 300.0  # after so many failures in a row, leave a host alone for so long


class Hosts:
    """For every host: `rate` requests a second, some at once, and a time not to ask before."""

    def __init__(self, rate: float = 1.0, connections: int = CONNECTIONS) -> None:
        self.interval, self.connections = 1 / rate, connections
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until a request may start; FetchError if that is beyond `PATIENCE`."""
        state = self._state(name)
        with state.slots:
            while True:
                with self._lock:
                    now = time.monotonic()
                    wait = state.not_before - now
                    if wait <= 0:
                        state.not_before = now + state.interval
                        break
                if wait > PATIENCE:
                    detail = f"{name} asks to be left alone for another {wait:.0f} s"
                    raise FetchError("host busy", detail, later=True)
                time.sleep(wait)
            yield

    def slow_down(self, name: str, seconds: float) -> None:
        """At most one request in `seconds`, as robots.txt may ask."""
        state = self._state(name)
        state.interval = max(state.interval, seconds)

    def postpone(self, name: str, seconds: float) -> None:
        """Nobody asks this host again before `seconds` have passed."""
        state = self._state(name)
        with self._lock:
            state.not_before = max(state.not_before, time.monotonic() + seconds)

    def count(self, name: str, failed: bool) -> None:
        """Too many failures in a row, and a host is left alone for a while."""
        state = self._state(name)
        state.failures = state.failures + 1 if failed else 0
        if state.failures >= FAILURES:
            self.postpone(name, PAUSE)

    def _state(self, name: str) -> "_Host":
        with self._lock:
            return self._hosts.setdefault(name, _Host(self.interval, self.connections))


class _Host:
    def __init__(self, interval: float, connections: int) -> None:
        self.interval, self.not_before, self.failures = interval, 0.0, 0
        self.slots = threading.BoundedSemaphore(connections)


class _Wish(NamedTuple):
    """How much is asked for, in which form, and under which rules."""

    cap: int  # bytes
    accept: str
    encoding: str = "gzip"
    heed: bool = True  # follow robots.txt and opt-outs
    cut: bool = False  # leave what is beyond the cap unread


PAGE = _Wish(5_000_000, "text/html,application/json;q=0.9,*/*;q=0.5")
PICTURE = _Wish(20_000_000, "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5", "identity")
ROBOTS = _Wish(ROBOTS_BYTES, "*/*", heed=False, cut=True)


class _Answer(NamedTuple):
    status: int
    headers: HTTPHeaderDict
    content: bytes


class Fetcher:
    """Everything that a site may expect of a robot; for many threads. It raises FetchError.

    ValueError for a contact at which nobody can be reached.

    Args:
        contact: an e-mail address or web page of the person who runs this; part of every request.
        rate: requests a second and host (robots.txt can lower it).
        opening: (address, port) of one local server that may be asked although it is private.
    """

    def __init__(
        self, contact: str, rate: float = 1.0, opening: tuple[str, int] | None = None
    ) -> None:
        self.opening, self.seconds, self.hosts = opening, SECONDS, Hosts(rate)
        self.session = guard.guarded_session(opening)
        self.session.headers["User-Agent"] = user_agent(contact)
        self.robots = Robots(self._robots_file)

    def page(self, url: str, api: bool = False) -> Page:
        """A web page that does not object, or, without robots.txt, the answer of an `api`."""
        page = self._get(url, PAGE._replace(heed=not api))
        with reading(page):
            directive = "" if api else page_optouts(page)
        if directive:
            raise FetchError("opt-out", directive, may_be_check(page))
        return page

    def picture(self, url: str) -> Page:
        """The file at `url`, undecoded."""
        return self._get(url, PICTURE)

    def _get(self, url: str, wish: _Wish) -> Page:
        url, answer = self._follow(join("", url) or url, wish)
        if answer.status != 200:
            raise FetchError(f"http {answer.status}", url, wish.heed and answer.status in SHUT)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        page = Page(url, answer.content, headers)
        if wish is PICTURE and WEB_PAGE.match(page.content.lower()):
            why = "nothing or a web page, perhaps a bot check"
            raise FetchError("not a picture", why, later=True)
        if wish.heed and (directive := header_optout(answer.headers)):
            raise FetchError("opt-out", directive, may_be_check(page))
        return page

    def _robots_file(self, url: str) -> tuple[int, bytes]:
        """(status, content) of robots.txt and its like; RFC 9309, 2.3.1.4: unreachable means no."""
        try:
            _, answer = self._follow(url, ROBOTS)
            if answer.status >= 500:
                raise FetchError(f"http {answer.status}", host(url), later=True)
        except FetchError as error:
            if error.reason == "redirects":  # count as unavailable, RFC 9309, 2.3.1.2
                return 404, b""
            if error.later:
                raise FetchError("robots.txt unknown", str(error), later=True) from error
            raise
        return answer.status, answer.content

    def _follow(self, url: str, wish: _Wish) -> tuple[str, _Answer]:
        """Through redirects to the end: (its address, its answer)."""
        for _ in range(REDIRECTS + 1):
            try:
                guard.check_url(url, self.opening)
            except guard.NotAllowed as error:
                raise _explain(error) from error
            if wish.heed:
                rules = self.robots.rules(url)
                if refusal := rules.refusal(url):
                    raise FetchError(*refusal)
                self.hosts.slow_down(host(url), rules.delay())
            answer = self._persist(url, wish)
            target = answer.headers.get("Location")
            if not 300 <= answer.status < 400 or not target:
                return url, answer
            url = _redirected(url, target)
        raise FetchError("redirects", f"more than {REDIRECTS}")

    def _persist(self, url: str, wish: _Wish) -> _Answer:
        """One answer, after up to `ATTEMPTS` tries with exponential back-off and full jitter."""
        name, failed = host(url), 0
        while True:
            try:
                answer = self._once(url, wish)
                self.hosts.count(name, failed=False)
                return answer
            except FetchError as error:
                if not error.later or error.reason == "host busy":
                    raise
                failed += 1
                if failed == ATTEMPTS:
                    self.hosts.count(name, failed=True)
                    raise
                self.hosts.postpone(name, random.uniform(0, FIRST_WAIT * 2 ** (failed - 1)))

    def _once(self, url: str, wish: _Wish) -> _Answer:
        with self.hosts.turn(host(url)), guard.Deadline(self.seconds) as deadline:
            try:
                with self.session.get(
                    url,
                    headers={"Accept": wish.accept, "Accept-Encoding": wish.encoding},
                    timeout=(guard.CONNECT_SECONDS, guard.SILENCE_SECONDS),
                    stream=True,
                    allow_redirects=False,
                ) as response:
                    answer = self._read(response, wish)
                if not deadline.passed:  # otherwise the end may be where we cut it off
                    return answer
                raise requests.exceptions.ReadTimeout
            except (HTTPError, OSError, ValueError, zlib.error) as error:
                if deadline.passed:
                    detail = f"not done after {self.seconds:g} s"
                    raise FetchError("too slow", detail, later=True) from error
                raise _explain(error) from error

    def _read(self, response: requests.Response, wish: _Wish) -> _Answer:
        """What an answer holds; opt-outs are read before the body, unless it may be a bot check."""
        status, headers = response.status_code, response.raw.headers
        if status in BUSY:
            self.hosts.postpone(host(response.url), seconds_to_wait(headers.get("Retry-After")))
            raise FetchError(f"http {status}", host(response.url), later=True)
        picture = "html" not in headers.get("Content-Type", "").lower()
        if wish.heed and status == 200 and picture and (directive := header_optout(headers)):
            raise FetchError("opt-out", directive)
        content = read_body(response, wish.cap, wish.cut) if status == 200 else b""
        return _Answer(status, headers, content)


def user_agent(contact: str) -> str:
    """`dclib/0.1.0 (contact) python-requests/2.34`. Raises ValueError without a real contact."""
    contact = contact.strip()
    known = re.fullmatch(r"[^\s@()]+@[^\s@()]+\.\w+|https?://[^\s()]+\.\w[^\s()]*", contact)
    if not known or not contact.isascii() or re.search(r"\bexample\b", contact):
        raise ValueError(
            f"contact is {contact!r}: give your own e-mail address or web page, so that a site can "
            "reach you instead of blocking you."
        )
    return f"{AGENT}/{__version__} ({contact}) python-requests/{requests.__version__}"


def read_body(response: requests.Response, cap: int, cut: bool = False) -> bytes:
    """The unpacked body of a response; of a longer one the first `cap` bytes, or FetchError.

    It is unpacked here, as requests takes a packed answer without an end for a whole one.
    """
    headers = response.raw.headers
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise FetchError("encoding", f"packed as {encoding[:60]}, which was not asked for")
    length = headers.get("Content-Length", "")
    if length.isdigit() and int(length) > cap and not cut:
        raise FetchError("too many bytes", f"{int(length):,} announced, {cap:,} allowed")
    unpack = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    body = bytearray()
    while len(body) <= cap and (piece := response.raw.read(65536, decode_content=False)):
        body += unpack.decompress(piece, cap + 1 - len(body)) if unpack else piece
    if len(body) > cap and not cut:
        raise FetchError("too many bytes", f"more than {cap:,}")
    if unpack and not unpack.eof and len(body) <= cap:
        raise FetchError("cut off", "the packed answer has no end", later=True)
    return bytes(body[:cap])


def seconds_to_wait(retry_after: str | None) -> float:
    """What a Retry-After header asks for (RFC 9110, 10.2.3), 0 if it is missing or nonsense."""
    try:
        seconds = Retry().parse_retry_after(retry_after or "0")
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0
    return float(min(seconds, LONGEST_RETRY_AFTER))


def _redirected(url: str, target: str) -> str:
    new = join(url, target.encode("latin-1").decode("utf-8", errors="replace"))
    if not new:
        raise FetchError("address not allowed", f"a redirect to {target[:200]}")
    if url.startswith("https:") and not new.startswith("https:"):
        raise FetchError("address not allowed", "a redirect from https to http")
    return new


def _explain(error: Exception) -> FetchError:
    """A FetchError for what requests (all of it OSError) and urllib3 raise."""
    text = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, guard.NotAllowed):
        return FetchError("address not allowed", str(error))
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError("tls", text)
    if isinstance(error, zlib.error):
        return FetchError("cut off", text, later=True)
    if isinstance(error, ValueError):  # no such address can be asked for
        return FetchError("address not allowed", text)
    return FetchError("connection", text, later=True)
