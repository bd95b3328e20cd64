"""Openverse: openly licensed pictures of many sites, by a documented interface without a key."""

import json
from urllib.parse import parse_qsl, urlencode, urlsplit

from dclib.scrape.licences import deed, licence_key
from dclib.scrape.sources import (
    Candidate,
    Listing,
    Page,
    SourceError,
    plain_text,
    read_json,
    series_of,
)
from dclib.scrape.urls import identity, join

PAGE_SIZE = 20  # the most without an account
MAX_RESULTS = 240  # of one search, without an account


class Openverse:
    """A search in Openverse (https://api.openverse.org/v1/) for photographs that may be adapted."""

    name, api = "openverse", True
    pace = 3.0  # seconds between requests: 20 a minute without an account

    def __init__(self, base: str = "https://api.openverse.org/v1/images/") -> None:
        self.base = base

    def start(self, text: str) -> str:
        """Address of the first page of results for a search phrase."""
        return self._url(text, 1)

    def _url(self, text: str, number: int) -> str:
        query = {
            "q": text[:200],  # the rest would be cut off there without a word
            "license": "by,by-sa,cc0,pdm",
            "category": "photograph",
            "mature": "false",
            "filter_dead": "true",
            "page_size": PAGE_SIZE,
            "page": number,
        }
        return f"{self.base}?{urlencode(query)}"

    def parse(self, page: Page) -> Listing:
        """Candidates of one page of results; raises SourceError if there are none to read."""
        data = read_json(page, "Openverse")
        if "detail" in data or "results" not in data:
            said = plain_text(data.get("detail")) or plain_text(json.dumps(data))
            throttled = "throttled" in said.lower()
            raise SourceError(
                f"Openverse answered with {said!r} instead of results; "
                + ("wait and go on later." if throttled else "change the search."),
                later=throttled,
            )
        results = data["results"] if isinstance(data["results"], list) else []
        results = [item for item in results if isinstance(item, dict)]
        found: dict[str, Candidate] = {}
        for item in results:
            candidate = self._candidate(item, page.url)
            if candidate.url:
                found.setdefault(identity(candidate.url), candidate)
        lost = sum(not join(page.url, item.get("url")) for item in results)
        note = f"Left out {lost} of {len(results)} results, which had no address." if lost else ""
        following, ended = self._next(page, data, len(results))
        return Listing(list(found.values()), following, " ".join(filter(None, [note, ended])))

    def _next(self, page: Page, data: dict, n: int) -> tuple[str | None, str]:
        """(address of the next page or None, a note)."""
        query = dict(parse_qsl(urlsplit(page.url).query))
        number, pages = (
            int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
            for text in (query.get("page", ""), str(data.get("page_count", "")))
        )
        if number >= pages or "q" not in query:
            return None, ""
        if not n:
            return None, f"Page {number} of {pages} was empty; the search ends there."
        if number * PAGE_SIZE >= MAX_RESULTS:
            return None, f"Openverse shows no more than {MAX_RESULTS} results; use other words too."
        return self._url(query["q"], number + 1), ""

    def _candidate(self, item: dict, base: str) -> Candidate:
        key, licence_url = licence_key(item.get("license")), join(base, item.get("license_url"))
        stated = licence_key(licence_url)
        if stated and stated != key:  # a name and a deed that contradict each other
            key, licence_url = "", ""
        title, author = plain_text(item.get("title")), plain_text(item.get("creator"))
        objection = ""
        if item.get("mature") is True or item.get("unstable__sensitivity"):
            objection = "marked mature"
        elif item.get("category") not in (None, "", "photograph"):
            objection = f"marked {plain_text(item['category'])}, not photograph"
        elif str(item.get("filetype")).lower() in ("svg", "pdf", "gif"):
            objection = "not a bitmap that is read here"
        return Candidate(
            url=join(base, item.get("url")),
            page=join(base, item.get("foreign_landing_url")),
            title=title,
            licence=key,
            licence_url=licence_url or deed(key, item.get("license_version")),
            author=author,
            author_url=join(base, item.get("creator_url")),
            series=series_of(title, author),
            objection=objection,
        )
