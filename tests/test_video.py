"""Scoring a film, against judging its frames one by one."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dclib import video
from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint
from dclib.drawn import render_film
from dclib.framing import frame_picture
from dclib.photo import look
from dclib.pictures.frames import Clip, VideoError, write_mp4
from dclib.video import NO_FACES, NOT_SURE, VideoResult, score_video
from dclib.video.export import film_map
from dclib.video.follow import HIDDEN
from dclib.video.truth import known_faces

COUPLE = ("couple", (("happy", 2), ("unhappy", 2)))
PLAN = (COUPLE, ("dark", ((None, 2),)), ("couple", (("happy", 1),)))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    render_film(path, plan=PLAN, size=96)
    return path


@pytest.fixture(scope="module")
def result(film, checkpoint):
    return score_video(film, checkpoint, progress=False)


def test_each_frame_is_judged_as_a_photo_would_be(film, checkpoint, result):
    frames = list(Clip(film, 4))
    assert len(result.frames) == len(frames) == len(result.maps) == 28
    for k in (0, 9, 20, 27):
        evidence, *_ = look(checkpoint, frame_picture(frames[k].image, (), "whole", 64))
        row = result.frames.iloc[k]
        assert row["time"] == frames[k].time == k / 4
        assert row["margin"] == pytest.approx(evidence.margin.item(), abs=1e-4)
        assert row["margin_sd"] == pytest.approx(evidence.margin_sd.item(), rel=1e-3)
        np.testing.assert_allclose(result.maps[k], evidence.margin_map[0], atol=1e-4)


def test_cuts_dark_spans_and_notes(result):
    assert result.cuts == [4.0, 6.0]
    seconds = result.seconds
    assert seconds["second"].tolist() == list(range(7))
    assert (seconds["label"] == "not assessable").tolist() == [s in (4, 5) for s in range(7)]
    assert set(seconds["reason"][4:6]) == {"The picture is too dark."}
    assert result.coverage == pytest.approx(5 / 7)
    assert (result.notes, result.duration) == ((DRAWINGS_ONLY, NO_FACES), pytest.approx(7))
    assert result.frames["faces"].isna().all()
    assert all(note in str(result) for note in result.notes)
    assert [s["end"] for s in result.spans][-1] == 7


@pytest.fixture(scope="module")
def framed(checkpoint):
    """The same network, looking at faces."""
    looks = {"frame": "faces", "frame_margin": 0.1}
    return Checkpoint(checkpoint.model, checkpoint.config | looks, checkpoint.folder)


def test_a_network_that_looks_at_faces_is_told_them_in_every_frame(film, framed):
    known = known_faces(json.loads(film.with_suffix(".json").read_text()))
    result = score_video(film, framed, progress=False, faces=known)
    frames = list(Clip(film, 4))
    for k in (0, 9, 27):
        couple = known(frames[k].time)
        assert len(couple) == 2 and all(0 <= v <= 96 for box in couple for v in box)
        evidence, *_ = look(framed, frame_picture(frames[k].image, couple, "faces", 64, 0.1))
        assert result.frames["margin"][k] == pytest.approx(evidence.margin.item(), abs=1e-4)
    assert (result.frames["faces"] == 2).all() and NO_FACES not in result.notes
    assert film_map(result, frames[0].image, 0, result.scale).shape == (96, 96, 3)


def test_where_nobody_is_found_there_is_no_answer_and_no_map(film, framed):
    result = score_video(film, framed, progress=False, faces=lambda time: [(0, 0, 9, 9)])
    assert result.frames["margin"].isna().all() and result.looks == (None,) * 28
    assert set(result.seconds["label"]) == {"not assessable"}
    assert "Only one face was found" in result.frames["reason"][0]
    assert result.scale == 1.0  # maps of blank pictures count for nothing
    assert (np.ptp(film_map(result, next(iter(Clip(film, 4))).image, 0, 1.0), axis=2) == 0).all()


def test_a_network_of_drawings_that_looks_at_faces_says_that_it_knows_none(film, framed):
    result = score_video(film, framed, progress=False)  # nobody tells it, and it does not look
    assert set(result.frames["reason"][:8]) == {NO_FACES} and NO_FACES in result.notes
    assert result.frames["smooth"].isna().all()


def test_the_scale_is_of_the_frames_that_were_looked_at(film, framed):
    known = known_faces(json.loads(film.with_suffix(".json").read_text()))
    result = score_video(film, framed, progress=False, faces=lambda t: known(t) if t < 2 else [])
    seen = np.abs(result.maps[:8])
    assert result.scale == pytest.approx(np.quantile(seen, 0.99))
    assert [look is not None for look in result.looks] == [True] * 8 + [False] * 20


def test_a_film_is_read_on_its_couple(film, framed):
    """A larger face comes in after a second; the first shot lasts four."""
    known = known_faces(json.loads(film.with_suffix(".json").read_text()))
    giant = (0.0, 0.0, 96.0, 96.0)
    alone = score_video(film, framed, progress=False, faces=known)
    crowded = score_video(
        film, framed, progress=False, faces=lambda t: [*known(t), *([giant] if t >= 1 else [])]
    )
    same = [a.pieces == b.pieces for a, b in zip(crowded.looks, alone.looks)]
    assert same == [k < 16 for k in range(28)]
    np.testing.assert_array_equal(crowded.frames["margin"][:16], alone.frames["margin"][:16])
    hidden = score_video(
        film, framed, progress=False, faces=lambda t: [known(t)[0], giant] if t == 1 else known(t)
    )
    assert hidden.frames["reason"].tolist() == [
        HIDDEN if k == 4 else reason for k, reason in enumerate(alone.frames["reason"])
    ]
    assert hidden.frames["margin"].isna().tolist() == [k == 4 for k in range(28)]


def test_batches_do_not_matter(film, checkpoint, result):
    other = score_video(film.read_bytes(), checkpoint, batch_size=5, progress=False)
    columns = ["margin", "margin_sd", "smooth", "low", "high"]
    np.testing.assert_allclose(other.frames[columns], result.frames[columns], atol=1e-4)
    assert other.name == "the video"


def test_labels_follow_threshold_and_abstaining():
    row = {"time": 0.0, "shot": 0, "smooth": 0.5, "low": 0, "high": 1, "reason": ""}
    frames = pd.DataFrame([row])
    cases = ((0.5, None, "unhappy"), (0.7, None, "happy"), (0.5, 0.9, None))
    for threshold, abstain, label in cases:
        answer = VideoResult("a", 1.0, frames, np.zeros((1, 2, 2)), (None,), threshold, abstain, ())
        row = answer.seconds.iloc[0]
        assert row["label"] == (label or "not assessable")
        assert row["reason"] == ("" if label else NOT_SURE)


def test_faces_are_looked_for_once_a_second_within_a_shot(
    tmp_path, monkeypatch, pair, photo_checkpoint
):
    """A photograph of one, then of two: a film that is assessable in its second half."""
    alone = pair.copy()
    alone.paste("navy", (400, 0, 800, 512))
    write_mp4(tmp_path / "a.mp4", [alone] * 8 + [pair] * 8, 4)
    looked, find = [], video.find_faces
    monkeypatch.setattr(video, "find_faces", lambda image: looked.append(1) or find(image))
    answer = score_video(tmp_path / "a.mp4", photo_checkpoint, progress=False)
    assert len(looked) == 4
    assert answer.frames["faces"].tolist() == [1] * 8 + [2] * 8
    only = ["Only one face" in reason for reason in answer.frames["reason"]]
    assert only == [True] * 8 + [False] * 8


def test_a_batch_without_frames_is_refused(film, checkpoint):
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        score_video(film, checkpoint, batch_size=0)


def test_errors_of_the_thread_that_decodes_arrive(tmp_path, checkpoint, monkeypatch):
    (tmp_path / "list.mp4").write_text("milk")
    with pytest.raises(VideoError, match=r"list\.mp4 is not a video"):
        score_video(tmp_path / "list.mp4", checkpoint)
    write_mp4(tmp_path / "a.mp4", [Image.new("RGB", (64, 64))], 1)
    monkeypatch.setattr(video, "why_not", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score_video(tmp_path / "a.mp4", checkpoint, progress=False)
