import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from tables import write_metadata
from torch import nn

from dclib.checkpoint import load_checkpoint
from dclib.data import CLASSES
from dclib.data.loading import EvalTransform
from dclib.evaluate.metrics import measure
from dclib.evaluate.predictions import LOGITS, answers, check_predictions, predict_folder
from dclib.evaluate.robustness import (
    SWEEPS,
    change_picture,
    predict_sweeps,
    prepare,
    rotate,
    summarise,
    turned,
)

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


LIGHT = {"light": make_checkpoint()}


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
    write_metadata(root / "test", rows)
    return root


def test_a_model_that_only_reads_brightness_falls_there_and_nowhere_else(lights, capsys):
    frame = summarise(predict_sweeps(LIGHT, lights, levels=SMALL, progress=False))
    assert list(dict.fromkeys(frame["sweep"])) == [*SWEEPS]
    fallen = frame[frame["accuracy"] < 1]
    assert set(fallen["sweep"]) == {"brightness"}
    assert fallen["level"].tolist() == [0.25, 0.5]  # 190 becomes 95, below the limit of 127.5
    assert fallen["accuracy"].tolist() == [0.5, 0.5]
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
    table = predict_sweeps(models, lights, levels=SMALL, progress=False)
    table = table[table["sweep"] == "brightness"]
    usual, turned, strict = (table[table["model"] == name] for name in models)
    assert (usual[LOGITS].to_numpy() == turned[LOGITS].to_numpy()).all()
    assert answers(usual).any() and not answers(strict[strict["level"] == 1]).any()


def test_every_level_is_a_table_of_predictions(lights):
    table = predict_sweeps(LIGHT, lights, levels=SMALL, progress=False)
    table = table[table["sweep"] == "brightness"]
    frame = summarise(table)
    for row in frame.itertuples():
        part = check_predictions(table[table["level"] == row.level])
        expected = measure(part, draws=10).loc["accuracy"]
        assert (row.accuracy, row.n) == (expected["value"], 40)
        assert (row.low, row.high) == pytest.approx((expected["low"], expected["high"]))


def test_networks_of_different_sizes_share_the_levels_of_the_size_sweep(lights):
    models = {"small": make_checkpoint(32), "large": make_checkpoint(48)}
    table = predict_sweeps(models, lights, levels={"size": (32, 64)}, progress=False)
    frame = summarise(table[table["sweep"] == "size"])
    of = {name: frame[frame["model"] == name] for name in models}
    assert of["small"]["level"].tolist() == [32, 64]
    assert of["small"]["reference"].tolist() == [True, False]
    assert of["large"]["level"].tolist() == [32, 48, 64]
    assert of["large"]["reference"].tolist() == [False, True, False]


def test_without_boxes_the_sweep_is_left_out_aloud(lights, tmp_path, capsys):
    shutil.copytree(lights, tmp_path / "data")
    (tmp_path / "data" / "test" / "metadata.csv").unlink()
    table = predict_sweeps(LIGHT, tmp_path / "data", n=10, levels=SMALL, progress=False)
    assert {*table["sweep"], "hidden"} == {*SWEEPS} and table["id"].nunique() == 10
    assert "hidden: 10 of 10 pictures have no face boxes." in capsys.readouterr().out
    with pytest.raises(ValueError, match="no sweep 'fog'; there are brightness, blur"):
        predict_sweeps({}, lights, levels={"fog": (1,)})


def test_faces_of_photographs_are_hidden(real_couples):
    table = predict_sweeps(LIGHT, real_couples, "val", n=8, levels=SMALL, progress=False)
    frame = summarise(table[table["sweep"] == "hidden"])
    assert set(frame["n"]) == {8} and len(frame) == 5


BOXES = [(10, 20, 50, 60), (70, 10, 90, 50)]


@pytest.fixture(scope="module")
def picture():
    """120 x 120 px: smooth colours with sharp edges, nowhere black, white or grey."""
    y, x = np.mgrid[:120, :120]
    pixels = np.stack([40 + x, 60 + y // 2, 90 + (x + y) // 6], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).rectangle((30, 40, 80, 70), fill=(120, 50, 90))
    return image


def changed(picture, kind, level):
    return np.asarray(change_picture(picture, kind, level, BOXES)).astype(float)


@pytest.mark.parametrize("kind", [kind for kind in SWEEPS if kind != "size"])
def test_at_the_reference_nothing_changes_and_never_the_picture_that_was_given(picture, kind):
    sweep, before, transform = SWEEPS[kind], np.asarray(picture).copy(), EvalTransform(64)
    assert (changed(picture, kind, sweep.reference) == before).all()
    assert (prepare(picture, (), transform, kind, sweep.reference) == transform(picture)).all()
    if sweep.change:
        assert (np.asarray(sweep.change(picture, sweep.reference, BOXES)) == before).all()
    for level in sweep.levels:
        change_picture(picture, kind, level, BOXES)
    assert (np.asarray(picture) == before).all()


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.5])
def test_brightness_multiplies_what_is_not_clipped(picture, factor):
    expected = np.asarray(picture) * factor
    assert np.abs(changed(picture, "brightness", factor) - expected).max() <= 1
    assert changed(picture, "brightness", 100).min() == 255


def test_blur_is_gaussian_with_sigma_in_shares_of_the_shorter_side():
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[40:60, 60:100] = 240
    found = changed(Image.fromarray(pixels), "blur", 0.05)
    expected = gaussian_filter(pixels.astype(float), (5, 5, 0))
    assert np.abs(found - expected).max() < 6
    assert found.max() < 240


def test_rotation_by_a_right_angle_is_a_transposition_and_corners_are_black(picture):
    expected = picture.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise
    assert (changed(picture, "rotation", 90) == np.asarray(expected)).all()
    tilted = changed(picture, "rotation", 45)
    assert (tilted[0, 0] == 0).all() and (tilted[60, 60] > 0).all()
    assert (tilted == 0).all(axis=2).mean() == pytest.approx(3 - 2 * math.sqrt(2), abs=0.02)


@pytest.mark.parametrize("share", [0.25, 0.5, 1])
def test_hidden_covers_exactly_that_share_of_each_box_from_below(picture, share):
    found = changed(picture, "hidden", share)
    grey = (found == 127).all(axis=2)
    assert (found[~grey] == np.asarray(picture)[~grey]).all()
    assert grey.sum() == share * (40 * 40 + 20 * 40)
    for x0, y0, x1, y1 in BOXES:
        inside = grey[y0:y1, x0:x1]
        assert inside.mean() == share and inside[-1].all()


def test_hidden_boxes_may_reach_over_the_edge(picture):
    grey = np.asarray(change_picture(picture, "hidden", 1, [(-5.2, 100.4, 30.2, 140)])) == 127
    assert grey.all(axis=2).sum() == 30 * 20


@pytest.mark.parametrize("level", SWEEPS["aspect"].levels)
def test_another_aspect_has_as_many_pixels(level):
    picture = Image.new("RGB", (300, 300))
    _, height, width = prepare(picture, (), EvalTransform(224), "aspect", level).shape
    assert width / height == pytest.approx(level, rel=0.01)
    assert width * height == pytest.approx(224**2, rel=0.01)


@pytest.mark.parametrize("frame", ["whole", "faces"])
def test_the_preparation_is_the_usual_one(picture, frame):
    transform = EvalTransform(40, frame=frame)
    expected = transform(transform.cut(picture, BOXES))
    assert (prepare(picture, BOXES, transform, "blur", 0.1) == expected).all()
    larger = EvalTransform(96, frame=frame)
    expected = larger(larger.cut(picture, BOXES))
    assert (prepare(picture, BOXES, transform, "size", 96) == expected).all()
    assert transform.size == 40


@pytest.mark.parametrize("level", [-30, 10, 90])
def test_boxes_turn_with_their_picture(picture, level):
    spot = Image.new("RGB", (120, 80))
    spot.paste("white", (80, 20, 90, 30))
    ((x0, y0, x1, y1),) = turned([(80, 20, 90, 30)], level, spot.size)
    assert (x1 - x0, y1 - y0) == pytest.approx((10, 10))
    rows, columns = np.nonzero(np.asarray(rotate(spot, level, ()).convert("L")) > 99)
    middle = (columns.mean() + 0.5, rows.mean() + 0.5)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx(middle, abs=0.5)
