import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from dclib.checkpoint import load_checkpoint
from dclib.data import CLASSES
from dclib.data.loading import EvalTransform
from dclib.evaluate.intervals import estimate
from dclib.evaluate.metrics import measure
from dclib.evaluate.predictions import LOGITS, answers, check_predictions, predict_folder
from dclib.evaluate.robustness import SWEEPS, predict_sweeps, summarise, versus

SMALL = {"size": (48, 96)}


class Light(nn.Module):
    """Happy is what is brighter than `limit` on average."""

    def __init__(self, limit=0.5, classes=CLASSES):
        super().__init__()
        self.limit, self.classes = nn.Parameter(torch.tensor(limit)), classes

    def forward(self, images):  # not normalised: mean 0, std 1
        light = images.mean((1, 2, 3))
        margin = {"happy": 20 * (light - self.limit), "unhappy": 20 * (self.limit - light)}
        return torch.stack([margin[name] for name in self.classes], dim=1)


def make_checkpoint(size=32, threshold=0.5, **options):
    """What a loaded checkpoint has, around a `Light`."""
    config = {"image_size": size, "temperature": 1.0, "threshold": threshold}
    transform = EvalTransform(size, (0, 0, 0), (1, 1, 1))
    model = Light(**options)
    return SimpleNamespace(model=model, config=config, transform=transform, folder="light")


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """40 pictures in pairs, a bright happy one and a dark unhappy one; 30 with a face box."""
    root = tmp_path_factory.mktemp("lights") / "data"
    rows = []
    for k in range(40):
        row = {"file_name": f"{CLASSES[k % 2]}/{k:02d}.png", "group": f"pair {k // 2}"}
        row["boxes"] = json.dumps([[4, 4, 20, 20]]) if k < 30 else ""
        path = root / "test" / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 48), ((190, 50)[k % 2] + k % 7,) * 3).save(path)
        rows.append(row)
    with (root / "test" / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_a_model_that_only_reads_brightness_falls_there_and_nowhere_else(lights, capsys):
    models, kinds = {"light": make_checkpoint()}, [*SWEEPS]
    frame = summarise(predict_sweeps(models, lights, kinds=kinds, levels=SMALL, progress=False))
    assert list(dict.fromkeys(frame["sweep"])) == kinds
    fallen = frame[frame["drop_low"] > 0]
    assert set(fallen["sweep"]) == {"brightness"}
    assert fallen["level"].tolist() == [0.25, 0.5]  # 190 becomes 95, below the limit of 127.5
    assert fallen["accuracy"].tolist() == [0.5, 0.5]
    still = frame[~frame["sweep"].isin(["brightness"])]
    assert (still["accuracy"] == 1).all() and (still["drop"] == 0).all()
    assert set(frame.loc[frame["sweep"] == "hidden", "n"]) == {30}
    assert "hidden: 10 of 40 pictures have no face boxes." in capsys.readouterr().out


def test_a_network_answers_at_every_reference_as_without_sweeps(couples, drawn_checkpoint):
    checkpoint = load_checkpoint(drawn_checkpoint)
    levels = {kind: SWEEPS[kind].levels[:1] for kind in SWEEPS} | SMALL
    table = predict_sweeps({"drawn": checkpoint}, couples, "train", levels=levels, progress=False)
    usual = predict_folder(checkpoint, couples, "train").set_index("id")
    for kind in SWEEPS:
        part = table[(table["sweep"] == kind) & table["reference"]].set_index("id")
        assert sorted(part.index) == sorted(usual.index)
        found, expected = part[LOGITS], usual.loc[part.index, LOGITS]
        assert found.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-4)
        part = table[(table["sweep"] == kind) & ~table["reference"]].set_index("id")
        assert not np.allclose(part[LOGITS], usual.loc[part.index, LOGITS], atol=1e-4)
    assert set(table.loc[table["sweep"] == "size", "level"]) == {48, 64, 96}
    assert table.loc[table["reference"] & (table["sweep"] == "size"), "level"].eq(64).all()


def test_the_logits_are_those_of_the_checkpoints_own_order_of_classes(lights):
    models = {
        "usual": make_checkpoint(),
        "turned": make_checkpoint(classes=CLASSES[::-1]),
        "strict": make_checkpoint(threshold=1.0),
    }
    table = predict_sweeps(models, lights, kinds="brightness", progress=False)
    usual, turned, strict = (table[table["model"] == name] for name in models)
    assert (usual[LOGITS].to_numpy() == turned[LOGITS].to_numpy()).all()
    assert answers(usual).any() and not answers(strict[strict["level"] == 1]).any()


def test_every_level_is_a_table_of_predictions(lights):
    table = predict_sweeps({"light": make_checkpoint()}, lights, kinds="brightness", progress=False)
    frame = summarise(table)
    for row in frame.itertuples():
        part = check_predictions(table[table["level"] == row.level])
        expected = measure(part, draws=10).loc["accuracy"]
        assert (row.accuracy, row.n) == (expected["value"], 40)
        assert (row.low, row.high) == pytest.approx((expected["low"], expected["high"]))


def make_answers(right, levels=(0.5, 1, 2), reference=1, model="a", pairs=True):
    """A table as of `predict_sweeps`: `right` is (levels, N); two pictures are a group."""
    parts = []
    for level, row in zip(levels, np.asarray(right, bool), strict=True):
        k = np.arange(len(row))
        part = pd.DataFrame({"id": [f"p{i}" for i in k], "label": np.array(CLASSES)[k % 2]})
        part["group"] = [f"g{i // (2 if pairs else 1)}" for i in k]
        part = part.assign(source="", seed=-1, fold=-1, logit_happy=0.0)
        part["logit_unhappy"] = np.where(row == (k % 2 == 1), 1.0, -1.0)
        part = part.assign(temperature=1.0, threshold=0.5, model=model, sweep="brightness")
        parts.append(part.assign(level=float(level), reference=level == reference))
    return pd.concat(parts, ignore_index=True)


def test_the_drop_is_paired_by_picture_and_respects_groups():
    before, after = np.arange(40) % 10 > 0, np.arange(40) % 10 > 3  # 36 and 24 of 40
    table = make_answers([after, before, before])
    frame = summarise(table.sample(frac=1, random_state=0)).set_index("level")
    dark = frame.loc[0.5]
    assert (dark["accuracy"], dark["drop"]) == (0.6, pytest.approx(0.3))
    expected = estimate([before.astype(float) - after], np.arange(40) // 2)
    assert (dark["drop_low"], dark["drop_high"]) == pytest.approx((expected.low, expected.high))
    assert frame.loc[1.0, ["drop", "drop_low", "drop_high"]].tolist() == [0, 0, 0]
    assert frame["reference"].tolist() == [False, True, False]
    assert frame.loc[2.0, "drop"] == 0 and frame.loc[2.0, "drop_low"] < 0
    alone = summarise(make_answers([after, before, before], pairs=False)).set_index("level")
    assert alone.loc[0.5, "drop_low"] > dark["drop_low"]


def test_two_models_are_compared_at_each_level_on_the_same_pictures():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 60)) < 0.9, rng.random((3, 60)) < [[0.5], [0.9], [0.9]]
    table = pd.concat([make_answers(a), make_answers(b, model="b")])
    frame = versus(table.sample(frac=1, random_state=1), "a", "b").set_index("level")
    gains = a.astype(float) - b
    for level, gain in zip((0.5, 1, 2), gains, strict=True):
        expected = estimate([gain], np.arange(60) // 2)
        found = frame.loc[level, ["difference", "low", "high"]].tolist()
        assert found == pytest.approx([expected.mean, expected.low, expected.high])
        assert frame.loc[level, "spared"] == pytest.approx((gain - gains[1]).mean())
    assert frame.loc[0.5, "spared_low"] > 0  # b falls in the dark, a does not
    assert frame.loc[1, ["spared_low", "spared_high"]].tolist() == [0, 0]
    assert frame.loc[2, "spared_low"] < 0 < frame.loc[2, "spared_high"]
    turned = versus(table, "b", "a").set_index("level")
    assert turned["difference"].tolist() == pytest.approx((-frame["difference"]).tolist())
    with pytest.raises(ValueError, match="no model 'c'"):
        versus(table, "a", "c")


def test_networks_of_different_sizes_share_the_levels_of_the_size_sweep(lights):
    models = {"small": make_checkpoint(32), "large": make_checkpoint(48)}
    table = predict_sweeps(models, lights, kinds="size", levels={"size": (32, 64)}, progress=False)
    frame = summarise(table)
    of = {name: frame[frame["model"] == name] for name in models}
    assert of["small"]["level"].tolist() == [32, 64]
    assert of["small"]["reference"].tolist() == [True, False]
    assert of["large"]["level"].tolist() == [32, 48, 64]
    assert of["large"]["reference"].tolist() == [False, True, False]
    assert versus(table, "large", "small")["level"].tolist() == [32, 64]


def test_without_boxes_the_sweep_is_left_out_aloud(lights, tmp_path, capsys):
    shutil.copytree(lights, tmp_path / "data")
    (tmp_path / "data" / "test" / "metadata.csv").unlink()
    models = {"light": make_checkpoint()}
    options = {"n": 10, "progress": False}
    table = predict_sweeps(models, tmp_path / "data", kinds=["hidden", "hue"], **options)
    assert set(table["sweep"]) == {"hue"} and table["id"].nunique() == 10
    assert "hidden is left out: no picture has face boxes" in capsys.readouterr().out
    with pytest.raises(ValueError, match="hidden needs face boxes"):
        predict_sweeps(models, tmp_path / "data", kinds="hidden", **options)


def test_faces_of_photographs_are_hidden(real_couples):
    models = {"light": make_checkpoint()}
    table = predict_sweeps(models, real_couples, "val", kinds="hidden", n=8, progress=False)
    frame = summarise(table)
    assert set(frame["n"]) == {8} and len(frame) == 5


def test_other_classes_are_refused(lights):
    models = {"odd": make_checkpoint()}
    models["odd"].model.classes = ("cat", "dog")
    with pytest.raises(ValueError, match="light sorts into cat and dog; numbers are made for"):
        predict_sweeps(models, lights, progress=False)
