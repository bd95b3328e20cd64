"""Openverse and Wikimedia Commons: openly licensed pictures, by interfaces without a key."""

import json
import re
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

from dclib.scrape.licences import agreed
from dclib.scrape.sources import (
    Candidate,
    Listing,
    Page,
    SourceError,
    first_link,
    join,
    plain_text,
    read_json,
    series_of,
    unique,
)

PAGE_SIZE, MAX_RESULTS = 20, 240  # of one search in Openverse, the most without an account
OPENVERSE = "https://api.openverse.org/v1/images/"
API = "https://commons.wikimedia.org/w/api.php"
# Wikimedia serves thumbnails in steps only (..., 500, 960, 1280, ...); others are refused.
WIDTH = 960
KINDS = {"image/jpeg", "image/png", "image/webp"}
BUSY = {"maxlag", "ratelimited", "readonly", "cirrussearch-too-busy-error"}
FIELDS = "ObjectName|Artist|Attribution|LicenseShortName|License|LicenseUrl"
FIELDS += "|Restrictions|DateTimeOriginal"


class Openverse:
    """A search in Openverse (https://api.openverse.org/v1/) for photographs that may be adapted."""

    name, api = "openverse", True
    pace = 3.0  # seconds between requests: 20 a minute without an account

    def start(self, text: str, number: int = 1) -> str:
        """Address of a page of results for a search phrase."""
        query = {
            "q": text[:200],  # the rest would be cut off there without a word
            "license": "by,by-sa,cc0,pdm",
            "category": "photograph",
            "mature": "false",
            "filter_dead": "true",
            "page_size": PAGE_SIZE,
            "page": number,
        }
        return f"{OPENVERSE}?{urlencode(query)}"

    def parse(self, page: Page) -> Listing:
        """Candidates of one page of results."""
        data = read_json(page, "Openverse")
        if "detail" in data or "results" not in data:
            said = plain_text(data.get("detail")) or plain_text(json.dumps(data))
            throttled = "throttled" in said.lower()
            raise _refusal(f"Openverse answered with {said!r} instead of results", throttled)
        results = _dicts(data["results"])
        candidates = [self._candidate(item, page.url) for item in results]
        lost = sum(not candidate.url for candidate in candidates)
        note = f"Left out {lost} of {len(results)} results, which had no address." if lost else ""
        following, ended = self._next(page, data, len(results))
        return Listing(unique(candidates), following, " ".join(filter(None, [note, ended])))

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
        return self.start(query["q"], number + 1), ""

    def _candidate(self, item: dict, base: str) -> Candidate:
        code = " ".join(str(item.get(part) or "") for part in ("license", "license_version"))
        key, licence_url = agreed(code.strip(), item.get("license_url"))
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
            licence_url=licence_url,
            author=author,
            author_url=join(base, item.get("creator_url")),
            series=series_of(title, author),
            objection=objection,
        )


class Commons:
    """A full-text search among the bitmaps of Wikimedia Commons, 50 files a page."""

    name, api = "commons", True
    pace = 1.0  # seconds between requests: one after the other, as its etiquette asks

    def start(self, text: str) -> str:
        """Address of the first page of results for a search phrase (CirrusSearch words work)."""
        return self._url(f"{text} filetype:bitmap", {})

    def _url(self, search: str, following: dict) -> str:
        fixed = {
            "action": "query",
            "format": "json",
            "formatversion": 2,
            "errorformat": "plaintext",
            "maxlag": 5,  # seconds; beyond it the servers ask to come back later
            "generator": "search",
            "gsrsearch": search,
            "gsrnamespace": 6,  # files
            "gsrlimit": 50,
            "prop": "imageinfo",
            "iiprop": "url|size|mime|mediatype|extmetadata",
            "iiurlwidth": WIDTH,
            "iiextmetadatafilter": FIELDS,
        }
        return f"{API}?{urlencode({**following, **fixed})}"

    def parse(self, page: Page) -> Listing:
        """Candidates of one answer, in the order of the search.

        MediaWiki may spread the details of files over several answers (API:Continue); a file
        without details is left to those that follow, or was in those before.
        """
        data = read_json(page, "Wikimedia Commons")
        _raise_error(data)
        query = data.get("query")
        pages = _dicts(query.get("pages") if isinstance(query, dict) else None)
        pages.sort(key=lambda p: p["index"] if isinstance(p.get("index"), int) else len(pages))
        asked = parse_qs(urlsplit(page.url).query)
        whole = data.get("batchcomplete") and not {"iicontinue", "iistart"} & set(asked)
        candidates = [self._candidate(p) for p in pages if whole or _info(p) or _absent(p)]
        following, search = data.get("continue"), asked.get("gsrsearch")
        if not isinstance(following, dict) or not search:
            return Listing(candidates, None)
        simple = {k: v for k, v in following.items() if isinstance(v, (str, int))}
        address = self._url(search[0], simple)
        if address == page.url:
            note = "Wikimedia Commons repeats itself; the search ends here."
            return Listing(candidates, None, note)
        return Listing(candidates, address)

    def _candidate(self, page: dict) -> Candidate:
        name = plain_text(page.get("title"))
        landing = join(API, "/wiki/" + quote(name.replace(" ", "_")))
        info = _info(page)
        url = join(API, info.get("thumburl")) or join(API, info.get("url"))
        if _absent(page) or not url:
            reason = _absent(page) or "no address given"
            return Candidate(url=landing, page=landing, title=name, objection=reason)
        fields = info.get("extmetadata")
        fields = fields.items() if isinstance(fields, dict) else ()
        meta = {key: entry.get("value") for key, entry in fields if isinstance(entry, dict)}
        artist = meta.get("Artist") or meta.get("Attribution")
        author = plain_text(artist)
        short_name = re.sub(r"\.\w{3,4}$", "", name.removeprefix("File:"))
        licence, licence_url = agreed(*map(meta.get, ("LicenseUrl", "License", "LicenseShortName")))
        return Candidate(
            url=url,
            page=join(API, info.get("descriptionurl")) or landing,
            title=plain_text(meta.get("ObjectName")) or short_name,
            licence=licence,
            licence_url=licence_url,
            author=author,
            author_url=first_link(artist, API),
            series=series_of(short_name, author, _day(meta)),
            objection=_objection(info, meta),
        )


def _raise_error(data: dict) -> None:
    """Errors come as HTTP 200, in one of two shapes."""
    errors = data.get("errors") or data.get("error")
    if not errors:
        return
    error = errors[0] if isinstance(errors, list) else errors
    error = error if isinstance(error, dict) else {}
    code = plain_text(error.get("code")) or "an unknown error"
    text = plain_text(error.get("text") or error.get("info"))
    busy = code in BUSY or code.startswith("internal_api_error")
    raise _refusal(f"Wikimedia Commons answered with {code} ({text})", busy)


def _refusal(what: str, later: bool) -> SourceError:
    advice = "wait and go on later" if later else "change the search"
    return SourceError(f"{what}; {advice}.", later)


def _info(page: dict) -> dict:
    """The details of a file, {} if they are not there."""
    return next(iter(_dicts(page.get("imageinfo"))), {})


def _dicts(value: object) -> list[dict]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _absent(page: dict) -> str:
    """Why there is no file to fetch, "" if there may be one."""
    entry = {**page, **_info(page)}
    if entry.get("filemissing") or entry.get("missing"):
        return "the file is missing"
    hidden = entry.get("filehidden") or entry.get("userhidden") or entry.get("suppressed")
    return "file or author hidden by the site" if hidden else ""


def _objection(info: dict, meta: dict) -> str:
    if info.get("mediatype") != "BITMAP":
        return f"not a bitmap but {plain_text(info.get('mediatype')) or 'unknown'}"
    if info.get("mime") not in KINDS:
        return f"{plain_text(info.get('mime')) or 'unknown type'} is not read here"
    return "personality rights" if "personality" in str(meta.get("Restrictions")).lower() else ""


def _day(meta: dict) -> str:
    """2019-05-12 of "2019-05-12 14:03" or "Taken on 12 ... "; "" unless a whole date is stated."""
    match = re.search(r"\b\d{4}-\d\d-\d\d\b", plain_text(meta.get("DateTimeOriginal")))
    return match[0] if match else ""
