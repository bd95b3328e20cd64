import numpy as np
import pytest

from dclib.augment.plots import plot_accuracies, plot_distributions
from dclib.evaluate.intervals import Accuracy


def test_distributions_are_the_shares_below():
    samples = {"brightness": {"imgaug": [3, 1, 2, 2], "twin": [5.0, 4.0]}, "detail": {"a": [0.5]}}
    left, right = plot_distributions(samples).axes
    first, second = left.lines
    assert first.get_xdata().tolist() == [1, 2, 2, 3]
    assert first.get_ydata().tolist() == [0.25, 0.5, 0.75, 1]
    assert second.get_ydata().tolist() == [0.5, 1]
    assert [line.get_label() for line in left.lines] == ["imgaug, n = 4", "twin, n = 2"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("brightness", "detail")


def test_accuracies_stand_beside_each_other_with_their_intervals():
    results = {
        "none": {"gap": Accuracy(0.9, 100, 0.8, 0.95), "no gap": Accuracy(0.6, 100, 0.5, 0.7)},
        "full": {"gap": Accuracy(0.8, 100, 0.7, 0.85), "no gap": Accuracy(0.7, 100, 0.6, 0.8)},
    }
    (axis,) = plot_accuracies(results).axes
    bars = [c for c in axis.containers if hasattr(c, "patches")]
    assert [[bar.get_height() for bar in group] for group in bars] == [[0.9, 0.6], [0.8, 0.7]]
    middles = np.array([[bar.get_x() + bar.get_width() / 2 for bar in group] for group in bars])
    assert (middles[0] < middles[1]).all()
    assert middles.mean(0) == pytest.approx([0, 1])  # around the mark of each test
    ends = [segment[:, 1] for line in axis.collections for segment in line.get_segments()]
    np.testing.assert_allclose(ends, [[0.8, 0.95], [0.5, 0.7], [0.7, 0.85], [0.6, 0.8]])
    assert axis.get_ylabel() == "accuracy (n = 100)"
