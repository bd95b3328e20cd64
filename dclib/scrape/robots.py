"""May this be fetched? robots.txt under RFC 9309, and every other way to say no."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from protego import Protego
from urllib3 import HTTPHeaderDict

ROBOTS_BYTES = 500 * 1024  # what RFC 9309 asks us to read
AGENT = "dclib"
REFUSALS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}
# Directives of X-Robots-Tag that have a value; any other word before a colon names a robot.
WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


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
        text = content.decode("utf-8-sig", errors="replace") if status == 200 else ""
        status, content = self.get(f"{origin}/.well-known/tdmrep.json")
        reserved = reserved_locations(content) if status == 200 else []
        return Rules(text, reserved)


class Rules:
    """What one origin allows, by its robots.txt and by the locations that it has reserved."""

    def __init__(self, robots_txt: str, reserved: list[str]) -> None:
        self.robots = Protego.parse(robots_txt)
        self.training = _closing(content_usage_rules(robots_txt))
        self.reserved, self.read_at = _closing(reserved), time.monotonic()

    def refusal(self, url: str) -> tuple[str, str] | None:
        """(reason, detail) why a URL, as `dclib.scrape.sources.join` gives it, is not fetched."""
        if not self.robots.can_fetch(url, AGENT):
            return "robots.txt", "robots.txt does not allow this address"
        if not self.training.can_fetch(url, AGENT):
            return "opt-out", "Content-Usage in robots.txt: train-ai=n"
        if not self.reserved.can_fetch(url, AGENT):
            return "opt-out", "tdmrep.json reserves the rights"
        return None

    def delay(self) -> float:
        """Seconds between two requests that robots.txt asks for, at most 30."""
        seconds = self.robots.crawl_delay(AGENT) or 0.0
        rate = self.robots.request_rate(AGENT)
        if rate is not None and rate.requests:
            seconds = max(seconds, rate.seconds / rate.requests)
        return min(seconds, 30.0)


def _closing(patterns: Iterable[str]) -> Protego:
    """The robots.txt that closes these paths (`*` is any text, `$` the end)."""
    lines = [f"Disallow: {' '.join(pattern.split()) or '/'}" for pattern in patterns]
    return Protego.parse("\n".join(["User-agent: *", *lines]))


def content_usage_rules(robots_txt: str) -> list[str]:
    """Path patterns that `Content-Usage:` lines of a robots.txt close to training (draft).

    Lines of every group count, ours or not: the draft is young, and refusing costs one picture.
    """
    line = r"^[ \t]*content-usage[ \t]*:[ \t]*(/\S*)?([^#\n]*)"
    matches = re.findall(line, robots_txt, re.IGNORECASE | re.MULTILINE)
    return [path or "/" for path, usage in matches if _forbids_training(usage)]


def reserved_locations(content: bytes) -> list[str]:
    """Path patterns of a /.well-known/tdmrep.json (bytes) whose rights are reserved."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return []
    return [
        entry["location"]
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("location"), str)
        and str(entry.get("tdm-reservation")) == "1"
    ]


def header_optout(headers: HTTPHeaderDict) -> str:
    """The opt-out that an answer's headers hold, or ""."""
    for line in headers.getlist("X-Robots-Tag"):
        if directive := _robots_tag(line):
            return f"X-Robots-Tag: {directive}"
    for line in headers.getlist("Content-Usage"):
        if _forbids_training(line):
            return f"Content-Usage: {line.strip()}"
    return meta_optout("tdm-reservation", headers.get("tdm-reservation", ""))


def meta_optout(name: str, content: str) -> str:
    """The opt-out that a <meta> of this name holds, or ""."""
    name = name.strip().lower()
    if name == "tdm-reservation" and content.strip() == "1":
        return "tdm-reservation: 1"
    for word in re.split(r"[\s,;]+", content.lower()):
        if word in REFUSALS and name in ("robots", AGENT):
            return f"meta {name}: {word}"
    return ""


def _robots_tag(line: str) -> str:
    """The first refusal in one header line that is meant for everybody or for us, or ""."""
    robot = ""
    for part in line.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in WITH_VALUE:
            robot, part = name.strip(), rest
        refused = [word for word in re.split(r"[\s;]+", part) if word in REFUSALS]
        if refused and robot in ("", "*", AGENT):
            return refused[0]
    return ""


def _forbids_training(text: str) -> bool:
    items = (item.split(";")[0].split() for item in text.split(","))
    return any("".join(words) == "train-ai=n" for words in items)
