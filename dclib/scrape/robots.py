"""May this be fetched? robots.txt under RFC 9309, and the paths that are closed to training."""

import re
import string
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import quote, urlsplit

from protego import Protego

from dclib.scrape.optouts import AGENT, closed_paths, reserved_locations

ROBOTS_BYTES = 500 * 1024  # what RFC 9309 asks us to read
LONGEST_DELAY = 60.0  # seconds between two requests; a site that asks for more is left alone
RECORD = re.compile(  # the colon may be missing, the words misspelled, as the web has them
    r"(user[ -]?agent|allow|dis+al+[oa]w|diasllow|crawl[ -]delay|request[ -]rate)\s*[:\s]\s*(.*)",
    re.IGNORECASE,
)


class Robots:
    """Rules of every origin (scheme, host, port), read once and kept for a day.

    `get(url)` returns (status, content) after redirects; what it raises when the server cannot be
    asked is passed on, and means "not now" for every URL of this origin.
    """

    def __init__(self, get: Callable[[str], tuple[int, bytes]]) -> None:
        self.get = get
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
            if known is None or time.monotonic() - known.read_at > 24 * 3600:
                known = self._rules[origin] = self._read(origin)
            return known

    def _read(self, origin: str) -> "Rules":
        status, content = self.get(f"{origin}/robots.txt")
        text = _decode(content) if status == 200 else ""
        status, content = self.get(f"{origin}/.well-known/tdmrep.json")
        reserved = reserved_locations(content) if status == 200 else []
        return Rules(text, reserved)


class Rules:
    """What one origin allows, by its robots.txt and by the locations that it has reserved."""

    def __init__(self, robots_txt: str, reserved: list[str]) -> None:
        lines = [line.partition("#")[0].strip() for line in re.split(r"[\r\n]+", robots_txt)]
        self.robots = Protego.parse(our_group(lines))
        self.training, self.reserved = _closing(closed_paths(lines)), _closing(reserved)
        self.read_at = time.monotonic()

    def refusal(self, url: str) -> tuple[str, str] | None:
        """(reason, detail) why a URL, as `dclib.scrape.sources.join` gives it, is not fetched."""
        if not self.robots.can_fetch(url, AGENT):
            return "robots.txt", "robots.txt does not allow this address"
        if (delay := self.delay()) > LONGEST_DELAY:
            return "robots.txt", f"it asks for {delay:g} s a request; we wait {LONGEST_DELAY:g} s"
        if not self.training.can_fetch(url, AGENT):
            return "opt-out", "robots.txt closes this address to training"
        if not self.reserved.can_fetch(url, AGENT):
            return "opt-out", "tdmrep.json reserves the rights"
        return None

    def delay(self) -> float:
        """Seconds between two requests that robots.txt asks for."""
        seconds = self.robots.crawl_delay(AGENT) or 0.0
        rate = self.robots.request_rate(AGENT)
        return max(seconds, rate.seconds / rate.requests) if rate and rate.requests else seconds


def our_group(lines: Iterable[str]) -> str:
    """Of a robots.txt's lines, without comments, those of our groups, or else of everybody's.

    As a robots.txt for everybody. A group is some agents and what follows, all groups of one agent
    count, and records of others do not end one (RFC 9309, 2.2.1 and 2.2.4).
    """
    groups: list[tuple[set[str], list[str]]] = []
    ended = True  # whether the next agent begins another group
    for match in filter(None, map(RECORD.fullmatch, lines)):
        field, value = match[1].lower(), match[2]
        if field.startswith("user"):
            if ended:
                groups.append((set(), []))
            groups[-1][0].add(_agent(value))
            ended = False
        elif groups:
            number = re.match(r"\d+(?:[.,]\d+)?(?:e\d+)?", value)
            if field.startswith("crawl"):
                value = number[0].replace(",", ".") if number else ""
            elif not field.startswith("request"):
                ended, value = True, _pattern(value) if value else ""
            groups[-1][1].append(f"{field}: {value}")
    ours = [group for agents, group in groups if AGENT in agents]
    ours = ours or [group for agents, group in groups if "*" in agents]
    return "\n".join(["User-agent: *", *(line for group in ours for line in group)])


def _agent(value: str) -> str:
    """Whom an agent line means: "*", us (a version or other words may follow), or somebody else."""
    if re.search(rf"(?<![a-z_-]){AGENT}(?![a-z_-])", value.lower()):
        return AGENT
    return "*" if value.startswith("*") else ""


def _pattern(value: str) -> str:
    """A path pattern (`*` is any text, `$` the end) in the form of addresses."""
    value = re.sub("^https?://[^/]*", "", " ".join(value.split()), flags=re.IGNORECASE)
    value = value if value.startswith(("/", "*")) else f"/{value}"
    value = re.sub("^/+", "/", quote(value, string.punctuation, errors="replace"))  # as `join` does
    return f"{value}*" if value.endswith("index.html") else value  # for Protego it is its folder


def _closing(patterns: Iterable[str]) -> Protego:
    """The robots.txt that closes these paths."""
    lines = [f"Disallow: {_pattern(pattern)}" for pattern in patterns]
    return Protego.parse("\n".join(["User-agent: *", *lines]))


def _decode(content: bytes) -> str:
    """The text of a robots.txt; bytes that are no UTF-8 become the escapes that addresses have."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    text = content.decode("utf-8-sig", "surrogateescape").replace("\0", "")
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)
