"""May this URL be fetched? robots.txt under RFC 9309, and two newer files of the same kind."""

import json
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from protego import Protego
from urllib3 import HTTPHeaderDict

ROBOTS_BYTES = 500 * 1024  # what RFC 9309 asks us to read
FRESH_SECONDS = 24 * 3600
LONGEST_DELAY = 30.0  # seconds between requests that a robots.txt can ask for
AGENT = "dclib"
REFUSALS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}
# Directives of X-Robots-Tag that have a value; any other word before a colon names a robot.
WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


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


def header_optout(headers: HTTPHeaderDict) -> str:
    """The opt-out that answers' headers (urllib3's HTTPHeaderDict) hold, or ""."""
    for line in headers.getlist("X-Robots-Tag"):
        if directive := _robots_tag(line):
            return f"X-Robots-Tag: {directive}"
    if headers.get("tdm-reservation", "").strip() == "1":
        return "tdm-reservation: 1"
    for line in headers.getlist("Content-Usage"):
        if _forbids_training(line):
            return f"Content-Usage: {line.strip()}"
    return ""


def _robots_tag(line: str) -> str:
    """The first refusal in one header line that is meant for everybody or for us."""
    robot = ""
    for part in line.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in WITH_VALUE:
            robot, part = name.strip(), rest
        if robot in ("", "*", AGENT) and part.strip() in REFUSALS:
            return part.strip()
    return ""


def _forbids_training(text: str) -> bool:
    return any(item.split(";")[0].replace(" ", "") == "train-ai=n" for item in text.split(","))


def content_usage_rules(robots_txt: str) -> list[str]:
    """Path patterns that `Content-Usage:` lines of a robots.txt close to training (draft).

    Lines of every group count, ours or not: the draft is young, and refusing costs one picture.
    """
    lines = re.findall(r"^\s*content-usage\s*:\s*(.*)$", robots_txt, re.I | re.M)
    rules = []
    for line in lines:
        path, _, usage = line.strip().partition(" ") if line.startswith("/") else ("/", "", line)
        if _forbids_training(usage.split("#")[0]):
            rules.append(path)
    return rules


def reserved_locations(content: bytes) -> list[str]:
    """Path patterns of a /.well-known/tdmrep.json (bytes) whose rights are reserved."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return []
    entries = entries if isinstance(entries, list) else []
    return [
        entry["location"]
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("location"), str)
        and str(entry.get("tdm-reservation")) == "1"
    ]


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern of robots.txt (`*` any text, `$` the end) fits the beginning of a path."""
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    last = rest.pop() if rest and pattern.endswith("$") else None
    place = len(first)
    for part in rest:  # each at its first place: a regular expression would try them all
        place = path.find(part, place)
        if place < 0:
            return False
        place += len(part)
    if last is not None:
        return path.endswith(last) and len(path) - len(last) >= place
    return place == len(path) or not pattern.endswith("$")
