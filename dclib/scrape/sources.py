"""What every source of pictures has in common: its answers, addresses, and text without HTML.

Nothing here touches the network.
"""

import contextlib
import html
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector, UnicodeDammit
from requests import PreparedRequest

# What is no JSON in JSON; the first group is a text, in which nothing is noise.
NOISE = re.compile(
    r"""("(?:[^"\\]|\\.?)*(?:"|\Z))|(?:(?://|/\*)\s*)?(?:<!\[CDATA\[|\]\]>)(?:\s*\*/)?|<!--|-->"""
    r"""|/\*.*?(?:\*/|\Z)|//[^\n]*|,(?=\s*[}\]])""",
    re.DOTALL,
)
PORTS = {"http": 80, "https": 443}
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


class FetchError(Exception):
    """What gave nothing: `reason`, `stage` where it is lost, `later` if it may come later."""

    def __init__(
        self, reason: str, detail: str = "", later: bool = False, stage: str = "fetch"
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.later, self.stage = reason, detail, later, stage


class SourceError(FetchError, ValueError):
    """An answer that cannot be used; the message says why."""

    def __init__(self, message: str, later: bool = False) -> None:
        super().__init__("page unreadable", message, later)

    def __str__(self) -> str:
        return self.detail


@contextlib.contextmanager
def reading(page: Page) -> Iterator[None]:
    """Whatever goes wrong in the `with` block is a SourceError of this page, and of no other."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{page.url} is not understood ({type(error).__name__}: {error})."
        ) from error


def loose_json(text: str) -> object:
    """JSON as web pages have it, in comments or CDATA, escaped for HTML, with commas too many."""
    for form in dict.fromkeys([text, html.unescape(text)]):
        for _ in range(3):  # a comma may be too many only once a comment has gone
            with contextlib.suppress(ValueError):
                return json.loads(form.strip("\ufeff; \t\r\n"), strict=False)
            form = NOISE.sub(lambda match: match[1] or "", form)
    raise ValueError("no JSON")


def read_json(page: Page, name: str) -> dict:
    """The JSON object of an answer of the source `name`."""
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
    return " ".join(text.split())[:300].rstrip()


def first_link(value: object, base: str) -> str:
    """Address of the first link in a piece of HTML, "" if there is none."""
    if not isinstance(value, str) or "<a" not in value:
        return ""
    link = parse_html(value.encode("utf-8", "replace"), "utf-8").find("a", href=True)
    return join(base, link["href"]) if link else ""


def parse_html(content: bytes, charset: str | None = None) -> BeautifulSoup:
    """A web page read as browsers read it; broken markup is no error.

    The header's `charset`, the page's own and UTF-8 are believed in this order, unless the bytes
    contradict. Left alone, bs4 would guess before it tries UTF-8; Latin-1 fits any bytes.
    """
    declared = EncodingDetector.find_declared_encoding(content, is_html=True)
    encodings = [name for name in (charset, declared) if name]
    encodings += ["utf-8", "windows-1252", "latin-1"]
    text = UnicodeDammit(content, user_encodings=encodings).unicode_markup or ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it looks like XML, a file name or an address
        return BeautifulSoup(text.encode("utf-8", "replace"), "lxml", from_encoding="utf-8")


def series_of(title: str, author: str, day: str = "") -> str:
    """A key of one author's pictures of one day, or of titles that differ in a last number only.

    >>> series_of("Picnic 12", "Ann"), series_of("Picnic 12", "")
    ('Ann | Picnic', '')
    """
    together = day or re.sub(r"[\s_.,#(-]*\d+[\s)]*$", "", title)
    return f"{author} | {together}" if author and together else ""


def join(base: str, link: object) -> str:
    """The http(s) address that `link` on the page `base` means; "" if there is none to ask for.

    It has the one form in which addresses are judged, sent and remembered: what requests puts on
    the line (no fragment, host in ASCII and lower case, no dot segments, percent signs as in RFC
    3986 6.2.2, one slash at the start), "\\" as browsers read it, no default port, no dot after the
    host. Other schemes, user names and broken hosts or ports give "".
    """
    if not isinstance(link, str) or not link.strip() or len(link) > 8000:
        return ""  # servers refuse longer ones
    try:
        path, mark, rest = re.sub(r"[\t\r\n]", "", link).strip().partition("?")
        url = urljoin(base, path.replace("\\", "/") + mark + rest).partition("#")[0]
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
            return ""
        if re.search(r"[@<>\"^`{|}%\s\0]", parts.netloc) or "@" in urlsplit(path).netloc:
            return ""
        request = PreparedRequest()
        for _ in range(2):  # "%2e%2e" becomes "..", which then goes
            request.prepare_url(url, None)
            url = request.url or ""
    except ValueError:  # brackets, ports, hosts, characters that no encoding has
        return ""
    parts = urlsplit(url)
    host = re.sub(r"\.+(?=:|$)", "", parts.netloc.removesuffix(f":{PORTS[parts.scheme]}"))
    path = f"/{parts.path.lstrip('/')}"  # some versions of requests send "//a" as "/a"
    return parts._replace(netloc=host, path=path).geturl() if host else ""


def host(url: str) -> str:
    """Host and port of an address that `join` gave."""
    return urlsplit(url).netloc


def identity(url: object) -> str:
    """A key that is equal for addresses of the same thing; never to be asked for itself.

    What `join` does, without trackers (utm_*, fbclid). "" for what is no http(s) address.

    >>> identity("HTTP://H.org:80/%7eann?utm_source=mail&n=1#top")
    'http://h.org/~ann?n=1'
    """
    parts = urlsplit(join("", url))
    query = "&".join(p for p in parts.query.split("&") if p and not TRACKER.match(p))
    return parts._replace(query=query).geturl()


def unique(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The first of those with the same address; none without one."""
    by_key: dict[str, Candidate] = {}
    for candidate in candidates:
        by_key.setdefault(identity(candidate.url), candidate)
    by_key.pop("", None)
    return list(by_key.values())
