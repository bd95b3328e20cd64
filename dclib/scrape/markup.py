"""What the tags of a web page say about its pictures: addresses, titles, licence, author."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag

from dclib.scrape.jsonld import Entry, described_pictures, is_detail_page, is_image_file
from dclib.scrape.licences import licence_key
from dclib.scrape.sources import Candidate, plain_text, series_of
from dclib.scrape.srcset import best_of, parse_srcset
from dclib.scrape.urls import identity, join

MIN_SIDE = 64  # pixels, as declared
MAX_IMAGES = 1000  # of one page
NEAR = 30  # levels of nesting between an image and what tells about it
LAZY = ["data-full", "data-hi-res-src", "data-original", "data-src", "data-lazy-src", "data-lazy"]
LAZY += ["data-image"]
SRCSETS = ["srcset", "data-srcset", "data-lazy-srcset"]
READABLE = {"", "image/jpeg", "image/png", "image/webp"}
FURNITURE = re.compile(r"(?<![a-z])(logo|icon|favicon|avatar|sprite|banner|emoji)s?(?![a-z])", re.I)
PLACEHOLDER = re.compile(
    r"(?:\d+x\d+|[\W\d_]*(?:(?:lazy|img|image|default|transparent|gr[ae]y|white)[\W\d_]*)*"
    r"(?:placeholder|spacer|blank|pixel|loading|loader|transparent)[\W\d_]*)\.\w+",
    re.IGNORECASE,
)
PAGE_IMAGES = [
    'meta[property="og:image:secure_url"]',
    'meta[property="og:image"]',
    'meta[property="og:image:url"]',
    'meta[name="twitter:image"]',
    'meta[name="twitter:image:src"]',
    "link[rel~=image_src]",
]
LICENCE = "a[rel~=license i], link[rel~=license i]"
AUTHOR = "[rel~=author i], [itemprop~=author], [itemprop~=creator]"


def rel(tag: Tag) -> list[str]:
    """The words of a tag's rel attribute, in lower case."""
    return _attribute(tag, "rel").lower().split()


def _attribute(tag: Tag, name: str) -> str:
    """A tag's attribute as it was written; of rel and class bs4 makes lists."""
    value = tag.get(name) or ""
    return value if isinstance(value, str) else " ".join(value)


def pictures(
    soup: BeautifulSoup, base: str, page_url: str, follow: Callable[[Tag], bool], selector: str = ""
) -> tuple[list[Entry], str]:
    """(entries, note): every picture of a page once, in document order.

    Args:
        follow: called with a link, tells whether it may be followed.
        selector: CSS selector of the elements that hold the pictures that count, "" for all.

    JSON-LD comes first; an image that it describes too fills in what it leaves open.
    """
    described, note = described_pictures(soup, base, page_url)
    known = {key: candidate for candidate, keys in described for key in keys}
    found = {} if selector else {identity(c.url): (c, keys) for c, keys in described}
    holders = soup.select(selector) if selector else [soup]
    images = [(i, h) for h in holders for i in ([h] if h.name == "img" else h.find_all("img"))]
    if len(images) > MAX_IMAGES:
        note = f"Of {len(images)} images on {page_url} the first {MAX_IMAGES} were read."
    for image, holder in images[:MAX_IMAGES]:
        item = holder if selector else _item(image)
        entry = _picture(image, item, base, page_url, follow)
        if not entry:
            continue
        candidate, keys = entry
        told = next((known[k] for k in [*keys, identity(candidate.page)] if k in known), None)
        if told:
            candidate, keys = _merge(told, candidate), keys | {identity(told.url)}
        key = identity(candidate.url)
        found[key] = (candidate, keys) if told else found.get(key, (candidate, keys))
    return list(found.values()), note


def _around(tag: Tag, *names: str) -> list[Tag]:
    """The elements of these kinds around a tag, innermost first; those far out do not count."""
    return [parent for parent in islice(tag.parents, NEAR) if parent.name in names]


def _merge(first: Candidate, second: Candidate) -> Candidate:
    """The first candidate; what it does not say comes from the second."""
    for names in (("page",), ("title",), ("licence", "licence_url"), ("author", "author_url")):
        if not any(getattr(first, name) for name in names):
            first = replace(first, **{name: getattr(second, name) for name in names})
    return first


def _picture(
    image: Tag, item: Tag | None, base: str, page_url: str, follow: Callable[[Tag], bool]
) -> Entry | None:
    """The entry of an img, None for furniture of the page and placeholders."""
    link = next((tag for tag in _around(image, "a") if tag.get("href")), None)
    target = join(base, link["href"]) if link and follow(link) else ""
    best, versions = _addresses(image)
    urls = [url for url in (join(base, text) for text in best) if url]
    if is_image_file(target):
        urls.insert(0, target)
    labels = f"{_attribute(image, 'class')} {_attribute(image, 'id')}"
    if not urls or FURNITURE.search(f"{labels} {urlsplit(urls[0]).path}"):
        return None
    if any(0 <= _pixels(image.get(side)) < MIN_SIDE for side in ("width", "height")):
        return None
    texts = [_caption(image), image.get("alt"), image.get("title"), link and link.get("title")]
    title = next(filter(None, map(plain_text, texts)), "")
    licence, licence_url = page_licence(item, base) if item else ("", "")
    author, author_url = page_author(item, base) if item else ("", "")
    candidate = Candidate(
        url=urls[0],
        page=target if target and is_detail_page(target, page_url) else "",
        title=title,
        licence=licence,
        licence_url=licence_url,
        author=author,
        author_url=author_url,
        series=series_of(title, author),
    )
    urls += [url for url in (join(base, text) for text in versions) if url]
    return candidate, {identity(url) for url in urls}


def _addresses(image: Tag) -> tuple[list[str], list[str]]:
    """(best, versions): one address of srcset, lazy attributes, src; and all of srcset."""
    sources = [s for picture in _around(image, "picture") for s in picture.find_all("source")]
    tags = [s for s in sources if _attribute(s, "type").lower().strip() in READABLE]
    sets = [_attribute(tag, name) for tag in [*tags, image] for name in SRCSETS]
    versions = ", ".join(filter(None, sets))
    addresses = [best_of(versions), *(_attribute(image, name) for name in LAZY)]
    source = _attribute(image, "src")
    if not PLACEHOLDER.fullmatch(source.partition("?")[0].rpartition("/")[2]):
        addresses.append(source)
    return addresses, [url for url, _, _ in parse_srcset(versions)]


def _pixels(text: object) -> int:
    """Declared width or height; -1 if it is not a plain number of pixels."""
    match = re.fullmatch(r"\s*(\d{1,6})(?:\.\d+)?(?:px)?\s*", str(text))
    return int(match[1]) if match else -1


def _caption(image: Tag) -> str:
    captions = (figure.find("figcaption") for figure in _around(image, "figure"))
    return next((caption.get_text() for caption in captions if caption), "")


def _item(image: Tag) -> Tag | None:
    """The widest element that holds this picture and no other: what it says is about this one."""
    item = None
    for parent in _around(image, "figure", "li", "article"):
        images = parent.find_all("img", limit=5)
        if sum(not _around(i, "noscript") for i in images) > 1:
            break
        item = parent
    return item


def page_licence(soup: Tag, base: str, selector: str = LICENCE) -> tuple[str, str]:
    """(key, address) of the one licence that rel=license states, ("", "") for none or several.

    A footer's statement covers the text of a site; so does the one on pages of MediaWiki.
    """
    if soup.select('meta[name="generator"][content^="MediaWiki"]'):
        return "", ""
    links = [tag for tag in soup.select(selector) if not tag.find_parent("footer")]
    urls = {join(base, tag.get("href")) for tag in links}
    if len({licence_key(url) for url in urls}) != 1:
        return "", ""
    url = min(urls)
    return licence_key(url), url


def page_author(soup: Tag, base: str) -> tuple[str, str]:
    """(name, address) of the one author that rel=author or microdata states, else ("", "")."""
    tags = [tag for tag in soup.select(AUTHOR) if tag.name != "link"]
    authors = {plain_text(tag.get("content") or tag.get_text()): tag for tag in tags}
    authors.pop("", None)
    if len(authors) != 1:
        return "", ""
    ((name, tag),) = authors.items()
    link = tag if tag.get("href") else tag.find("a", href=True)
    return name, join(base, link["href"]) if link else ""


def page_image(soup: BeautifulSoup, base: str) -> str:
    """The one picture that a page names for previews (og:image), "" for none."""
    for selector in PAGE_IMAGES:
        for tag in soup.select(selector):
            if url := join(base, tag.get("content") or tag.get("href")):
                return url
    return ""


def main_picture(entries: Iterable[Entry], thumbnail: str, preview: str) -> Candidate | None:
    """The picture that a detail page is about, None if nothing tells.

    Args:
        entries: what `pictures` gives; thumbnail, preview: identities of the thumbnail that led
            here and of `page_image`.

    The one that shares an address with the thumbnail or else the preview; else one with a licence
    or a full-size file of its own; else the first that is no link to another picture's page.
    """

    def order(entry: Entry) -> tuple[bool, bool, bool]:
        candidate, keys = entry
        licensed = bool(candidate.licence_url or candidate.licence)
        return thumbnail not in keys, preview not in keys, not licensed

    own = [entry for entry in entries if {thumbnail, preview} & entry[1] or not entry[0].page]
    return min(own, key=order)[0] if own else None


def why_none(soup: BeautifulSoup, page_url: str, selector: str) -> str:
    """One sentence on a page without pictures."""
    scripts = soup.find_all("script", src=True)
    for tag in soup.find_all(["script", "style", "noscript"]):
        tag.extract()
    if scripts and len(" ".join(soup.get_text().split())) < 200:
        return f"{page_url} shows its pictures by JavaScript only, which is not run here."
    if selector:
        return f"No picture on {page_url} lies in {selector!r}; look at the page's markup again."
    return f"There is no picture on {page_url}."
