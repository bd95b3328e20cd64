"""Licences: read them without guessing, let through what may be adapted, give the credit due."""

import re
from collections import Counter
from collections.abc import Sequence

from dclib.scrape.sources import join

NAMES = {
    "cc0": "CC0",
    "pdm": "public domain",
    "by": "CC BY",
    "by-sa": "CC BY-SA",
    "by-nc": "CC BY-NC",
    "by-nd": "CC BY-ND",
    "by-nc-sa": "CC BY-NC-SA",
    "by-nc-nd": "CC BY-NC-ND",
}
# Resizing makes an adaptation and figures are shown to others, which rules out no-derivatives
# and puts non-commercial in doubt.
ALLOWED = frozenset({"cc0", "pdm", "by", "by-sa"})

# Codes as deeds and names have them; what is retired or unknown (nc, sampling, ...) is no code.
CODES = {key: key for key in NAMES if key.startswith("by")} | {"by-nd-nc": "by-nc-nd"}
VERSIONS = ("1.0", "2.0", "2.1", "2.5", "3.0", "4.0")
VERSION = f"(?:{'|'.join(VERSIONS)})"
PORT = "(?:(?!n[cd]|sa)[a-z]{2}|igo|scotland)"  # of a country
DEED = re.compile(
    rf"(?:https?:)?//(?:www\.)?creativecommons\.org/(?:licenses/([a-z-]+)|publicdomain/(zero|mark))"
    rf"(?:/({VERSION})(?:/{PORT})?)?(?:/(?:(?:deed|legalcode|rdf)[\w.-]*)?)?(?:[?#].*)?"
)
# The full names, in the order in which they become codes.
WORDS = {"creative commons": "cc", "attribution": "by", "non-?commercial": "nc"}
WORDS |= {"no-?deriv(?:ative)?s?": "nd", "share-?alike": "sa", " licen[cs]e$": ""}
NAME = re.compile(
    rf"(?:cc[ -])?(by(?:[ -](?:nc|nd|sa))*|cc0|cc[ -]zero|pdm|public domain mark)"
    rf"(?:[ -]{VERSION}(?:,{VERSION})*)?"
    rf"(?:[ -](?:international|generic|unported|universal|migrated|{PORT}))*"
)
PUBLIC = dict.fromkeys(["pd", "pdm", "public domain", "public-domain-mark"], "pdm")
PUBLIC |= dict.fromkeys(["cc0", "cc-zero"], "cc0")
LIMITS = re.compile(r"non.?commercial|no.?deriv|\bn[cd]\b|all rights reserved", re.IGNORECASE)
SHARE_ALIKE = (
    "Share-alike: who passes on an image under CC BY-SA, or something made from it, does "
    "so under the same licence and with this credit."
)


def licence_key(text: object) -> str:
    """The short key of a licence: a key of `NAMES`, or "" for everything that is not sure.

    `text` is the address of a Creative Commons deed, or a name: "cc-by-2.0-de", "CC-BY-SA-4.0" as
    in SPDX, "Creative Commons Attribution 4.0 International".

    >>> licence_key("CC BY-SA 4.0"), licence_key("free to use")
    ('by-sa', '')
    """
    text = re.sub("[\u2010-\u2015\u2212_]", "-", " ".join(str(text or "").lower().split()))
    if match := DEED.fullmatch(text):
        return CODES.get(match[1], "") or {"zero": "cc0", "mark": "pdm"}.get(match[2], "")
    if re.search(rf"creative commons|{VERSION}", text):  # "Attribution" alone says too little
        for words, short in WORDS.items():
            text = re.sub(words, short, text)
    match = NAME.fullmatch(text)
    code = match[1].replace(" ", "-") if match else text
    return CODES.get(code, "") or PUBLIC.get(code, "")


def agreed(*stated: object) -> tuple[str, str]:
    """(key, address) of the licence that is stated, in addresses and names, all of which agree.

    ("", "") where one of them contradicts or is not known for sure; empty ones state nothing.
    """
    said = [str(text) for text in stated if text]
    keys = {licence_key(text) for text in said}
    key = keys.pop() if len(keys) == 1 else ""
    version = next(iter(re.findall(VERSION, " ".join(said))), "")
    links = (join("https://creativecommons.org/", text) for text in said if "//" in text)
    return (key, next(links, "") or deed(key, version)) if key else ("", "")


def of_licence(text: str) -> str:
    """Running text as far as it says something of a licence, to be `agreed` on; else ""."""
    return text if licence_key(text) or LIMITS.search(text) else ""


def deed(key: str, version: object = "") -> str:
    """Address of the deed of a licence, as far as it is known for sure, else ""."""
    if key == "cc0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if key not in NAMES or key == "pdm" or version not in VERSIONS:
        return ""
    return f"https://creativecommons.org/licenses/{key}/{version}/"


def attribution(rows: Sequence[dict]) -> str:
    """Markdown that credits the image of every row of a manifest.

    Titles and names were written by strangers: nothing in them acts as Markdown or HTML.
    """
    counts = Counter(row["licence"] for row in rows)
    total = ", ".join(f"{n} {_text(NAMES.get(key, key))}" for key, n in sorted(counts.items()))
    lines = [
        "# Attribution",
        "",
        f"{len(rows)} images by other people ({total or 'none'}).",
        "Changes made to every one of them: resized, re-encoded, metadata removed.",
        "A licence settles the photographer's rights, not the consent of the people shown.",
    ]
    if counts["by-sa"]:
        lines += ["", SHARE_ALIKE]
    return "\n".join([*lines, "", *(_credit(row) for row in rows)]) + "\n"


def _credit(row: dict) -> str:
    title = _link(row["title"] or "Untitled", row["page"] or row["url"])
    author = _link(row["author"] or "unknown author", row["author_url"])
    name = NAMES.get(row["licence"], row["licence"] or "unknown licence")
    match = DEED.fullmatch((row["licence_url"] or "").lower())
    version = f" {match[3]}" if match and match[3] else ""
    licence = _link(name + version, row["licence_url"])
    file, source = _text(row["file"]), _text(row["source"])
    return f"- Image {file}: {title} by {author}, {licence}, from {source}"


def _link(text: str, url: str | None) -> str:
    # Some characters are legal in an address, but not inside a link of Markdown.
    url = re.sub(r"[()\[\]*~!']", lambda match: f"%{ord(match[0]):02X}", join("", url))
    return f"[{_text(text)}]({url})" if url else _text(text)


def _text(text: str) -> str:
    """Text that shows as it is: one line, no markup, no automatic links, no reversed direction."""
    text = "".join(c for c in str(text) if c.isprintable() or c.isspace())
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$@:^=])", r"\\\1", text)
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", text)
