"""The couple of a film stays the couple, whoever else comes into the picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dclib.framing import pick_two
from dclib.video.follow import LOST, Followed, again

SIZE = (640, 360)


def box(x, y, side):
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


COUPLE = [box(260, 180, 60), box(380, 180, 60)]
GIANT = box(320, 150, 140)  # nearer to the camera, in the middle


def test_who_comes_nearer_to_the_camera_takes_nobodys_place():
    followed = Followed()
    assert followed.find(0.0, COUPLE, SIZE) == COUPLE
    assert 2 in pick_two([*COUPLE, GIANT], SIZE)  # in a photograph it would
    for k in range(1, 9):
        moved = [box(260 + 12 * k, 180, 60 + k), box(380 + 12 * k, 180, 60 + k)]
        assert followed.find(k / 4, [GIANT, *moved], SIZE) == moved


def test_a_face_that_is_hidden_is_waited_for_and_then_others_are_chosen():
    followed = Followed()
    followed.find(0.0, COUPLE, SIZE)
    for time in (0.25, 0.5, 0.75):
        assert followed.find(time, [COUPLE[0], GIANT], SIZE) is None
    assert followed.find(0.9, [GIANT, *COUPLE], SIZE) == COUPLE  # back in time
    assert followed.find(1.0 + LOST, [COUPLE[0], GIANT], SIZE) == [COUPLE[0], GIANT]


def test_a_new_shot_has_a_couple_of_its_own():
    followed = Followed()
    followed.find(0.0, COUPLE, SIZE)
    followed.forget()
    chosen = [[*COUPLE, GIANT][k] for k in pick_two([*COUPLE, GIANT], SIZE)]
    assert followed.find(0.25, [*COUPLE, GIANT], SIZE) == chosen != COUPLE


@pytest.mark.parametrize("other", [box(260 + 61, 180, 60), box(260, 180, 100), box(260, 180, 36)])
def test_a_face_elsewhere_or_of_another_size_is_another_face(other):
    assert again(COUPLE, [other, COUPLE[1]]) is None
    assert again(COUPLE, [*COUPLE, other]) == [0, 1]


def test_one_face_is_not_both():
    near = [box(300, 180, 60), box(340, 180, 60)]
    assert again(near, [box(320, 180, 60), box(600, 60, 60)]) is None


def test_of_two_faces_in_one_place_the_one_of_the_same_size_is_it():
    assert again(COUPLE, [box(260, 180, 80), *COUPLE]) == [1, 2]


faces = st.builds(box, st.integers(0, 640), st.integers(0, 360), st.integers(20, 120))


@given(st.lists(faces, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_faces_does_not_matter_and_standing_still_is_followed(boxes, random):
    couple, shuffled = boxes[:2], random.sample(boxes, len(boxes))
    found = again(couple, shuffled)
    assert sorted(shuffled[k] for k in found) == sorted(couple)
