"""The frame around a couple: nothing squashed, and every place known in the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dclib.drawn import our_couple
from dclib.framing import BEYOND, KINDS, Frame, find_couple, frame_picture, pick_two, too_few
from dclib.framing.cells import spread
from dclib.pictures.mark import drawn_faces, mark_drawn

BOXES = ((60, 40, 80, 64), (100, 50, 124, 70))  # sides of 22 on average


def numbered(width, height):
    """Every pixel tells its own place: red across, green down."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([across, down, 0 * across + 200], 2).astype(np.uint8))


@pytest.fixture(scope="module")
def picture():
    return numbered(200, 150)


@pytest.mark.parametrize("size", [(200, 150), (90, 200)])
def test_whole_is_all_of_the_picture_in_its_own_shape(size):
    picture = numbered(*size)
    frame = frame_picture(picture, (), "whole", 200)
    shown, (left, top) = np.asarray(frame.image), ((200 - length) // 2 for length in size)
    inside = shown[top : top + size[1], left : left + size[0]]
    np.testing.assert_array_equal(inside, np.asarray(picture))
    beyond = (shown == BEYOND).all(2)
    assert beyond.sum() == 200 * 200 - size[0] * size[1]
    assert frame.to_picture([(left + 3, top + 5, left + 9, top + 20)]) == [(3, 5, 9, 20)]


def test_a_square_picture_is_only_resized():
    picture = numbered(96, 96)
    expected = picture.resize((40, 40), Image.Resampling.BILINEAR, reducing_gap=2.0)
    assert frame_picture(picture, (), "whole", 40).image.tobytes() == expected.tobytes()
    values = np.random.default_rng(0).normal(size=(2, 2))
    for smooth in (False, True):
        frame = frame_picture(picture, (), "whole", 64)
        expected = spread(values, (48, 48), 64, smooth)
        np.testing.assert_allclose(frame.spread(values, (48, 48), smooth), expected)


@pytest.mark.parametrize("margin, side", [(0, 64), (0.5, 86), (1, 108)])
def test_couple_is_a_square_around_both_with_a_margin_in_sides_of_a_face(picture, margin, side):
    frame = frame_picture(picture, BOXES, "couple", side, margin)
    assert frame.image.size == (side, side)
    ((x0, y0, x1, y1), _) = frame.pieces[0]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (92, 55) and (y0 >= 0 or margin == 0)
    shown = np.asarray(frame.image)
    assert shown[0, 0].tolist() == [x0, y0, 200]  # the pixel that was there


def test_faces_are_two_squares_above_both_together(picture):
    frame = frame_picture(picture, BOXES[::-1], "faces", 88, 0.5)
    assert frame.image.size == (88, 88)
    shown = np.asarray(frame.image).astype(int)
    assert shown[22, [22, 66], :2] == pytest.approx(np.array([(70, 52), (112, 60)]), abs=1)
    middle = [(20, 20, 24, 24), (64, 20, 68, 24)]
    assert frame.to_picture(middle) == [(68, 50, 72, 54), (110, 58, 114, 62)]
    x0, y0, x1, y1 = frame.pieces[2].source
    assert (x0 + x1) / 2 == pytest.approx(92, abs=1) and x1 - x0 == 2 * (y1 - y0)
    assert x0 < 60 and x1 > 124 and y0 < 40 and y1 > 70 and y1 - 70 > 40 - y0  # with shoulders


def test_faces_of_two_sizes_become_equally_large(picture):
    frame = frame_picture(picture, ((10, 10, 30, 30), (100, 50, 140, 90)), "faces", 80, 0)
    assert frame.to_picture([(0, 0, 40, 40), (40, 0, 80, 40)]) == [
        (10, 10, 30, 30),
        (100, 50, 140, 90),
    ]
    assert frame.enlarged == 2


@pytest.mark.parametrize("higher", [0, 1])
def test_who_is_on_the_left_is_on_the_left(picture, higher):
    boxes = [(20, 60, 40, 80), (100, 60, 120, 80)]
    boxes[higher] = (boxes[higher][0], 20, boxes[higher][2], 40)
    for given_in in (boxes, boxes[::-1]):
        left, right, _ = frame_picture(picture, given_in, "faces", 40).pieces
        assert (left.source, right.source) == tuple(boxes)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("corner", [(-5, -5), (185, 135), (-5, 135)])
def test_what_reaches_beyond_is_moved_into_the_picture(picture, kind, corner):
    (x, y), size = corner, 20
    frame = frame_picture(picture, ((x, y, x + size, y + size),) * 2, kind, 64, 0.25)
    assert (np.asarray(frame.image)[..., 2] == 200).all()  # nothing but pixels of the picture
    for piece in frame.pieces:
        assert min(piece.source) >= 0 and piece.source[2] <= 200 and piece.source[3] <= 150


def test_what_does_not_fit_is_padded_around_the_whole_height():
    picture = numbered(240, 60)
    frame = frame_picture(picture, ((20, 10, 50, 50), (180, 10, 220, 50)), "couple", 200, 0)
    shown = np.asarray(frame.image)
    ((x0, y0, x1, y1), _) = frame.pieces[0]
    assert (x0, x1) == (20, 220) and y0 <= 0 and y1 >= 60 and y1 - y0 == 200
    beyond = (shown == BEYOND).all(2)
    assert beyond.sum() == 200 * 140 and not beyond[round(-y0) : round(-y0) + 60].any()


@given(
    st.sampled_from(KINDS),
    st.tuples(st.integers(60, 240), st.integers(60, 240)),
    st.lists(st.integers(-20, 230), min_size=4, max_size=4),
    st.integers(8, 60),
)
def test_a_place_in_the_frame_is_where_its_pixel_came_from(kind, size, at, face):
    picture = numbered(*size)
    boxes = [(x, y, x + face, y + face * 1.2) for x, y in (at[:2], at[2:])]
    frame = frame_picture(picture, boxes, kind, 128, 0.1)
    assert frame.image.size == (128, 128)
    shown = np.asarray(frame.image).astype(float)
    scale = 1 / frame.enlarged
    for y, x in np.random.default_rng(0).integers(4, 124, (100, 2)):
        around = shown[y - 2 : y + 3, x - 2 : x + 3, 2]
        ((x0, y0, x1, y1),) = frame.to_picture([(x, y, x + 1, y + 1)])
        edge = any(abs(x - e) < 4 or abs(y - e) < 4 for p in frame.pieces for e in p.target)
        if (around == 200).all() and not edge:
            middle = ((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2)
            assert middle == pytest.approx(shown[y, x, :2], abs=max(2, 3 * scale, x1 - x0 + 1))


def test_a_map_lies_in_the_picture_where_it_was_computed(picture):
    """Each cell of 32 pixels of the input is one colour of the frame; both go the same way."""
    frame = frame_picture(picture, BOXES, "faces", 128, 0.3)
    values = np.arange(1.0, 17).reshape(4, 4)  # cells end at 16, 48, 80 of 128 pixels
    for x, y, value in [(8, 8, 1), (32, 20, 6), (88, 8, 4), (110, 60, 12), (40, 100, 14)]:
        ((x0, y0, *_),) = frame.to_picture([(x, y, x, y)])
        piece = 0 if y < 64 and x < 64 else 1 if y < 64 else 2
        placed = Frame(frame.image, (frame.pieces[piece],), frame.size).spread(values, (150, 200))
        assert placed[int(y0), int(x0)] == value
    together = frame.spread(values, (150, 200))
    parts = [Frame(frame.image, (p,), frame.size).spread(values, (150, 200)) for p in frame.pieces]
    np.testing.assert_allclose(together, sum(parts))  # what was seen twice adds up
    outside = np.ones((150, 200), bool)
    for piece in frame.pieces:
        x0, y0, x1, y1 = map(int, np.clip(piece.source, 0, 200))
        outside[y0:y1, x0:x1] = False
    assert not together[outside].any() and together[~outside].all()
    halves = frame.spread(values, (75, 100))
    assert (halves == together[1::2, 1::2]).mean() > 0.95


def test_other_kinds_and_numbers_of_faces_are_refused(picture):
    with pytest.raises(ValueError, match="must be one of whole, couple, faces, not 'face'"):
        frame_picture(picture, BOXES, "face", 64)
    for kind in KINDS[1:]:
        with pytest.raises(ValueError, match="the boxes of two faces, not of 1"):
            frame_picture(picture, BOXES[:1], kind, 64)


def test_the_couple_is_found_in_a_drawing_and_too_few_are_said(picture):
    drawing = our_couple()
    assert find_couple(drawing) == sorted(drawn_faces(drawing))
    for n, words in enumerate(("No face was found", "Only one face was found")):
        mark_drawn(picture, BOXES[:n])
        with pytest.raises(ValueError, match=words):
            find_couple(picture)
    assert too_few(2) == ()


def test_the_couple_is_large_and_central():
    size = (400, 300)
    couple = [(120, 100, 180, 160), (210, 110, 270, 170)]
    behind, edge = (190, 40, 215, 65), (0, 0, 66, 66)
    assert pick_two([behind, couple[0], edge, couple[1]], size) == (1, 3)
    assert pick_two([edge, behind], size) == (0, 1)
    assert pick_two([behind], size) == (0,) and pick_two([], size) == ()
