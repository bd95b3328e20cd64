"""Every kind of file that people really have."""

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
    tensor = torch.from_numpy(pixels.copy()).movedim(-1, 0)  # (3, H, W)
    for source in (tensor, (tensor / 255).requires_grad_(), (tensor / 255).double()):
        assert np.array_equal(read_picture(source).image, pixels)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "not a picture that can be read"),
        (b"just text", "not a picture that can be read"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "a damaged HEIF"),
        (b"\xff\x0a" + bytes(50), "JPEG XL picture, which is not read here; export it as JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL picture"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "a camera's raw file, which is not read here"),
        (b"FUJIFILMCCD-RAW" + bytes(50), "a camera's raw file"),
        (b"IIU\0" + bytes(50), "a camera's raw file"),
        (b"IIRO" + bytes(50), "a camera's raw file"),
        (b"\0\0\0\x18ftypcrx " + bytes(50), "a camera's raw file"),
        (b"II*\0" + bytes(50), "if it is a camera's raw file, export it as JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture that can be read"),
        (np.zeros((4, 4, 2), np.uint8), r"must be \(H, W\)"),
        (np.zeros((0, 4), np.uint8), "cannot be used"),
        (np.full((4, 4), 7.5), "values from 0 to 1"),
        (np.full((4, 4), np.nan), "values from 0 to 1"),
        (np.zeros((4, 4), np.int64), "uint8, uint16 or floating"),
        (None, "is a path, bytes.* not a NoneType"),
        ([[0] * 999] * 999, "not a list"),
        (torch.zeros(3, 4), "not a Tensor of shape .3, 4."),
        (torch.full((3, 4, 4), 1.5, dtype=torch.bfloat16), "values from 0 to 1"),
        (torch.full((3, 4, 4), 1.5, requires_grad=True), "values from 0 to 1"),
        (torch.zeros(2, 3, 4, 4), "not a Tensor"),
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


def test_a_very_large_jpeg_is_read_at_half_its_size():
    data = encode(half_red_half_blue(12_000, 8_000), "JPEG")
    assert len(data) < 2_000_000
    image, notes = read_picture(data)
    assert image.size == (6000, 4000) and notes == ("This file was read at half its size.",)
    assert colours(image)[0] == pytest.approx(RED, abs=12)
    at = data.index(b"\xff\xc0") + 5
    larger = data[:at] + (20_000).to_bytes(2, "big") * 2 + data[at + 4 :]
    for refused in (larger, encode(half_red_half_blue(9_000, 9_000), "JPEG", progressive=True)):
        with pytest.raises(PictureError, match="more than 80 million pixels"):
            read_picture(refused)


def test_two_hundred_million_pixels_are_let_in(monkeypatch):
    """A telephone's largest pictures; decoding one would take this test half a minute."""
    data = encode(half_red_half_blue(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    large = data[:at] + (12_240).to_bytes(2, "big") + (16_320).to_bytes(2, "big") + data[at + 4 :]
    monkeypatch.setattr(JpegImageFile, "load", lambda self: 1 / 0)
    with pytest.raises(PictureError, match="division by zero"):
        read_picture(large)


def test_of_a_gain_map_jpeg_the_base_picture():
    gains = half_red_half_blue().convert("L").resize((30, 20))
    data = encode(half_red_half_blue(), "MPO", save_all=True, append_images=[gains])
    image, notes = read_picture(data)
    assert image.size == (60, 40) and not notes
    assert colours(image)[0] == pytest.approx(RED, abs=12)


@pytest.mark.parametrize("text", ["data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo=" * 400])
def test_a_picture_as_text_gets_one_short_sentence(text):
    with pytest.raises(FileNotFoundError, match="is the picture itself as text, decode") as caught:
        read_picture(text)
    assert len(str(caught.value)) < 150


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
