from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from neuron_states import make_states
from PIL import Image
from sklearn.metrics import roc_auc_score

from dclib.checkpoint import load_checkpoint
from dclib.data.loading import CoupleFolder, EvalTransform
from dclib.evaluate.intervals import wilson_interval
from dclib.evaluate.predictions import predict_folder
from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.neurons import Crop, _crop_box, activation_states, neuron_table, top_crops
from dclib.framing import BEYOND, frame_picture
from dclib.model import DeepConnection
from dclib.photo import predict_photo
from dclib.predict import extract_features


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    """A temperature that is not 1, and BatchNorm statistics that are not those of the start."""
    found = load_checkpoint(drawn_checkpoint)
    torch.manual_seed(3)
    norm = found.model.head.bn1
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    torch.nn.init.normal_(norm.weight)
    return replace(found, config=found.config | {"temperature": 0.7})


@pytest.fixture(scope="module")
def states(checkpoint, couples):
    return activation_states(checkpoint, couples, "train")


def test_contributions_and_constant_are_the_networks_margin(states, checkpoint, couples):
    table = predict_folder(checkpoint, couples, "train")
    margins = (table["logit_unhappy"] - table["logit_happy"]) / 0.7
    np.testing.assert_allclose(states.margins, margins, rtol=1e-4, atol=1e-4)
    assert states.ids.tolist() == table["id"].tolist()
    assert (states.labels == (table["label"] == "unhappy")).all()
    prediction = predict_photo(couples / states.ids[3], checkpoint)
    assert states.margins[3] == pytest.approx(prediction.margin, abs=1e-3)
    assert states.answers[3] == (prediction.label == "unhappy")


def test_what_is_kept_of_region_maps_is_what_evidence_finds(states, checkpoint, couples):
    dataset = CoupleFolder(couples, "train", checkpoint.transform)
    images = torch.stack([dataset[index][0] for index in range(len(dataset))])
    feature_map = extract_features(checkpoint.model, images)
    evidence = find_evidence(fold_head(checkpoint.model, 0.7), feature_map)
    maps, on = evidence.neuron_maps.numpy(), evidence.z.numpy() > 0
    np.testing.assert_allclose(states.z, evidence.z, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        states.contributions, evidence.of_margin("contributions"), rtol=1e-4, atol=1e-4
    )
    for row, neuron in ((0, 0), (5, 17), (23, 99)):
        cell = tuple(states.cells[row, neuron])
        assert maps[row, neuron][cell] == maps[row, neuron].max()
    (neuron, *_) = np.flatnonzero(on.any(0) & ~on.all(0))
    expected = maps[on[:, neuron], neuron].mean(0)
    np.testing.assert_allclose(states.maps[neuron], expected, rtol=1e-3, atol=1e-4)


def test_levels_add_up_to_the_input(states, checkpoint):
    bias = checkpoint.model.head.lin1.bias.detach().double().numpy()
    np.testing.assert_allclose(bias + states.by_level.sum(2), states.z, rtol=1e-6)
    assert states.by_level.shape == (len(states.ids), 100, len(states.levels))


@pytest.mark.parametrize("stage", ["plain", "spp"])
def test_levels_of_other_stages(stage, checkpoint, couples):
    torch.manual_seed(0)
    model = DeepConnection(stage, "resnet18", weights=None, levels=(2, 1)).eval()
    found = activation_states(replace(checkpoint, model=model), couples, "test")
    table = predict_folder(replace(checkpoint, model=model), couples, "test")
    margins = (table["logit_unhappy"] - table["logit_happy"]) / 0.7
    np.testing.assert_allclose(found.margins, margins, rtol=1e-4, atol=1e-5)
    assert found.levels == ((1,) if stage == "plain" else (2, 1))


def test_the_order_of_the_classes_does_not_matter(states, checkpoint, couples):
    """The same network with its two logits, and their names, in the other order."""
    model = deepcopy(checkpoint.model)
    model.classes = model.classes[::-1]
    for value in (model.head.lin2.weight, model.head.lin2.bias):
        value.data = value.data.flip(0)
    turned = activation_states(replace(checkpoint, model=model), couples, "train")
    places = [turned.ids.tolist().index(name) for name in states.ids]
    np.testing.assert_allclose(turned.margins[places], states.margins, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(turned.weights, states.weights)
    assert (turned.labels[places] == states.labels).all()


def test_some_pictures_are_whole_couples(checkpoint, couples):
    found = activation_states(checkpoint, couples, "train", n=8)
    assert len(found.ids) == 8
    assert len(set(found.groups)) == 4
    assert found.labels.sum() == 4


def test_evidence_on_faces_is_a_share_and_area_is_that_of_the_boxes(states):
    there = states.on_faces[states.z > 0]
    assert ((there >= 0) & (there <= 1)).all()
    assert 0.1 < states.face_area.mean() < 0.5


def test_faces_are_where_the_network_sees_them_in_pictures_that_are_not_square(
    checkpoint, tmp_path
):
    """A wide picture, and the same with what lies beyond it painted on, look alike to a network."""
    face, beyond = np.array([8, 6, 24, 22]), np.array([0, 16, 0, 16])  # a square begins 16 px above
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
    for name, box in (("wide", face), ("square", face + beyond)):
        for label, pixels in zip(("happy", "unhappy"), noise):
            folder = tmp_path / name / "train" / label
            folder.mkdir(parents=True)
            canvas = Image.new("RGB", (64, 64), BEYOND)
            canvas.paste(Image.fromarray(pixels), (0, 16))
            picture = canvas if name == "square" else Image.fromarray(pixels)
            picture.save(folder / "1.png")
        rows = [f'{label}/1.png,{label},"[{box.tolist()}]"' for label in ("happy", "unhappy")]
        table = tmp_path / name / "train" / "metadata.csv"
        table.write_text("\n".join(["file_name,label,boxes", *rows]))
    wide, square = (
        activation_states(checkpoint, tmp_path / n, "train") for n in ("wide", "square")
    )
    np.testing.assert_allclose(wide.z, square.z, atol=1e-4)
    assert wide.face_area == pytest.approx(16 * 16 / 64**2, abs=0.2) and wide.face_area.all()
    np.testing.assert_allclose(wide.face_area, square.face_area)
    np.testing.assert_allclose(wide.on_faces, square.on_faces, atol=1e-4)


def test_a_table_needs_both_classes():
    with pytest.raises(ValueError, match="All pictures are of one class"):
        neuron_table(make_states(np.ones((3, 1)), np.ones(3), [0.5]))


def test_the_table_of_one_neuron_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    activations = np.array([[1, -1, -2, 3, 4, 5, -1, 2]], float).T
    row = neuron_table(make_states(activations, labels, [0.5]), draws=50).loc[0]
    assert row["pull"] == 0.5
    assert (row["rate_happy"], row["rate_unhappy"]) == (0.5, 0.75)
    low, high = wilson_interval(2, 4)
    assert row["rate_happy_low"] < low  # few groups: wider than for independent pictures
    assert row["rate_happy_high"] > high
    assert row["strength"] == pytest.approx(0.5 * 15 / 8)
    assert row["auroc"] == roc_auc_score(labels, np.maximum(activations[:, 0], 0))
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]


def test_dead_constant_and_copied_neurons_are_flagged():
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    a, b = rng.standard_normal((2, 40))
    columns = [a, np.full(40, -1.0), 9 + b, 9 + 2 * b, np.full(40, 2.0), 2 * a, 9 - b]
    table = neuron_table(make_states(np.stack(columns, 1), labels, np.ones(7)), draws=50)
    assert np.flatnonzero(table["dead"]).tolist() == [1]
    assert np.flatnonzero(table["always_on"]).tolist() == [2, 3, 4, 6]
    assert table["duplicate_of"].tolist() == [-1, -1, -1, 2, -1, 0, -1]
    assert table.loc[[1, 4], "auroc"].tolist() == [0.5, 0.5]
    assert table.loc[[1, 4], "auroc_low"].isna().all()


def test_the_level_on_which_a_neuron_depends():
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    fine, coarse = rng.standard_normal((2, 40, 1))
    by_level = np.stack([fine, 0.1 * coarse + 7], 2)  # the coarse one is large but hardly varies
    states = make_states(1 + by_level.sum(2), labels, [1.0], by_level=by_level)
    assert neuron_table(states, draws=20).loc[0, "level"] == 2


# ------------------------------------------------------------------ crops


def test_crops_are_the_strongest_of_each_group_where_the_neuron_is_on(states, couples):
    dataset = CoupleFolder(couples, "train", EvalTransform(64))
    neuron = int((states.z > 0).sum(0).argmax())
    crops = top_crops(states, dataset, neuron, n=5)
    activations = [crop.activation for crop in crops]
    assert activations == sorted(activations, reverse=True)
    assert activations[0] == states.z[:, neuron].max()
    group_of = dict(zip(states.ids, states.groups, strict=True))
    assert len({group_of[crop.id] for crop in crops}) == 5
    assert all(crop.id.split("/")[1] == crop.label for crop in crops)
    assert isinstance(crops[0], Crop)


def test_a_dead_neuron_has_no_crops(states, couples):
    dead = replace(states, z=-np.ones_like(states.z))
    assert top_crops(dead, CoupleFolder(couples, "train"), 0) == []


def test_a_crop_lies_around_the_strongest_cell_and_inside_the_picture():
    assert _crop_box((3, 2), 256, 2) == (32, 64, 96, 128)  # centre (64, 96)
    assert _crop_box((0, 7), 256, 2) == (192, 0, 256, 64)
    assert _crop_box((1, 1), 96, 5) == (0, 0, 96, 96)


def test_a_crop_shows_what_is_in_the_cell(tmp_path):
    """A white square where cell (2, 5) of 8 x 8 looks: a crop of one cell is white, no more."""
    picture = Image.new("RGB", (256, 256))
    picture.paste((255, 255, 255), (144, 48, 176, 80))

    class One:
        ids = ("test/happy/0000.jpg",)

        def picture(self, _):
            return picture

        def framed(self, _):
            return frame_picture(picture, (), "whole", 256)

    cells, maps = np.array([[[2, 5]]]), np.zeros((1, 8, 8))
    states = make_states([[1.0]], np.array([0]), [1.0], cells=cells, maps=maps, size=256)
    (crop,) = top_crops(states, One(), 0, context=1)
    assert crop.image.getextrema() == ((255, 255),) * 3


def test_states_say_how_many_they_are(states):
    assert str(states) == "train: n = 24 (12 happy, 12 unhappy) in 12 groups"
