"""What is taken away from a film, and how it is drawn and counted."""

from dataclasses import replace

import av
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from dclib.framing import frame_picture
from dclib.pictures.frames import Clip, write_mp4
from dclib.plots import HAPPY
from dclib.video import VideoResult
from dclib.video.export import caption, save_csv, save_mp4, strip
from dclib.video.plots import plot_film_maps, plot_moments, plot_timeline
from dclib.video.truth import evaluate_films, score_timeline

MOODS = ((0, 4, "happy"), (4, 8, "unhappy"), (8, 10, None))
TRUTH = {
    "moods": [{"start": start, "end": end, "mood": mood} for start, end, mood in MOODS],
    "changes": [4],
}


def make_result(line, reasons=None, name="a.mp4"):
    """Of a line with four frames a second; NaN is not assessable."""
    line = np.asarray(line, float)
    n = len(line)
    reasons = np.where(np.isnan(line), "dark & <b>", "") if reasons is None else reasons
    frames = pd.DataFrame({"time": np.arange(n) / 4, "shot": (np.arange(n) >= 16).astype(int)})
    frames = frames.assign(margin=np.nan_to_num(line), margin_sd=0.1, faces=np.nan, reason=reasons)
    frames = frames.assign(smooth=line, low=line - 0.5, high=line + 0.5)
    maps = np.random.default_rng(0).normal(size=(n, 2, 2)).astype(np.float32)
    looks = (frame_picture(Image.new("RGB", (96, 64)), (), "whole", 64),) * n
    return VideoResult(name, n / 4, frames, maps, looks, 0.5, None, ())


@pytest.fixture
def result():
    return make_result(np.r_[np.full(19, -2.0), np.full(13, 3.0), np.full(8, np.nan)])


@pytest.fixture
def film(tmp_path):
    pictures = [Image.new("RGB", (96, 64), (8 * k % 256, 90, 120)) for k in range(40)]
    return write_mp4(tmp_path / "a.mp4", pictures, 4)


def test_tables_hold_every_second_and_frame(result, tmp_path):
    seconds, frames = (pd.read_csv(path) for path in save_csv(result, tmp_path / "new" / "out"))
    assert seconds["label"].tolist() == ["happy"] * 5 + ["unhappy"] * 3 + ["not assessable"] * 2
    assert len(frames) == 40
    assert frames["smooth"].isna().sum() == 8


def test_the_annotated_film_keeps_the_time_and_moves_its_mark(result, film, tmp_path):
    path = save_mp4(result, film, tmp_path / "out.mp4", rate=6)
    frames = list(Clip(path, 6))
    assert len(frames) == 60
    assert frames[0].image.size == (192, 64 + 30 + 40)
    for frame in frames:  # the line of text has room, however narrow the film
        text = np.asarray(frame.image.convert("L"))[66:92]
        assert text[:, :180].min() < 150 and text[:, -5:].min() > 230
    strips = [np.asarray(frames[k].image.convert("L"), float)[-40:] for k in (12, 48)]
    heads = [line.mean(0).argmin() / 192 * 10 for line in strips]
    assert heads == pytest.approx([2, 8], abs=0.3)
    with av.open(str(path)) as out:
        assert out.streams.video[0].codec_context.name == "h264"
        assert not out.streams.audio


def test_the_timeline_figure_has_what_it_says(result):
    (axis,) = plot_timeline(result, TRUTH).axes
    lines = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) > 10]
    assert np.nanmax(np.concatenate(lines)) == 3
    assert "80%" in axis.get_title()
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["not assessable", "drawn happy", "drawn unhappy"]


def test_moments_are_asked_about_and_maps_share_a_scale(result, film):
    assert all(axis.get_xlabel().endswith("?") for axis in plot_moments(result, film).axes)
    assert len(plot_film_maps(result, film, [0, 3]).axes) == 5
    assert result.scale == pytest.approx(np.quantile(np.abs(result.maps), 0.99))
    with pytest.raises(ValueError, match="no moment"):
        plot_moments(make_result([np.nan] * 4), film)


def test_the_frame_at_a_time_is_the_last_one_judged_by_then(result):
    times = result.frames["time"]
    for time in (0, 0.24, 0.25, 0.3, 9.75, 99):
        assert result.at(time) == max(k for k, t in enumerate(times) if t <= time)
    assert result.at(-1) == 0
    first = caption(result, 0)
    assert caption(result, 4.9) != first == caption(result, -1).replace("-1.0", " 0.0")


def test_the_strip_is_up_for_unhappy_down_for_happy_hatched_for_none(result):
    line = strip(result, 100)
    colour = np.abs(line - 0.85).max(2) > 0.2
    assert colour[20:, 10].any() and not colour[:20, 10].any()
    assert colour[:20, 60].any() and not colour[20:, 60].any()
    assert colour[:, 90].any() and not colour[1, 90]


def test_colour_follows_the_threshold():
    """P(unhappy) is 0.55 all the time, and the verdict is unhappy from 0.6 on."""
    unsure = replace(make_result([0.2] * 8), threshold=0.6)
    line = strip(unsure, 100)
    assert np.abs(line[21, 10] - to_rgb(HAPPY)).max() < 1e-9
    assert "network: happy; unhappy 55.0 %" in caption(unsure, 0)
    assert "not assessable. The network is not sure enough." in caption(
        replace(unsure, abstain=0.9), 0
    )


def test_a_timeline_is_counted_by_hand(result):
    score = score_timeline(result, TRUTH)
    assert score.accuracy.accuracy == pytest.approx(7 / 8)  # second 4 is still called happy
    assert (score.seconds, score.stretches, score.coverage, score.empty) == (8, 2, 1, (2, 2))
    assert score.delays == [0.75]  # frame 19
    assert "by 2 stretches" in str(score)
    late = make_result([-2.0] * 32 + [np.nan] * 8)
    assert np.isnan(score_timeline(late, TRUTH).delays[0])
    assert "never" in str(score_timeline(late, TRUTH))
    with pytest.raises(ValueError, match="no second with both"):
        score_timeline(make_result([np.nan] * 40), TRUTH)


def test_films_are_the_unit():
    right, wrong = make_result([3.0] * 8), make_result([-3.0] * 8)
    none, mixed = make_result([np.nan] * 8), make_result([3.0] * 6 + [-1.0] * 2)
    score = evaluate_films([right, wrong, mixed, none], ["unhappy"] * 4)
    assert (score.films.accuracy, score.films.n, score.without_label) == (2 / 3, 3, 1)
    assert (score.frames, score.n_frames) == (14 / 24, 24)
    assert score.low == 0 and score.high == 1
    assert score.coverage == pytest.approx(0.75)
    same = evaluate_films([right] * 6, ["unhappy"] * 6)
    assert (same.frames, same.high) == (1, 1)
    assert same.low == pytest.approx(same.films.low) == pytest.approx(0.610, abs=1e-3)
    with pytest.raises(ValueError, match="not 0 for 1"):
        evaluate_films([right], [])
    with pytest.raises(ValueError, match="No film"):
        evaluate_films([none], ["happy"])
