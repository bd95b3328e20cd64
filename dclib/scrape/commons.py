"""Wikimedia Commons: freely licensed files, by the documented interface of MediaWiki."""

import re
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from dclib.scrape.licences import deed, licence_key
from dclib.scrape.sources import (
    Candidate,
    Listing,
    Page,
    SourceError,
    first_link,
    plain_text,
    read_json,
    series_of,
)
from dclib.scrape.urls import join

API = "https://commons.wikimedia.org/w/api.php"
# Wikimedia serves thumbnails in steps only (..., 500, 960, 1280, ...); others are refused.
WIDTH = 960
KINDS = {"image/jpeg", "image/png", "image/webp"}
BUSY = {"maxlag", "ratelimited", "readonly", "cirrussearch-too-busy-error"}
FIELDS = "ObjectName|Categories|Artist|Attribution|LicenseShortName|License|LicenseUrl"
FIELDS += "|Restrictions|DateTimeOriginal"
# Categories about the file, not about what it shows.
UPKEEP = re.compile(
    r"(?i)cc[- ]|licen[cs]e|pd[- ]|self-published|files|uploaded|images? (from|by)|"
    r"flickr|media |pages |template|quality images|structured data|unidentified"
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
        """Candidates of one answer, in the order of the search; raises SourceError for errors.

        MediaWiki may spread the details of 50 files over several answers (API:Continue); a file
        without details is left to those that follow, or was in those before.
        """
        data = read_json(page, "Wikimedia Commons")
        _raise_error(data)
        query = data.get("query")
        pages = query.get("pages") if isinstance(query, dict) else None
        pages = [p for p in pages if isinstance(p, dict)] if isinstance(pages, list) else []
        pages.sort(key=lambda p: p["index"] if isinstance(p.get("index"), int) else len(pages))
        asked = parse_qs(urlsplit(page.url).query)
        whole = data.get("batchcomplete") and not {"iicontinue", "iistart"} & set(asked)
        found = [self._candidate(p) for p in pages if whole or _info(p) or _absent(p)]
        following, search = data.get("continue"), asked.get("gsrsearch")
        if not isinstance(following, dict) or not search:
            return Listing(found, None)
        simple = {k: v for k, v in following.items() if isinstance(v, (str, int))}
        address = self._url(search[0], simple)
        if address == page.url:
            return Listing(found, None, "Wikimedia Commons repeats itself; the search ends here.")
        return Listing(found, address)

    def _candidate(self, page: dict) -> Candidate:
        name = plain_text(page.get("title"))
        landing = join(API, "/wiki/" + quote(name.replace(" ", "_")))
        info = _info(page)
        url = join(API, info.get("thumburl")) or join(API, info.get("url"))
        if _absent(page) or not url:
            reason = _absent(page) or "no address given"
            return Candidate(url=landing, page=landing, title=name, objection=reason)
        told = info.get("extmetadata")
        told = told if isinstance(told, dict) else {}
        meta = {key: entry.get("value") for key, entry in told.items() if isinstance(entry, dict)}
        artist = meta.get("Artist") or meta.get("Attribution")
        author = plain_text(artist)
        title = plain_text(meta.get("ObjectName")) or _without_affixes(name)
        licence, licence_url = _licence(meta)
        return Candidate(
            url=url,
            page=join(API, info.get("descriptionurl")) or landing,
            title=title,
            licence=licence,
            licence_url=licence_url,
            author=author,
            author_url=first_link(artist, API),
            series=series_of(
                _without_affixes(name), author, _day(meta), author and _category(meta)
            ),
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
    raise SourceError(
        f"Wikimedia Commons answered with {code} ({text}); "
        + ("wait and go on later." if busy else "change the search."),
        later=busy,
    )


def _info(page: dict) -> dict:
    """The details of a file, {} if they are not there."""
    info = page.get("imageinfo")
    return info[0] if isinstance(info, list) and info and isinstance(info[0], dict) else {}


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


def _licence(meta: dict) -> tuple[str, str]:
    """(key, address) by the first of the three fields that is understood."""
    url = join(API, meta.get("LicenseUrl"))
    for field in (url, meta.get("License"), meta.get("LicenseShortName")):
        if key := licence_key(field):
            version = re.search(r"\d\.\d", str(field))
            fits = licence_key(url) == key or key == "pdm"
            return key, url if fits else deed(key, version[0] if version else "")
    return "", ""


def _day(meta: dict) -> str:
    """2019-05-12 of "2019-05-12 14:03" or "Taken on 12 ... "; "" unless a whole date is stated."""
    match = re.search(r"\b\d{4}-\d\d-\d\d\b", plain_text(meta.get("DateTimeOriginal")))
    return match[0] if match else ""


def _category(meta: dict) -> str:
    names = plain_text(meta.get("Categories")).split("|")
    return next((name for name in names if name and not UPKEEP.match(name)), "")


def _without_affixes(name: str) -> str:
    return re.sub(r"\.\w{3,4}$", "", name.removeprefix("File:"))
