"""Faces, light and sharpness, on photographs that come with scikit-image and drawn ones."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.photo import faces as assess
from dclib.photo.faces import HAAR, LBP, blur, detector, find_faces, overlap, why_not

FACE = (172, 62, 277, 167)  # of the astronaut


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


@pytest.fixture(params=[HAAR, LBP])
def each_detector(request, monkeypatch):
    if request.param == LBP:
        monkeypatch.setattr(assess, "_haar", lambda: None)
    elif detector() != HAAR:
        pytest.skip("this OpenCV has no Haar cascade")
    return request.param


def test_finds_the_face_where_it_is(each_detector, astronaut):
    assert detector() == each_detector
    shifted = Image.new("RGB", (700, 600), "grey")
    shifted.paste(astronaut, (150, 60))
    moved = np.array(FACE) + np.array([150, 60, 150, 60])
    best = max(overlap(np.array(box), moved) for box in find_faces(shifted))
    assert best > 0.6


@pytest.mark.parametrize("tilt", [-20, 0, 20])
def test_finds_two_that_lean(each_detector, astronaut, tilt):
    two = np.tile(np.asarray(astronaut.crop((60, 0, 400, 300))), (1, 2, 1))
    assert len(find_faces(Image.fromarray(two).rotate(tilt, Image.BICUBIC))) >= 2


def test_a_tilted_box_is_where_the_face_is(astronaut):
    """The middle of the box, tilted back, is the middle of the face in the upright picture."""
    tilt, middle = 20, np.array(astronaut.size) / 2
    boxes = [np.array(box) for box in find_faces(astronaut.rotate(tilt, Image.BICUBIC))]
    across, down = (np.array(FACE)[:2] + np.array(FACE)[2:]) / 2 - middle
    cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    expected = middle + np.array([across * cos + down * sin, -across * sin + down * cos])
    assert min(np.abs((box[:2] + box[2:]) / 2 - expected).max() for box in boxes) < 20


@pytest.mark.parametrize("name", ["coffee", "brick", "grass", "gravel", "rocket"])
def test_finds_no_couple_where_nobody_is(each_detector, name):
    assert len(find_faces(Image.fromarray(getattr(data, name)()).convert("RGB"))) < 2


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (23, 23)])
def test_slivers_have_no_faces_and_no_errors(each_detector, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    assert find_faces(image) == ()
    assert "too small" in why_not(image)[0]


def test_boxes_are_pixels_of_the_picture_itself(astronaut):
    small = find_faces(astronaut.resize((256, 256)))
    large = find_faces(astronaut.resize((2048, 2048)))
    np.testing.assert_allclose(np.array(large[0]) / 8, small[0], atol=12)


def test_photographs_and_drawings_that_are_fine_have_no_reason(astronaut):
    for image in (astronaut, Image.fromarray(data.coffee()), Image.fromarray(data.chelsea())):
        assert why_not(image) == ()
    for index in range(20):
        assert why_not(draw_scene(sample_scene(0, index)[0], 256)) == ()


def test_blur_grows_with_blurring_whatever_the_contrast(astronaut):
    grey = astronaut.convert("L").resize((256, 256))
    effects = [blur(np.asarray(grey.filter(ImageFilter.GaussianBlur(s)))) for s in (0, 1, 2, 4)]
    assert effects == sorted(effects)
    faint = grey.filter(ImageFilter.GaussianBlur(2)).point(lambda v: 100 + v // 3)
    assert blur(np.asarray(faint)) == pytest.approx(effects[2], abs=0.06)


def test_a_sharp_couple_before_a_blurred_background_is_sharp(astronaut):
    image = astronaut.filter(ImageFilter.GaussianBlur(16))
    assert any("blurred" in reason for reason in why_not(image))
    image.paste(astronaut.crop((150, 40, 330, 220)), (150, 40))
    assert why_not(image) == ()


def test_reasons_follow_the_faces(astronaut):
    box = tuple(map(float, FACE))
    assert why_not(astronaut, None) == why_not(astronaut, (box, box)) == ()
    assert "No face" in why_not(astronaut, ())[0]
    assert "Only one face" in why_not(astronaut, (box,))[0]


def test_overlap_is_that_of_areas():
    a, b = np.array([0, 0, 4, 4]), np.array([2, 2, 6, 6])
    assert overlap(a, b) == pytest.approx(4 / 28)
    assert overlap(a, a) == 1 and overlap(a, a + 10) == 0
