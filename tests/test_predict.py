import math

import pytest
import torch
from conftest import lively_network

from dclib.predict import (
    extract_features,
    head_logits,
    how_sure,
    pick_device,
    predict_logits,
    score,
)


def test_a_score_is_the_mean_over_pictures():
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [math.log(4), 0.0]])
    loss, accuracy = score(logits, torch.tensor([0, 1, 1]))
    assert loss == pytest.approx(math.log(2 * 4 / 3 * 5) / 3)
    assert accuracy == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def network():
    return lively_network(levels=(2, 1))


def test_logits_come_in_the_order_of_the_loader_and_in_eval_mode(network):
    images, labels = torch.randn(5, 3, 40, 40), torch.tensor([0, 1, 1, 0, 1])
    loader = list(zip(images.split(2), labels.split(2), strict=True))
    network.train()
    logits, same = predict_logits(network, loader)
    assert network.training
    with torch.inference_mode():
        expected = network.eval()(images)
    assert torch.allclose(logits, expected, atol=1e-5) and torch.equal(same, labels)


def test_features_and_head_are_the_network_in_any_type_and_mode(network):
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    features = extract_features(network.train(), images).requires_grad_()
    logits = head_logits(network, features)
    assert features.dtype == torch.float32 and network.training
    with torch.inference_mode():
        assert torch.allclose(logits, network.eval()(images.float()), atol=1e-5)
    logits.sum().backward()
    assert features.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_device_is_a_gpu_if_there_is_one(monkeypatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device().type == kind
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(("confidence", "words"), [(0.95, "sure"), (0.65, "leaning this way")])
def test_words_begin_at_their_least_confidence(confidence, words):
    assert how_sure(confidence) == words != how_sure(confidence - 1e-6)
