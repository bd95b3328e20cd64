"""Every kind of file that people really have."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dclib.pictures import PictureError, read_picture

RED, BLUE = (220, 30, 30), (30, 30, 220)


def half_red_half_blue(width=60, height=40):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(image):
    """Mean colour of the left, right, upper and lower half."""
    pixels = np.asarray(image).astype(float)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    halves = pixels[:, :width], pixels[:, width:], pixels[:height], pixels[height:]
    return [tuple(half.mean((0, 1))) for half in halves]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats(tmp_path, kind):
    data = encode(half_red_half_blue(), kind)
    (tmp_path / "photo").write_bytes(data)
    for source in (data, tmp_path / "photo", str(tmp_path / "photo"), memoryview(data)):
        image, notes = read_picture(source)
        assert (image.mode, image.size, notes) == ("RGB", (60, 40), ())
        left, right, *_ = colours(image)
        assert left == pytest.approx(RED, abs=12)
        assert right == pytest.approx(BLUE, abs=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_phone_photos_stand_upright(orientation):
    """Store the picture turned as a phone would, with its EXIF mark; it is read upright."""
    upright = half_red_half_blue()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # 6: the camera lay on its side; turn it clockwise to see it
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_picture(encode(stored, "JPEG", exif=exif, quality=95)).image
    assert image.size == (60, 40)
    assert colours(image)[0] == pytest.approx(RED, abs=15)


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
    left, right, *_ = colours(read_picture(data).image)
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


def test_gif_gives_its_first_frame_and_says_so():
    frames = [half_red_half_blue(), Image.new("RGB", (60, 40), BLUE)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image, notes = read_picture(data)
    assert notes == ("This file holds several pictures; the first was used.",)
    assert colours(image)[0] == pytest.approx(RED, abs=12)


def test_arrays():
    pixels = np.asarray(half_red_half_blue())
    same = pixels, pixels / 255, pixels.astype(np.uint16) * 257, (pixels / 255).astype("f4")
    for array in same:
        assert np.abs(np.asarray(read_picture(array).image).astype(int) - pixels).max() <= 1
    assert read_picture(pixels[:, :, 0]).image.mode == "RGB"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "not a picture that can be read"),
        (b"just text", "not a picture that can be read"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC photo; export it as JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture that can be read"),
        (np.zeros((4, 4, 2), np.uint8), r"must be \(H, W\)"),
        (np.zeros((0, 4), np.uint8), "cannot be used"),
        (np.full((4, 4), 7.5), "values from 0 to 1"),
        (np.full((4, 4), np.nan), "values from 0 to 1"),
        (np.zeros((4, 4), np.int64), "uint8, uint16 or floating"),
        (None, "is a path, bytes"),
        (Image.new("F", (4, 4)), "floating-point pixels"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(source, message):
    with pytest.raises(PictureError, match=message) as caught:
        read_picture(source)
    assert "\n" not in str(caught.value)


def test_the_file_is_named(tmp_path):
    (tmp_path / "notes.jpg").write_text("shopping list")
    with pytest.raises(PictureError, match=r"^notes\.jpg is not a picture"):
        read_picture(tmp_path / "notes.jpg")
    with pytest.raises(FileNotFoundError, match="no picture at"):
        read_picture(tmp_path / "gone.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(kind):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(PictureError, match="damaged or cut off"):
        read_picture(data[: len(data) // 2])


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


def test_an_upright_picture_is_not_turned_again():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    once = read_picture(encode(Image.new("RGB", (30, 20)), "JPEG", exif=exif, comment=b"x")).image
    assert once.size == read_picture(once).image.size == (20, 30)
    assert once.info == {} and not once.getexif()
