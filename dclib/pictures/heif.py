"""HEIC and AVIF, the same boxes around two codecs: what they say of the main picture."""

import contextlib
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from PIL import Image

AVIF = {b"avif", b"avis"}
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
Size = tuple[int, int]
Box = tuple[bytes, memoryview]  # name and content


class Container(NamedTuple):
    """What a file's boxes say; all but `format` are as if nothing was said where they are damaged.

    format   "HEIF" or "AVIF", "" for another kind of file
    pixels   of the largest picture inside
    crop     left, top, right and bottom of what is to be shown of the main one, before it is turned
    coding   its primaries and transfer, numbers of ITU-T H.273
    """

    format: str
    pixels: int = 0
    crop: tuple[int, int, int, int] | None = None
    coding: tuple[int, int] = (1, 13)


def read_container(data: bytes | bytearray | memoryview) -> Container:
    """What the boxes of a file say (ISO/IEC 14496-12 and 23008-12)."""
    if data[4:8] != b"ftyp":
        return Container("")
    end = min(int.from_bytes(data[:4], "big"), 1024)
    brands = {data[at : at + 4] for at in (8, *range(16, end, 4))}
    found = Container("AVIF" if brands & AVIF else "HEIF" if brands & HEIC else "")
    with contextlib.suppress(struct.error, IndexError, KeyError, ZeroDivisionError):
        sizes, (width, height), own = _properties(memoryview(data))
        found = found._replace(pixels=max(w * h for w, h in sizes))
        for kind, body in own:
            if kind == b"colr" and body[:4] == b"nclx":
                found = found._replace(coding=struct.unpack_from(">HH", body, 4))
            if kind == b"clap":
                found = found._replace(crop=_crop(body, width, height))
    return found


def decode(data: bytes) -> Image.Image:
    """The main picture of a HEIC file, cropped and upright as its container asks for."""
    import pillow_heif  # small, but few need it

    file = pillow_heif.open_heif(data)
    return file[file.primary_index].to_pillow()


def _properties(data: memoryview) -> tuple[list[Size], Size, list[Box]]:
    """Sizes of all pictures inside; size and properties (name, content) of the main one."""
    meta = dict(_boxes(dict(_boxes(data))[b"meta"][4:]))
    main = int.from_bytes(meta[b"pitm"][4:], "big")
    parts = list(_boxes(meta[b"iprp"]))
    listed = list(_boxes(dict(parts)[b"ipco"]))
    sizes = [struct.unpack_from(">II", body, 4) for kind, body in listed if kind == b"ispe"]
    own = []
    for table in (body for kind, body in parts if kind == b"ipma"):
        wide, at = table[3] & 1, 8  # numbers of properties have 15 bits then, else 7
        for _ in range(int.from_bytes(table[4:8], "big")):
            item, n = struct.unpack_from(">IB" if table[0] else ">HB", table, at)
            at += 5 if table[0] else 3
            numbers = struct.unpack_from(f">{n}{'H' if wide else 'B'}", table, at)
            at += n << wide
            if item == main:
                own += [listed[(number & (0x7FFF if wide else 0x7F)) - 1] for number in numbers]
    return sizes, struct.unpack_from(">II", dict(own)[b"ispe"], 4), own


def _boxes(data: memoryview) -> Iterator[Box]:
    """Name and content of each box in a row."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 16 if size == 1 else 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        end = at + size if size else len(data)
        if end < at + head:
            return
        yield kind, data[at + head : end]
        at = end


def _crop(clap: memoryview, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The clean aperture of a picture as a box, None where that is no part of it."""
    numbers = struct.unpack_from(">IIIIiIiI", clap)
    wide, high, right, down = (Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2]))
    left, top = right + (width - wide) / 2, down + (height - high) / 2
    box = (round(left), round(top), round(left + wide), round(top + high))
    inside = 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    return box if inside else None
