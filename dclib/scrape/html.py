"""Any web page with pictures as a source: what its markup offers, who made it, under which licence.

For pages that the reader has the right to use. A gallery page gives its images and where they lead;
the page of a single picture gives the file, the licence and the author.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from bs4 import BeautifulSoup, Tag

from dclib.scrape.licences import agreed, of_licence
from dclib.scrape.optouts import AGENT, optout
from dclib.scrape.sources import (
    Candidate,
    Listing,
    Page,
    SourceError,
    host,
    identity,
    join,
    loose_json,
    parse_html,
    plain_text,
    series_of,
    unique,
)

MIN_SIDE = 64  # pixels, as declared
MAX_WIDTH = 2048  # pixels; what is larger would only be scaled down
MAX_IMAGES = 1000  # of one page
NEAR = 30  # levels of nesting between an image and what tells about it
LAZY = ("data-src", "data-original", "data-lazy-src", "data-full", "data-lazy")
IMAGE_FILE = re.compile(r"\.(jpe?g|png|webp)$", re.IGNORECASE)
SMALL = re.compile(r"\s*(\d{1,6})(?:\.\d+)?(?:px)?\s*")  # pixels, not per cent
VERSION = re.compile(r"([^\s,](?:\S*[^\s,])?)(?:\s+([^,]*))?")  # in srcset: address, size
SIZE = re.compile(r"(?:(\d*\.?\d+)([wx])\s*)?")
# Pictures of someone or something else than what the page shows.
OTHERS = {"logo", "publisher", "author", "creator", "copyrightHolder", "brand", "thumbnail"}
CHECK = re.compile(  # words of pages that ask for a proof of being human
    rb"captcha|just a moment|attention required|access denied|checking your browser|"
    rb"(are you|you are) (not )?(a )?(human|robot)|security check|ddos|challenge|interruption|"
    rb"enable (javascript|cookies)|unusual traffic",
    re.IGNORECASE,
)
NOTHING = "There is no picture in the markup of {}; what JavaScript would add is not seen here."


class HtmlGallery:
    """A gallery page and those that follow it; `name` is what the data set calls this source."""

    api, pace = False, 0.0

    def __init__(self, name: str = "html") -> None:
        self.name = name

    def start(self, text: str) -> str:
        """The address of the gallery page itself."""
        url = join("", text)
        if not url:
            raise SourceError(f"{text!r} is no http(s) address of a gallery page; give one.")
        return url

    def parse(self, page: Page) -> Listing:
        """Candidates in document order; the head's licence is for those without their own page."""
        opened = _open(page)
        licence, licence_url = _general_licence(opened)
        stated = {"licence": licence, "licence_url": licence_url, "page": page.url}
        candidates = unique(
            replace(candidate, **stated) if licence and not candidate.page else candidate
            for image in opened.soup.find_all("img", limit=MAX_IMAGES)
            if (candidate := _picture(image, opened))
        )
        following, note = _next(opened)
        if not candidates:
            note = f"{NOTHING.format(page.url)} {note}".strip()
        return Listing(candidates, following, note)

    def refine(self, candidate: Candidate, page: Page) -> Candidate:
        """The candidate with what its own page says: full-size file, licence, author, title."""
        opened = _open(page)
        preview = _preview(opened)
        main, stated = _main_picture(opened, identity(candidate.url), identity(preview))
        licence, licence_url = agreed(*stated, *_stated(opened, "a", "link"))
        author, author_url = main.author, main.author_url
        if not author:
            author, author_url = _page_author(opened)
        heading = opened.soup.find("h1")
        title = main.title or candidate.title or plain_text(heading and heading.get_text())
        return replace(
            candidate,
            url=main.url or preview or candidate.url,
            title=title,
            licence=licence,
            licence_url=licence_url,
            author=author or candidate.author,
            author_url=author_url if author else candidate.author_url,
            series=main.series or series_of(title, author) or candidate.series,
        )


def page_optouts(page: Page) -> str:
    """The directive by which a page's markup asks not to be used like this, or ""."""
    metas = _open(page).soup.find_all("meta")
    names = ("name", "http-equiv", "property")
    return optout((_text(meta, name), _text(meta, "content")) for meta in metas for name in names)


def may_be_check(page: Page) -> bool:
    """Whether a page that gave nothing may be a bot check: without a picture, or with its words."""
    return b"<img" not in page.content.lower() or bool(CHECK.search(page.content))


class _Opened(NamedTuple):
    """A web page, parsed."""

    soup: BeautifulSoup
    url: str
    base: str  # of its links
    closed: bool  # its head asks to follow none of them

    def target(self, link: Tag | None) -> str:
        """Where a link leads, "" if that is nowhere or it may not be followed."""
        if not link or self.closed or "nofollow" in _text(link, "rel").lower().split():
            return ""
        return join(self.base, link.get("href"))

    def related(self, word: str, *names: str) -> list[Tag]:
        """The tags of these names whose rel holds a word."""
        return self.soup.find_all(names, rel=re.compile(f"^{word}$", re.IGNORECASE))


def _open(page: Page) -> _Opened:
    """A web page, parsed."""
    kind = page.headers.get("content-type", "").lower()
    if kind and not re.match(r"\s*(text/html|application/xhtml|text/plain)", kind):
        raise SourceError(f"{page.url} is {kind.partition(';')[0]}, not a web page; leave it out.")
    charset = re.search(r"charset=[\"']?([\w.:-]+)", kind)
    soup = parse_html(page.content, charset and charset[1])
    tag = soup.find("base", href=True)
    base = (join(page.url, tag["href"]) if tag else "") or page.url
    metas = soup.find_all("meta", attrs={"name": re.compile(f"^(robots|{AGENT})$", re.I)})
    words = " ".join(_text(meta, "content") for meta in metas)
    return _Opened(soup, page.url, base, bool(re.search(r"\b(nofollow|none)\b", words, re.I)))


def _text(tag: Tag, name: str) -> str:
    """A tag's attribute as it was written; of rel and class bs4 makes lists."""
    value = tag.get(name) or ""
    return value if isinstance(value, str) else " ".join(value)


def _picture(image: Tag, opened: _Opened) -> Candidate | None:
    """What an img offers: the file that it links to, or its own; None if it is too small."""
    sizes = (SMALL.fullmatch(_text(image, side)) for side in ("width", "height"))
    if any(size and int(size[1]) < MIN_SIDE for size in sizes):
        return None
    around = islice(image.parents, NEAR)
    target = opened.target(next((tag for tag in around if tag.name == "a"), None))
    addresses = [best_of(_text(image, name)) for name in ("srcset", "data-srcset")]
    addresses += [_text(image, name) for name in (*LAZY, "src")]
    urls = [url for address in addresses if (url := join(opened.base, address))]
    page = ""
    if IMAGE_FILE.search(target.partition("?")[0]):
        urls.insert(0, target)
    elif host(target) == host(opened.url) and identity(target) != identity(opened.url):
        page = target
    title = plain_text(image.get("alt")) or plain_text(image.get("title"))
    return Candidate(urls[0], page=page, title=title) if urls else None


def best_of(srcset: str) -> str:
    """Address of the widest version up to `MAX_WIDTH`, else the densest; "" for none.

    >>> best_of("a,b.jpg 640w, c.jpg 4000w"), best_of("d.jpg, e.jpg 2x")
    ('a,b.jpg', 'e.jpg')
    """
    ranks: dict[str, tuple[bool, float]] = {}
    for url, size in VERSION.findall(srcset):  # an address may hold commas
        match = SIZE.fullmatch(size)
        if match and not url.startswith("data:"):
            number = float(match[1] or 1)
            ranks[url] = (match[2] == "w", -number if number > MAX_WIDTH else number)
    return max(ranks, key=ranks.__getitem__, default="")


def _next(opened: _Opened) -> tuple[str | None, str]:
    """(address of the next page or None, a note)."""
    for link in opened.related("next", "link", "a"):
        url = opened.target(link)
        if url and host(url) != host(opened.url):
            return None, f"The next page lies on another host ({host(url)}) and is not followed."
        if url and identity(url) != identity(opened.url):
            return url, ""
    return None, ""


def _stated(opened: _Opened, *names: str) -> list[str]:
    """What rel=license states: its addresses, and its texts as far as they name one."""
    tags = opened.related("license", *names)
    # A footer's statement covers the text of a site.
    tags = [tag for tag in tags if not tag.find_parent("footer")]
    links = [join(opened.base, tag.get("href")) or _text(tag, "href") for tag in tags]
    return links + [of_licence(" ".join(tag.get_text().split())) for tag in tags]


def _general_licence(opened: _Opened) -> tuple[str, str]:
    """(key, address) of the licence in a page's head, ("", "") where the page states another."""
    nodes = [text for node in _image_objects(opened) for text in _texts(node.get("license"))]
    everything = agreed(*_stated(opened, "a", "link"), *nodes)
    return everything if agreed(*_stated(opened, "link"))[0] else ("", "")


def _page_author(opened: _Opened) -> tuple[str, str]:
    """(name, address) of the one author that rel=author states, else ("", "")."""
    tags = opened.related("author", "a", "span")
    authors = {plain_text(tag.get_text()): join(opened.base, tag.get("href")) for tag in tags}
    authors.pop("", None)
    return authors.popitem() if len(authors) == 1 else ("", "")


def _preview(opened: _Opened) -> str:
    """The one picture that a page names for previews (og:image), "" for none."""
    metas = opened.soup.find_all("meta", attrs={"property": re.compile("^og:image(:secure_url)?$")})
    return next(filter(None, (join(opened.base, meta.get("content")) for meta in metas)), "")


def _main_picture(opened: _Opened, thumbnail: str, preview: str) -> tuple[Candidate, list[str]]:
    """What JSON-LD says of the picture with one of these identities, or else of its only one."""
    nodes = list(_image_objects(opened))
    described = [_describe(node, opened) for node in nodes]
    images = opened.soup.find_all("img", limit=MAX_IMAGES)
    shown = {identity(join(opened.base, _text(image, "src"))) for image in images}
    only = len(described) == 1 and not preview and thumbnail not in shown
    meant = {thumbnail, preview}
    matches = [i for i, (_, keys) in enumerate(described) if keys & meant or (only and keys)]
    stated = [text for i in matches for text in _texts(nodes[i].get("license"))]
    return described[matches[0]][0] if matches else Candidate(""), stated


def _image_objects(opened: _Opened) -> Iterator[dict]:
    """All objects of JSON-LD that describe an image, in lists, @graph, galleries or by itself."""
    waiting: list[object] = []
    kind = re.compile(r"^\s*application/ld\+json", re.IGNORECASE)
    for script in reversed(opened.soup.find_all("script", type=kind)):
        with contextlib.suppress(ValueError, RecursionError):
            waiting.append(loose_json(script.get_text()))
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            types = node.get("@type")
            types = types if isinstance(types, list) else [types]
            if any(str(name).endswith(("ImageObject", "Photograph")) for name in types):
                yield node
            node = [value for key, value in node.items() if key not in OTHERS]
        if isinstance(node, list):
            waiting += reversed(node)


def _describe(node: dict, opened: _Opened) -> tuple[Candidate, set[str]]:
    """An image object as a candidate, and the identities of its addresses; none without a file."""
    base = opened.base
    url = join(base, _first(node.get("contentUrl")) or _first(node.get("url")))
    if not url or identity(url) == identity(opened.url):
        return Candidate(""), set()
    person = node.get("creator") or node.get("author") or node.get("copyrightHolder")
    person = person[0] if isinstance(person, list) and person else person
    author = plain_text(_first(person, "name")) or plain_text(node.get("creditText"))
    title = plain_text(_first(node.get("name") or node.get("caption") or node.get("headline")))
    day = re.match(r"\d{4}-\d\d-\d\d", _first(node.get("dateCreated")))
    candidate = Candidate(
        url=url,
        title=title,
        author=author,
        author_url=join(base, _first(person, "url")) if isinstance(person, dict) else "",
        series=series_of(title, author, day[0] if day else ""),
    )
    thumbnail = join(base, _first(node.get("thumbnailUrl") or node.get("thumbnail"), "contentUrl"))
    return candidate, {identity(address) for address in (url, thumbnail) if address}


def _texts(value: object, field: str = "name") -> list[str]:
    """All texts that a value stands for: of lists and objects, their `field` and addresses."""
    if isinstance(value, dict):
        value = [value.get(name) for name in (field, "url", "@id")]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, field)]
    return [value.strip()] if isinstance(value, str) else []


def _first(value: object, field: str = "name") -> str:
    return next(filter(None, _texts(value, field)), "")
