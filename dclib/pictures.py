"""Read a picture from anywhere, the way a person sees it, or say in one sentence why not."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 80_000_000  # checked before decoding: 240 MB as RGB
TURNS = {  # what the orientation of EXIF asks for
    **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
    **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
    **{6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90},
}

Source = str | Path | bytes | bytearray | memoryview | np.ndarray | Image.Image
Boxes = Sequence[Sequence[float]]  # (x0, y0, x1, y1) of each, in pixels
# Standard deviation, in grey levels, of 32 x 32 pixels; 1,000 photographs had 14 or more. Faded to
# 6, 99 % of them are still near themselves (`dclib.scrape.duplicates`) after JPEG of quality 30.
LEAST_CONTRAST = 6.0


class Picture(NamedTuple):
    """An RGB Pillow image, upright, and what had to be done to get it (sentences, often none)."""

    image: Image.Image
    notes: tuple[str, ...]


class PictureError(ValueError):
    """A picture that cannot be used; the message is one sentence for the person who chose it."""


def read_picture(source: Source) -> Picture:
    """Read a photo the way a person sees it.

    `source`: path, bytes, Pillow image, or array (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or
    floats in [0, 1]. Upright by its EXIF mark; transparency on white; of an animation the first
    frame. Size is checked before decoding (`MAX_PIXELS`). Raises PictureError or OSError.
    """
    name = "This file"
    if isinstance(source, (str, Path)):
        name = Path(source).name
        if not Path(source).is_file():
            raise FileNotFoundError(f"There is no picture at {source}.")
        source = Path(source).read_bytes()
    if isinstance(source, (bytes, bytearray, memoryview)):
        image = _open(bytes(source), name)
    elif isinstance(source, np.ndarray):
        image = _from_array(source)
    elif isinstance(source, Image.Image):
        image = source
    else:
        raise PictureError(
            f"A picture is a path, bytes, an array or a Pillow image, not {source!r}."
        )
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(_too_large(name))
    if image.mode == "F":
        raise PictureError(f"{name} has floating-point pixels; save it as PNG or JPEG first.")
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of marks that are cut off: the picture need not be
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                notes.append(f"{name} holds several pictures; the first was used.")
            rgb = _to_rgb(_upright(image))
    except Exception as error:  # Pillow raises nearly anything on damaged bytes
        sentence = f"{name} is damaged or cut off ({error}); save or copy it again."
        raise PictureError(sentence) from error
    rgb.info.clear()  # nothing but the pixels: no mark that would turn it again, no comment, no GPS
    return Picture(rgb, tuple(notes))


def is_blank(image: Image.Image) -> bool:
    """Whether a picture is one colour or close to it: nothing to judge, and nothing to compare."""
    return bool(np.asarray(image.convert("L").resize((32, 32))).std() < LEAST_CONTRAST)


def _open(data: bytes, name: str) -> Image.Image:
    """Parse the header only: kind and size are known, no pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels (our cap is lower), of odd EXIF marks
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large(name)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            raise PictureError(f"{name} is a HEIC photo; export it as JPEG first.") from error
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise PictureError(f"{name} is not a picture that can be read; use {kinds}.") from error


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller first."


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(f"An array must be (H, W), (H, W, 3) or (H, W, 4), not {array.shape}.")
    if array.size == 0 or array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise PictureError(
            f"An array of {array.shape[1]} x {array.shape[0]} pixels cannot be used."
        )
    if array.dtype == np.uint16:
        array = array / 65535
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise PictureError("A floating-point array must hold values from 0 to 1.")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise PictureError(f"An array must be uint8, uint16 or floating point, not {array.dtype}.")
    return Image.fromarray(array)


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, which fails where any other mark makes no sense."""
    image.load()
    mark = image.getexif().get(ExifTags.Base.Orientation)
    return image.transpose(TURNS[mark]) if mark in TURNS else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB, decoding the picture."""
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bit grey
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
