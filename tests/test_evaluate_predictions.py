import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tables
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from dclib.data.loading import CoupleFolder
from dclib.evaluate.predictions import (
    COLUMNS,
    TEXT,
    answers,
    by_seed,
    check_predictions,
    describe,
    make_table,
    predict_folder,
    probabilities,
    save_predictions,
)
from dclib.files import harmless


def make_predictions(n=4, seeds=(0,), **columns):
    """A table of n pictures that is in order, with the columns that are given instead."""
    rng = np.random.default_rng(0)
    parts = [
        tables.make_table(rng.normal(size=n), np.arange(n) % 2, [0] * n, seed=s) for s in seeds
    ]
    table = pd.concat(parts, ignore_index=True)
    ids = [f"test/{i % n}.jpg" for i in range(len(table))]
    return table.assign(**{"id": ids, "fold": 0} | columns)[COLUMNS]


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)
ODD = ["007", "nan", "NA", "None", "1e5", " ", "-0", "a,b", 'the "b"', "two\nlines", "é 💔"]
ODD += ["True", "=1+1", "@SUM(A1)", "+1", "'=1"]


@given(
    st.lists(TEXTS | st.sampled_from(ODD), min_size=1, max_size=6, unique=True),
    st.lists(st.floats(-1e300, 1e300), min_size=6, max_size=6),
)
def test_a_csv_brings_back_every_text_and_number(tmp_path_factory, texts, logits):
    n = len(texts)
    columns = {"id": texts, "group": texts[::-1], "logit_happy": logits[:n]}
    table = make_predictions(n, source=["", *texts][:n], **columns)
    path = save_predictions(table, tmp_path_factory.mktemp("csv") / "deeper" / "predictions.csv")
    found = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False)
    safe = table.assign(**table[TEXT].map(harmless))
    pd.testing.assert_frame_equal(found, safe, rtol=1e-14, atol=0)
    assert not found[TEXT].map(lambda text: text[:1] in tuple("=+-@")).any(axis=None)
    assert [p.name for p in path.parent.iterdir()] == ["predictions.csv"]


MISUSE = {
    "lacks the column fold; it needs id, label": lambda t: t.drop(columns="fold"),
    "has no rows": lambda t: t[:0],
    "label that is neither happy nor unhappy: one row, id 'test/3.jpg', label 'sad'": (
        lambda t: t.assign(label=["happy", "unhappy", "happy", "sad"])
    ),
    "did the training diverge.*: 4 rows": lambda t: t.assign(logit_happy=np.nan),
    "did the training diverge.*: one row,": lambda t: t.assign(logit_unhappy=[0, 0, -np.inf, 0]),
    "that is no number .*: 4 rows": lambda t: t.assign(temperature="warm"),
    "threshold that is no number": lambda t: t.assign(threshold=np.nan),
    "temperature that is not positive": lambda t: t.assign(temperature=0.0),
    "no id, group or seed .* by its id.: one row,": lambda t: t.assign(group=["a", "b", "", "d"]),
    "has no id": lambda t: t.assign(id=[None, "b", "c", "d"]),
    "no id, group or seed": lambda t: t.assign(seed=np.nan),
    "seed or fold that is no whole number: 4 rows": lambda t: t.assign(fold=""),
    "fold that is no whole number: one row,": lambda t: t.assign(fold=[0, 1, 0.5, 1]),
    "seed or fold that is no whole number": lambda t: t.assign(seed="first"),
    "there before, with the same seed: one row,": lambda t: t.assign(id=["a", "b", "c", "a"]),
}


@pytest.mark.parametrize("sentence", MISUSE)
def test_misuse_gets_one_sentence(sentence):
    table = make_predictions()
    assert check_predictions(table) is table
    with pytest.raises(ValueError, match=sentence) as caught:
        check_predictions(MISUSE[sentence](table))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["id", "label", "group"])
def test_seeds_must_agree_on_pictures_labels_and_groups(column):
    table = make_predictions(2, seeds=(0, 1))
    check_predictions(table)
    with pytest.raises(ValueError, match="seeds that differ"):
        check_predictions(table[:-1])  # one lacks a picture
    table.loc[3, column] = "happy"
    with pytest.raises(ValueError, match="seeds that differ in pictures, or in their labels"):
        check_predictions(table)


@given(st.lists(st.floats(-700, 700), min_size=4, max_size=4), st.floats(0.05, 20))
def test_probabilities_are_those_of_softmax(logits, temperature):
    table = make_predictions(logit_happy=logits, logit_unhappy=logits[::-1])
    table["temperature"] = temperature
    both = table[["logit_happy", "logit_unhappy"]].to_numpy()
    assert probabilities(table) == pytest.approx(softmax(both / temperature, axis=1)[:, 1])
    assert probabilities(table, False) == pytest.approx(softmax(both, axis=1)[:, 1])


def test_huge_logits_neither_overflow_nor_leave_0_to_1():
    table = make_predictions(logit_happy=[-1e30, 1e30, 0, 800], logit_unhappy=[1e30, -1e30, 0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probabilities(table).tolist() == [1, 0, 0.5, 0]


def test_the_answer_is_unhappy_from_the_threshold_on():
    table = make_predictions(logit_happy=0.0, logit_unhappy=[0.0, 1.0, -1.0, 2.0])
    assert answers(table).tolist() == [True, True, False, True]
    table["threshold"] = [0.6, 0.5, 0.2, 0.95]
    assert answers(table).tolist() == [False, True, True, False]
    table["temperature"] = 100.0
    assert answers(table).tolist() == [False, True, True, False]
    assert answers(table, calibrated=False).tolist() == [False, True, True, False]


def test_seeds_come_with_their_pictures_in_one_order():
    table = make_predictions(5, seeds=(3, 1)).sample(frac=1, random_state=0)
    parts = by_seed(table)
    assert [part["seed"].iloc[0] for part in parts] == [1, 3]
    assert parts[0]["id"].tolist() == parts[1]["id"].tolist() == sorted(set(table["id"]))
    assert describe(table) == "n = 5 pictures (3 happy, 2 unhappy) in 1 groups, 2 seeds"


def test_a_folder_is_answered_as_the_model_answers(checkpoint, couples):
    chosen = {"temperature": 2.0, "threshold": 0.3}
    table = predict_folder(replace(checkpoint, config=checkpoint.config | chosen), couples, "test")
    dataset = CoupleFolder(couples, "test", checkpoint.transform)
    images = torch.stack([image for image, _ in dataset])
    with torch.inference_mode():
        logits = checkpoint.model(images).numpy()
    assert table[["logit_happy", "logit_unhappy"]].to_numpy() == pytest.approx(logits, abs=1e-5)
    assert table["id"].tolist() == dataset.ids and table["group"].tolist() == dataset.groups
    assert (table["label"] == [path.split("/")[1] for path in dataset.ids]).all()
    assert set(table["source"]) == {"demo drawings"}
    one = table.iloc[0][["seed", "fold", "temperature", "threshold"]]
    assert one.tolist() == [-1, -1, 2.0, 0.3]


def test_classes_in_another_order_keep_their_logits(checkpoint, couples, monkeypatch):
    usual = predict_folder(checkpoint, couples, "val").set_index("id")
    monkeypatch.setattr(checkpoint.model, "classes", ("unhappy", "happy"))
    swapped = predict_folder(checkpoint, couples, "val").set_index("id").loc[usual.index]
    assert (swapped["label"] == usual["label"]).all()
    assert swapped["logit_happy"].to_numpy() == pytest.approx(usual["logit_unhappy"], abs=1e-5)


def test_a_diverged_model_gets_no_table(couples):
    dataset = CoupleFolder(couples, "val")
    with pytest.raises(ValueError, match="did the training diverge"):
        make_table(dataset, np.full((len(dataset), 2), np.nan))
