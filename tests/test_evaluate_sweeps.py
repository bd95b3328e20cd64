import io
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from dclib.data.loading import EvalTransform
from dclib.evaluate.robustness import SWEEPS, change_picture, choose_levels, input_size, prepare

BOXES = [(10, 20, 50, 60), (70, 10, 90, 50)]


@pytest.fixture(scope="module")
def picture():
    """120 x 120 px: smooth colours with sharp edges, nowhere black, white or grey."""
    y, x = np.mgrid[:120, :120]
    pixels = np.stack([40 + x, 60 + y // 2, 90 + (x + y) // 6], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).rectangle((30, 40, 80, 70), fill=(120, 50, 90))
    return image


def changed(picture, kind, level, **options):
    return np.asarray(change_picture(picture, kind, level, BOXES, **options)).astype(float)


@pytest.mark.parametrize("kind", [kind for kind in SWEEPS if kind != "size"])
def test_at_the_reference_nothing_changes(picture, kind):
    reference = SWEEPS[kind].reference
    assert (changed(picture, kind, reference) == np.asarray(picture)).all()
    assert input_size(kind, reference, 64) == (64, 64)


@pytest.mark.parametrize("kind", ["brightness", "blur", "noise", "rotation", "hidden"])
def test_the_operation_itself_does_nothing_there(picture, kind):
    sweep = SWEEPS[kind]
    done = sweep.change(picture, BOXES, sweep.reference, np.random.default_rng(0))
    assert (np.asarray(done) == np.asarray(picture)).all()


def test_no_operation_changes_the_picture_it_was_given(picture):
    before = np.asarray(picture).copy()
    for kind, sweep in SWEEPS.items():
        for level in sweep.levels:
            change_picture(picture, kind, level, BOXES)
    assert (np.asarray(picture) == before).all()


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.5])
def test_brightness_multiplies_what_is_not_clipped(picture, factor):
    expected = np.asarray(picture) * factor
    assert np.abs(changed(picture, "brightness", factor) - expected).max() <= 1
    assert changed(picture, "brightness", 100).min() == 255


def test_hue_turns_the_colour_circle():
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    for degrees, colour in {120: (0, 200, 0), -120: (0, 0, 200), 60: (200, 200, 0)}.items():
        assert np.abs(changed(red, "hue", degrees) - colour).max() <= 6  # 256 steps a turn
    grey = Image.new("RGB", (8, 8), (90, 90, 90))
    assert (changed(grey, "hue", 70) == 90).all()


def test_blur_is_gaussian_with_sigma_in_shares_of_the_shorter_side():
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[40:60, 60:100] = 240
    found = changed(Image.fromarray(pixels), "blur", 0.05)
    expected = gaussian_filter(pixels.astype(float), (5, 5, 0))
    assert np.abs(found - expected).max() < 6
    assert found.max() < 240


def test_noise_has_its_sigma_and_the_same_grain_at_every_level():
    grey = Image.new("RGB", (100, 100), (128,) * 3)
    weak, strong = (changed(grey, "noise", sigma) - 128 for sigma in (5, 20))
    assert weak.std() == pytest.approx(5, rel=0.03) and strong.std() == pytest.approx(20, rel=0.03)
    assert abs(strong.mean()) < 0.5
    assert np.abs(strong - 4 * weak).max() <= 2.5  # both were rounded
    assert (strong == changed(grey, "noise", 20) - 128).all()
    for options in ({"index": 1}, {"seed": 1}):
        other = changed(grey, "noise", 20, **options) - 128
        assert abs(np.corrcoef(strong.ravel(), other.ravel())[0, 1]) < 0.05


def test_the_lower_the_jpeg_quality_the_farther_from_the_picture(picture):
    grain = Image.fromarray(changed(picture, "noise", 10).astype(np.uint8))
    errors = [
        np.square(changed(grain, "jpeg", q) - np.asarray(grain)).mean() for q in (95, 50, 20, 5)
    ]
    assert errors == sorted(errors) and errors[0] < 0.5 * errors[-1]
    buffer = io.BytesIO()
    grain.save(buffer, "JPEG", quality=20)
    assert (changed(grain, "jpeg", 20) == np.asarray(Image.open(buffer))).all()


def test_rotation_by_a_right_angle_is_a_transposition_and_corners_are_black(picture):
    expected = picture.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise
    assert (changed(picture, "rotation", 90) == np.asarray(expected)).all()
    tilted = changed(picture, "rotation", 45)
    assert (tilted[0, 0] == 0).all() and (tilted[60, 60] > 0).all()
    assert (tilted == 0).all(axis=2).mean() == pytest.approx(3 - 2 * math.sqrt(2), abs=0.02)


@pytest.mark.parametrize("share", [0.25, 0.5, 1])
def test_hidden_covers_exactly_that_share_of_each_box_from_below(picture, share):
    found = changed(picture, "hidden", share)
    grey = (found == 127).all(axis=2)
    assert (found[~grey] == np.asarray(picture)[~grey]).all()
    assert grey.sum() == share * (40 * 40 + 20 * 40)
    for x0, y0, x1, y1 in BOXES:
        inside = grey[y0:y1, x0:x1]
        assert inside.mean() == share and inside[-1].all()


def test_hidden_boxes_may_reach_over_the_edge(picture):
    grey = np.asarray(change_picture(picture, "hidden", 1, [(-5.2, 100.4, 30.2, 140)])) == 127
    assert grey.all(axis=2).sum() == 30 * 20


def test_resolution_is_the_longer_side_and_never_grows(picture):
    wide = picture.resize((120, 60))
    assert change_picture(wide, "resolution", 30).size == (30, 15)
    same = change_picture(wide, "resolution", 200)
    assert (np.asarray(same) == np.asarray(wide)).all()


@pytest.mark.parametrize("level", SWEEPS["aspect"].levels)
def test_another_aspect_has_as_many_pixels(level):
    width, height = input_size("aspect", level, 224)
    assert width / height == pytest.approx(level, rel=0.01)
    assert width * height == pytest.approx(224**2, rel=0.01)


def test_the_preparation_is_the_usual_one(picture):
    transform = EvalTransform(40)
    assert (prepare(picture, transform, (40, 40)) == transform(picture)).all()
    assert prepare(picture, transform, (64, 32)).shape == (3, 32, 64)
    assert input_size("size", 384, 64) == (384, 384)


def test_levels_are_in_order_without_the_reference():
    assert list(choose_levels()) == list(SWEEPS)
    assert choose_levels("hue") == {"hue": [-90, -45, -20, 20, 45, 90]}
    assert choose_levels(["jpeg", "hue"], {"hue": (9, 0, -9)}) == {
        "jpeg": [5, 10, 20, 50, 95],
        "hue": [-9, 9],
    }


@pytest.mark.parametrize(
    ("kinds", "levels", "message"),
    [
        ("fog", None, "no sweep 'fog'"),
        (None, {"fog": (1,)}, "no sweep 'fog'"),
        ("blur", {"hue": (5,)}, "hue has levels but is not asked for"),
        ("hidden", {"hidden": (0.5, 1.5)}, "hidden lie from 0 to 1, not at 1.5"),
        ("jpeg", {"jpeg": (0,)}, "jpeg lie from 1 to 100"),
        ("size", {"size": (float("nan"),)}, "size lie from 1"),
    ],
)
def test_what_means_nothing_is_refused(kinds, levels, message):
    with pytest.raises(ValueError, match=message):
        choose_levels(kinds, levels)
