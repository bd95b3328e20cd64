import csv
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import make_table

from dclib.data import CLASSES
from dclib.data.loading import CoupleFolder, make_loader
from dclib.drawn import render_couples
from dclib.evaluate.intervals import wilson_interval
from dclib.evaluate.label_noise import (
    confident_class,
    estimate_noise,
    find_suspects,
    flip_labels,
    noise_share,
    probe_out_of_fold,
    read_neurons,
    save_suspects,
    score_suspects,
)
from dclib.evaluate.predictions import LOGITS, check_predictions
from dclib.predict import predict_logits


def make_predictions(labels, margins, seeds=1, groups=None, fold=0):
    """A table out of fold: labels (N,) of 0 and 1, log-odds (N,) or (S, N)."""
    margins = np.broadcast_to(margins, (seeds, len(labels)))
    groups = range(len(labels)) if groups is None else groups
    parts = [make_table(row, labels, groups, seed=k, fold=fold) for k, row in enumerate(margins)]
    return pd.concat(parts, ignore_index=True)


def random_answers(n, seed, wrong=0.15, sharpness=3):
    """Labels of which a share is wrong, and log-odds that know the truth more or less."""
    rng = np.random.default_rng(seed)
    truth = np.r_[0, 0, 1, 1, rng.integers(2, size=n - 4)]
    margins = sharpness * (2 * truth - 1) + rng.normal(0, 3, n)
    return np.where(rng.random(n) < wrong, 1 - truth, truth), margins


def probs_of(margins):
    unhappy = 1 / (1 + np.exp(-margins))
    return np.stack([1 - unhappy, unhappy], 1)


@given(st.integers(0, 10**6), st.integers(8, 300), st.floats(0, 0.4), st.floats(-1, 4))
def test_suspects_and_their_order_are_those_of_cleanlab(seed, n, wrong, sharpness):
    labels, margins = random_answers(n, seed, wrong, sharpness)
    if len(set(labels)) < 2:
        return
    found = find_suspects(make_predictions(labels, margins))
    for rank in ("normalized_margin", "self_confidence"):
        options = {"filter_by": "confident_learning", "return_indices_ranked_by": rank}
        expected = find_label_issues(labels, probs_of(margins), n_jobs=1, **options)
        assert found["id"].tolist() == [f"test/{i:04d}.jpg" for i in expected]
    assert found["rank"].tolist() == list(range(1, len(found) + 1))
    assert (found["margin"].diff().dropna() >= 0).all()


@given(st.integers(0, 10**6), st.integers(20, 300))
def test_the_share_of_wrong_labels_is_that_of_cleanlab(seed, n):
    labels, margins = random_answers(n, seed)
    joint = estimate_joint(labels, probs_of(margins))  # of counts rounded to whole pictures
    found = noise_share(labels, probs_of(margins))
    assert found == pytest.approx(1 - np.trace(joint), abs=1.01 / n)


def test_confident_classes_by_hand():
    labels = np.array([0, 0, 1, 1])
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    # thresholds: happy (0.9 + 0.2) / 2 = 0.55, unhappy (0.4 + 0.9) / 2 = 0.65
    assert confident_class(labels, probs).tolist() == [0, 1, 0, 1]
    assert confident_class(labels, np.full((4, 2), 0.5)).tolist() == [0] * 4  # sure of both, a tie
    unsure = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.45, 0.55]])
    assert confident_class(labels, unsure).tolist() == [0, 0, 1, -1]
    turned = np.array([[0.4, 0.6], [0.4, 0.6], [0.6, 0.4], [0.6, 0.4]])  # all wrong, and yet
    assert noise_share(labels, turned) == pytest.approx(2 / 3)  # one of each label counts as right


def test_wrong_labels_are_found_first_and_the_share_is_right():
    labels, margins = random_answers(400, 0, wrong=0, sharpness=12)
    names, flipped = flip_labels([CLASSES[label] for label in labels], 0.05, seed=1)
    table = make_predictions([CLASSES.index(name) for name in names], margins)
    found = find_suspects(table)
    bad = {f"test/{i:04d}.jpg" for i in np.flatnonzero(flipped)}
    assert len(bad) == 20
    assert len(bad & set(found["id"])) >= 18
    assert set(found["id"][:15]) <= bad
    assert (found["suggested"] != found["label"]).all()
    assert found["prob"].between(0.5, 1).all()
    rate = estimate_noise(table)
    assert rate.low < 0.05 < rate.high and rate.n == 400
    assert str(rate).startswith(f"about {rate.share:.1%} of 400 labels are wrong (95 % interval")


def test_the_interval_of_the_share_knows_groups():
    labels, margins = random_answers(100, 3)
    alone = estimate_noise(make_predictions(labels, margins))
    groups = np.tile(np.arange(100), 4)
    copies = make_predictions(np.tile(labels, 4), np.tile(margins, 4), groups=groups)
    grouped = estimate_noise(copies)
    assert grouped.share == pytest.approx(alone.share)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.2)


def test_probabilities_are_averaged_over_seeds():
    labels = np.array([0, 0, 1, 1])
    margins = np.array([[-3, 5, 0.3, 0.3], [-3, 0.2, 0.3, 0.3], [-3, -0.2, 0.3, 0.3]])
    (found,) = find_suspects(make_predictions(labels, margins, seeds=3)).to_dict("records")
    prob = np.mean(1 / (1 + np.exp(-margins[:, 1])))
    names = {"id": "test/0001.jpg", "label": "happy", "suggested": "unhappy"}
    numbers = {"prob": pytest.approx(prob), "margin": pytest.approx(1 - 2 * prob)}
    assert found == names | numbers | {"rank": 1, "n_seeds": 2}


def test_the_temperature_counts():
    labels, margins = random_answers(60, 5)
    table = make_predictions(labels, margins)
    sharp = make_predictions(labels, margins * 4).assign(temperature=4.0)
    pd.testing.assert_frame_equal(find_suspects(table), find_suspects(sharp))


def test_answers_that_may_have_seen_the_labels_and_one_class_are_refused():
    with pytest.raises(ValueError, match="All labels are the same"):
        find_suspects(make_predictions([0, 0, 0], np.zeros(3)))
    table = make_predictions(*random_answers(40, 0), fold=-1)
    for use in (find_suspects, estimate_noise):
        with pytest.raises(ValueError, match="may have been trained on these labels"):
            use(table)


def test_a_group_in_two_folds_is_refused():
    table = make_predictions(*random_answers(40, 0), seeds=2, groups=np.arange(40) // 2)
    find_suspects(table.assign(fold=table["seed"]))  # another seed may have other folds
    table.loc[5, "fold"] = 3
    with pytest.raises(ValueError, match="Group 'g2' is in several folds of seed 0"):
        find_suspects(table)
    table["fold"] = [0, 1] * 40
    with pytest.raises(ValueError, match="in several folds"):
        find_suspects(table)


def test_suspects_are_counted_against_what_is_wrong():
    suspects, table = pd.DataFrame({"id": ["a", "b", "c", "d"]}), pd.DataFrame({"id": [*"abcdxy"]})
    table["group"] = [*"aabbxy"]
    first, second = score_suspects(suspects, {"a", "b", "x"}, table).splitlines()
    # two couples, one of them wrong, are less than one picture: (1.960 / 12.706)^2 of it
    low, high = wilson_interval(0.0119, 0.0238)
    precision = f"precision 0.500 (95 % interval {low:.3f} to {high:.3f}, n = 4)"
    assert first == f"2 of 4 suspects are wrong: {precision}"
    assert second.startswith("recall 0.667 (95 % interval")
    assert "recall undefined, as no label is wrong" in score_suspects(suspects, set(), table)
    told = score_suspects(suspects[:0], {"a"}, table)
    assert "precision undefined, as there are no suspects" in told


@given(st.integers(0, 200), st.floats(0, 1), st.integers(0, 99))
def test_flips_are_counted_and_known(n, share, seed):
    labels = [CLASSES[i % 3 == 0] for i in range(n)]
    new, flipped = flip_labels(labels, share, seed)
    assert flipped.sum() == round(share * n)
    assert [a != b for a, b in zip(labels, new, strict=True)] == flipped.tolist()
    assert set(new) <= set(CLASSES) and flip_labels(labels, share, seed)[0] == new
    labels = ["happy"] * 100
    assert flip_labels(labels, 0.2, seed)[0] != flip_labels(labels, 0.2, seed + 1)[0]
    with pytest.raises(ValueError, match="between 0 and 1, not 5"):
        flip_labels(labels, 5)


def test_a_person_decides_and_decisions_are_never_overwritten(tmp_path):
    found = find_suspects(make_predictions(*random_answers(100, 1)))
    path = save_suspects(found, tmp_path / "new" / "suspects.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["id"] for row in rows] == found["id"].tolist()
    assert {row["decision"] for row in rows} == {""}
    path.write_text("decided")
    with pytest.raises(FileExistsError, match="may hold decisions"):
        save_suspects(found, path)
    assert path.read_text() == "decided"
    with pytest.raises(AttributeError):  # what could not be written is no hindrance later
        save_suspects(None, tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """40 couples that the checkpoint has not seen, two groups of pictures each."""
    return render_couples(tmp_path_factory.mktemp("others") / "data", 40, seed=9, size=64)


@pytest.fixture(scope="module")
def loader(checkpoint, others):
    return make_loader(CoupleFolder(others, "train", checkpoint.transform), 32)


def test_the_neurons_are_what_the_last_layer_gets(checkpoint, loader):
    neurons = torch.tensor(read_neurons(checkpoint.model, loader))
    assert neurons.shape == (32, 100)
    logits, _ = predict_logits(checkpoint.model, loader)
    assert torch.allclose(checkpoint.model.head.lin2(neurons), logits, atol=1e-5)


@pytest.mark.exact
def test_each_answer_is_of_a_fit_without_its_group(checkpoint, others, loader):
    """The same by scikit-learn alone, with the folds that the table tells."""
    table = check_predictions(probe_out_of_fold(checkpoint, others))
    neurons = read_neurons(checkpoint.model, loader)
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    truth = (table["label"] == "unhappy").to_numpy()
    margins = (table[LOGITS[1]] - table[LOGITS[0]]).to_numpy()
    for fold in range(5):
        inside = (table["fold"] == fold).to_numpy()
        fit = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        fit.fit(neurons[~inside], truth[~inside])
        assert margins[inside] == pytest.approx(fit.decision_function(neurons[inside]))
    find_suspects(table)  # the table is one that it accepts


def test_other_labels_can_be_tried(checkpoint, others):
    own = probe_out_of_fold(checkpoint, others)
    turned = ["unhappy" if label == "happy" else "happy" for label in own["label"]]
    other = probe_out_of_fold(checkpoint, others, labels=turned)
    assert other["label"].tolist() == turned
    same = np.sign(own[LOGITS[1]]) == np.sign(other[LOGITS[1]])
    assert same.mean() < 0.5  # fitted to the turned labels


def test_pictures_that_the_checkpoint_was_trained_on_are_refused(checkpoint, couples, tmp_path):
    for split in ("train", "val"):
        with pytest.raises(ValueError, match="its features have seen these labels"):
            probe_out_of_fold(checkpoint, couples, split)
    changed = shutil.copytree(couples, tmp_path / "changed")
    for path in [next((changed / split / "happy").iterdir()) for split in ("train", "test")]:
        path.unlink()
    with pytest.raises(ValueError, match=r"on 23 of the 23 pictures in .*changed/train"):
        probe_out_of_fold(checkpoint, changed, "train")
    with pytest.raises(ValueError, match="needs 5 independent happy pictures"):  # it had a look
        probe_out_of_fold(checkpoint, couples, "test")
