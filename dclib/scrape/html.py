"""Any web page with pictures as a source: what its markup offers, who made it, under which licence.

For pages that the reader has the right to use. Best statements first: JSON-LD, a link around the
image to a larger file, `picture` and `srcset`, attributes of lazy loaders, `src`.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import soupsieve
from bs4 import BeautifulSoup, Tag

from dclib.scrape.markup import (
    main_picture,
    page_author,
    page_image,
    page_licence,
    pictures,
    rel,
    why_none,
)
from dclib.scrape.optouts import AGENT, REFUSALS
from dclib.scrape.sources import (
    PAGE_BYTES,
    Candidate,
    Listing,
    Page,
    SourceError,
    parse_html,
    plain_text,
    series_of,
)
from dclib.scrape.urls import host, identity, join


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
