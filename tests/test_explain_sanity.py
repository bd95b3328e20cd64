import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import spearmanr

from dclib.explain import sanity as module
from dclib.explain.evidence import find_evidence
from dclib.explain.gradcam import grad_cam
from dclib.explain.sanity import (
    PARTS,
    Sample,
    cascade,
    draw_maps,
    hide_in_order,
    other_groups,
    random_network,
    rank_agreement,
    rank_cells,
    rank_correlation,
    signed_maps,
)
from dclib.model import DeepConnection

GROUPS = np.arange(6)
SIZE = 128  # pixels a side of the input, if it were one


@pytest.fixture(scope="module")
def linear():
    """A network whose head is linear: a mean of cells, and neurons that are always on."""
    torch.manual_seed(0)
    model = DeepConnection("plain", "resnet18", None).eval()
    model.head.lin1.bias.data += 50
    return model


@pytest.fixture(scope="module")
def features():
    return torch.rand(6, 512, 3, 4, generator=torch.Generator().manual_seed(1)) ** 4


@pytest.fixture(scope="module")
def sample(checkpoint, couples):
    return Sample(checkpoint, couples, "train", n=8, size=96)


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
        value = areas.loc[curve, "value"]
        assert value["evidence"] == pytest.approx(better(value), abs=1e-6)
        assert value["evidence"] == pytest.approx(value["leave one out"], abs=1e-6)
        assert value["evidence"] != pytest.approx(value["random"], abs=1e-4)


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


def test_a_network_that_forgets_nothing_has_the_same_maps(sample, monkeypatch):
    monkeypatch.setattr(module, "random_network", lambda model, seed: copy.deepcopy(model))
    table = cascade(sample, repetitions=1)
    table = table.set_index("part")
    assert table.loc[list(PARTS), "value"].to_numpy() == pytest.approx(1)
    assert (table.loc["another picture", "value"] < 0.95).all()


def test_what_was_randomised_stays_so(sample, monkeypatch):
    def flip(model, seed):  # a "random" network that only answers the other way round
        other = copy.deepcopy(model)
        other.head.lin2.weight.data *= -1
        return other

    monkeypatch.setattr(module, "random_network", flip)
    table = cascade(sample, repetitions=1)
    table = table.set_index(["similarity", "part"])["value"]
    for part in PARTS:
        assert table["signed", part].to_numpy() == pytest.approx(-1)
        assert table["absolute", part].to_numpy() == pytest.approx(1)


def test_a_network_that_sees_nothing_any_more_has_flat_maps(sample, monkeypatch):
    def blind(model, seed):
        other = copy.deepcopy(model)
        other.backbone.conv1.weight.data.zero_()
        return other

    monkeypatch.setattr(module, "random_network", blind)
    table = cascade(sample, repetitions=1)
    seen = table.set_index("part")
    assert (seen.loc["layer1", "excluded"] == 0).all()
    assert (seen.loc["conv1", "excluded"] == 8).all() and seen.loc["conv1", "value"].isna().all()


def test_a_map_follows_what_the_network_learned(checkpoint, sample):
    before = copy.deepcopy(checkpoint.model.state_dict())
    table = cascade(sample, repetitions=2)
    signed = table[table["similarity"] == "signed"].set_index(["map", "part"])["value"]
    assert (signed.xs("conv1", level="part").abs() < 0.9).all()
    assert len(table) == 3 * 2 * (len(PARTS) + 1)
    after = checkpoint.model.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())


def test_features_come_with_the_groups_of_their_pictures(sample):
    assert sample.features.shape == (8, 512, 3, 3)
    assert np.bincount(sample.groups).tolist() == [2, 2, 2, 2]  # each couple is drawn twice


def test_random_networks_differ_and_leave_the_random_numbers_alone(checkpoint):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    nets = [random_network(checkpoint.model, seed) for seed in (0, 0, 1)]
    assert (torch.get_rng_state() == before).all()
    first, again, other = (net.head.lin1.weight for net in nets)
    assert (first == again).all() and (first != other).any()
    assert not nets[0].training


@pytest.mark.parametrize("sign", [1, -1])
def test_maps_are_those_of_the_answer(checkpoint, sign):
    """Of a network, and of one that always answers the opposite."""
    model = copy.deepcopy(checkpoint.model)
    model.head.lin2.weight.data *= sign
    features = torch.rand(3, 512, 2, 2, generator=torch.Generator().manual_seed(0))
    maps, evidence = draw_maps(model, features), find_evidence(model, features)
    assert all(values.shape == (3, 2, 2) and (values >= 0).all() for values in maps.values())
    assert maps["feature norm"] == pytest.approx(features.norm(dim=1).numpy(), rel=1e-5)
    towards = evidence.margin.sign()[:, None, None] * evidence.margin_map
    assert maps["evidence for the answer"] == pytest.approx(towards.clamp(min=0).numpy())
    cams = grad_cam(model, features)
    for k, margin in enumerate(evidence.margin):
        answer = cams["unhappy" if margin > 0 else "happy"][k]
        assert maps["Grad-CAM"][k] == pytest.approx(answer.clamp(min=0).numpy())


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_another_picture_is_of_another_couple(sizes, random):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(groups)
    others = other_groups(groups)
    assert sorted(others) == list(range(len(groups)))
    if 2 * max(sizes) <= sum(sizes):
        assert (groups[others] != groups).all()
