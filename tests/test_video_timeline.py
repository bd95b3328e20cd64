"""The line over time against plain loops and made-up films."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.video.timeline import (
    by_second,
    change,
    find_cuts,
    is_cut,
    moments,
    smooth,
    spans,
    thumbnail,
)


def test_smoothing_is_the_formula_within_shots():
    rng = np.random.default_rng(0)
    times, margins, sds = np.arange(12) / 4, rng.normal(size=12), rng.uniform(0.1, 1, 12)
    shots, good = np.repeat([0, 1], 6), rng.random(12) > 0.2
    line, low, high = smooth(times, margins, sds, shots, good)
    for k in range(12):
        if not good[k]:
            assert np.isnan([line[k], low[k], high[k]]).all()
            continue
        own = [j for j in range(12) if good[j] and shots[j] == shots[k]]
        w = np.exp([-0.5 * ((times[j] - times[k]) / 0.75) ** 2 for j in own])
        mean = (w * margins[own]).sum() / w.sum()
        assert line[k] == pytest.approx(mean)
        dropout = (w * sds[own] ** 2).sum() / w.sum()
        n = w.sum() ** 2 / (w**2).sum()
        spread = sum(w_ * (margins[j] - mean) ** 2 for w_, j in zip(w, own)) / w.sum()
        spread *= n / (n - 1)  # the unbiased one for weights; about this point's own line
        assert high[k] - line[k] == pytest.approx(1.96 * np.sqrt(dropout + spread / n))
        assert line[k] - low[k] == pytest.approx(high[k] - line[k])


def test_an_hour_in_one_shot_takes_little_memory():
    n = 4 * 3600
    tracemalloc.start()
    smooth(np.arange(n) / 4, np.zeros(n), np.ones(n), np.zeros(n), np.ones(n, bool))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000  # of pairs of frames it would be 1.7 GB
    tracemalloc.stop()


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=30))
def test_the_line_stays_between_the_frames_and_the_band_around_the_line(margins):
    n = len(margins)
    line, low, high = smooth(np.arange(n) / 4, margins, np.ones(n), np.zeros(n), np.ones(n, bool))
    assert min(margins) - 1e-9 <= line.min() and line.max() <= max(margins) + 1e-9
    assert (low < line).all() and (line < high).all()


def scene(seed):
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(colours).resize((96, 96), Image.BICUBIC)


def cuts_of(images):
    thumbs = [thumbnail(image) for image in images]
    changes = [0.0, *(change(a, b) for a, b in itertools.pairwise(thumbs))]
    back = [np.nan, *(change(a, b) for a, b in zip(thumbs, thumbs[2:])), np.nan]
    return np.flatnonzero(find_cuts(changes, back)).tolist()


def test_cuts_are_found_and_a_pan_a_fade_and_a_flash_are_none():
    a, b = scene(1), scene(2)
    assert cuts_of([a] * 5 + [b] * 5 + [a] * 5) == [5, 10]
    wide = Image.new("RGB", (196, 96))
    wide.paste(a.resize((196, 96)), (0, 0))
    assert cuts_of([wide.crop((10 * k, 0, 10 * k + 96, 96)) for k in range(10)]) == []
    assert cuts_of([Image.blend(a, b, k / 12) for k in range(13)]) == []
    assert cuts_of([a] * 5 + [Image.new("RGB", (96, 96), "white")] + [a] * 5) == []
    assert cuts_of([a] * 4) == [] and cuts_of([a]) == []


@pytest.mark.parametrize("number", range(5))
def test_cuts_are_told_from_motion_and_light(number):
    image, other = (draw_scene(sample_scene(5, k)[0], 320) for k in (number, number + 20))
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, 12, 0, 1, 6))
    dimmed, before = ImageEnhance.Brightness(image).enhance(0.7), thumbnail(image)
    assert not any(is_cut(before, thumbnail(same)) for same in (image, moved, dimmed))
    assert is_cut(before, thumbnail(other))


def test_a_second_without_enough_frames_has_no_number_but_a_reason():
    times, line = np.arange(12) / 4, np.arange(12.0)
    bad = ["dark", "dark", "blurred", "", "", "", "dark", "blurred"]
    reasons = np.array([""] * 4 + bad, object)
    line[reasons != ""] = np.nan
    rows = by_second(times, line, line - 1, line + 1, reasons)
    assert [row["n"] for row in rows] == [4, 1, 2]
    assert rows[0]["margin"] == pytest.approx(1.5) and rows[0]["reason"] == ""
    assert np.isnan(rows[1]["margin"]) and rows[1]["reason"] == "dark"
    assert rows[2]["margin"] == pytest.approx(8.5)


def test_moments_are_questions_apart_from_each_other_at_the_turn():
    times = np.arange(80) / 4
    line = np.where(times < 10, -3.0, 3.0) + 0.01 * np.sin(times)
    found = moments(times, line, np.zeros(80))
    turn = [m for m in found if m["kind"] == "turn"]
    assert len(turn) == 1 and abs(turn[0]["time"] - 10) <= 1
    assert all(m["question"].endswith("?") for m in found)
    gaps = np.diff([m["time"] for m in found])
    assert (gaps >= 0).all() and len(found) <= 6
    assert len(moments(times, line, np.zeros(80), n=1)) == 1
    (only,) = moments(times[:1], line[:1], np.zeros(1))  # not its own opposite too
    assert only["kind"] == "most unhappy"
    assert moments(times, np.full(80, np.nan), np.zeros(80)) == []


def test_stretches_follow_each_other_without_gaps():
    found = spans(["happy", "happy", "unhappy", "happy"], ["", "", "", ""])
    expected = [(0, 2, "happy"), (2, 3, "unhappy"), (3, 4, "happy")]
    assert [(s["start"], s["end"], s["label"]) for s in found] == expected
