"""The frame around a couple: nothing squashed, and every place known in the picture."""

import numpy as np
import pytest
from PIL import Image

from dclib.cells import spread
from dclib.framing import BEYOND, KINDS, frame_picture, pick_two

BOXES = ((60, 40, 80, 64), (100, 50, 124, 70))  # sides of 22 on average


def numbered(width, height):
    """Every pixel tells its own place: red across, green down."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([across, down, 0 * across + 200], 2).astype(np.uint8))


@pytest.fixture(scope="module")
def picture():
    return numbered(200, 150)


def test_whole_is_the_picture_itself(picture):
    frame = frame_picture(picture, (), "whole")
    assert frame.image is picture
    assert frame.to_picture(BOXES) == [tuple(map(float, box)) for box in BOXES]
    values = np.random.default_rng(0).normal(size=(5, 7))
    for smooth in (False, True):
        expected = spread(values, (75, 100), (150, 200), smooth)
        np.testing.assert_allclose(frame.spread(values, (75, 100), (150, 200), smooth), expected)


@pytest.mark.parametrize("margin, side", [(0, 64), (0.5, 86), (1, 108)])
def test_couple_is_a_square_around_both_with_a_margin_in_sides_of_a_face(picture, margin, side):
    frame = frame_picture(picture, BOXES, "couple", margin)
    assert frame.image.size == (side, side)
    ((x0, y0, x1, y1), _) = frame.pieces[0]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (92, 55) and (y0 >= 0 or margin == 0)
    shown = np.asarray(frame.image)
    assert shown[0, 0].tolist() == [x0, y0, 200]  # the pixel that was there


def test_faces_are_two_squares_from_left_to_right(picture):
    frame = frame_picture(picture, BOXES[::-1], "faces", 0.5)
    assert frame.image.size == (88, 44)
    shown = np.asarray(frame.image).astype(int)
    assert shown[22, [22, 66], :2] == pytest.approx(np.array([(70, 52), (112, 60)]), abs=1)
    middle = [(20, 20, 24, 24), (64, 20, 68, 24)]
    assert frame.to_picture(middle) == [(68, 50, 72, 54), (110, 58, 114, 62)]


def test_faces_of_two_sizes_become_equally_large(picture):
    frame = frame_picture(picture, ((10, 10, 30, 30), (100, 50, 140, 90)), "faces", 0)
    assert frame.image.size == (80, 40)
    assert frame.to_picture([(0, 0, 40, 40), (40, 0, 80, 40)]) == [
        (10, 10, 30, 30),
        (100, 50, 140, 90),
    ]


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("corner", [(-5, -5), (185, 135), (-5, 135)])
def test_what_reaches_beyond_is_moved_into_the_picture(picture, kind, corner):
    (x, y), size = corner, 20
    frame = frame_picture(picture, ((x, y, x + size, y + size),) * 2, kind, 0.25)
    assert (np.asarray(frame.image)[..., 2] == 200).all()  # nothing but pixels of the picture
    for piece in frame.pieces:
        assert min(piece.source) >= 0 and piece.source[2] <= 200 and piece.source[3] <= 150


def test_what_does_not_fit_is_padded_around_the_whole_height():
    picture = numbered(240, 60)
    frame = frame_picture(picture, ((20, 10, 50, 50), (180, 10, 220, 50)), "couple", 0)
    shown = np.asarray(frame.image)
    ((x0, y0, x1, y1), _) = frame.pieces[0]
    assert (x0, x1) == (20, 220) and y0 <= 0 and y1 >= 60 and y1 - y0 == 200
    beyond = (shown == BEYOND).all(2)
    assert beyond.sum() == 200 * 140 and not beyond[round(-y0) : round(-y0) + 60].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(200, 150), (90, 150)])
def test_a_place_in_the_frame_is_where_its_pixel_came_from(kind, size):
    picture = numbered(*size)
    frame = frame_picture(picture, ((10, 30, 40, 58), (50, 50, 84, 86)), kind, 0.1)
    shown = np.asarray(frame.image).astype(float)
    for y, x in np.random.default_rng(0).integers(
        2, np.array(frame.image.size)[::-1] - 2, (200, 2)
    ):
        ((x0, y0, x1, y1),) = frame.to_picture([(x, y, x + 1, y + 1)])
        if shown[y, x, 2] == 200 and min(x0, y0) > 1:
            assert ((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2) == pytest.approx(shown[y, x, :2], abs=1)


def test_a_map_lies_in_the_picture_where_it_was_computed(picture):
    """Each cell of 32 pixels of the input is one colour of the frame; both go the same way."""
    frame = frame_picture(picture, BOXES, "faces", 0.3)
    side = frame.image.height
    values = np.arange(1.0, 9).reshape(2, 4)
    size = (64, 128)  # of the input: cells end at 16, 48, 80, 112 of it
    placed = frame.spread(values, (150, 200), size)
    for down, across, value in ((0.1, 0.05, 1), (0.5, 0.25, 6), (0.1, 0.6, 3), (0.6, 0.95, 8)):
        x, y = across * 2 * side, down * side
        ((x0, y0, x1, y1),) = frame.to_picture([(x, y, x, y)])
        assert placed[int(y0), int(x0)] == value
    outside = np.ones((150, 200), bool)
    for piece in frame.pieces:
        x0, y0, x1, y1 = map(int, piece.source)
        outside[y0:y1, x0:x1] = False
    assert not placed[outside].any() and placed[~outside].all()
    halves = frame.spread(values, (75, 100), size)
    assert (halves == placed[1::2, 1::2]).mean() > 0.99


@pytest.mark.parametrize(
    "size, fitted", [((400, 300), (85, 64)), ((30, 30), (64, 64)), ((9, 900), (2, 192))]
)
def test_the_input_keeps_the_shape_of_the_frame(size, fitted):
    frame = frame_picture(Image.new("RGB", size), (), "whole")
    assert frame.fit(64).size == fitted


def test_other_kinds_and_numbers_of_faces_are_refused(picture):
    with pytest.raises(ValueError, match="kind must be one of whole, couple, faces, not 'face'"):
        frame_picture(picture, BOXES, "face")
    for kind in KINDS[1:]:
        with pytest.raises(ValueError, match="the boxes of two faces, not of 1"):
            frame_picture(picture, BOXES[:1], kind)


def test_the_couple_is_large_and_central():
    size = (400, 300)
    couple = [(120, 100, 180, 160), (210, 110, 270, 170)]
    behind, edge = (190, 40, 215, 65), (0, 0, 66, 66)
    assert pick_two([behind, couple[0], edge, couple[1]], size) == (1, 3)
    assert pick_two([edge, behind], size) == (0, 1)
    assert pick_two([behind], size) == (0,) and pick_two([], size) == ()
