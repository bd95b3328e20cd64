"""What is in a picture that is read, and what cannot be; more kinds of files: odd_pictures.py."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from dclib.pictures import PictureError, encode, read_picture

RED, BLUE = (220, 30, 30), (30, 30, 220)


def half_red_half_blue(width=60, height=40):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def colours(image):
    """Mean colour of the left and of the right half."""
    return [tuple(half.mean((0, 1))) for half in np.split(np.asarray(image, float), 2, axis=1)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats(tmp_path, kind):
    data = encode(half_red_half_blue(), kind)
    (tmp_path / "photo").write_bytes(data)
    for source in (data, tmp_path / "photo", str(tmp_path / "photo"), memoryview(data)):
        image, notes = read_picture(source)
        assert (image.mode, image.size, notes) == ("RGB", (60, 40), ())
        left, right = colours(image)
        assert left == pytest.approx(RED, abs=12)
        assert right == pytest.approx(BLUE, abs=12)


MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "YCbCr", "HSV")


@pytest.mark.parametrize("mode", MODES)
def test_pillow_modes(mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 60), 40_000, np.uint16))
    else:
        image = half_red_half_blue().convert("L" if mode == "LA" else "RGB").convert(mode)
    result = read_picture(image).image
    assert (result.mode, result.size) == ("RGB", (60, 40))


def test_cmyk_jpeg_keeps_its_colours():
    data = encode(half_red_half_blue().convert("CMYK"), "JPEG")
    left, right = colours(read_picture(data).image)
    assert left == pytest.approx(RED, abs=15)
    assert right == pytest.approx(BLUE, abs=15)


def test_16_bit_png_is_scaled_not_cut():
    ramp = np.linspace(0, 65535, 60).astype(np.uint16)[None].repeat(40, 0)
    pixels = np.asarray(read_picture(encode(Image.fromarray(ramp), "PNG")).image)
    assert pixels[0, :, 0] == pytest.approx(np.linspace(0, 255, 60), abs=1)


def test_transparency_lies_on_white():
    image = half_red_half_blue().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert np.asarray(read_picture(encode(image, "PNG")).image).min() == 255


def test_arrays():
    pixels = np.asarray(half_red_half_blue())
    same = pixels, pixels / 255, pixels.astype(np.uint16) * 257, (pixels / 255).astype("f4")
    for array in same:
        assert np.abs(np.asarray(read_picture(array).image).astype(int) - pixels).max() <= 1
    assert read_picture(pixels[:, :, 0]).image.mode == "RGB"
    tensor = torch.from_numpy(pixels.copy()).movedim(-1, 0)  # (3, H, W)
    for source in (tensor, (tensor / 255).requires_grad_(), (tensor / 255).double()):
        assert np.array_equal(read_picture(source).image, pixels)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"just text", "not a picture that can be read"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "a damaged HEIF"),
        (b"\xff\x0a" + bytes(50), "JPEG XL picture, which is not read here; export it as JPEG"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "a camera's raw file, which is not read here"),
        (b"II*\0" + bytes(50), "if it is a camera's raw file, export it as JPEG"),
        (np.zeros((4, 4, 2), np.uint8), r"must be \(H, W\)"),
        (np.zeros((0, 4), np.uint8), "cannot be used"),
        (np.full((4, 4), 7.5), "values from 0 to 1"),
        (np.zeros((4, 4), np.int64), "uint8, uint16 or floating"),
        (None, "is a path, bytes.* not a NoneType"),
        ([[0] * 999] * 999, "not a list"),
        (torch.full((3, 4, 4), 1.5, dtype=torch.bfloat16), "values from 0 to 1"),
        (torch.full((3, 4, 4), 1.5, requires_grad=True), "values from 0 to 1"),
        (torch.zeros(2, 3, 4, 4), "not a Tensor of shape .2, 3, 4, 4."),
        (Image.new("F", (4, 4)), "floating-point pixels"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(source, message):
    with pytest.raises(PictureError, match=message) as caught:
        read_picture(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def tiff(*pages, **marks):
    """A TIFF of (picture, marks by number) of each page."""
    for image, own in pages:
        image.encoderinfo = {"tiffinfo": own}
    (first, own), *others = pages
    images = [image for image, _ in others]
    return encode(first, "TIFF", save_all=True, append_images=images, tiffinfo=own | marks)


SMALL, FULL = half_red_half_blue(30, 20), half_red_half_blue()


@pytest.mark.parametrize("small", [{254: 1}, {255: 2}, {254: 4}])
def test_a_small_copy_is_not_taken_for_the_picture(tmp_path, small):
    """As cameras' raw files, pyramids and masks begin: the mark says what a page is."""
    image, notes = read_picture(tiff((SMALL.copy(), small), (FULL.copy(), {254: 0})))
    assert image.size == FULL.size and "the first of full size was used" in notes[0]
    with pytest.raises(PictureError, match="a camera's raw file or a small copy only"):
        read_picture(tiff((SMALL.copy(), small)))


def test_raw_files_are_known_by_version_or_name(tmp_path):
    with pytest.raises(PictureError, match="a camera's raw file"):
        read_picture(tiff((SMALL.copy(), {50706: b"\1\4\0\0"})))
    path = tmp_path / "photo.NEF"
    path.write_bytes(encode(SMALL, "TIFF"))
    for source in (path, str(path)):
        with pytest.raises(PictureError, match=r"photo\.NEF is a camera's raw file"):
            read_picture(source)


@pytest.mark.parametrize(
    ("high", "wide", "said"),
    [(12_240, 16_320, "division by zero"), (20_000, 20_000, "more than 80 million pixels")],
)
def test_two_hundred_million_pixels_are_let_in_and_no_more(high, wide, said, monkeypatch):
    """A telephone's largest pictures; decoding one would take this test half a minute."""
    data = encode(half_red_half_blue(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    monkeypatch.setattr(JpegImageFile, "load", lambda self: 1 / 0)
    with pytest.raises(PictureError, match=said):
        read_picture(data[:at] + high.to_bytes(2) + wide.to_bytes(2) + data[at + 4 :])


@pytest.mark.parametrize("text", ["data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo=" * 400])
def test_a_picture_as_text_gets_one_short_sentence(text):
    with pytest.raises(FileNotFoundError, match="is the picture itself as text, decode") as caught:
        read_picture(text)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("side", [9_500, 13_500])
def test_huge_pictures_are_refused_before_decoding(side):
    """A small file that would decode to 90 million pixels, or to more than Pillow allows."""
    image = Image.new("1", (side, side))
    for source in (encode(image, "PNG"), image):
        with pytest.raises(PictureError, match="more than 80 million pixels"):
            read_picture(source)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]), st.data())
def test_damaged_bytes_never_escape_as_another_error(noise, kind, data):
    good = bytearray(encode(half_red_half_blue(16, 16), kind))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at : at + len(noise)] = noise
    with contextlib.suppress(PictureError):
        assert read_picture(bytes(good)).image.mode == "RGB"
