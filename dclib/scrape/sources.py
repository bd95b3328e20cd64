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
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import idna
from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector

MAX_TEXT = 300  # characters of a title or name
PAGE_BYTES = 5_000_000  # of a page of results, decoded
MAX_LENGTH = 8000  # characters; servers refuse longer ones
LEGAL = "!#$%&'()*+,/:;=?@[]~"  # stay as they are: reserved characters and the percent sign
UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
TRACKER = re.compile(r"(utm_[^=]*|fbclid)(=|$)", re.IGNORECASE)


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


def join(base: str, link: object) -> str:
    """The http(s) address that `link` on the page `base` means; "" if there is none to ask for.

    As browsers do: the fragment is dropped, the host becomes ASCII (IDNA, RFC 5891) in lower case,
    illegal characters are percent-encoded; nothing else changes. Other schemes, user names and
    passwords, and broken hosts or ports give "".
    """
    if not isinstance(link, str) or not link.strip() or len(link) > MAX_LENGTH:
        return ""
    try:
        parts = urlsplit(urljoin(base, link.strip()))
        name, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not name or port == 0:
            return ""
        if re.search(r"[@\\<>\"^`{|}%\s]", parts.netloc):
            return ""
        name = f"[{name}]" if ":" in name else name
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode()
        netloc = name if port is None else f"{name}:{port}"
        return quote(urlunsplit((parts.scheme, netloc, *parts[2:4], "")), safe=LEGAL)
    except ValueError:  # brackets, ports, hosts, characters that no encoding has
        return ""


def host(url: str) -> str:
    """Host and port of an address that `join` gave."""
    return urlsplit(url).netloc


def identity(url: object) -> str:
    """A key that is equal for addresses of the same thing; never to be asked for itself.

    What `join` does, and: no default port, no dot after the host, percent signs as in RFC 3986
    6.2.2, no trackers (utm_*, fbclid). "" for what is no http(s) address.

    >>> identity("HTTP://H.org:80/%7eann?utm_source=mail&n=1#top")
    'http://h.org/~ann?n=1'
    """
    url = join("", url)
    if not url:
        return ""
    parts = urlsplit(url)
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    name, colon, port = parts.netloc.removesuffix(default).partition(":")
    name = name.rstrip(".")
    query = "&".join(p for p in parts.query.split("&") if p and not TRACKER.match(p))
    path = _normal(parts.path or "/")
    return f"{parts.scheme}://{name}{colon}{port}{path}" + (f"?{_normal(query)}" if query else "")


def _normal(text: str) -> str:
    """Percent-encodings in upper case, and none where the character needs none."""

    def shortest(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if UNRESERVED.fullmatch(character) else match[0].upper()

    return re.sub("%([0-9a-fA-F]{2})", shortest, text)
