import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dclib.evaluate.intervals import accuracy, proportion, wilson_interval


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts):
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson_interval(*counts) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_between_whole_counts():
    (low, high), (below, _), (_, above) = (wilson_interval(c, 100) for c in (50.5, 50, 51))
    assert below < low < high < above


def test_accuracy_counts():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    result = accuracy(logits, torch.tensor([0, 1, 1, 1]))
    assert (result.accuracy, result.n) == (0.75, 4)
    assert str(result) == "0.750 (95 % interval 0.301 to 0.954, n = 4)"


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts(correct, n):
    for function in (wilson_interval, proportion):
        with pytest.raises(ValueError, match="no share"):
            function(correct, n)
