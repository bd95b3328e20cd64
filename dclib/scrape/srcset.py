"""The `srcset` attribute: which of an image's versions to take."""

import re

MAX_WIDTH = 2048  # pixels; what is larger would only be scaled down

ADDRESS = re.compile(r"[\t\n\f\r ,]*([^\t\n\f\r ,][^\t\n\f\r ]*)")
DESCRIPTORS = re.compile(r"(?:[^,(]|\([^)]*(?:\)|\Z))*")  # commas count in brackets only
NUMBER = r"(-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
DESCRIPTOR = re.compile(rf"(?:([0-9]{{1,9}})([wh])|{NUMBER}(x))")


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
