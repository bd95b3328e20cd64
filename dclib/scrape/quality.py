"""Is this file a picture that can be used? And the form in which it is kept."""

import hashlib
import io

import numpy as np
from PIL import Image

from dclib.pictures import PictureError, read_picture
from dclib.scrape.duplicates import fingerprints, is_flat

MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}  # and WebP: RIFF....WEBP
OTHERS = {b"GIF8": "GIF", b"%PDF": "PDF", b"%!PS": "EPS", b"BM": "BMP", b"II*\x00": "TIFF"}
OTHERS |= {b"MM\x00*": "TIFF", b"PK\x03\x04": "ZIP", b"{": "JSON", b"<": "HTML or SVG"}
LEAST_SIDE = 200  # pixels
LARGEST_ASPECT = 3.0  # long side / short side
KEPT_SIDE, KEPT_QUALITY = 1024, 92


class Unsuitable(ValueError):
    """A file that is not kept: `reason` in a few words, the message says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def examine(content: bytes) -> tuple[dict, bytes]:
    """What is known of a downloaded file (bytes), and the picture to keep.

    Returns (facts, jpeg): a dict of sha256, width, height and bytes of the original, red, green and
    blue (means of the kept picture, 0 to 255) and its fingerprints; and the bytes of an upright RGB
    JPEG, at most 1024 px a side, without metadata, so that neither a camera's or site's encoder
    nor the place where a photo was taken comes along. Raises Unsuitable.
    """
    kind = sniff(content)
    if kind not in ("JPEG", "PNG", "WEBP"):
        raise Unsuitable("not a picture", f"it begins like {kind}")
    try:
        image, notes = read_picture(content)  # checks the pixels before decoding, then decodes all
    except PictureError as error:
        raise Unsuitable("damaged or too large", str(error)) from error
    if notes:
        raise Unsuitable("animated")
    width, height = image.size
    if min(width, height) < LEAST_SIDE:
        raise Unsuitable("too small", f"{width} x {height}, less than {LEAST_SIDE} px")
    if max(width, height) > LARGEST_ASPECT * min(width, height):
        raise Unsuitable("too long", f"{width} x {height}")
    image.thumbnail((KEPT_SIDE, KEPT_SIDE), Image.Resampling.LANCZOS)
    if is_flat(image):
        raise Unsuitable("nothing in it", "one colour or close to it")
    facts: dict[str, object] = {"sha256": hashlib.sha256(content).hexdigest()}
    facts |= {"width": width, "height": height, "bytes": len(content)}
    means = np.asarray(image).mean((0, 1)).round(2).tolist()
    facts |= dict(zip(("red", "green", "blue"), means, strict=True))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=KEPT_QUALITY, subsampling=0)
    return facts | fingerprints(image), buffer.getvalue()


def sniff(content: bytes) -> str:
    """The kind of a file by its first bytes, whatever its name and its server say."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    start = content.lstrip()[:16] if content[:1].isspace() else content[:16]
    for magic, kind in (MAGIC | OTHERS).items():
        if start.startswith(magic):
            return kind
    return "an unknown kind of file" if content else "an empty file"
