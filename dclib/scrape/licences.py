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

PUBLIC_DOMAIN = re.compile(r"pd|public domain|((cc )?pdm|public domain mark)( 1\.0)?")
DEED = re.compile(
    r"(?:https?:)?//(?:www\.)?creativecommons\.org/"
    r"(?:licenses/([a-z-]+)|publicdomain/(zero|mark))(?:/(\d\.\d))?(?:[/?#].*)?"
)
VERSION = r"(?:[ -]\d\.\d(?:,\d\.\d)*)?(?:[ -](?:international|generic|unported|[a-z]{2}))?"
CODE = re.compile(rf"(?:cc[ -])?(by(?:[ -](?:nc|nd|sa))*|cc0|cc[ -]zero){VERSION}")
SHARE_ALIKE = (
    "Share-alike: who passes on an image under CC BY-SA, or something made from it, does "
    "so under the same licence and with this credit."
)


def licence_key(text: object) -> str:
    """The short key of a licence: a key of `NAMES`, or "" for everything that is not sure.

    `text` is the address of a Creative Commons deed, or a short name ("cc-by-2.0-de").

    >>> licence_key("CC BY-SA 4.0"), licence_key("free to use")
    ('by-sa', '')
    """
    text = " ".join(str(text or "").lower().split())
    if match := DEED.fullmatch(text):
        code, public, _ = match.groups()
        return {"zero": "cc0", "mark": "pdm"}[public] if public else _ordered(code)
    if PUBLIC_DOMAIN.fullmatch(text):
        return "pdm"
    match = CODE.fullmatch(text)
    return _ordered(match[1]) if match else ""


def _ordered(code: str) -> str:
    """ "by-nd-nc", as version 1.0 has it, is "by-nc-nd"; "" where there is no such licence."""
    parts = re.split("[ -]", code)
    if parts[0] in ("cc0", "cc"):
        return "cc0"
    key = "-".join(["by", *sorted(parts[1:], key=["nc", "nd", "sa"].index)])
    return key if key in NAMES else ""


def deed(key: str, version: object = "") -> str:
    """Address of the deed of a licence, as far as it is known for sure, else ""."""
    if key == "cc0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if key not in NAMES or key == "pdm" or version not in ("1.0", "2.0", "2.5", "3.0", "4.0"):
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
