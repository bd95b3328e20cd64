"""How a drawing says that it is one: a comment, which a JPEG keeps, with the faces of its couple.

Nothing in the pixels tells a drawing from a photograph for sure, and what finds faces has learned
photographs; so the one who draws says it. A file that was drawn over or saved anew without its
comment counts as a photograph.
"""

import json
from collections.abc import Sequence
from typing import Any

from PIL import Image

COMMENT = b"drawn by dclib, faces at "


def mark_drawn(image: Image.Image, faces: Sequence[Sequence[float]]) -> None:
    """Write the boxes of a couple's faces, in shares of the picture's sides, into its comment."""
    shares = [[round(value, 4) for value in box] for box in faces]
    image.info["comment"] = COMMENT + json.dumps(shares).encode()


def drawn_faces(image: Image.Image) -> tuple[tuple[float, ...], ...] | None:
    """Boxes in pixels of the faces in a marked drawing; None: it counts as a photograph."""
    try:
        shares = json.loads(kept_mark(image.info)["comment"].removeprefix(COMMENT))
        sides = (*image.size, *image.size)
        return tuple(tuple(v * s for v, s in zip(box, sides, strict=True)) for box in shares)
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


def kept_mark(info: dict[Any, Any]) -> dict[Any, Any]:
    """Of what a picture's file says besides its pixels, the mark alone: often nothing."""
    comment = info.get("comment")
    marked = isinstance(comment, bytes) and comment.startswith(COMMENT)
    return {"comment": comment} if marked else {}
