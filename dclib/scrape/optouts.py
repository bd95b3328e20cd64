"""What owners write where machines look: do not index, do not train.

Read here: `X-Robots-Tag`, `tdm-reservation` (TDM Reservation Protocol, W3C community group 2024)
and `Content-Usage` (IETF AIPREF, still a draft). Marks inside a web page: `dclib.scrape.html`.
"""

import json
import re

from urllib3 import HTTPHeaderDict

AGENT = "dclib"
REFUSALS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}
# Directives of X-Robots-Tag that have a value; any other word before a colon names a robot.
WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


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
