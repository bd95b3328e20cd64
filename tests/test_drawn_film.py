"""The drawn film: what it says of itself is what is in it."""

import itertools
import json

import numpy as np
import pytest

from dclib.drawn import render_film
from dclib.drawn.film import PLAN, _sample_pair
from dclib.drawn.scenes import OURS, sample_scene
from dclib.pictures.frames import Clip

COUPLE = ("couple", (("happy", 1), ("unhappy", 1)))
SHORT = (COUPLE, ("empty", ((None, 1),)), ("dark", ((None, 1),)))


def test_truth_adds_up_and_is_kept_beside_the_film(tmp_path):
    truth = render_film(tmp_path / "a.mp4", plan=SHORT, size=64)
    assert json.loads((tmp_path / "a.json").read_text()) == truth
    assert (truth["cuts"], truth["changes"], truth["duration"]) == ([2, 3], [1], 4)
    assert [part["mood"] for part in truth["moods"]] == ["happy", "unhappy", None, None]
    clip = Clip(tmp_path / "a.mp4", rate=12)
    assert len(list(clip)) == 48
    assert clip.duration == pytest.approx(4)


def test_same_arguments_same_pictures_other_seed_other_couples(tmp_path):
    def pictures(name, seed):
        render_film(tmp_path / name, seed=seed, plan=SHORT, size=64)
        return [np.asarray(frame.image) for frame in Clip(tmp_path / name, rate=2)]

    first, again, other = pictures("a.mp4", 1), pictures("b.mp4", 1), pictures("c.mp4", 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first[:4], other[:4], strict=True))


def test_light_goes_out_in_a_dark_shot_and_cuts_are_where_it_says(tmp_path):
    truth = render_film(tmp_path / "a.mp4", plan=SHORT, size=64)
    grey = [np.asarray(f.image.convert("L"), float) for f in Clip(tmp_path / "a.mp4", 12)]
    assert max(g.mean() for g in grey[37:]) < 0.3 * min(g.mean() for g in grey[:36])
    jumps = [np.abs(a - b).mean() for a, b in itertools.pairwise(grey)]
    assert sorted(np.argsort(jumps)[-2:] + 1) == [cut * 12 for cut in truth["cuts"]]


def test_the_plan_has_what_a_timeline_must_be_tested_on():
    kinds = {kind for kind, _ in PLAN}
    assert kinds == {"couple", "empty", "dark"}
    assert sum(seconds for _, parts in PLAN for _, seconds in parts) == 30


def test_the_first_shot_is_of_the_couple_that_the_notebooks_follow():
    assert _sample_pair(0, 0) == [sample_scene(0, 2 * OURS + label)[0] for label in (0, 1)]
    assert _sample_pair(0, 1) != _sample_pair(0, 0)


@pytest.mark.parametrize(
    ("kind", "mood", "message"),
    [("kiss", "happy", "not 'kiss'"), ("couple", "sad", "happy, unhappy or None, not 'sad'")],
)
def test_an_unknown_shot_or_mood_is_named(tmp_path, kind, mood, message):
    with pytest.raises(ValueError, match=message):
        render_film(tmp_path / "a.mp4", plan=((kind, ((mood, 1),)),))
    assert not list(tmp_path.iterdir())
