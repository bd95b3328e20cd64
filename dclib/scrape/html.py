"""Any web page with pictures as a source: what its markup offers, who made it, under which licence.

For pages that the reader has the right to use. Best statements first: JSON-LD, a link around the
image to a larger file, `picture` and `srcset`, attributes of lazy loaders, `src`.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from urllib.parse import urlsplit

import soupsieve
from bs4 import BeautifulSoup, Tag

from dclib.scrape.licences import licence_key
from dclib.scrape.robots import AGENT, REFUSALS
from dclib.scrape.sources import (
    PAGE_BYTES,
    Candidate,
    Listing,
    Page,
    SourceError,
    host,
    identity,
    join,
    parse_html,
    plain_text,
    series_of,
)

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
IMAGE_FILE = re.compile(r"\.(jpe?g|png|webp)$", re.IGNORECASE)
# Pictures of someone or something else than what the page shows.
OTHERS = {"logo", "publisher", "author", "creator", "copyrightHolder", "brand", "thumbnail"}
MAX_NODES = 100_000
Entry = tuple[Candidate, set[str]]  # and the identities of all addresses that mean this picture
MAX_WIDTH = 2048  # pixels; what is larger would only be scaled down
ADDRESS = re.compile(r"[\t\n\f\r ,]*([^\t\n\f\r ,][^\t\n\f\r ]*)")
DESCRIPTORS = re.compile(r"(?:[^,(]|\([^)]*(?:\)|\Z))*")  # commas count in brackets only
NUMBER = r"(-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
DESCRIPTOR = re.compile(rf"(?:([0-9]{{1,9}})([wh])|{NUMBER}(x))")


class HtmlGallery:
    """A gallery page and the pages that follow it.

    Args:
        item_selector: CSS selector of the elements that hold one picture each, if not all count.
        next_selector: CSS selector of the link to the next page, if it is not marked rel=next.
        name: what the data set will call this source.

    Raises ValueError for a selector that is not CSS.
    """

    api, pace = False, 0.0

    def __init__(
        self, item_selector: str = "", next_selector: str = "", name: str = "html"
    ) -> None:
        self.name = name
        for selector in filter(None, (item_selector, next_selector)):
            try:
                soupsieve.compile(selector)
            except soupsieve.SelectorSyntaxError as error:
                raise ValueError(f"{selector!r} is not a CSS selector.") from error
        self.item_selector, self.next_selector = item_selector, next_selector

    def start(self, text: str) -> str:
        """The address of the gallery page itself; raises SourceError if it is none."""
        url = join("", text)
        if not url:
            raise SourceError(f"{text!r} is no http(s) address of a gallery page; give one.")
        return url

    def parse(self, page: Page) -> Listing:
        """Candidates of a gallery page in document order, one per picture.

        What the head says of the whole page (licence, preview) counts only where nothing is said
        of the single picture.
        """
        soup, base, follow = _open(page)
        entries, note = pictures(soup, base, page.url, follow, self.item_selector)
        preview = page_image(soup, base)
        if not entries and preview and not self.item_selector:
            entries = [(Candidate(preview), set())]
        general = page_licence(soup, base, "link[rel~=license i]")
        found: dict[str, Candidate] = {}
        for candidate, _ in entries:
            if not (candidate.page or candidate.licence_url):
                candidate = replace(candidate, licence=general[0], licence_url=general[1])
            if candidate.licence and not candidate.page:
                candidate = replace(candidate, page=join("", page.url))
            found.setdefault(identity(candidate.url), candidate)
        following, ended = self._next(soup, base, page.url, follow)
        if not found:
            note = " ".join(filter(None, [note, why_none(soup, page.url, self.item_selector)]))
        return Listing(list(found.values()), following, " ".join(filter(None, [note, ended])))

    def needs_detail(self, candidate: Candidate) -> bool:
        """Whether the page that the thumbnail links to may tell a licence that is not known yet."""
        return bool(candidate.page) and not candidate.licence

    def refine(self, candidate: Candidate, page: Page) -> Candidate:
        """The candidate with what its own page says: full-size file, licence, author, title."""
        soup, base, follow = _open(page)
        entries, _ = pictures(soup, base, page.url, follow)
        preview = page_image(soup, base)
        main = main_picture(entries, identity(candidate.url), identity(preview))
        main = main or Candidate(preview or candidate.url)
        licence, licence_url = main.licence, main.licence_url
        if not (licence or licence_url):
            licence, licence_url = page_licence(soup, base)
        author, author_url = main.author, main.author_url
        if not author:
            author, author_url = page_author(soup, base)
        heading = soup.find("h1")
        title = main.title or candidate.title or plain_text(heading and heading.get_text())
        return replace(
            candidate,
            url=main.url,
            title=title,
            licence=licence,
            licence_url=licence_url,
            author=author or candidate.author,
            author_url=author_url if author else candidate.author_url,
            series=main.series or series_of(title, author) or candidate.series,
        )

    def _next(
        self, soup: BeautifulSoup, base: str, page_url: str, follow: Callable[[Tag], bool]
    ) -> tuple[str | None, str]:
        """(address of the next page or None, a note)."""
        selector = self.next_selector or "link[rel~=next i], a[rel~=next i]"
        for tag in soup.select(selector):
            link = tag if tag.get("href") else tag.find("a", href=True)
            url = join(base, link["href"]) if link and follow(link) else ""
            if not url or identity(url) == identity(page_url):
                continue
            if host(url) == host(join("", page_url)):
                return url, ""
            return None, f"The next page lies on another host ({host(url)}) and is not followed."
        return None, ""


def page_optouts(page: Page) -> str:
    """The directive by which a page asks not to be used like this, or "".

    Read are <meta name=robots> (or our own name) and the TDM reservation protocol; headers are
    the fetcher's. Raises SourceError for what is no web page.
    """
    soup, _, _ = _open(page)
    for meta in soup.find_all("meta"):
        name, content = (str(meta.get(key) or "").strip().lower() for key in ("name", "content"))
        if name == "tdm-reservation" and content == "1":
            return "tdm-reservation: 1"
        if name in ("robots", AGENT):
            for directive in re.split(r"[\s,;]+", content):
                if directive in REFUSALS:
                    return f"meta {name}: {directive}"
    return ""


def _open(page: Page) -> tuple[BeautifulSoup, str, Callable[[Tag], bool]]:
    """(soup, base address, whether a link may be followed); raises SourceError for no HTML."""
    kind = page.headers.get("content-type", "").lower()
    if kind and not re.match(r"\s*(text/html|application/xhtml|text/plain)", kind):
        raise SourceError(f"{page.url} is {kind.partition(';')[0]}, not a web page; leave it out.")
    if len(page.content) > PAGE_BYTES:
        raise SourceError(f"{page.url} is larger than {PAGE_BYTES // 10**6} MB; leave it out.")
    charset = re.search(r"charset=[\"']?([\w.:-]+)", kind)
    soup = parse_html(page.content, charset and charset[1])
    tag = soup.find("base", href=True)
    base = (join(page.url, tag["href"]) if tag else "") or page.url
    robots = soup.select(f'meta[name="robots" i], meta[name="{AGENT}" i]')
    closed = any(
        re.search(r"\b(nofollow|none)\b", str(m.get("content") or ""), re.I) for m in robots
    )
    return soup, base, lambda link: not closed and "nofollow" not in rel(link)


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


def is_image_file(url: str) -> bool:
    """Whether an address says by its ending that it is a picture that can be read."""
    return bool(IMAGE_FILE.search(url.partition("?")[0]))


def is_detail_page(url: str, page_url: str) -> bool:
    """Whether an address can be a page about one picture of the gallery page `page_url`."""
    same_host = host(url) == host(join("", page_url))
    return same_host and not is_image_file(url) and identity(url) != identity(page_url)


def described_pictures(soup: BeautifulSoup, base: str, page_url: str) -> tuple[list[Entry], str]:
    """(entries, note): what JSON-LD says about pictures, in document order.

    Scripts that are not JSON are skipped, and the note says so.
    """
    found, broken = [], 0
    for script in soup.find_all("script", type=re.compile(r"^\s*application/ld\+json", re.I)):
        try:
            data = json.loads(script.get_text())
        except (ValueError, RecursionError):
            broken += 1
            continue
        entries = (_described_picture(node, base, page_url) for node in _image_objects(data))
        found += [entry for entry in entries if entry]
    note = (
        f"{broken} JSON-LD blocks of the page could not be read and were left out."
        if broken
        else ""
    )
    return found, note


def _image_objects(data: object) -> list[dict]:
    """All objects that describe an image, whatever holds them (lists, @graph, galleries)."""
    waiting, nodes, seen = [data], [], 0
    while waiting and seen < MAX_NODES:
        node, seen = waiting.pop(), seen + 1
        if isinstance(node, list):
            waiting += reversed(node)
        elif isinstance(node, dict):
            types = node.get("@type")
            types = types if isinstance(types, list) else [types]
            if any(str(name).endswith(("ImageObject", "Photograph")) for name in types):
                nodes.append(node)
            inner = [value for key, value in node.items() if key not in (*OTHERS, "image")]
            images = node.get("image")
            images = images if isinstance(images, list) else [images]
            images = [{"url": i} if isinstance(i, str) else i for i in images]
            images = [{"@type": "ImageObject", **i} for i in images if isinstance(i, dict)]
            waiting += reversed([*images, *inner])
    return nodes


def _described_picture(node: dict, base: str, page_url: str) -> Entry | None:
    """The entry of an object, known by file, thumbnail and page; None without an address."""
    url = join(base, _first(node.get("contentUrl"))) or join(base, _first(node.get("url")))
    if not url or identity(url) == identity(page_url):
        return None
    fields = ("url", "mainEntityOfPage", "acquireLicensePage")
    links = [join(base, _first(node.get(field))) for field in fields]
    pages = [p for p in links if p and p != url and is_detail_page(p, page_url)]
    licence = _first(node.get("license"))
    key = licence_key(licence)
    person = node.get("creator") or node.get("author") or node.get("copyrightHolder")
    person = person[0] if isinstance(person, list) and person else person
    author = plain_text(_first(person, "name")) or plain_text(node.get("creditText"))
    title = plain_text(_first(node.get("name") or node.get("caption") or node.get("headline")))
    day = re.match(r"\d{4}-\d\d-\d\d", plain_text(node.get("dateCreated")))
    album = plain_text(_first(node.get("isPartOf"), "name"))
    candidate = Candidate(
        url=url,
        page=pages[0] if pages else "",
        title=title,
        licence=key,
        licence_url=join(base, licence) if "/" in licence else "",
        author=author,
        author_url=join(base, _first(person, "url")) if isinstance(person, dict) else "",
        series=series_of(title, author, day[0] if day else "", album),
    )
    thumbnail = join(base, _first(node.get("thumbnailUrl") or node.get("thumbnail"), "contentUrl"))
    return candidate, {identity(u) for u in (url, thumbnail, *pages[:1]) if u}


def _first(value: object, field: str = "name") -> str:
    """The text a value stands for: of a list the first, of an object its `field` or address."""
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, dict):
        value = next((value[k] for k in (field, "url", "@id") if isinstance(value.get(k), str)), "")
    return value if isinstance(value, str) else ""


def parse_srcset(text: str) -> list[tuple[str, float | None, float | None]]:
    """[(address, width or None, density or None), ...] by the rule of the HTML standard.

    Addresses may hold commas (`data:` and image servers), so that splitting at commas is wrong;
    candidates with descriptors that the standard calls errors are left out.
    Source: https://html.spec.whatwg.org/multipage/images.html#parsing-a-srcset-attribute

    >>> parse_srcset("a,b.jpg 640w, c.jpg 2x")
    [('a,b.jpg', 640.0, None), ('c.jpg', None, 2.0)]
    """
    found, position = [], 0
    while match := ADDRESS.match(text, position):
        url, position, descriptors = match[1], match.end(), ""
        if url.endswith(","):
            url = url.rstrip(",")
        elif match := DESCRIPTORS.match(text, position):
            descriptors, position = match[0], match.end()
        if (size := _size(descriptors)) is not None:
            found.append((url, *size))
    return found


def _size(descriptors: str) -> tuple[float | None, float | None] | None:
    """(width, density) of "640w" or "2x"; None for what the standard calls an error."""
    sizes: dict[str, float] = {}
    for part in re.findall(r"[^\t\n\f\r ]+", descriptors):
        match = DESCRIPTOR.fullmatch(part)
        kind = (match[2] or match[4]) if match else ""
        if not match or kind in sizes:
            return None
        sizes[kind] = float(match[1] or match[3])
    width, height, density = (sizes.get(kind) for kind in "whx")
    zero = width == 0 or height == 0 or (density is not None and density < 0)
    mixed = density is not None and (width or height)
    return None if zero or mixed or (height and not width) else (width, density)


def best_of(text: str) -> str:
    """Address of the widest version up to `MAX_WIDTH`, else the densest; "" for none."""
    found = [entry for entry in parse_srcset(text) if not entry[0].startswith("data:")]
    widths = [(url, width) for url, width, _ in found if width]
    fitting = [entry for entry in widths if entry[1] <= MAX_WIDTH]
    if fitting:
        return max(fitting, key=lambda entry: entry[1])[0]
    if widths:
        return min(widths, key=lambda entry: entry[1])[0]
    return max(found, key=lambda entry: entry[2] or 1)[0] if found else ""
