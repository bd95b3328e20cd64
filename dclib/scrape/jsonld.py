"""Pictures that a page describes as data: schema.org's ImageObject in JSON-LD.

Besides rel=license this is where a web page states a picture's licence for machines.
"""

import json
import re

from bs4 import BeautifulSoup

from dclib.scrape.licences import licence_key
from dclib.scrape.sources import Candidate, plain_text, series_of
from dclib.scrape.urls import host, identity, join

IMAGE_FILE = re.compile(r"\.(jpe?g|png|webp)$", re.IGNORECASE)
# Pictures of someone or something else than what the page shows.
OTHERS = {"logo", "publisher", "author", "creator", "copyrightHolder", "brand", "thumbnail"}
MAX_NODES = 100_000
Entry = tuple[Candidate, set[str]]  # and the identities of all addresses that mean this picture


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
        entries = (_picture(node, base, page_url) for node in _image_objects(data))
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


def _picture(node: dict, base: str, page_url: str) -> Entry | None:
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
