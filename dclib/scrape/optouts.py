"""Every way to say "not for training", but robots.txt's own rules. What is close to a no is one.

Sources: draft-ietf-aipref-attach and -vocab (Content-Usage), contentsignals.org (Content-Signal),
the W3C's TDM Reservation Protocol, draft-canel-robots-ai-control (DisallowAITraining), the IPTC's
Photo Metadata Standard 2023.1 (PLUS Data Mining), and CAWG's training and data mining assertion.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice

from urllib3 import HTTPHeaderDict

from dclib.scrape.sources import loose_json

AGENT = "dclib"
US = re.compile(rf"\*|robots$|all$|{AGENT}(?![a-z_-])")  # in headers
REFUSALS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none", "notrain", "notraining"}
REFUSALS |= {"noaitrain", "noaitraining", "notdm", "nodatamining", "disallowaitraining"}
# Directives of X-Robots-Tag that have a value; any other word before a colon names a robot.
WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
WITH_VALUE |= {"rating"}
NO_TRAINING = re.compile(
    r"""(?<![a-z-])
    (?:(?:gen-?)?ai[-_ ]?train(?:ing)?|train(?:ing)?[-_ ]?(?:gen-?)?ai|all|bots|tdm|ai)
    ["'\s]*[=:\s]["'\s?]*(?:n|no|none|0|false|off|never|deny|denied|disallow(?:ed)?)(?!\w)""",
    re.IGNORECASE | re.VERBOSE,
)
CLOSING = re.compile(
    r"(content-?usage|content-?signals?|noindex|disallow-?ai-?training)\s*[:\s]\s*([/*]\S*)?(.*)",
    re.IGNORECASE,
)
MARKS = (b"dmi-prohibited", b"datamining", b"reserv", b"training-mining")
IN_PICTURE = re.compile(
    rb"""(dmi-prohibited[\w-]*) | (datamining)\W.{0,200}?prohibit
    | (tdm:reserv\w*|:reservation)\s*[=>][\s"']*(?:1|true|yes)
    | (training-mining).{0,2000}?(?:notallowed|constrained)""",
    re.VERBOSE | re.DOTALL,
)
PACKED = {  # what is before the packed text in such a chunk of PNG
    b"iTXt": re.compile(rb"[^\0]*\0\x01\0[^\0]*\0[^\0]*\0"),
    b"zTXt": re.compile(rb"[^\0]*\0\0"),
}
MOST_TEXTS, MOST_TEXT = 50, 1_000_000  # of such texts and of their bytes that are read


def closed_paths(lines: Iterable[str]) -> list[str]:
    """Path patterns that lines of a robots.txt, without comments, close to training.

    Lines of every group count, ours or not: the drafts are young, and refusing costs one picture.
    """
    paths = []
    for line in lines:
        if match := CLOSING.fullmatch(line):
            field, path, rest = match.groups("")
            if not field.lower().startswith("content"):
                paths.append(path or rest)
            elif _usage(rest):
                paths.append(path or "/")
    return [path for path in paths if path]


def reserved_locations(content: bytes) -> list[str]:
    """Path patterns of a /.well-known/tdmrep.json (bytes) whose rights are reserved."""
    try:
        entries = loose_json(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return []
    found: list[object] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        pairs = entry.items() if isinstance(entry, dict) else ()
        named = {re.sub("[-_]", "", name.lower()): value for name, value in pairs}
        if _reserves(str(named.get("tdmreservation", ""))):
            place = named.get("location", "/")
            found += place if isinstance(place, list) else [place]
    return [place if isinstance(place, str) else "/" for place in found]


def header_optout(headers: HTTPHeaderDict) -> str:
    """The opt-out that an answer's headers hold, or ""."""
    return optout((name, line) for name in headers for line in headers.getlist(name))


def optout(stated: Iterable[tuple[str, str]]) -> str:
    """The opt-out that headers, or metas of a page, hold as (name, value), or ""."""
    names = set()
    for name, value in stated:
        name = name.strip().lower()
        names.add(name)
        if name in ("x-robots-tag", "robots", AGENT):
            said = _word(value, header=name == "x-robots-tag")
        elif name in ("content-usage", "content-signal", "content-signals"):
            said = _usage(value)
        else:
            said = value.strip() if name == "tdm-reservation" and _reserves(value) else ""
        if said:
            return f"{name}: {said}"
    return "tdm-policy" if "tdm-policy" in names and "tdm-reservation" not in names else ""


def _word(text: str, header: bool = False) -> str:
    """The first refusal that is meant for everybody or for us, or ""; headers may name a robot."""
    text = re.sub(r"\bno[\s_-]+(?=[a-z])", "no", text.lower())
    ours, value = True, False  # whether the next word is one
    for word, colon in re.findall(r"""([^\s,;:|="']+)(\s*:)?""", text):
        if value:
            value = False
        elif ours and re.sub("[-_]", "", word) in REFUSALS:
            return word
        elif colon and (word in WITH_VALUE or not header):
            value = True
        elif colon and re.match("[a-z*]", word):
            ours = bool(US.match(word))
    return ""


def _usage(text: str) -> str:
    """What forbids training in the value of Content-Usage or Content-Signal, or ""."""
    match = NO_TRAINING.search(text)
    return match[0] if match else _word(text)


def _reserves(text: str) -> bool:
    """Whether a TDM reservation is anything but none."""
    parts = (part.strip(" \t\"'").lower() for part in text.split(","))
    return any(part not in ("", "0", "0.0", "n", "no", "none", "null", "false") for part in parts)


def picture_optout(content: bytes) -> str:
    """The opt-out in a picture file's own metadata (XMP, C2PA), or ""; UTF-16 adds zeros."""
    for text in (content, *islice(_packed_texts(content), MOST_TEXTS)):
        text = text.replace(b"\0", b"").lower()
        if any(mark in text for mark in MARKS) and (match := IN_PICTURE.search(text)):
            return f"in its metadata: {next(filter(None, match.groups())).decode()}"
    return ""


def _packed_texts(png: bytes) -> Iterator[bytes]:
    """The packed texts of a PNG, nothing for other files; ImageMagick writes hexadecimal ones."""
    at = 8
    while png.startswith(b"\x89PNG") and at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        data = png[at + 8 : at + 8 + size]
        at += size + 12
        if kind in PACKED and (start := PACKED[kind].match(data)):
            with contextlib.suppress(zlib.error, ValueError, IndexError):
                text = zlib.decompressobj().decompress(data[start.end() :], MOST_TEXT)
                yield text
                yield bytes.fromhex(text.split(None, 2)[2].decode("ascii"))
