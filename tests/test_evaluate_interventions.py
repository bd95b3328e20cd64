import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from dclib.data.loading import CoupleFolder, EvalTransform
from dclib.drawn import render_couples
from dclib.evaluate import shortcuts as interventions
from dclib.evaluate.probe import fit_folds
from dclib.evaluate.shortcuts import (
    COARSE,
    GROW,
    Changed,
    brighten,
    find_couples,
    match_levels,
    paint,
    pair_boxes,
    thumbnails,
    with_boxes,
)


@pytest.fixture(scope="module")
def dataset(couples):
    return CoupleFolder(couples, "train", EvalTransform(32))


def write_metadata(root, rows):
    path = root / "test" / "metadata.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def told(tmp_path):
    """told(body_boxes=..., ...) -> a test split of two pictures, 20 x 10, with these columns."""

    def make(**columns):
        rows = []
        for name in ("happy", "unhappy"):
            (tmp_path / "test" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10)).save(tmp_path / "test" / name / "a.png")
            rows.append({"file_name": f"{name}/a.png"} | columns)
        write_metadata(tmp_path, rows)
        return CoupleFolder(tmp_path, "test")

    return make


def test_boxes_are_shares_of_the_sides_and_faces_are_grown(told):
    found = find_couples(told(body_boxes="[[2, 5, 10, 10]]", boxes="[[4, 2, 9, 4]]"))
    assert len(found) == 2
    face = [(4 - 5 * GROW) / 20, (2 - 2 * GROW) / 10, (9 + 5 * GROW) / 20, (4 + 2 * GROW) / 10]
    assert found[0] == pytest.approx(np.array([[0.1, 0.5, 0.5, 1], face]))


def test_faces_alone_are_not_the_couple(told):
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
        monkeypatch.setattr(interventions, "GROW", grow)
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


@given(st.lists(st.integers(1, 255), min_size=2, max_size=60), st.integers(0, 99))
def test_matched_levels_are_alike_in_both_classes_and_keep_their_order(levels, seed):
    levels = np.array(levels, float)
    labels = np.random.default_rng(seed).permutation(np.arange(len(levels)) % 2)
    matched = levels * match_levels(levels, labels)
    if len(levels) % 2 == 0:  # as many of each
        assert np.sort(matched[labels == 0]) == pytest.approx(np.sort(matched[labels == 1]))
    for label in (0, 1):
        order = np.argsort(levels[labels == label], kind="stable")
        assert (np.diff(matched[labels == label][order]) >= -1e-9).all()
    assert matched.min() >= levels.min() - 1e-9 and matched.max() <= levels.max() + 1e-9


def test_classes_that_are_alike_are_left_as_they_are():
    levels = np.repeat([30.0, 80, 81, 200], 2)
    labels = np.tile([0, 1], 4)
    assert match_levels(levels, labels) == pytest.approx(np.ones(8))
    assert match_levels(np.array([0.0, 100]), np.array([0, 1])).tolist() == [50, 0.5]


def test_brightening_multiplies_and_cuts_off():
    image = Image.fromarray(np.array([[[10, 100, 200]]], np.uint8))
    assert np.asarray(brighten(image, 1.5)).tolist() == [[[15, 150, 255]]]
    assert np.asarray(brighten(image, 0.5)).tolist() == [[[5, 50, 100]]]


def test_changes_come_before_the_transform(dataset):
    changed = Changed(dataset, lambda image, index: brighten(image, 0.5 if index else 1))
    assert len(changed) == len(dataset)
    assert torch.equal(changed[0][0], dataset[0][0])
    assert changed[1][1] == dataset[1][1]
    expected = dataset.transform(brighten(dataset.picture(1), 0.5))
    assert torch.equal(changed[1][0], expected)
