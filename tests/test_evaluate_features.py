import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dclib.checkpoint import load_checkpoint
from dclib.data.loading import CoupleFolder, make_loader
from dclib.drawn import render_couples
from dclib.evaluate.label_noise import find_suspects, probe_out_of_fold, read_neurons
from dclib.evaluate.predictions import LOGITS, check_predictions
from dclib.predict import predict_logits


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """40 couples that the checkpoint has not seen, two groups of pictures each."""
    return render_couples(tmp_path_factory.mktemp("others") / "data", 40, seed=9, size=64)


@pytest.fixture(scope="module")
def loader(checkpoint, others):
    return make_loader(CoupleFolder(others, "train", checkpoint.transform), 8)


def test_the_neurons_are_what_the_last_layer_gets(checkpoint, loader):
    neurons = torch.tensor(read_neurons(checkpoint.model, loader))
    assert neurons.shape == (32, 100)
    logits, _ = predict_logits(checkpoint.model, loader)
    assert torch.allclose(checkpoint.model.head.lin2(neurons), logits, atol=1e-5)


@pytest.mark.exact
def test_each_answer_is_of_a_fit_without_its_group(checkpoint, others, loader):
    """The same by scikit-learn alone, with the folds that the table tells."""
    table = probe_out_of_fold(checkpoint, others, folds=4, seeds=(0, 3))
    check_predictions(table)
    neurons = read_neurons(checkpoint.model, loader)
    for _, part in table.groupby("seed"):
        assert sorted(part["fold"].unique()) == [0, 1, 2, 3]
        assert (part.groupby("group")["fold"].nunique() == 1).all()
        truth = (part["label"] == "unhappy").to_numpy()
        margins = (part[LOGITS[1]] - part[LOGITS[0]]).to_numpy()
        for fold in range(4):
            inside = (part["fold"] == fold).to_numpy()
            fit = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            fit.fit(neurons[~inside], truth[~inside])
            assert margins[inside] == pytest.approx(fit.decision_function(neurons[inside]))
    first, second = (part["fold"].tolist() for _, part in table.groupby("seed"))
    assert first != second
    find_suspects(table)  # the table is one that it accepts


def test_other_labels_can_be_tried(checkpoint, others):
    own = probe_out_of_fold(checkpoint, others, folds=4)
    turned = ["unhappy" if label == "happy" else "happy" for label in own["label"]]
    other = probe_out_of_fold(checkpoint, others, folds=4, labels=turned)
    assert other["label"].tolist() == turned
    same = np.sign(own[LOGITS[1]]) == np.sign(other[LOGITS[1]])
    assert same.mean() < 0.5  # fitted to the turned labels


def test_pictures_that_the_checkpoint_was_trained_on_are_refused(checkpoint, couples):
    for split in ("train", "val"):
        with pytest.raises(ValueError, match="its features have seen these labels"):
            probe_out_of_fold(checkpoint, couples, split)
    assert len(probe_out_of_fold(checkpoint, couples, "test", folds=3)) == 6
