"""Scoring a film: against judging its frames one by one, and cut off at any time."""

import multiprocessing
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_checkpoint
from PIL import Image
from skimage import data

from dclib import video
from dclib.checkpoint import DRAWINGS_ONLY, load_checkpoint
from dclib.drawn import render_film
from dclib.frames import VideoError, read_frames, write_mp4
from dclib.photo import look
from dclib.video import NO_FACES, NOT_SURE, VideoResult, score_video

PHOTOS = {"kind": "photographs", "name": "mine", "n": {"train": 10}, "sha256": "0" * 64}
PLAN = (
    ("couple", (("happy", 2), ("unhappy", 2))),
    ("dark", ((None, 2),)),
    ("couple", (("happy", 1),)),
)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    render_film(path, plan=PLAN, size=96)
    return path


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)


@pytest.fixture(scope="module")
def result(film, checkpoint):
    return score_video(film, checkpoint, progress=False)


def test_each_frame_is_judged_as_a_photo_would_be(film, checkpoint, result):
    frames = list(read_frames(film, 4))
    assert len(result.frames) == len(frames) == len(result.maps) == 28
    for k in (0, 9, 20, 27):
        evidence, _ = look(checkpoint, frames[k].image)
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


def test_batches_do_not_matter(film, checkpoint, result):
    other = score_video(film.read_bytes(), checkpoint, batch_size=5, progress=False)
    columns = ["margin", "margin_sd", "smooth", "low", "high"]
    np.testing.assert_allclose(other.frames[columns], result.frames[columns], atol=1e-4)
    assert other.name == "the video"


def test_labels_follow_threshold_and_abstaining():
    frames = pd.DataFrame(
        {"time": [0.0], "shot": 0, "smooth": 0.5, "low": 0, "high": 1, "reason": ""}
    )
    for threshold, abstain, label in (
        (0.5, None, "unhappy"),
        (0.7, None, "happy"),
        (0.5, 0.9, None),
    ):
        answer = VideoResult("a", 1.0, frames, np.zeros((1, 2, 2)), 64, threshold, abstain, ())
        row = answer.seconds.iloc[0]
        assert row["label"] == (label or "not assessable")
        assert row["reason"] == ("" if label else NOT_SURE)


def test_faces_are_looked_for_once_a_second_within_a_shot(tmp_path, monkeypatch):
    """A photograph of one, then of two: a film that is assessable in its second half."""
    one = Image.fromarray(data.astronaut()).crop((0, 0, 400, 512))
    two, alone = Image.new("RGB", (800, 512)), Image.new("RGB", (800, 512), "navy")
    for left in (0, 400):
        two.paste(one, (left, 0))
    alone.paste(one, (0, 0))
    write_mp4(tmp_path / "a.mp4", [alone] * 8 + [two] * 8, 4)
    looked = []
    find = video.assess.find_faces
    monkeypatch.setattr(video.assess, "find_faces", lambda image: looked.append(1) or find(image))
    photos = load_checkpoint(make_checkpoint(tmp_path / "c", PHOTOS))
    answer = score_video(tmp_path / "a.mp4", photos, progress=False)
    assert len(looked) == 4
    assert answer.frames["faces"].tolist() == [1] * 8 + [2] * 8
    assert ["Only one face" in reason for reason in answer.frames["reason"]] == [True] * 8 + [
        False
    ] * 8


def killed(film, folder, state):
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(folder)
    save = video.FilmState.save

    def slow(self, *args, **settings):
        save(self, *args, **settings)
        time.sleep(60)  # killed meanwhile

    video.FilmState.save = slow
    score_video(film, checkpoint, batch_size=4, progress=False, resume=state)


def test_a_film_that_was_killed_goes_on_with_the_same_result(film, drawn_checkpoint, tmp_path):
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=killed, args=(film, drawn_checkpoint, tmp_path / "state"))
    child.start()
    while child.is_alive() and not (tmp_path / "state" / "done.npz").exists():
        time.sleep(0.1)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        checkpoint = load_checkpoint(drawn_checkpoint)
        settings = {"batch_size": 4, "progress": False}
        with pytest.raises(ValueError, match="another film, network, rate or batch"):
            score_video(film, checkpoint, rate=2, resume=tmp_path / "state", **settings)
        made = []
        prepare = checkpoint.transform.__class__.__call__
        checkpoint.transform.__class__.__call__ = lambda *a, **k: made.append(1) or prepare(*a, **k)
        try:
            resumed = score_video(film, checkpoint, resume=tmp_path / "state", **settings)
        finally:
            checkpoint.transform.__class__.__call__ = prepare
        assert 0 < len(made) < 28  # what was done is not done again
        whole = score_video(film, checkpoint, **settings)
    finally:
        torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(resumed.frames, whole.frames, check_exact=True)
    np.testing.assert_array_equal(resumed.maps, whole.maps)
    assert not (tmp_path / "state").exists()


def test_of_a_folder_only_the_state_is_removed(film, checkpoint, tmp_path):
    own = tmp_path / "data" / "wedding.jpg"
    own.parent.mkdir()
    own.write_text("mine")
    score_video(film, checkpoint, batch_size=4, progress=False, resume=own.parent)
    assert [path.name for path in own.parent.iterdir()] == ["wedding.jpg"]


def test_a_broken_state_is_explained(film, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(video.FilmState, "forget", lambda self: None)
    settings = {"batch_size": 4, "progress": False, "resume": tmp_path}
    score_video(film, checkpoint, **settings)
    done = tmp_path / "done.npz"
    done.write_bytes(done.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"done\.npz cannot be read; delete"):
        score_video(film, checkpoint, **settings)
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(ValueError, match=r"about\.json cannot be read; delete"):
        score_video(film, checkpoint, **settings)


def test_a_batch_without_frames_is_refused(film, checkpoint):
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        score_video(film, checkpoint, batch_size=0)


def test_errors_of_the_thread_that_decodes_arrive(tmp_path, checkpoint, monkeypatch):
    (tmp_path / "list.mp4").write_text("milk")
    with pytest.raises(VideoError, match=r"list\.mp4 is not a video"):
        score_video(tmp_path / "list.mp4", checkpoint)
    write_mp4(tmp_path / "a.mp4", [Image.new("RGB", (64, 64))], 1)
    monkeypatch.setattr(video.assess, "why_not", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score_video(tmp_path / "a.mp4", checkpoint, progress=False)
