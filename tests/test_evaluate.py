import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dclib.evaluate import accuracy, wilson_interval


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_its_formula(counts):
    correct, n = counts
    z, p = 1.959963984540054, correct / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = (max(middle - half, 0), min(middle + half, 1))
    assert wilson_interval(correct, n) == pytest.approx(expected, abs=1e-9)


def test_accuracy_counts():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    result = accuracy(logits, torch.tensor([0, 1, 1, 1]))
    assert (result.accuracy, result.n) == (0.75, 4)
    assert str(result) == "0.750 (95 % interval 0.301 to 0.954, n = 4)"


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts(correct, n):
    with pytest.raises(ValueError):
        wilson_interval(correct, n)
