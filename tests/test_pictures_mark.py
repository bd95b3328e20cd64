"""A drawing says that it is one, and where its couple is."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from dclib.drawn import our_couple
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import encode, read_picture
from dclib.pictures.mark import COMMENT, drawn_faces


def test_the_mark_goes_with_the_picture_and_its_file():
    scene, _ = sample_scene(0, 0)
    picture = draw_scene(scene, 128)
    expected = np.array([person.face_box() for person in scene.couple]) * 128
    changed = picture.convert("L"), picture.point(lambda v: v // 2), encode(picture)
    for source in (picture, *changed):
        assert drawn_faces(read_picture(source).image) == pytest.approx(expected, abs=0.02)
    larger = drawn_faces(picture.resize((256, 256)))
    assert larger == pytest.approx(2 * expected, abs=0.02)


def test_a_drawing_that_its_file_turns_is_a_photograph():
    """As viewers turn a picture: its pixels stay, and so do the places in its comment."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    assert drawn_faces(read_picture(encode(our_couple(size=64), exif=turned)).image) is None


@pytest.mark.parametrize("rest", [b"", b"nonsense", b"[[1, 2]]", b"3", b"[" * 10_000])
def test_other_comments_say_nothing(rest):
    picture = our_couple(size=64)
    picture.info["comment"] = COMMENT + rest
    assert drawn_faces(picture) is None
    picture.info = {"comment": b"the two of us", "software": "a camera's"}
    assert drawn_faces(picture) is None and read_picture(picture).image.info == {}
    assert drawn_faces(Image.new("RGB", (9, 9))) is None
