"""YuNet on photographs that come with scikit-image, and on couples composed of such faces."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from skimage import data

from dclib.files import file_hash
from dclib.framing import faces
from dclib.framing.faces import YUNET, Face, find_faces, overlap

FACE = (172, 62, 277, 167)  # of the astronaut


def test_the_network_lies_in_the_package_with_its_licence():
    assert file_hash(YUNET).startswith("8f2383e4dd3cfbb4")  # as OpenCV Zoo gives it
    licence = (YUNET.parent / "LICENSE").read_text()
    assert "MIT License" in licence and "Shenzhen Institute of Artificial Intelligence" in licence


def test_finds_the_face_where_it_is_with_its_five_points(astronaut):
    shifted = Image.new("RGB", (700, 600), "grey")
    shifted.paste(astronaut, (150, 60))
    (face,) = find_faces(shifted)
    assert overlap(face.box, tuple(np.array(FACE) + np.array([150, 60] * 2))) > 0.6
    assert 0.8 < face.score <= 1
    left, right, nose, *mouth = np.array(face.points)
    assert left[0] < nose[0] < right[0] and max(left[1], right[1]) < nose[1] < min(mouth[0][1], 224)
    assert not face.in_profile


@pytest.mark.parametrize("tilt", [-20, 20])
def test_finds_two_that_lean(astronaut, tilt):
    two = np.tile(np.asarray(astronaut.crop((60, 0, 400, 300))), (1, 2, 1))
    assert len(find_faces(Image.fromarray(two).rotate(tilt, Image.BICUBIC))) == 2


@pytest.mark.parametrize("name", ["coffee", "brick", "grass", "gravel", "rocket", "chelsea"])
def test_finds_nobody_where_nobody_is(name):
    assert find_faces(Image.fromarray(getattr(data, name)()).convert("RGB")) == ()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (23, 23), (512, 32), (16, 256)])
def test_slivers_have_no_faces_and_no_errors(size):
    """OpenCV 4 finds faces of any size and place in them, in memory that it never wrote."""
    for seed in range(5):
        noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        assert find_faces(Image.fromarray(noise)) == ()


def test_boxes_are_pixels_of_the_picture_itself(astronaut):
    small, large = (find_faces(astronaut.resize((side, side)))[0].box for side in (256, 2048))
    np.testing.assert_allclose(np.array(large) / 8, small, atol=3)


def test_several_threads_do_not_disturb_each_other(astronaut):
    pictures = [ImageOps.expand(astronaut, (40 * k, 25 * k)) for k in range(6)] * 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find_faces, pictures)) == list(map(find_faces, pictures))


def test_a_small_doubtful_face_counts_only_if_it_is_seen_at_half_the_size(monkeypatch):
    def face(x, side, score):
        return Face((x, 0, x + side, side), score, ((0, 0),) * 5)

    large, pattern, child = face(0, 90, 0.9), face(200, 30, 0.8), face(300, 30, 0.8)
    sure = face(400, 30, 0.95)
    seen = {512: [large, pattern, child, sure], 256: [large, face(301, 30, 0.7)]}
    monkeypatch.setattr(faces, "_scan", lambda image, side: seen[side])
    assert find_faces(None) == (large, child, sure)


@pytest.mark.parametrize("nose, profile", [(50, False), (5, False), (-3, True), (104, True)])
@pytest.mark.parametrize("tilt", [0, 60])
def test_a_nose_outside_the_eyes_is_a_profile_however_the_head_leans(nose, profile, tilt):
    cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    points = np.array([(0, 0), (100, 0), (nose, 40), (20, 80), (80, 80)]) @ [
        [cos, sin],
        [-sin, cos],
    ]
    assert Face((0, 0, 1, 1), 1, tuple(map(tuple, points))).in_profile == profile


def test_overlap_is_that_of_areas():
    assert overlap((0, 0, 4, 4), (2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert overlap((0, 0, 4, 4), (0, 0, 4, 4)) == 1 and overlap((0, 0, 4, 4), (9, 9, 12, 12)) == 0


def test_finds_composed_couples_and_nobody_else(real_couples):
    table = pd.read_csv(real_couples / "val" / "metadata.csv")[::4]
    both = 0
    for name, text in zip(table["file_name"], table["boxes"]):
        found = [
            face.box for face in find_faces(Image.open(real_couples / "val" / name).convert("RGB"))
        ]
        known = json.loads(text)
        assert all(any(overlap(box, other) > 0.3 for other in known) for box in found), name
        both += all(any(overlap(box, other) > 0.3 for box in found) for other in known)
    assert both / len(table) >= 0.955
