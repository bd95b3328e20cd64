"""Read a picture from anywhere, the way a person sees it, or say in one sentence why not."""

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from dclib.pictures import heif
from dclib.pictures.colour import ADOBE, by_coding, by_profile
from dclib.pictures.mark import kept_mark

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")
MAX_PIXELS = 80_000_000  # checked before decoding: 320 MB in Pillow
MAX_JPEG = 220_000_000  # of a JPEG, which is read at half its size above MAX_PIXELS
RAW = "a camera's raw file"
UNREAD = {b"\xff\x0a": "a JPEG XL picture", b"\0\0\0\x0cJXL ": "a JPEG XL picture"}  # by start
UNREAD |= dict.fromkeys((b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILM", b"FOVb"), RAW)
RAW_ENDS = {".3fr", ".arw", ".cr2", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw"}
RAW_ENDS |= {".pef", ".rwl", ".sr2", ".srw"}  # TIFFs, of which only a small copy could be read
DNG_VERSION, SUBFILE, OLD_SUBFILE = 50706, 254, 255  # marks in a TIFF
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

    `source`: path, bytes, Pillow image, tensor (3, H, W), or array (H, W), (H, W, 3) or (H, W, 4);
    of uint8, uint16 or floats in [0, 1]. Upright, in sRGB, transparency on white; of an animation
    the first frame, of a burst the main one. Size is checked before decoding. Raises PictureError
    or OSError.
    """
    name, container = "This file", heif.Container("")
    if isinstance(source, (str, Path)):
        name = Path(source).name
        source = find_file(source, "picture").read_bytes()
    if isinstance(source, (bytes, bytearray, memoryview)):
        container = heif.read_container(source)
        if container.pixels > MAX_PIXELS:
            raise PictureError(_too_large(name))
        image = _open(bytes(source), name, container.format)
    else:
        image = source if isinstance(source, Image.Image) else _from_array(source)
    sides = image.size
    if sides[0] * sides[1] > MAX_PIXELS and not _halve(image):
        raise PictureError(_too_large(name))
    if image.mode == "F":
        raise PictureError(f"{name} has floating-point pixels; save it as PNG or JPEG first.")
    notes = [f"{name} was read at half its size."] if image.size != sides else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of marks that are cut off: the picture need not be
            notes += _turn_pages(image, name)
            coding = container.coding
            if container.format != "HEIF":  # which is cropped and turned by its decoder
                image, coding = _upright(image, container)
            rgb = _to_rgb(image.copy() if image is source else image, coding, notes)
    except PictureError:
        raise
    except Exception as error:  # Pillow raises nearly anything on damaged bytes
        sentence = f"{name} is damaged or cut off ({error}); save or copy it again."
        raise PictureError(sentence) from error
    if type(rgb) is not Image.Image:
        rgb = rgb.copy()  # the pixels without their file
    rgb.info = kept_mark(rgb.info)  # nothing else: no mark that would turn it again, no GPS
    return Picture(rgb, tuple(notes))


def find_file(source: str | Path, what: str) -> Path:
    """The path of a file; FileNotFoundError, one sentence, for any other text too."""
    if os.path.isfile(source):  # no error for what cannot be a path
        return Path(source)
    text = str(source)
    if len(text) > 200 or text.startswith("data:"):
        text = f"{text[:40]}... (if this is the {what} itself as text, decode it to bytes)"
    raise FileNotFoundError(f"There is no {what} at {text}.")


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """A Pillow image as a file of this kind; `options` are those of Pillow's `save`."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def is_blank(image: Image.Image) -> bool:
    """Whether a picture is one colour or close to it: nothing to judge, and nothing to compare."""
    return bool(np.asarray(image.convert("L").resize((32, 32))).std() < LEAST_CONTRAST)


def _open(data: bytes, name: str, container: str) -> Image.Image:
    """Parse the header, so that kind and size are known; only HEIC is decoded at once."""
    kind = next((UNREAD[start] for start in UNREAD if data.startswith(start)), "")
    if kind or data[4:12] == b"ftypcrx " or data[:2] + data[8:10] == b"IICR":
        sentence = f"{name} is {kind or RAW}, which is not read here; export it as JPEG first."
        raise PictureError(sentence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels (our cap is lower), of odd EXIF marks
            if container == "HEIF":
                return heif.decode(data)
            if data.startswith(b"\xff\xd8"):  # without Pillow's cap, and without gain map or view
                return JpegImageFile(io.BytesIO(data))
            return Image.open(io.BytesIO(data), formats=FORMATS[:-1])
    except ModuleNotFoundError as error:
        sentence = f"{name} is a HEIC photo; install pillow-heif, or export it as JPEG first."
        raise PictureError(sentence) from error
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large(name)) from error
    except Exception as error:  # readers raise nearly anything on damaged bytes
        advice = f"use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        if container:
            advice = f"it is a damaged {container}, or of a rare kind; save it again or as JPEG"
        if data[:4] in (b"II*\0", b"MM\0*"):
            advice = f"if it is {RAW}, export it as JPEG first"
        raise PictureError(f"{name} is not a picture that can be read; {advice}.") from error


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller first."


def _halve(image: Image.Image) -> bool:
    """Have a large JPEG decoded at half its size; not a progressive one, which is kept whole."""
    width, height = image.size
    if image.format != "JPEG" or width * height > MAX_JPEG or "progressive" in image.info:
        return False
    return image.draft(None, (width // 2, height // 2)) is not None


def _turn_pages(image: Image.Image, name: str) -> list[str]:
    """Go to the first page that is the picture, and say so where there are several."""
    if isinstance(image, TiffImageFile):
        raw = DNG_VERSION in image.tag_v2 or Path(name).suffix.lower() in RAW_ENDS
        try:
            while image.tag_v2.get(SUBFILE, 0) & 5 or image.tag_v2.get(OLD_SUBFILE) == 2:
                image.seek(image.tell() + 1)  # from a small copy, or a mask
        except EOFError:
            raw = True
        if raw:
            sentence = f"{name} is {RAW} or a small copy only; export it as JPEG first."
            raise PictureError(sentence)
    if getattr(image, "n_frames", 1) == 1 or image.format == "MPO":
        return []
    which = "the first of full size" if image.format == "TIFF" and image.tell() else "the first"
    return [f"{name} holds several pictures; {which} was used."]


def _from_array(array: Any) -> Image.Image:
    """An image of an array or a tensor; others are described, not shown."""
    if hasattr(array, "movedim") and getattr(array, "ndim", 0) == 3:  # a tensor of PyTorch
        array = array.movedim(0, -1).detach().cpu()  # (3, H, W) -> (H, W, 3)
        array = np.asarray(array.float() if array.is_floating_point() else array)
    if not isinstance(array, np.ndarray):
        kind, shape = type(array).__name__, getattr(array, "shape", None)
        kind += f" of shape {tuple(shape)}" if shape else ""
        raise PictureError(f"A picture is a path, bytes, an array or a Pillow image, not a {kind}.")
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


def _upright(image: Image.Image, told: heif.Container) -> tuple[Image.Image, tuple[int, int]]:
    """Cropped and turned as its marks ask for, decoding it; and the coding of its colours."""
    image.load()
    marks, coding = image.getexif(), told.coding
    mark = marks.get(ExifTags.Base.Orientation)
    with contextlib.suppress(Exception):  # of marks that make no sense
        if marks.get_ifd(ExifTags.IFD.Interop).get(1) == "R03":  # cameras' way to say Adobe RGB
            coding = (ADOBE, 13)
    image = image.crop(told.crop) if told.crop else image  # Pillow passes over it
    image = image.transpose(TURNS[mark]) if mark in TURNS else image
    if told.crop or mark in TURNS:  # a drawing's faces are not where its mark says any more
        image.info.pop("comment", None)
    return image, coding


def _to_rgb(image: Image.Image, coding: tuple[int, int], notes: list[str]) -> Image.Image:
    """Any Pillow mode -> RGB as a screen shows it; `image` may be written over."""
    profile, table = image.info.get("icc_profile"), by_coding(*coding)
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bit grey
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode not in ("RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    try:
        image = by_profile(image, profile) if profile else image
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("Its colour profile makes no sense; the colours are as they are stored.")
    image = image if image.mode == "RGB" else image.convert("RGB")
    if table and not profile:
        image = image.filter(table)
    return Image.composite(image, Image.new("RGB", image.size, "white"), alpha) if alpha else image
