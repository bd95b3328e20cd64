import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from dclib.evaluate.metrics import Ranking, auroc

PICTURES = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40
)


def both_classes(pictures):
    return {label for _, label, times in pictures if times} == {True, False}


@given(PICTURES.filter(both_classes))
def test_auroc_is_that_of_scikit_learn(pictures):
    scores, labels, times = map(np.array, zip(*pictures, strict=True))
    weights = np.stack([times, times + 1])
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(scores.astype(float), labels, weights), expected)


@given(PICTURES)
def test_counts_are_the_weights_of_each_score(pictures):
    scores, labels, times = map(np.array, zip(*pictures, strict=True))
    unhappy, happy = Ranking(scores.astype(float)).count(labels, times[None])
    each = np.unique(scores)
    assert unhappy.tolist() == [[times[labels & (scores == score)].sum() for score in each]]
    assert happy.tolist() == [[times[~labels & (scores == score)].sum() for score in each]]
