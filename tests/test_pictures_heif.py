"""HEIC and AVIF as telephones write them; turned, tiled and in bursts: odd_pictures.py."""

import io
import struct
import sys

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from dclib.pictures import TURNS, PictureError, heif, read_picture
from dclib.pictures.colour import BT2020, HLG, P3, PQ

QUARTERS = Image.new("RGB", (96, 64), "blue")  # each corner has a colour of its own
for corner, colour in {(0, 0): "red", (48, 0): "lime", (0, 32): "white"}.items():
    QUARTERS.paste(colour, (*corner, corner[0] + 48, corner[1] + 32))


def encode(kind, image=QUARTERS, **options):
    """A file of a picture; HEIC by pillow-heif, AVIF by Pillow."""
    buffer = io.BytesIO()
    if kind == "AVIF":
        image.save(buffer, "AVIF", quality=90, subsampling="4:4:4", **options)
        return buffer.getvalue()
    pillow_heif.from_pillow(image).save(buffer, quality=90, chroma=444, **options)
    return buffer.getvalue()


def apart(image, other):
    """Mean difference of two pictures of one size."""
    assert image.size == other.size
    return np.abs(np.asarray(image, int) - np.asarray(other, int)).mean()


def cropped(kind, box, mark=1):
    """A file that says in its container to show a box only, before it is turned."""
    exif = Image.Exif()
    exif[0x0112] = mark
    data = bytearray(
        encode(kind, exif=exif.tobytes(), icc_profile=b"x" * 28)
    )  # 40 bytes, as `clap`
    table = data.index(b"ipma") + 14  # how many properties the picture has, and their numbers
    for at in range(table + 1, table + 1 + data[table]):
        data[at] |= 0x80  # not to be passed over
    at = data.index(b"colrprof") - 4
    left, top, right, bottom = box
    numbers = (right - left, 1, bottom - top, 1, left + right - 96, 2, top + bottom - 64, 2)
    data[at : at + 40] = struct.pack(">I4sIIIIiIiI", 40, b"clap", *numbers)
    return bytes(data)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
@pytest.mark.parametrize("mark", [1, 6])
def test_only_the_crop_is_shown(kind, mark):
    box = (24, 8, 64, 48)
    expected = QUARTERS.crop(box)
    expected = expected.transpose(TURNS[mark]) if mark > 1 else expected
    assert apart(read_picture(cropped(kind, box, mark)).image, expected) < 6


def test_a_crop_that_is_no_part_of_the_picture_is_passed_over():
    assert read_picture(cropped("AVIF", (-10, 0, 40, 40))).image.size == (96, 64)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_transparency_lies_on_white(kind):
    image = QUARTERS.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda v: 255 * (v > 127)))
    read = read_picture(encode(kind, image)).image
    expected = Image.composite(QUARTERS, Image.new("RGB", (96, 64), "white"), image.getchannel("A"))
    assert apart(read, expected) < 8


def test_ten_bits():
    deep = (np.asarray(QUARTERS).astype(np.uint16) * 257).tobytes()
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (96, 64), deep).save(buffer, quality=90, chroma=444)
    assert pillow_heif.open_heif(buffer.getvalue()).info["bit_depth"] == 10
    assert apart(read_picture(buffer.getvalue()).image, QUARTERS) < 6


def avif(pixels, primaries, transfer, matrix):
    """An AVIF of 10 bits with colours of another kind, written by FFmpeg."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avif") as out:
        stream = out.add_stream("libsvtav1", rate=1, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, 2
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), pixels, np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=matrix, dst_color_range=2)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "coding, pixels, seen",
    [
        ((P3, 13, 1), (200, 90, 60), (217, 82, 49)),
        ((BT2020, HLG, 9), (149, 56, 36), (220, 30, 30)),
        ((BT2020, PQ, 9), (97, 97, 97), (100, 100, 100)),
        ((1, 13, 1), (200, 90, 60), (200, 90, 60)),
    ],
)
def test_ten_bits_and_other_colours(coding, pixels, seen):
    read = read_picture(avif(pixels, *coding)).image
    assert read.getpixel((30, 30)) == pytest.approx(seen, abs=12)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_what_is_damaged_or_too_large_gets_a_sentence(kind):
    data = encode(kind)
    for part in (data[:40], data[: len(data) // 2], data[:-20]):
        with pytest.raises(PictureError, match=r"a damaged|is damaged or cut off"):
            read_picture(part)
    at = data.index(b"ispe") + 8
    large = data[:at] + struct.pack(">II", 12_000, 9_000) + data[at + 8 :]
    with pytest.raises(PictureError, match="more than 80 million pixels"):
        read_picture(large)


def test_without_pillow_heif_a_sentence(monkeypatch):
    encoded = encode("HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match="HEIC photo; install pillow-heif"):
        read_picture(encoded)


def test_damaged_boxes_say_nothing():
    data = cropped("AVIF", (24, 8, 64, 48))
    rng = np.random.default_rng(0)
    for _ in range(3000):
        noisy = bytearray(data[:400])
        noisy[rng.integers(16, 400)] = rng.integers(256)
        assert heif.read_container(bytes(noisy)).format == "AVIF"
