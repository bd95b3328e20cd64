import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from dclib import pictures
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.scrape.duplicates import Unsuitable, distances, examine, fingerprints, sniff

SECRET = b"48.137154 Jane Doe"


@pytest.fixture(scope="module")
def drawn():
    """A drawn couple, 300 x 240 pixels."""
    return draw_scene(sample_scene(1, 0)[0], 300).crop((0, 30, 300, 270))


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def kept(content):
    """The picture that examine() keeps, as it is read again."""
    return Image.open(io.BytesIO(examine(content)[1]))


def difference(image, other):
    """Mean absolute difference in grey levels."""
    return np.abs(np.asarray(image, float) - np.asarray(other, float)).mean()


def reason(content):
    with pytest.raises(Unsuitable) as error:
        examine(content)
    assert str(error.value).startswith(error.value.reason)
    return error.value.reason


def exif(**tags):
    found = Image.Exif()
    found[0x010E] = SECRET.decode()  # description
    found.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.75)})  # GPS
    found.update(tags.get("tags", {}))
    return found


turn = Image.Transpose
UNDONE_BY = {  # EXIF mark -> what a camera did to a picture that the mark undoes
    **{2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE},
    **{6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270},
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mark", range(1, 9))
def test_pictures_are_kept_upright(kind, mark, drawn):
    stored = drawn if mark == 1 else drawn.transpose(UNDONE_BY[mark])
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    content = encode(stored, kind, exif=exif(tags={0x0112: mark}), **options)
    facts, jpeg = examine(content)
    assert (facts["width"], facts["height"]) == drawn.size
    assert difference(Image.open(io.BytesIO(jpeg)), drawn) < 3


def test_no_metadata_is_kept(drawn):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_text("exif", SECRET.decode())
    extras = {"exif": exif(), "xmp": SECRET, "icc_profile": profile, "dpi": (300, 300)}
    for content in (
        encode(drawn, "JPEG", comment=SECRET, **extras),
        encode(drawn, "PNG", pnginfo=text, exif=exif(), icc_profile=profile),
        encode(drawn, "WEBP", exif=exif(), xmp=SECRET, icc_profile=profile),
    ):
        assert SECRET in content
        jpeg = examine(content)[1]
        assert b"Jane" not in jpeg and b"Exif" not in jpeg
        again = Image.open(io.BytesIO(jpeg))
        assert set(again.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not again.getexif()
        assert again.format == "JPEG"


@pytest.mark.parametrize("odd", [b"\x01\x1a\x00\x02", b"\x01\x1a\x00\x07", b"\x01\x01\x00\x05"])
def test_marks_that_make_no_sense_spoil_no_picture(odd, drawn):
    """Found by changing bytes at random: marks of wrong types, which Pillow cannot write again."""
    marks = exif(tags={0x0112: 6, 0x011A: 72.5})  # 0x011A: resolution, type 5
    content = encode(drawn.transpose(UNDONE_BY[6]), exif=marks, quality=95)
    assert content.count(b"\x01\x1a\x00\x05") == 1
    assert difference(kept(content.replace(b"\x01\x1a\x00\x05", odd)), drawn) < 3


def modes(drawn):
    """What the kept picture should look like, and a file in an odd mode."""
    grey, deep = drawn.convert("L"), np.asarray(drawn.convert("L")).astype(np.uint16) * 257
    alpha = drawn.copy()
    alpha.putalpha(Image.new("L", drawn.size, 128))
    on_white = Image.blend(Image.new("RGB", drawn.size, "white"), drawn, 128 / 255)
    palette = drawn.quantize(64)
    return {
        "CMYK": (drawn, encode(drawn.convert("CMYK"), "JPEG", quality=95)),
        "16 bit": (grey.convert("RGB"), encode(Image.fromarray(deep), "PNG")),
        "grey": (grey.convert("RGB"), encode(grey, "JPEG", quality=95)),
        "alpha": (on_white, encode(alpha, "PNG")),
        "palette": (palette.convert("RGB"), encode(palette, "PNG")),
        "palette, transparent": (None, encode(palette, "PNG", transparency=3)),
        "progressive": (drawn, encode(drawn, "JPEG", progressive=True, quality=95)),
    }


@pytest.mark.parametrize("mode", modes(Image.new("RGB", (2, 2))))
def test_every_mode_becomes_rgb(mode, drawn):
    expected, content = modes(drawn)[mode]
    image = kept(content)
    assert (image.mode, image.size) == ("RGB", drawn.size)
    if expected is not None:
        assert difference(image, expected) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind, drawn):
    frames = [drawn, ImageOps.mirror(drawn)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert reason(content) == "animated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_half_a_file_is_refused(kind, part, drawn):
    content = encode(drawn, kind)
    assert reason(content[: int(len(content) * part)]) == "damaged or too large"


def test_too_many_pixels_are_refused_before_they_are_decoded(drawn, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 300 * 240 - 1)
    assert reason(encode(drawn)) == "damaged or too large"
    monkeypatch.setattr(pictures, "MAX_PIXELS", 300 * 240)
    examine(encode(drawn))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 200), None),
        ((199, 400), "too small"),
        ((400, 199), "too small"),
        ((1, 1), "too small"),
        ((600, 200), None),
        ((200, 600), None),
        ((601, 200), "too long"),
        ((200, 601), "too long"),
    ],
)
def test_size_and_shape_have_limits(size, expected, drawn):
    content = encode(drawn.resize(size))
    if expected:
        assert reason(content) == expected
    else:
        assert examine(content)[0]["width"] == size[0]


def test_the_upright_picture_is_measured_not_the_stored_one(drawn):
    content = encode(drawn.resize((600, 250)), exif=exif(tags={0x0112: 6}))
    facts = examine(content)[0]
    assert (facts["width"], facts["height"]) == (250, 600)


@pytest.mark.parametrize("colour", ["white", "black", "#3060a0"])
def test_one_colour_is_no_picture(colour):
    assert reason(encode(Image.new("RGB", (400, 300), colour), "PNG")) == "nothing in it"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"GIF89a" + bytes(50), "GIF"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"BM" + bytes(50), "BMP"),
        (b"II*\x00" + bytes(20), "TIFF"),
        (b"PK\x03\x04", "ZIP"),
        (b'{"error": "no"}', "JSON"),
        (b"<!doctype html><p>please log in", "HTML or SVG"),
        (b"\n\t <svg onload='alert(1)'>", "HTML or SVG"),
        (b"RIFF\x00\x00\x00\x00WAVE", "an unknown kind of file"),
        (b"\x00\x00\x00\x20ftypavif" + bytes(50), "an unknown kind of file"),
        (b"  \xff\xd8\xff\xe0", "JPEG"),
    ],
)
def test_what_a_file_is_shows_in_its_first_bytes(content, kind):
    assert sniff(content) == kind
    if kind != "JPEG":
        assert reason(content) == "not a picture"
        with pytest.raises(Unsuitable, match=f"begins like {kind}"):
            examine(content)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_kinds_that_the_web_does_not_use_for_photos_are_refused(kind, drawn):
    assert reason(encode(drawn, kind)) == "not a picture"


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 "])
@pytest.mark.parametrize("rest", [b"<html><script>alert(1)</script>", bytes(5000)])
def test_a_lie_in_the_first_bytes_is_found(magic, rest):
    assert reason(magic + rest) == "damaged or too large"


def test_a_script_behind_a_picture_is_not_kept(drawn):
    script = b"<script>alert(1)</script>"
    jpeg = examine(encode(drawn) + script)[1]
    assert script not in jpeg
    assert difference(Image.open(io.BytesIO(jpeg)), drawn) < 5


def test_facts_are_those_of_the_original(drawn):
    large = drawn.resize((1500, 1200))
    content = encode(large, "PNG")
    facts, jpeg = examine(content)
    assert (facts["width"], facts["height"], facts["bytes"]) == (1500, 1200, len(content))
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    means = [facts[name] for name in ("red", "green", "blue")]
    assert means == pytest.approx(np.asarray(large).mean((0, 1)).tolist(), abs=0.5)
    image = Image.open(io.BytesIO(jpeg))
    assert image.size == (1024, 819)
    assert distances([facts], [fingerprints(image.convert("RGB"))]) <= 2


def test_the_mean_of_a_colour_is_where_it_belongs():
    image = Image.new("RGB", (400, 300), (200, 100, 0))
    image.paste((100, 100, 100), (0, 0, 200, 300))
    facts = examine(encode(image, "PNG"))[0]
    assert (facts["red"], facts["green"], facts["blue"]) == (150.0, 100.0, 50.0)


def test_the_same_bytes_give_the_same_jpeg(drawn):
    content = encode(drawn, "PNG")
    assert examine(content) == examine(content)
    assert examine(content)[1] == examine(encode(drawn, "PNG", compress_level=1))[1]
    assert (
        examine(content)[0]["sha256"]
        != examine(encode(drawn, "PNG", compress_level=1))[0]["sha256"]
    )


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"])
)
def test_noise_is_refused_with_a_reason(noise, magic):
    reason(magic + noise)
