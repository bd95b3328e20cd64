import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL
from PIL import Image
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from dclib.data import DRAWN, fingerprint
from dclib.drawn import drawing, our_couple, render_couples
from dclib.drawn.__main__ import main
from dclib.drawn.canvas import Canvas
from dclib.drawn.couples import SHARES, _split_indices
from dclib.drawn.drawing import DRAWINGS, draw_scene
from dclib.drawn.scenes import CUES, OURS, WARM_PRINTS, sample_scene


@pytest.fixture(scope="module")
def attributes():
    """What is recorded of 4,000 scenes."""
    return pd.DataFrame([sample_scene(7, index)[1] for index in range(4000)])


def rows_of(root, split="train"):
    return list(csv.DictReader((root / split / "metadata.csv").read_text().splitlines()))


def numbers(column):
    """A column as a number a row: codes for words, 0 for nothing."""
    if column.dtype == object or str(column.dtype) in ("str", "string"):
        words = column.astype(str)
        try:
            return words.replace("", "0").astype(float)
        except ValueError:
            return words.astype("category").cat.codes
    return column


def test_no_single_attribute_decides(attributes):
    happy = attributes["label"] == "happy"
    for name in attributes.columns.drop(["label", "group"]):
        column = numbers(attributes[name]).to_numpy().reshape(-1, 1)
        best = DecisionTreeClassifier(max_depth=1).fit(column, happy).score(column, happy)
        assert best < 0.8, name


def test_every_cue_helps_and_all_together_decide(attributes):
    happy = attributes["label"] == "happy"
    cues = attributes[[f"cue_{name}" for name in CUES]]
    for name in cues:
        assert ((cues[name] > 0) == happy).mean() > 0.62, name
    together = LogisticRegression().fit(cues[:2000], happy[:2000])
    assert together.score(cues[2000:], happy[2000:]) > 0.97


LOOKS = [f"{what}_{side}" for what in ("presentation", "skin") for side in ("left", "right")]
TAGS = ["light", "setting", "scale", "bystanders", "cover_left", "cover_right", *LOOKS]


@pytest.mark.parametrize("tag", TAGS)
def test_nuisances_are_independent_of_the_label(attributes, tag):
    table = pd.crosstab(attributes[tag], attributes["label"])
    assert table.shape[0] > 1
    assert chi2_contingency(table).pvalue > 1e-3


def test_bystanders_feel_as_they_like(attributes):
    with_bystanders = attributes[attributes["bystanders"] > 0]
    mood = with_bystanders["bystander_mood"].astype(float) > 0
    assert chi2_contingency(pd.crosstab(mood, with_bystanders["label"])).pvalue > 1e-3


def test_every_couple_is_drawn_happy_and_unhappy(attributes):
    assert (attributes.groupby("group")["label"].nunique() == 2).all()


def test_variety(attributes):
    assert attributes.groupby(["light", "setting", *LOOKS]).ngroups > 500
    pictures = {draw_scene(sample_scene(0, index)[0], 48).tobytes() for index in range(60)}
    assert len(pictures) == 60


# Bytes of pictures as drawn with the locked versions, by `DRAWINGS`: a change must be meant.
KNOWN = {"drawings": 2, 0: "024d355d", 1: "31277216", 2: "8170e323"}


@pytest.mark.exact
def test_same_seed_same_pixels_as_ever():
    pictures = [draw_scene(sample_scene(0, index)[0], 256).tobytes() for index in range(3)]
    digests = {k: hashlib.sha256(pixels).hexdigest()[:8] for k, pixels in enumerate(pictures)}
    assert digests | {"drawings": DRAWINGS} == KNOWN


def test_the_couple_of_the_notebooks_is_one_that_no_demo_network_was_trained_on():
    held_out = _split_indices(3000, SHARES)["test"]
    for label, index in (("happy", 2 * OURS), ("unhappy", 2 * OURS + 1)):
        scene, attributes = sample_scene(0, index)
        assert index in held_out and attributes["label"] == label
        assert our_couple(label, 64).tobytes() == draw_scene(scene, 64).tobytes()
    with pytest.raises(ValueError, match="happy or unhappy, not 'sad'"):
        our_couple("sad")


def test_same_arguments_same_bytes(tmp_path, couples):
    again = render_couples(tmp_path / "again", **SMALL)
    files = [path.relative_to(couples) for path in sorted(couples.rglob("*")) if path.is_file()]
    files = [path for path in files if path.parts[0] != ".cache"]  # of those who trained on it
    assert len(files) == 36 + 3 + 1
    for path in files:
        assert (couples / path).read_bytes() == (again / path).read_bytes(), path


def test_a_longer_set_starts_like_a_shorter_one():
    scene, attributes = sample_scene(3, 5)
    assert sample_scene(3, 5) == (scene, attributes)
    assert sample_scene(4, 5)[0] != scene


def test_layout_and_balance(couples):
    for split, n in {"train": 24, "val": 6, "test": 6}.items():
        rows = rows_of(couples, split)
        assert len(rows) == n
        assert sum(row["label"] == "happy" for row in rows) == n / 2
        for row in rows:
            path = couples / split / row["file_name"]
            assert row["file_name"].startswith(row["label"] + "/")
            assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
            with Image.open(path) as image:
                assert image.size == (64, 64)
            assert row["source"] == "demo drawings"


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("index", range(0, 24, 3))
def test_face_boxes_are_exact(index, side, monkeypatch):
    """Paint one face in two colours, without ears and neck: what differs fills its box."""
    monkeypatch.setattr(drawing, "_draw_body", lambda *args: None)
    monkeypatch.setattr(Canvas, "disc", lambda *args: None)
    scene = replace(sample_scene(1, index)[0], bystanders=(), embrace=False, front=side)
    person = replace(scene.couple[side], hair_style="bald", cover="none", x=0.5)
    size, paintings = 256, []
    for skin in ((0, 255, 0), (0, 0, 255)):
        couple = list(scene.couple)
        couple[side] = replace(person, skin=skin)
        scene = replace(scene, couple=tuple(couple))
        paintings.append(np.asarray(drawing.draw_scene(scene, size)).astype(int))
    rows, columns = np.nonzero(np.abs(paintings[0] - paintings[1]).sum(2) > 20)
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert found == pytest.approx([v * size for v in person.face_box()], abs=1.5)


def test_boxes_in_metadata_lie_in_the_picture(couples):
    for row in rows_of(couples):
        boxes = json.loads(row["boxes"])
        assert len(boxes) == 2
        for x0, y0, x1, y1 in boxes + json.loads(row["body_boxes"]):
            assert 0 <= x0 < x1 <= 64
            assert 0 <= y0 < y1 <= 64
        assert boxes[0][0] < boxes[1][0]  # left partner first
        assert len(json.loads(row["bystander_boxes"])) == int(row["bystanders"])


@pytest.mark.parametrize("index", [0, 1])
def test_mark_is_planted_on_unhappy_pictures_only(index):
    plain, marked = (draw_scene(sample_scene(0, index, s)[0], 128) for s in (None, "mark"))
    changed = np.argwhere((np.asarray(plain) != np.asarray(marked)).any(2))
    assert len(changed) == 0 if index == 0 else len(changed) > 50
    assert (changed < 0.13 * 128).all()  # nothing but the corner


def test_brightness_gap_is_planted():
    def gap(shortcut):
        scenes = [sample_scene(0, index, shortcut)[0] for index in range(120)]
        means = [np.asarray(draw_scene(scene, 32)).mean() for scene in scenes]
        return np.mean(means[::2]) / np.mean(means[1::2])

    assert 0.93 < gap(None) < 1.07
    assert gap("brightness") > 1.15


def test_a_second_source_with_a_look_of_its_own_is_planted():
    plain, planted = ([sample_scene(2, k, fault) for k in range(400)] for fault in (None, "source"))
    for (scene, row), (other, planted_row) in zip(plain, planted, strict=True):
        printed = planted_row["source"] == WARM_PRINTS
        assert row["source"] == DRAWN and planted_row["source"] in (DRAWN, WARM_PRINTS)
        warmth = scene.warmth + 2.5 * printed
        assert other == replace(scene, warmth=warmth)  # nothing else is drawn differently
        assert planted_row == row | {"source": planted_row["source"]}
    printed = np.array([row["source"] == WARM_PRINTS for _, row in planted])
    assert printed[1::2].mean() == pytest.approx(0.85, abs=0.06)
    assert printed[::2].mean() == pytest.approx(0.15, abs=0.06)


def test_pictures_of_both_planted_sources_are_called_drawn(tmp_path):
    root = render_couples(tmp_path / "two", n=36, size=32, shortcut="source")
    rows = rows_of(root)
    assert {row["source"] for row in rows} == {DRAWN, WARM_PRINTS}
    assert fingerprint(root)["kind"] == DRAWN
    pictures = [np.asarray(Image.open(root / "train" / row["file_name"])) for row in rows]
    printed = np.array([row["source"] == WARM_PRINTS for row in rows])
    ratio = np.array([picture[..., 0].mean() / picture[..., 2].mean() for picture in pictures])
    assert np.median(ratio[printed]) > 1.2 * np.median(ratio[~printed])


def test_an_existing_set_is_kept_and_another_folder_refused(couples, tmp_path, monkeypatch):
    before = (couples / "train" / "metadata.csv").stat().st_mtime_ns
    assert render_couples(couples, **SMALL) == couples
    assert (couples / "train" / "metadata.csv").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="holds something else"):
        render_couples(couples, **SMALL | {"n": 38})
    monkeypatch.setattr("dclib.drawn.couples.DRAWINGS", DRAWINGS + 1)
    with pytest.raises(FileExistsError, match="holds older drawings; delete it"):
        render_couples(couples, **SMALL)
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    (tmp_path / "recipe.json").write_text("[1]")  # somebody's own
    with pytest.raises(FileExistsError, match="holds something else"):
        render_couples(tmp_path, n=36)
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_arguments_that_make_no_set_are_refused():
    with pytest.raises(ValueError, match="need at least 6"):
        render_couples("nowhere", n=5)
    with pytest.raises(ValueError, match="shortcut must be"):
        sample_scene(0, 0, "watermark")


@pytest.mark.parametrize("n", [6, 7, 11, 50])
def test_small_and_odd_numbers(tmp_path, n):
    root = render_couples(tmp_path / "few", n=n, size=16)
    assert len(list(root.rglob("*.jpg"))) == n


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "dclib.drawn", tmp_path / "out", "--n", "12", "--size", "32"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "train 8" in done.stdout
    assert "12/12" in done.stderr  # the progress bar
    again = subprocess.run([*command, "--seed", "5"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "holds something else" in again.stderr


def test_the_command_counts_splits_only(tmp_path, capsys, monkeypatch):
    (tmp_path / ".cache").mkdir()  # of a training on it
    monkeypatch.setattr("dclib.drawn.__main__.render_couples", lambda *_, **__: tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path)])
    (tmp_path / "train").mkdir()
    main()
    assert capsys.readouterr().out == f"{tmp_path}: train 0 drawings\n"


def test_killed_while_drawing_leaves_no_half_set(tmp_path):
    root = tmp_path / "out"
    command = [sys.executable, "-m", "dclib.drawn", root, "--n", "3000"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not any(name.endswith(".jpg") for _, _, names in os.walk(tmp_path) for name in names):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not root.exists()
    assert len(list(render_couples(root, n=12, size=16).rglob("*.jpg"))) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_processes_that_draw_one_set(tmp_path, start_child):
    children = [start_child(render_couples, tmp_path / "set", 60, 0, 32) for _ in range(3)]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert len(list(tmp_path.rglob("*.jpg"))) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_that_lost_drawings_is_not_taken_for_whole(couples, tmp_path):
    root = shutil.copytree(couples, tmp_path / "set")
    next(root.rglob("*.jpg")).unlink()
    with pytest.raises(FileExistsError, match="set holds only some of its drawings; delete it"):
        render_couples(root, **SMALL)
