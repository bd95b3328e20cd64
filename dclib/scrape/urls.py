"""Addresses: which ones may be asked for, and which ones mean the same picture."""

import re
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import idna

MAX_LENGTH = 8000  # characters; servers refuse longer ones
LEGAL = "!#$%&'()*+,/:;=?@[]~"  # stay as they are: reserved characters and the percent sign
UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
TRACKER = re.compile(r"(utm_[^=]*|fbclid)(=|$)", re.IGNORECASE)


def join(base: str, link: object) -> str:
    """The http(s) address that `link` on the page `base` means; "" if there is none to ask for.

    As browsers do: the fragment is dropped, the host becomes ASCII (IDNA, RFC 5891) in lower case,
    illegal characters are percent-encoded; nothing else changes. Other schemes, user names and
    passwords, and broken hosts or ports give "".
    """
    if not isinstance(link, str) or not link.strip() or len(link) > MAX_LENGTH:
        return ""
    try:
        parts = urlsplit(urljoin(base, link.strip()))
        name, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not name or port == 0:
            return ""
        if re.search(r"[@\\<>\"^`{|}%\s]", parts.netloc):
            return ""
        name = f"[{name}]" if ":" in name else name
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode()
        netloc = name if port is None else f"{name}:{port}"
        return quote(urlunsplit((parts.scheme, netloc, *parts[2:4], "")), safe=LEGAL)
    except ValueError:  # brackets, ports, hosts, characters that no encoding has
        return ""


def host(url: str) -> str:
    """Host and port of an address that `join` gave."""
    return urlsplit(url).netloc


def identity(url: object) -> str:
    """A key that is equal for addresses of the same thing; never to be asked for itself.

    What `join` does, and: no default port, no dot after the host, percent signs as in RFC 3986
    6.2.2, no trackers (utm_*, fbclid). "" for what is no http(s) address.

    >>> identity("HTTP://H.org:80/%7eann?utm_source=mail&n=1#top")
    'http://h.org/~ann?n=1'
    """
    url = join("", url)
    if not url:
        return ""
    parts = urlsplit(url)
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    name, colon, port = parts.netloc.removesuffix(default).partition(":")
    name = name.rstrip(".")
    query = "&".join(p for p in parts.query.split("&") if p and not TRACKER.match(p))
    path = _normal(parts.path or "/")
    return f"{parts.scheme}://{name}{colon}{port}{path}" + (f"?{_normal(query)}" if query else "")


def _normal(text: str) -> str:
    """Percent-encodings in upper case, and none where the character needs none."""

    def shortest(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if UNRESERVED.fullmatch(character) else match[0].upper()

    return re.sub("%([0-9a-fA-F]{2})", shortest, text)
