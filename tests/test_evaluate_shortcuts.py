import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import norm
from torch import nn

from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES, fingerprint
from dclib.data.loading import CoupleFolder
from dclib.drawn import render_couples
from dclib.evaluate import shortcuts as module
from dclib.evaluate.shortcuts import CHANCE, LEAST, NAMES, Check, _lost, audit, check_sources
from dclib.train import TrainConfig, train_checkpoint

SIZE = 64
RAW = {"image_size": SIZE, "mean": (0, 0, 0), "std": (1, 1, 1)}
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
    return {check.name for check in report.checks if check.warns}


def test_a_network_that_reads_nothing_is_found_innocent(draw):
    report = audit(make_checkpoint(read_nothing), draw(None))
    assert not report.warns and found_by(report) == set()
    text = str(report)
    assert text.startswith("reader on None/test, n = 80 pictures (40 happy, 40 unhappy) in 40")
    assert "Nothing was found by 4 checks" in text
    assert "source left out: left out, no settings for the trainings" in text
    assert "99 % (Bonferroni, 5 checks)" in text


def test_a_mark_in_the_corner_is_found_with_and_without_the_network(draw):
    report = audit(make_checkpoint(read_corner), draw("mark"))
    assert found_by(report) == {"surroundings", "couple hidden"}
    assert "Found: surroundings, couple hidden" in str(report)


def test_a_network_that_reads_the_corner_where_there_is_nothing_is_innocent(draw):
    assert not audit(make_checkpoint(read_corner), draw(None)).warns


def test_brightness_is_found_by_every_check_that_it_concerns(draw):
    report = audit(make_checkpoint(read_brightness), draw("brightness"))
    assert found_by(report) == set(NAMES[:4])
    lost = report.table.set_index("name").loc["brightness matched"]
    assert lost["value"] > 0.15 and lost["n"] == 80 and lost["measure"] == "accuracy lost"


def test_a_network_that_reads_the_couple_is_not_blamed_for_the_mark_in_the_data(tmp_path):
    """It sees a patch on a face only: gone with the couple, there at any brightness."""
    root = render_couples(tmp_path / "patched", N, 5, SIZE, SPLITS, "mark")
    for split in SPLITS:
        with (root / split / "metadata.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            (x0, y0, x1, y1), _ = json.loads(row["boxes"])
            path = root / split / row["file_name"]
            image = Image.open(path).convert("RGB")
            place = (round((x0 + x1) / 2) - 3, round((y0 + y1) / 2) - 3)
            if row["label"] == "unhappy":
                image.paste((255, 0, 255), (*place, place[0] + 6, place[1] + 6))
            image.save(path, quality=98, subsampling=0)
    report = audit(make_checkpoint(read_magenta), root)
    checks = {check.name: check for check in report.checks}
    assert found_by(report) == {"surroundings"}  # of the data, not of the network
    assert checks["couple hidden"].value == pytest.approx(0.5, abs=0.1)
    assert abs(checks["brightness matched"].value) <= 0.05
    assert "right 100% of the time instead of 100%" in checks["brightness matched"].says


class Prints(Reader):
    """A "network" that learns how red the pictures of each class are, and nothing else."""

    def __init__(self):
        super().__init__(lambda images: (self.redness(images) - self.middle) * self.sign)

    def redness(self, images):
        return (images[:, 0] - images[:, 2]).mean((1, 2))

    def fit(self, dataset):
        images = torch.stack([image for image, _ in dataset])
        red = self.redness(images)
        sides = [red[dataset.labels == label].mean() for label in (0, 1)]
        self.middle, self.sign = sum(sides) / 2, (sides[1] - sides[0]).sign() * 100
        rate = dataset.labels.float().mean()
        if abs(rate - 0.5) > 0.2:  # one source only: the class that it mostly has
            self.middle, self.sign = -9.0, (rate - 0.5).sign() * 100


@pytest.fixture
def quick_fit(monkeypatch):
    """The trainings of the check, done by `Prints`; returns the sizes of their training sets."""
    sizes = []

    def fit(model, train_set, val_set, config, progress):
        assert not set(train_set.groups) & set(val_set.groups)
        sizes.append((len(train_set), sorted(set(train_set.column("source")))))
        model.fit(train_set)

    monkeypatch.setattr(module, "build_model", lambda config: Prints())
    monkeypatch.setattr(module, "fit", fit)
    return sizes


CONFIG = TrainConfig.demo(**RAW, augment=0, cache=False, batch_size=8)


def test_a_source_that_decides_is_found_when_it_is_left_out(draw, quick_fit):
    found = check_sources(draw("source"), CONFIG)
    assert found.warns and found.value > 0.3 and found.n == 80
    assert "(2 sources), right" in found.says
    sources = ["demo drawings", "demo drawings, warm prints"]
    (a, without_a), (b, of_all), (c, without_b), (d, again) = quick_fit
    assert (without_a, without_b) == (sources[1:], sources[:1])
    assert of_all == again == sources
    assert a == b and c == d and a + c == 80  # compared at equal size


def test_a_source_that_does_not_matter_is_not_blamed(tmp_path, quick_fit):
    root = render_couples(tmp_path / "two", N, 6, SIZE, SPLITS)
    rng = np.random.default_rng(0)
    for split in SPLITS:
        path = root / split / "metadata.csv"
        with path.open(newline="") as file:
            rows = [row | {"source": str(rng.choice(["a", "b"]))} for row in csv.DictReader(file)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    found = check_sources(root, CONFIG)
    assert found.n == 80 and not found.warns
    assert len(quick_fit) == 4


def test_one_source_is_left_out_with_a_sentence(draw, quick_fit):
    found = check_sources(draw(None), CONFIG)
    assert (found.n, found.warns, found.verdict) == (0, False, "left out")
    assert "needs two sources or more" in str(found)
    assert quick_fit == []


def test_pictures_that_chose_an_epoch_are_not_asked_about(draw, tmp_path, quick_fit):
    root = shutil.copytree(draw("source"), tmp_path / "data")
    shutil.rmtree(root / "test")
    assert "test, and there is no such split" in str(check_sources(root, CONFIG))
    assert quick_fit == []


def test_with_settings_an_audit_has_all_five_checks(draw, quick_fit):
    report = audit(make_checkpoint(read_nothing), draw("source"), CONFIG)
    assert [check.verdict for check in report.checks].count("left out") == 0
    assert report.checks[-1] == check_sources(draw("source"), CONFIG)
    assert "source left out" in found_by(report)


def test_a_folder_without_metadata_can_be_audited(draw, tmp_path):
    root = render_couples(tmp_path / "bare", N, 5, SIZE, SPLITS, "brightness")
    for path in root.glob("*/metadata.csv"):
        path.unlink()
    report = audit(make_checkpoint(read_brightness), root)
    assert found_by(report) == {"metadata", "brightness matched"}
    assert str(report).count("left out, metadata.csv tells no boxes of the couple") == 2


def test_few_pictures_leave_the_probes_out(tmp_path):
    root = render_couples(tmp_path / "few", 8, 0, SIZE, {"train": 1, "test": 1})
    report = audit(make_checkpoint(read_nothing), root)
    assert [check.n for check in report.checks[:2]] == [0, 0]
    assert "metadata: left out, The probe needs 5 independent happy pictures" in str(report)


@pytest.mark.parametrize("measure", CHANCE)
def test_a_warning_needs_an_effect_and_an_interval_for_five_checks(measure):
    chance, least = CHANCE[measure], LEAST[measure]
    wider = norm.ppf(0.995) / norm.ppf(0.975)  # 0.05 / 5, on two sides

    def warns(value, reach):
        return Check("", "", measure, value, value - reach, value + reach, 100).warns

    value = least + 0.01
    reach = (value - chance) / wider
    assert warns(value, reach * 0.99)
    assert not warns(value, reach * 1.01)  # though the interval of 95 % leaves out chance
    assert not warns(least - 0.01, 0.001)
    assert not Check("", "", measure, np.nan, np.nan, np.nan, 100).warns


def test_a_loss_without_any_variation_is_a_warning_all_the_same():
    """All of one class lost, nothing of the other: no draw of groups within classes differs."""
    margins = np.resize([-1.0, 1.0], 40)
    table = pd.DataFrame({"id": [f"test/{i}.jpg" for i in range(40)]})
    table = table.assign(label=np.where(margins > 0, "unhappy", "happy"), group=table["id"])
    table = table.assign(source="", seed=-1, fold=-1, temperature=1.0, threshold=0.5)
    before = table.assign(logit_happy=-margins, logit_unhappy=margins)
    check = _lost("", "", before, before.assign(logit_happy=-1.0, logit_unhappy=1.0))
    assert check.warns and check.value == 0.5 and 0.3 < check.low < 0.5 < check.high < 0.7
    alone = before.assign(group="one")  # a single group is no evidence
    assert not _lost("", "", alone, alone.assign(logit_happy=-1.0, logit_unhappy=1.0)).warns


def test_the_planted_source_is_drawn_all_the_same(draw):
    root = draw("source")
    assert fingerprint(root)["kind"] == "demo drawings"
    rows = CoupleFolder(root, "test")
    printed = np.array(rows.column("source")) != "demo drawings"
    labels = rows.labels.numpy()
    assert printed[labels == 1].mean() > 0.7 and printed[labels == 0].mean() < 0.3


def test_a_trained_network_that_learned_a_mark_is_found(tmp_path):
    root = render_couples(tmp_path / "mark", 128, 1, 48, {"train": 4, "val": 1, "test": 3}, "mark")
    config = TrainConfig.demo(image_size=40, epochs=5, batch_size=8, workers=0, augment=0)
    checkpoint = train_checkpoint(root, tmp_path / "checkpoint", config, progress=False)
    report = audit(checkpoint, root)
    assert {"surroundings", "couple hidden"} <= found_by(report)
