"""Colours against numbers that others have published."""

import numpy as np
import profiles
import pytest
from PIL import ExifTags, Image, ImageCms

from dclib.pictures import encode, read_picture
from dclib.pictures.colour import ADOBE, BT2020, HLG, P3, PQ, PRIMARIES, _transform, by_coding

PROPHOTO = (0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105)
# From light in red, green and blue of each to that of sRGB, as Bruce Lindbloom and others give it.
TO_SRGB = {
    "Adobe RGB": [[1.3984, -0.3984, 0], [0, 1, 0], [0, -0.0429, 1.0429]],
    "P3": [[1.2249, -0.2249, 0], [-0.0421, 1.0421, 0], [-0.0196, -0.0786, 1.0983]],
    "ProPhoto": [
        [2.0343, -0.7275, -0.3068],
        [-0.2288, 1.2317, -0.0029],
        [-0.0085, -0.1533, 1.1618],
    ],
    "BT.2020": [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
}
SCREENS = {
    "Adobe RGB": (PRIMARIES[ADOBE], 563 / 256, profiles.D65),
    "P3": (PRIMARIES[P3], 2.2, profiles.D65),
    "ProPhoto": (PROPHOTO, 1.8, profiles.D50),
    "BT.2020": (PRIMARIES[BT2020], 2.2, profiles.D65),
}
COLOURS = np.uint8([(200, 90, 60), (110, 150, 90), (120, 110, 170), (128,) * 3, (220, 180, 160)])
UNREAD = "Its colour profile makes no sense; the colours are as they are stored."


def known(name, gamma):
    """What COLOURS of a screen are in sRGB, by the published matrix."""
    light = np.clip((COLOURS / 255) ** gamma @ np.array(TO_SRGB[name]).T, 0, 1)
    return 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_screens_with_a_profile(name, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    options["icc_profile"] = profiles.rgb(*SCREENS[name])
    read, notes = read_picture(encode(Image.fromarray(COLOURS[None]), kind, **options))
    expected = known(name, SCREENS[name][1])
    assert np.abs(np.asarray(read)[0] - expected).max() <= 2 and not notes
    assert np.abs(COLOURS - expected).max() > 10  # there was something to do


def test_a_picture_given_as_it_is_keeps_its_pixels_and_profile():
    image = Image.fromarray(COLOURS[None])
    image.info["icc_profile"] = profiles.rgb(*SCREENS["P3"])
    read = read_picture(image).image
    assert np.array_equal(np.asarray(image)[0], COLOURS) and "icc_profile" in image.info
    assert np.abs(np.asarray(read)[0] - known("P3", 2.2)).max() <= 2
    assert np.array_equal(read_picture(read).image, read)  # once


def test_grey_and_grey_with_a_profile_of_colours():
    image = Image.new("L", (4, 4), 128)
    linear = read_picture(encode(image, "PNG", icc_profile=profiles.grey(1.0))).image
    assert linear.getpixel((0, 0)) == pytest.approx((188,) * 3, abs=1)  # half of the light
    both = encode(image.convert("LA"), "PNG", icc_profile=profiles.rgb(*SCREENS["P3"]))
    read, notes = read_picture(both)
    assert read.getpixel((0, 0)) == pytest.approx((128,) * 3, abs=2) and not notes


@pytest.mark.parametrize("inks", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)])
def test_a_print_has_the_colours_of_its_inks(inks):
    image = Image.new("CMYK", (8, 8), tuple(255 * ink for ink in (*inks, 0)))
    data = encode(image, "TIFF", icc_profile=profiles.cmyk())
    lab = Image.new("LAB", (1, 1))
    lightness, a, b = profiles.INKS[inks]
    lab.putpixel((0, 0), (round(lightness * 2.55), a + 128, b + 128))
    seen, printed = read_picture(data).image.getpixel((0, 0)), lab.convert("RGB").getpixel((0, 0))
    assert seen == pytest.approx(printed, abs=20)  # a press's black is lighter than a screen's
    assert np.abs(np.subtract(image.convert("RGB").getpixel((0, 0)), printed)).max() > 30


@pytest.mark.parametrize("profile", [b"nonsense", profiles.cmyk(), profiles.cmyk()[:300]])
def test_a_profile_that_makes_no_sense_is_passed_over_with_a_note(profile):
    image = Image.fromarray(COLOURS[None])
    read, notes = read_picture(encode(image, "PNG", icc_profile=profile))
    assert notes == (UNREAD,) and np.array_equal(np.asarray(read)[0], COLOURS)


def test_profiles_of_srgb_cost_nothing():
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert _transform(own) == ("RGB", None)


def test_adobe_rgb_as_cameras_say_it():
    marks = Image.Exif()
    marks[ExifTags.Base.Make] = "camera"
    marks.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    read = read_picture(encode(Image.fromarray(COLOURS[None]), "PNG", exif=marks)).image
    assert np.abs(np.asarray(read)[0] - known("Adobe RGB", 563 / 256)).max() <= 3


@pytest.mark.parametrize(
    "curve, signal, level", [(HLG, 0.38, 118), (HLG, 0.75, 244), (PQ, 0.38, 100), (PQ, 0.58, 244)]
)
def test_grey_card_and_white_of_hdr(curve, signal, level):
    """ITU-R BT.2408: a grey card of 18 % is at 38 %, in PQ of 26 cd/m2; white at 75 % or 58 %."""
    grey = Image.new("RGB", (1, 1), (round(255 * signal),) * 3).filter(by_coding(BT2020, curve))
    assert grey.getpixel((0, 0)) == pytest.approx((level,) * 3, abs=4)


def test_ordinary_codings_cost_nothing():
    assert {by_coding(p, t) for p in (1, 2, 5, 6) for t in (1, 2, 6, 13)} == {None}
