import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from tables import write_metadata
from torch import nn

from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES
from dclib.data.loading import CoupleFolder, EvalTransform, read_boxes
from dclib.drawn import render_couples
from dclib.evaluate import shortcuts
from dclib.evaluate.probe import Check, fit_folds
from dclib.evaluate.shortcuts import (
    COARSE,
    GROW,
    NAMES,
    Painted,
    audit,
    find_couples,
    paint,
    pair_boxes,
    thumbnails,
    with_boxes,
)

SIZE = 64
RAW = {"image_size": SIZE, "mean": (0, 0, 0), "std": (1, 1, 1), "frame": "whole", "frame_margin": 0}
N, SPLITS = 200, {"train": 2, "val": 1, "test": 2}


class Reader(nn.Module):
    """A "network" that answers from one number that it reads off images (B, 3, H, W) in [0, 1]."""

    def __init__(self, read):
        super().__init__()
        self.read, self.classes, self.weight = read, CLASSES, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        margins = self.read(images)  # (B, 3, H, W) -> (B,)
        return torch.stack([-margins, margins], 1)


def read_corner(images):
    return images[:, :, 3:7, 3:7].mean((1, 2, 3)) - 0.9


def read_brightness(images):
    return 0.48 - images.mean((1, 2, 3))


def read_nothing(images):
    """Numbers that have to do with the picture, but not with its class."""
    return torch.sin(1e4 * images.double().mean((1, 2, 3))).float()


def read_magenta(images):
    """Of the patch that is painted on a face of unhappy couples below."""
    return (images[:, 0] - images[:, 1]).amax((1, 2)).clamp(0.6) - 0.8


def make_checkpoint(read):
    config = RAW | {"temperature": 1.0, "threshold": 0.5}
    return Checkpoint(Reader(read).eval(), config, Path("reader"))


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """draw(shortcut) -> 200 drawn couples with it, 80 of them in test; each drawn once."""
    drawn = {}

    def make(shortcut):
        if shortcut not in drawn:
            root = tmp_path_factory.mktemp("audit") / str(shortcut)
            drawn[shortcut] = render_couples(root, N, 5, SIZE, SPLITS, shortcut)
        return drawn[shortcut]

    return make


def found_by(report):
    return {name for name in NAMES if f"{name}: WARNING." in report}


def counted(report):
    """n of each check that was made."""
    return [int(n) for n in re.findall(r"n = (\d+) in", report)]


def test_a_network_that_reads_nothing_is_found_innocent(draw):
    report = audit(make_checkpoint(read_nothing), draw(None))
    assert found_by(report) == set()
    text = report
    assert text.startswith("reader on None/test, n = 80 pictures (40 happy, 40 unhappy) in 40")
    assert "Nothing was found by 3 checks" in text
    assert "98 % (Bonferroni, 3 checks)" in text


def test_a_mark_in_the_corner_is_found_where_there_is_one(draw):
    assert not found_by(audit(make_checkpoint(read_corner), draw(None)))
    report = audit(make_checkpoint(read_corner), draw("mark"))
    assert found_by(report) == {"surroundings", "couple hidden"}
    assert "Found: surroundings, couple hidden" in report
    # brightness by every check that it concerns
    report = audit(make_checkpoint(read_brightness), draw("brightness"))
    assert found_by(report) == set(NAMES)
    assert counted(report) == [200, 200, 80]


def test_a_network_that_reads_the_couple_is_not_blamed_for_the_mark_in_the_data(tmp_path):
    """It sees a patch on a face only, which is gone with the couple."""
    root = render_couples(tmp_path / "patched", N, 5, SIZE, SPLITS, "mark")
    for split in SPLITS:
        dataset = CoupleFolder(root, split)
        for (path, label), ((x0, y0, x1, y1), _) in zip(dataset.samples, read_boxes(dataset)):
            image = Image.open(path).convert("RGB")
            place = (round((x0 + x1) / 2) - 3, round((y0 + y1) / 2) - 3)
            if CLASSES[label] == "unhappy":
                image.paste((255, 0, 255), (*place, place[0] + 6, place[1] + 6))
            image.save(path, quality=98, subsampling=0)
    report = audit(make_checkpoint(read_magenta), root)
    assert found_by(report) == {"surroundings"}  # of the data, not of the network
    hidden = report.partition("couple hidden: ")[2].partition("AUROC ")[2][:4]
    assert float(hidden) == pytest.approx(0.5, abs=0.1)


def test_a_folder_without_metadata_can_be_audited(draw, tmp_path):
    root = render_couples(tmp_path / "bare", N, 5, SIZE, SPLITS, "brightness")
    for path in root.glob("*/metadata.csv"):
        path.unlink()
    report = audit(make_checkpoint(read_brightness), root)
    assert found_by(report) == {"metadata"}
    assert report.count("left out, metadata.csv tells no boxes of the couple") == 2


def test_without_a_test_split_the_network_answers_to_val(tmp_path):
    root = render_couples(tmp_path / "two", 40, 0, SIZE, {"train": 3, "val": 1})
    report = audit(make_checkpoint(read_nothing), root)
    assert report.startswith("reader on two/val, n = 10 pictures")


def test_few_pictures_leave_the_probes_out(tmp_path):
    root = render_couples(tmp_path / "few", 8, 0, SIZE, {"train": 1, "test": 1})
    report = audit(make_checkpoint(read_nothing), root)
    assert len(counted(report)) == 1 and "surroundings: left out, The probe" in report
    assert "metadata: left out, The probe needs 5 independent happy pictures" in report


def test_a_warning_needs_an_effect_and_an_interval_for_all_checks():
    wider = norm.ppf(1 - 0.025 / 3) / norm.ppf(0.975)

    def warns(area, reach, checks=3):
        return Check("", "", area, area - reach, area + reach, 100, checks=checks).warns

    reach = 0.16 / wider
    assert warns(0.66, reach * 0.99)
    assert not warns(0.66, reach * 1.01)  # though the interval of 95 % leaves out chance
    assert warns(0.66, reach * 1.01, checks=1)
    assert not warns(0.64, 0.001)
    assert not Check("", "", n=100).warns


def test_a_trained_network_that_learned_a_mark_is_found(fooled):
    root, checkpoint = fooled
    report = audit(checkpoint, root)
    assert {"surroundings", "couple hidden"} <= found_by(report)


@pytest.fixture(scope="module")
def dataset(couples):
    return CoupleFolder(couples, "train", EvalTransform(32))


@pytest.fixture
def told(tmp_path):
    """told(body_boxes=..., ...) -> a test split of two pictures, 20 x 10, with these columns."""

    def make(**columns):
        rows = []
        for name in ("happy", "unhappy"):
            (tmp_path / "test" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10)).save(tmp_path / "test" / name / "a.png")
            rows.append({"file_name": f"{name}/a.png"} | columns)
        write_metadata(tmp_path / "test", rows)
        return CoupleFolder(tmp_path, "test")

    return make


def test_boxes_are_shares_of_the_sides_faces_are_grown_and_alone_not_the_couple(told):
    found = find_couples(told(body_boxes="[[2, 5, 10, 10]]", boxes="[[4, 2, 9, 4]]"))
    assert len(found) == 2
    face = [(4 - 5 * GROW) / 20, (2 - 2 * GROW) / 10, (9 + 5 * GROW) / 20, (4 + 2 * GROW) / 10]
    assert found[0] == pytest.approx(np.array([[0.1, 0.5, 0.5, 1], face]))
    dataset = told(boxes="[[4, 2, 9, 4]]")
    assert [len(boxes) for boxes in find_couples(dataset)] == [0, 0]
    part, boxes = with_boxes(dataset)
    assert (len(part), boxes, len(dataset)) == (0, [], 2)
    assert len(with_boxes(told(body_boxes="[]", boxes="[]"))[0]) == 0


def test_painting_leaves_nothing_of_the_couple_and_all_of_the_rest():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
    boxes = np.array([[0.1, 0.5, 0.5, 1.0], [-0.2, 0, 0.1, 0.2]])
    hidden = np.zeros((10, 20), bool)
    hidden[5:, 2:10] = hidden[:2, :2] = True
    painted = paint(pixels, boxes)
    assert (painted[~hidden] == pixels[~hidden]).all()
    assert (painted[hidden] == np.rint(pixels[~hidden].mean(0))).all()
    changed = pixels.copy()
    changed[hidden] = 255 - changed[hidden]
    assert (paint(changed, boxes) == painted).all()
    assert (paint(pixels, np.array([[0, 0, 1, 1]])) == 127).all()


def test_a_pair_is_hidden_by_the_boxes_of_both_and_the_shape_tells_nothing(tmp_path):
    """How wide the couple's own boxes are tells the class; how wide the pair's are does not."""
    root = render_couples(tmp_path / "data", 240, seed=3, size=32, splits={"test": 1})
    dataset = CoupleFolder(root, "test")
    labels, own = dataset.labels.numpy(), find_couples(dataset)
    pairs = pair_boxes(own, labels)
    for index, (before, after) in enumerate(zip(own, pairs, strict=True)):
        assert (after[: len(before)] == before).all()
        partners = [i for i in np.flatnonzero(labels != labels[index])]
        assert any((own[i] == after[len(before) :]).all() for i in partners)

    def area(found):
        widths = [boxes[:, 2].max() - boxes[:, 0].min() for boxes in found]
        return roc_auc_score(labels, widths)

    assert area(own) > 0.6
    assert abs(area(pairs) - 0.5) < 0.1
    with pytest.raises(ValueError):
        pair_boxes(own, np.zeros(len(own), int))


def test_hair_that_looks_out_of_the_boxes_would_tell_where_the_heads_are(tmp_path, monkeypatch):
    root = render_couples(tmp_path / "data", 500, seed=4, size=48, splits={"test": 1})
    dataset = CoupleFolder(root, "test")
    labels, groups = dataset.labels.numpy(), np.arange(500) % 250

    def area(grow):
        monkeypatch.setattr(shortcuts, "GROW", grow)
        columns = thumbnails(dataset, find_couples(dataset))
        return roc_auc_score(labels, fit_folds(columns, labels, groups, inverse_penalty=0.01)[0])

    assert area(0) > 0.62
    assert abs(area(GROW) - 0.5) < 0.08


def test_thumbnails_see_the_surroundings_only(dataset):
    found = thumbnails(dataset, [np.array([[0.9, 0.9, 1.0, 1.0]])] * len(dataset))
    assert found.shape == (len(dataset), COARSE * COARSE * 3)
    everything = [np.array([[0.0, 0, 1, 1]])] * len(dataset)
    assert (thumbnails(dataset, everything) == 127).all()
    picture = np.asarray(dataset.picture(0), float)
    corner = found[0].reshape(COARSE, COARSE, 3)[0, 0]
    assert corner == pytest.approx(picture[:5, :5].mean((0, 1)), abs=12)


def test_painting_comes_before_the_transform(dataset):
    boxes = [np.array([[0.0, 0, 0.5, 0.5]])] * len(dataset)
    painted = Painted(dataset, boxes)
    assert len(painted) == len(dataset) and painted[1][1] == dataset[1][1]
    expected = Image.fromarray(paint(np.asarray(dataset.picture(1)), boxes[1]))
    assert torch.equal(painted[1][0], dataset.transform(expected))
