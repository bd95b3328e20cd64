import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dclib.checkpoint import load_checkpoint
from dclib.explain.evidence import find_evidence
from dclib.explain.gradcam import grad_cam
from dclib.explain.sanity import draw_maps, load_features, other_groups, random_network


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)


def test_features_come_with_the_groups_of_their_pictures(checkpoint, couples):
    features, groups = load_features(checkpoint, couples, "train", n=8, size=96)
    assert features.shape == (8, 512, 3, 3)
    assert np.bincount(groups).tolist() == [2, 2, 2, 2]  # each couple is drawn twice


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
