import copy

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from dclib.checkpoint import load_checkpoint
from dclib.drawn import render_couples
from dclib.explain import sanity as module
from dclib.explain.evidence import find_evidence
from dclib.explain.pointing import mark_evidence
from dclib.explain.sanity import (
    PARTS,
    cascade,
    hide_in_order,
    rank_agreement,
    rank_cells,
    rank_correlation,
    signed_maps,
)
from dclib.model import DeepConnection
from dclib.train import TrainConfig, train_checkpoint

GROUPS = np.arange(6)
SIZE = 128  # pixels a side of the input, if it were one


@pytest.fixture(scope="module")
def linear():
    """A network whose head is linear: a mean of cells, and neurons that are always on."""
    torch.manual_seed(0)
    model = DeepConnection("resnet34", "resnet18", None).eval()
    model.head.lin1.bias.data += 50
    return model


@pytest.fixture(scope="module")
def features():
    return torch.rand(6, 512, 3, 4, generator=torch.Generator().manual_seed(1)) ** 4


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 5, 3, 4))  # with ties
    expected = [spearmanr(*pair).statistic for pair in zip(a.reshape(5, 12), b.reshape(5, 12))]
    assert rank_correlation(a, b) == pytest.approx(expected)
    b[2] = 7
    found = rank_correlation(a, b)
    assert np.isnan(found[2]) and np.isfinite(found[[0, 1, 3, 4]]).all()


def test_in_a_linear_network_every_map_is_the_truth(linear, features):
    table = rank_agreement(linear, features, GROUPS).set_index("map")
    for name in ("evidence", "HiResCAM", "Grad-CAM"):
        assert table["value"][name] == pytest.approx(1, abs=0.02)
    assert abs(table["value"]["leave one out, of another picture"]) < 0.5
    assert (table["n"] == 6).all() and (table["excluded"] == 0).all()


def test_a_flat_map_has_no_rank_and_is_counted(linear, features):
    features = features.clone()
    features[2] = 0
    row = rank_agreement(linear, features, GROUPS).set_index("map").loc["evidence"]
    assert (row["n"], row["excluded"]) == (5, 1)
    single = rank_agreement(linear, features[:, :, :1, :1], GROUPS)  # of one cell all are flat
    assert single["value"].isna().all() and (single["n"] == 0).all()


def test_in_a_linear_network_curves_are_what_the_evidence_says(linear, features):
    points, _ = hide_in_order(linear, features, GROUPS, SIZE, temperature=2.0)
    evidence = find_evidence(linear, features)
    margin, cells = evidence.margin.numpy(), evidence.margin_map.flatten(1).numpy()
    sign = np.where(margin > 0, 1, -1)
    ordered = -np.sort(-sign[:, None] * cells, 1)
    lost = np.concatenate([np.zeros((6, 1)), ordered.cumsum(1)], 1)  # (6, 13)
    probs = expit(((sign * margin)[:, None] - lost) / 2.0).mean(0)
    found = points[points["map"].eq("evidence") & points["curve"].eq("deletion")]
    assert found["share"].to_numpy() == pytest.approx(np.arange(13) / 12)
    assert found["value"].to_numpy() == pytest.approx(probs, abs=1e-4)
    base = (sign * margin) - lost[:, -1]
    shown = expit((base[:, None] + lost) / 2.0).mean(0)
    found = points[points["map"].eq("evidence") & points["curve"].eq("insertion")]
    assert found["value"].to_numpy() == pytest.approx(shown, abs=1e-4)


def test_in_a_linear_network_no_order_beats_the_evidence(linear, features):
    _, areas = hide_in_order(linear, features, GROUPS, SIZE)
    areas = areas.set_index(["curve", "map"])
    for curve, better in (("deletion", min), ("insertion", max)):
        of = areas.loc[curve]
        assert of["value"]["evidence"] == pytest.approx(better(of["value"]), abs=1e-6)
        assert of["value"]["evidence"] == pytest.approx(of["value"]["leave one out"], abs=1e-6)
        assert of["gain_low"]["evidence"] > 0 == of["gain"]["random"]


def test_curves_begin_and_end_with_the_whole_and_nothing(checkpoint, features):
    points, _ = hide_in_order(checkpoint.model, features, GROUPS, SIZE)
    ends = points[points["share"].isin([0, 1])].pivot(
        index="map", columns=["curve", "share"], values="value"
    )
    assert len(ends) == 6 and np.ptp(ends.to_numpy(), 0).max() < 1e-6  # for all orders
    assert ends["deletion", 0].iloc[0] == pytest.approx(ends["insertion", 1].iloc[0])
    assert ends["deletion", 1].iloc[0] == pytest.approx(ends["insertion", 0].iloc[0])
    assert ends["deletion", 0].iloc[0] >= 0.5  # the class that is its answer


def test_orders_are_of_all_cells_and_begin_with_the_strongest_support(checkpoint, features):
    orders, sign = rank_cells(checkpoint.model, features, SIZE)
    for order in orders.values():
        assert (np.sort(order, 1) == np.arange(12)).all()
    maps = signed_maps(checkpoint.model, features)["evidence"].reshape(6, 12)
    assert (orders["evidence"][:, 0] == (sign[:, None] * maps).argmax(1)).all()
    assert orders["centre first"][0, 0] == 4 * 2 + 2  # row and column 2 look at pixel 64 of 128


def test_a_network_that_forgets_nothing_has_the_same_maps(checkpoint, couples, monkeypatch):
    monkeypatch.setattr(module, "random_network", lambda model, seed: copy.deepcopy(model))
    table = cascade(checkpoint, couples, "train", n=8, size=96, repetitions=2)
    table = table.set_index("part")
    assert table.loc[list(PARTS), "value"].to_numpy() == pytest.approx(1)
    assert (table.loc["another picture", "value"] < 0.95).all()


def test_what_was_randomised_stays_so(checkpoint, couples, monkeypatch):
    def flip(model, seed):  # a "random" network that only answers the other way round
        other = copy.deepcopy(model)
        other.head.lin2.weight.data *= -1
        return other

    monkeypatch.setattr(module, "random_network", flip)
    table = cascade(checkpoint, couples, "train", n=8, size=96, repetitions=2)
    table = table.set_index(["similarity", "part"])["value"]
    for part in PARTS:
        assert table["signed", part].to_numpy() == pytest.approx(-1)
        assert table["absolute", part].to_numpy() == pytest.approx(1)


def test_a_network_that_sees_nothing_any_more_has_flat_maps(checkpoint, couples, monkeypatch):
    def blind(model, seed):
        other = copy.deepcopy(model)
        other.backbone.conv1.weight.data.zero_()
        return other

    monkeypatch.setattr(module, "random_network", blind)
    table = cascade(checkpoint, couples, "train", n=8, size=96, repetitions=1)
    seen = table.set_index("part")
    assert (seen.loc["layer1", "excluded"] == 0).all()
    assert (seen.loc["conv1", "excluded"] == 8).all() and seen.loc["conv1", "value"].isna().all()


def test_a_map_follows_what_the_network_learned(checkpoint, couples):
    before = copy.deepcopy(checkpoint.model.state_dict())
    table = cascade(checkpoint, couples, "train", n=8, size=96, repetitions=2)
    signed = table[table["similarity"] == "signed"].set_index(["map", "part"])["value"]
    assert (signed.xs("conv1", level="part").abs() < 0.9).all()
    assert len(table) == 3 * 2 * (len(PARTS) + 1)
    after = checkpoint.model.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())


def test_a_planted_mark_draws_the_evidence_into_its_corner(tmp_path):
    root = render_couples(tmp_path / "mark", 128, 1, 80, {"train": 4, "val": 1, "test": 3}, "mark")
    config = TrainConfig.demo(epochs=5, batch_size=8, workers=0, augment=0, cache=False, seed=1)
    checkpoint = train_checkpoint(root, tmp_path / "checkpoint", config, progress=False)
    table = mark_evidence(checkpoint, root).set_index(["map", "label"])
    marked, plain = table.loc[("evidence", "unhappy")], table.loc[("evidence", "happy")]
    assert marked["area"] == pytest.approx(1 / 9) and marked["n"] == 24
    assert marked["low"] > 2 * marked["area"] and marked["low"] > plain["high"]
