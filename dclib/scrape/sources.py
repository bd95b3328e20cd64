"""What every source of pictures has in common: the shapes of its answers, and text without HTML.

Nothing here touches the network.
"""

import html
import json
import re
import warnings
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector

from dclib.scrape.urls import join

MAX_TEXT = 300  # characters of a title or name
PAGE_BYTES = 5_000_000  # of a page of results, decoded


class Page(NamedTuple):
    """One answer of a server, fetched by someone else."""

    url: str  # after redirects
    content: bytes  # decoded from gzip and the like
    headers: dict[str, str]  # names in lower case


@dataclass(frozen=True)
class Candidate:
    """One picture that a source offers; nothing of it has been fetched yet."""

    url: str  # of the image file; from a gallery page perhaps of a thumbnail
    page: str = ""  # where licence and author are stated
    title: str = ""
    licence: str = ""  # a key of dclib.scrape.licences.NAMES, "" if unknown
    licence_url: str = ""
    author: str = ""
    author_url: str = ""
    series: str = ""  # what was taken together, "" if unknown
    objection: str = ""  # why the source itself says not to take it, "" if it does not


class Listing(NamedTuple):
    """One page of results."""

    candidates: list[Candidate]
    next: str | None  # address of the next page of results, None at the end
    note: str = ""  # one sentence where something is odd


class Source(Protocol):
    """Where pictures are looked for; it reads pages, and leaves fetching them to others."""

    name: str  # in the manifest and in the data set
    api: bool  # a documented JSON interface, to which robots.txt does not apply
    pace: float  # seconds between requests, at least

    def start(self, text: str) -> str:
        """Address of the first page of results for a query."""

    def parse(self, page: Page) -> Listing:
        """What one page of results offers; raises `SourceError` for what is none."""


class SourceError(ValueError):
    """One sentence: what the server said that cannot be used, and what to do.

    `later` is True where the same request may succeed later.
    """

    def __init__(self, message: str, later: bool = False) -> None:
        super().__init__(message)
        self.later = later


def read_json(page: Page, name: str) -> dict:
    """The JSON object of an answer; raises SourceError for anything else.

    A web page instead of JSON is what front doors (Cloudflare and the like) send to addresses
    that they do not trust, those of cloud computers above all.
    """
    kind = page.headers.get("content-type", "")
    if "html" in kind or page.content.lstrip()[:1] == b"<":
        raise SourceError(
            f"{name} sent a web page instead of data: blocked by the front door, as often happens "
            "to cloud computers such as Colab's; try from home, later, or use another source."
        )
    try:
        data = json.loads(page.content)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{name} sent {len(page.content)} bytes that are not JSON; try again later.", later=True
        ) from error
    if not isinstance(data, dict):
        raise SourceError(f"{name} sent JSON of an unknown shape; its interface may have changed.")
    return data


def plain_text(value: object) -> str:
    """A title or name as one line of text: no tags, scripts or hidden parts, 300 characters."""
    if not isinstance(value, (str, int, float)):
        return ""
    text = str(value).encode("utf-8", "replace").decode()  # half characters of broken JSON
    if re.search("<[a-zA-Z!/]", text):
        soup = parse_html(text.encode(), "utf-8")
        for hidden in soup.find_all(style=re.compile(r"display:\s*none")):
            hidden.extract()
        text = soup.get_text()
    else:
        text = html.unescape(text)
    return " ".join(text.split())[:MAX_TEXT].rstrip()


def first_link(value: object, base: str) -> str:
    """Address of the first link in a piece of HTML, "" if there is none."""
    if not isinstance(value, str) or "<a" not in value:
        return ""
    found = parse_html(value.encode("utf-8", "replace"), "utf-8").find("a", href=True)
    return join(base, found["href"]) if found else ""


def parse_html(content: bytes, charset: str | None = None) -> BeautifulSoup:
    """A web page read as browsers read it; broken markup is no error.

    The header's `charset`, the page's own and UTF-8 are believed in this order, unless the bytes
    contradict; what remains is Windows-1252.
    """
    options = [charset, EncodingDetector.find_declared_encoding(content, is_html=True), "utf-8"]
    if content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE):
        options = ["utf-16"]
    text = next(filter(None, (_decoded(content, name) for name in options if name)), None)
    text = text or content.decode("windows-1252", "replace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it looks like XML, a file name or an address
        return BeautifulSoup(text.encode("utf-8", "replace"), "lxml", from_encoding="utf-8")


def _decoded(content: bytes, charset: str) -> str | None:
    try:
        return content.decode(charset)
    except (LookupError, UnicodeError):  # no such charset, or not of these bytes
        return None


def series_of(title: str, author: str, day: str = "", album: str = "") -> str:
    """A key of pictures that were taken together, "" if nothing tells.

    One author's day is one series; without a day, one author's album, or else one author's
    pictures whose titles differ only in a number at the end.

    >>> series_of("Picnic 12", "Ann"), series_of("Picnic 12", "")
    ('Ann | Picnic', '')
    """
    stem = re.sub(r"[\s_.,#(-]*\d+[\s)]*$", "", title)
    together = day or album or stem
    return f"{author} | {together}" if author and together else album
