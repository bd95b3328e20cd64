"""Out of fold and ablation: who is trained on what, what is kept, and what follows from it."""

import json
import math
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean, variance

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from dclib.checkpoint import load_checkpoint
from dclib.data import DRAWN, draw_seed, splits_of
from dclib.data.loading import CoupleFolder
from dclib.drawn import render_couples
from dclib.evaluate.intervals import estimate
from dclib.evaluate.predictions import LOGITS, check_predictions, predict_folder
from dclib.evaluate.probe import measure_pictures, probe
from dclib.train import TrainConfig, loop, make_transforms
from dclib.train import studies as module
from dclib.train.plots import plot_ablation
from dclib.train.studies import (
    DONE,
    INNER,
    TABLE,
    Ablation,
    Job,
    ablate,
    baselines,
    divide,
    load_pool,
    out_of_fold,
    take,
    train_one,
    variants_of,
)

CONFIG = TrainConfig.demo(
    image_size=32, epochs=2, batch_size=8, workers=0, augment=0, device="cpu", precision="fp32"
)
VARIANTS = ("plain", "spp", "spp+pmt", "spp+pmt, logits-averaged")
GROUPINGS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 19)), min_size=4, max_size=80
)  # label and group of each picture


def change_saved(folder, change):
    """Let `change` alter what a study has saved."""
    saved = json.loads((folder / DONE).read_text())
    change(saved)
    (folder / DONE).write_text(json.dumps(saved))


@given(GROUPINGS, st.integers(2, 6), st.integers(0, 5))
def test_a_group_is_never_on_two_sides(pictures, folds, seed):
    labels, groups = map(np.array, zip(*pictures))
    try:
        plan = divide(labels, groups, folds, seed)
    except ValueError as error:
        assert "folds" in str(error)
        return
    assert sorted(np.concatenate([parts.scored for parts in plan])) == list(range(len(pictures)))
    assert all(len(parts.scored) for parts in plan)
    for parts in plan:
        assert sorted(np.concatenate(parts)) == list(range(len(pictures)))
        train, inner, scored = (set(groups[part]) for part in parts)
        assert not (train & inner or train & scored or inner & scored)
        assert set(labels[parts.train]) == set(labels[parts.inner]) == {0, 1}


@given(st.integers(2, 6), st.integers(0, 99))
def test_enough_groups_can_always_be_divided(folds, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 2 * folds)
    assert len(divide(labels, rng.permutation(4 * folds), folds, seed)) == folds


@settings(max_examples=12)
@given(st.integers(0, 99))
def test_single_pictures_are_divided_evenly_by_class(seed):
    labels = np.random.default_rng(seed).permutation([0] * 70 + [1] * 35)
    for parts in divide(labels, range(105), 5, seed):
        assert np.bincount(labels[parts.scored]).tolist() == [14, 7]
        assert np.bincount(labels[parts.inner]).tolist() == [8, 4]


@settings(max_examples=12)
@given(st.integers(0, 99))
def test_folds_of_groups_are_as_even_as_scikit_learn_can(seed):
    """Each group is of one class, up to six pictures; compared with scikit-learn's own order."""
    rng = np.random.default_rng(seed)
    sizes, kinds = rng.integers(1, 7, 80), rng.random(80) < 0.3
    labels, groups = np.repeat(kinds, sizes).astype(int), np.repeat(np.arange(80), sizes)

    def worst(folds):
        counts = np.array([np.bincount(labels[fold], minlength=2) for fold in folds])
        return np.abs(counts / np.bincount(labels) - 1 / 5).max()

    plan = divide(labels, groups, 5, seed)
    reference = StratifiedGroupKFold(5).split(labels, labels, groups)
    assert worst([parts.scored for parts in plan]) <= worst([fold for _, fold in reference]) + 0.06
    for parts in plan:
        rest = np.concatenate([parts.train, parts.inner])
        shares = np.bincount(labels[parts.inner]) / np.bincount(labels[rest])
        assert np.abs(shares - 1 / INNER).max() < 0.06


def test_one_large_group_is_never_the_inner_part():
    """It has 40 of 100 pictures and comes first in scikit-learn's order."""
    labels = np.array([0] * 40 + [0, 1, 1] * 20)
    groups = np.array([0] * 40 + [*range(1, 61)])
    for seed in range(5):
        for parts in divide(labels, groups, 3, seed):
            rest = len(parts.train) + len(parts.inner)
            assert 0.05 < len(parts.inner) / rest < 0.25


def test_another_seed_divides_otherwise():
    labels, groups = np.tile([0, 1], 30), np.repeat(np.arange(30), 2)

    def folds(seed):
        return [parts.scored.tolist() for parts in divide(labels, groups, 5, seed)]

    assert folds(0) == folds(0)
    assert folds(0) != folds(1)


@pytest.mark.parametrize(
    ("labels", "groups", "folds", "said"),
    [
        ([0, 1] * 6, range(12), 1, "folds must be at least 2, not 1"),
        ([0, 1] * 6, range(12), 7, "7 folds need 7 groups with happy pictures or more; there are"),
        ([0, 0, 0, 1], range(4), 2, "2 folds need 2 groups with unhappy pictures or more; there"),
        ([0, 1] * 6, [3] * 12, 2, "there are 1. Take fewer folds"),
        ([0, 0, 1, 1], range(4), 2, "leaves a class with less than two groups to train and to"),
    ],
)
def test_what_cannot_be_divided_is_said_in_a_sentence(labels, groups, folds, said):
    with pytest.raises(ValueError, match=said):
        divide(labels, groups, folds, 0)


def test_a_pool_holds_the_pictures_of_all_splits(couples):
    pool = load_pool(couples, replace(CONFIG, cache=False))
    folders = [CoupleFolder(couples, split) for split in splits_of(couples)]
    assert pool.ids == [name for folder in folders for name in folder.ids]
    assert pool.groups == [group for folder in folders for group in folder.groups]
    assert pool.column("source") == ["demo drawings"] * 36
    plain = make_transforms(CONFIG)[1]
    part = take(pool, [30, 2], plain)
    expected = [CoupleFolder(couples, "test", plain)[0], CoupleFolder(couples, "train", plain)[2]]
    assert len(part) == 2
    for index, (image, label) in enumerate(expected):
        assert torch.equal(part[3, index][0], image)
        assert part[index][1] == label == part.labels[index]
    assert load_pool(couples, CONFIG, ["val"]).ids == CoupleFolder(couples, "val").ids


def test_a_pool_knows_what_was_left_out(couples, tmp_path):
    root = shutil.copytree(couples, tmp_path / "data")
    (root / "val" / "happy" / "broken.jpg").write_bytes(b"no picture")
    pool = load_pool(root, replace(CONFIG, cache=False))
    assert [path.name for path, _ in pool.left_out] == ["broken.jpg"]
    assert "36 pictures" in str(pool) and "1 left out" in str(pool)


def test_decoded_pictures_are_used_and_change_nothing(couples, tmp_path, monkeypatch):
    root = shutil.copytree(couples, tmp_path / "data", ignore=shutil.ignore_patterns(".cache"))
    transforms, indices = make_transforms(CONFIG), range(0, 36, 5)

    def look(pool):
        parts = [take(pool, indices, transform) for transform in transforms]
        return [part[index][0] for part in parts for index in range(8)]

    expected = look(load_pool(root, replace(CONFIG, cache=False)))
    cached = load_pool(root, CONFIG)
    monkeypatch.setattr("dclib.data.loading.read_picture", None)
    assert all(torch.equal(a, b) for a, b in zip(expected, look(cached), strict=True))


def test_the_scored_fold_decides_nothing(couples):
    """Its labels change neither the answers nor what was chosen; those of the inner part do."""
    pool = load_pool(couples, CONFIG)
    parts = divide(pool.labels, pool.groups, 3, 0)[1]
    expected = train_one(pool, Job(CONFIG, parts, 0, 1), progress=False)
    assert expected["ids"] == take(pool, parts.scored).ids

    def flipped(indices):
        other = take(pool, range(len(pool)))
        for index in indices:
            path, label = pool.samples[index]
            other.samples[index] = (path, 1 - label)
        return train_one(other, Job(CONFIG, parts, 0, 1), progress=False)

    assert flipped(parts.scored) == expected
    changed = flipped(parts.inner)
    chosen = ("temperature", "threshold", "epoch")
    assert [changed[name] for name in chosen] != [expected[name] for name in chosen]


def test_only_training_pictures_are_varied_and_only_inner_ones_validate(couples, monkeypatch):
    class Told(Exception):
        pass

    def fit(model, train_set, val_set, *_, **__):
        raise Told(train_set, val_set)

    monkeypatch.setattr(module, "fit", fit)
    config = replace(CONFIG, augment=0.5, augmenter="tensor")
    pool = load_pool(couples, config)
    parts = divide(pool.labels, pool.groups, 3, 0)[0]
    with pytest.raises(Told) as told:
        train_one(pool, Job(config, parts, 0, 0))
    train_set, val_set = told.value.args
    assert train_set.ids == take(pool, parts.train).ids
    assert val_set.ids == take(pool, parts.inner).ids
    varied, plain = (type(transform) for transform in make_transforms(config))
    assert (type(train_set.transform), type(val_set.transform)) == (varied, plain)
    assert varied is not plain


def test_every_picture_is_scored_once_a_seed(couples, no_training, capsys):
    table = check_predictions(out_of_fold(couples, CONFIG, 4, (0, 3)))
    assert Counter(table["seed"]) == {0: 36, 3: 36}
    assert table.groupby("seed")["id"].nunique().tolist() == [36, 36]
    assert sorted(set(table["fold"])) == [0, 1, 2, 3]
    per_fold = table.groupby(["seed", "fold"])[["temperature", "threshold"]].nunique()
    assert (per_fold == 1).all(axis=None)
    per_group = table.groupby(["seed", "group"])["fold"].nunique()
    assert (per_group == 1).all()
    by_id = table.set_index(["seed", "id"])["fold"]
    assert (by_id[0] != by_id[3][by_id[0].index]).any()
    said = capsys.readouterr().out
    assert "36 pictures in 18 groups of drawn (demo drawings), 4 folds, 2 seeds." in said
    assert "on cpu in float32" in said
    assert "8 of 8: seed 3, fold 3: " in said


def test_every_training_has_a_seed_of_its_own(couples, no_training):
    out_of_fold(couples, CONFIG, 3, (0, 1))
    out_of_fold(couples, replace(CONFIG, seed=1), 3, (0, 1))
    assert len({job.config.seed for job in no_training}) == 12
    divisions = {tuple(job.parts.scored) for job in no_training}
    assert len(divisions) == 6  # the division is of `seeds` alone
    assert no_training[4].config.seed == draw_seed(0, 1, 1)


def test_named_splits_only_and_pictures_without_a_group(couples, no_training, tmp_path):
    root = shutil.copytree(couples, tmp_path / "data")
    (root / "train" / "metadata.csv").unlink()
    table = out_of_fold(root, CONFIG, 3, (0,), splits=["train"])
    assert len(table) == 24
    assert (table["group"] == table["id"]).all()
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        out_of_fold(root, CONFIG, splits=["train", "exam"])
    with pytest.raises(ValueError, match="at least 1 seed"):
        out_of_fold(root, CONFIG, 3, ())


def test_what_was_done_is_kept_and_more_seeds_can_follow(couples, no_training, tmp_path, capsys):
    first = out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    again = out_of_fold(couples, replace(CONFIG, workers=2), 3, (0,), tmp_path)
    assert len(no_training) == 3
    pd.testing.assert_frame_equal(first, again)
    both = out_of_fold(couples, CONFIG, 3, (0, 1), tmp_path)
    assert len(no_training) == 6
    pd.testing.assert_frame_equal(both[both["seed"] == 0], first)
    assert "3 trainings were done before" in capsys.readouterr().out
    saved = pd.read_csv(tmp_path / TABLE)
    pd.testing.assert_frame_equal(saved, both, check_dtype=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([DONE, TABLE])


def test_an_unfinished_run_has_no_table(couples, no_training, tmp_path, monkeypatch):
    """Half of the folds would look like a whole table of fewer pictures."""
    trained = module.train_one

    def dies(*args):
        if len(no_training) == 2:
            raise KeyboardInterrupt
        return trained(*args)

    monkeypatch.setattr(module, "train_one", dies)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [DONE]
    assert len(json.loads((tmp_path / DONE).read_text())["done"]) == 2


def test_another_run_in_the_folder_is_refused(couples, no_training, tmp_path):
    out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    for changed, folds, splits, said in (
        (replace(CONFIG, lr=0.5), 3, None, "has lr = 0.001, not 0.5. Use its settings"),
        (replace(CONFIG, stage="spp"), 3, None, r"has stage = 'spp\+pmt', not 'spp'"),
        (CONFIG, 4, None, "has folds = 3, not 4"),
        (CONFIG, 3, ["train"], "has splits = "),
    ):
        with pytest.raises(ValueError, match=said):
            out_of_fold(couples, changed, folds, (0,), tmp_path, splits)
    change_saved(tmp_path, lambda saved: saved["settings"]["data"].update(n=30))
    with pytest.raises(ValueError, match="now there are 6 pictures more than the 30 then"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    (tmp_path / DONE).unlink()
    with pytest.raises(ValueError, match="holds something else; choose another"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    assert len(no_training) == 3


def test_start_weights_are_known_by_what_they_are(couples, no_training, tmp_path):
    file, folder = tmp_path / "a.safetensors", tmp_path / "study"
    file.write_bytes(b"first")
    config = replace(CONFIG, weights=str(file))
    out_of_fold(couples, config, 3, (0,), folder)
    moved = replace(config, weights=str(file.rename(tmp_path / "moved.safetensors")))
    out_of_fold(couples, moved, 3, (0,), folder)
    assert len(no_training) == 3  # the file has moved, the trainings are the same
    with pytest.raises(FileNotFoundError, match=r"There are no weights at .*a\.safetensors\."):
        out_of_fold(couples, config, 3, (0,), folder)
    file.write_bytes(b"second")
    with pytest.raises(ValueError, match=r"has weights = 'sha256 a7937b.*', not 'sha256 16367a"):
        out_of_fold(couples, config, 3, (0,), folder)
    change_saved(folder, lambda saved: saved["settings"].update(weights=str(file)))  # as it was
    with pytest.raises(ValueError, match=r"has weights = '.*', not .*, another folder for a new"):
        out_of_fold(couples, config, 3, (0,), folder)


ROW = {"ids": ["a"], "logits": [[0, 1]], "temperature": 1, "threshold": 0.5, "epoch": 0}
ODD = {
    "ids": [1],
    "logits": [[0, float("nan")]],
    "temperature": -1,
    "threshold": None,
    "epoch": 0.5,
}
TEXTS = ["", '{"done": {', "[]", "{}", "[" * 10**5, '{"done": {"spp, seed 0": {}}}']
TEXTS += [json.dumps({"settings": {}, "done": {"a": ROW | {name: ODD[name]}}}) for name in ODD]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("study", [out_of_fold, ablate])
def test_a_damaged_file_is_refused(couples, tmp_path, no_training, text, study):
    (tmp_path / DONE).write_text(text)
    with pytest.raises(
        ValueError, match=rf"{DONE} cannot be read; choose another folder, or delete"
    ):
        study(couples, CONFIG, 3, folder=tmp_path)


def test_answers_to_other_pictures_are_refused(couples, tmp_path, no_training):
    out_of_fold(couples, CONFIG, 3, (0,), tmp_path)

    def swap(saved):
        first, second, _ = saved["done"].values()
        first["ids"], second["ids"] = second["ids"], first["ids"]

    change_saved(tmp_path, swap)
    with pytest.raises(ValueError, match="answers to other pictures for seed 0, fold 0; choose"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    change_saved(tmp_path, lambda saved: saved["done"]["seed 0, fold 1"]["logits"].pop())
    with pytest.raises(ValueError, match="does not have logits for each picture"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)


def run(root, folder):
    """A run of seconds, in a process that may be killed."""
    table = out_of_fold(root, CONFIG, 2, (0,), folder, progress=False)
    table.to_pickle(folder / "whole.pkl")


def run_until(root, folder, fold):
    """`run` that stands still once it has saved a state of this fold."""
    save = loop.save_state

    def save_and_wait(where, *args, **kwargs):
        save(where, *args, **kwargs)
        if Path(where).name == fold:
            time.sleep(600)

    loop.save_state = save_and_wait
    run(root, folder)


def test_a_killed_run_ends_with_the_same_answers(couples, start_child, tmp_path):
    """Killed within the first training, and within the second one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    start_child(run, couples, whole).join()
    for fold in ("seed-0-fold-0.run", "seed-0-fold-1.run"):
        process = start_child(run_until, couples, killed, fold)
        while process.is_alive() and not (killed / fold / "state.pt").exists():
            time.sleep(0.05)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    start_child(run, couples, killed).join()
    tables = [pd.read_pickle(folder / "whole.pkl") for folder in (whole, killed)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (whole / TABLE).read_bytes() == (killed / TABLE).read_bytes()
    assert {path.name for path in killed.iterdir()} == {DONE, TABLE, "whole.pkl"}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """80 drawn couples whose brightness tells the label; some happy ones are removed."""
    root = tmp_path_factory.mktemp("uneven") / "data"
    render_couples(root, n=80, size=48, shortcut="brightness")
    for path in sorted((root / "train" / "happy").iterdir())[:20]:
        path.unlink()
    return root


def test_majority_answers_with_the_shares_of_the_other_folds(uneven, no_training):
    table = out_of_fold(uneven, CONFIG, 3, (2, 5))
    found = baselines(uneven, table.sample(frac=1, random_state=0))["majority"]
    assert (found["seed"] == 2).all()
    assert set(found["id"]) == set(table["id"])
    for _, part in found.groupby("fold"):
        rest = found[~found["id"].isin(part["id"])]
        labels = [*rest["label"], "happy", "unhappy"]  # Laplace
        dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(labels), 1)), labels)
        expected = dummy.predict_log_proba(np.zeros((len(part), 1)))
        np.testing.assert_allclose(part[LOGITS].to_numpy(), expected)
    assert (found[LOGITS[1]] > found[LOGITS[0]]).all()  # most are unhappy
    assert (found["temperature"] == 1).all() and (found["threshold"] == 0.5).all()


def test_metadata_alone_score_as_the_probe_says(uneven, no_training):
    table = out_of_fold(uneven, CONFIG, 3, (0,)).sample(frac=1, random_state=0)
    found = baselines(uneven, table)["metadata only"]
    margins = found[LOGITS[1]] - found[LOGITS[0]]
    area = roc_auc_score(found["label"] == "unhappy", margins)
    assert area == pytest.approx(probe(measure_pictures(uneven)).auroc)
    assert area > 0.6
    assert (found["fold"] == -1).all()
    known = table.set_index("id")[["label", "group", "source"]]
    pd.testing.assert_frame_equal(found.set_index("id")[known.columns], known.loc[found["id"]])


def test_baselines_of_a_checkpoint_learn_from_the_other_pictures(uneven, drawn_checkpoint):
    table = predict_folder(load_checkpoint(drawn_checkpoint), uneven, "test")
    found = baselines(uneven, table)
    labels = [row["label"] for row in measure_pictures(uneven)]
    happy = labels.count("happy") - (table["label"] == "happy").sum()
    share = (happy + 1) / (len(labels) - len(table) + 2)
    assert np.exp(found["majority"][LOGITS[0]]).tolist() == pytest.approx([share] * len(table))
    assert set(found["metadata only"]["id"]) == set(table["id"])
    with pytest.raises(ValueError, match="does not have the picture nowhere; is it another"):
        baselines(uneven, table.replace(table["id"].iloc[0], "nowhere"))


def by_hand(values, groups):
    """The formula once more, picture by picture, with the spread in units of a mean group."""
    k, n = len(values), len(groups)
    whole = mean(mean(row) for row in values)
    names = sorted(set(groups))
    size = n / len(names)
    sums = []
    for name in names:
        rows = [i for i in range(n) if groups[i] == name]
        sums.append(sum(mean(row[i] for row in values) - whole for i in rows) / size)
    one_each_way = 2 / size**2 / (len(names) - 1)
    of_groups = (variance(sums, 0.0) + one_each_way) / len(names)
    of_seeds = variance([mean(row) for row in values]) / k if k > 1 else 0.0
    halves = [stats.t.interval(0.95, len(names) - 1, 0, math.sqrt(of_groups))[1]]
    if of_seeds:
        halves.append(stats.t.interval(0.95, k - 1, 0, math.sqrt(of_seeds))[1])
    return whole, (whole - math.hypot(*halves), whole + math.hypot(*halves))


def make_ablation(rights, split="test", kind="photographs", dropout_loss="loss"):
    """An `Ablation` of {variant: array (k, n)}, each picture a group of its own."""
    tables = {}
    for variant, right in rights.items():
        k, n = np.shape(right)
        ids = [f"{index:04}" for index in range(n)] * k
        table = pd.DataFrame({"id": ids, "label": "happy", "group": ids})
        table["seed"], table[LOGITS[0]] = np.repeat(range(k), n), np.ravel(right)
        tables[variant] = table.assign(**{LOGITS[1]: 0.5}, temperature=1.0, threshold=0.5)
    return Ablation(tables, split, kind, dropout_loss)


def draw_variants(shift, k=3, n=300, seed=0):
    """Arms that are as good as one another, but for spp+pmt, which is better by `shift`."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0.8, 1, n)
    shifts = dict(zip(VARIANTS, (0, 0, shift, 0), strict=True))
    return {
        variant: (difficulty + by + rng.normal(0, 0.3, (k, n)) > 0).astype(int)
        for variant, by in shifts.items()
    }


def test_one_repetition_of_four_pictures_by_hand():
    """Residuals 1/2, -1/2, 1/2, -1/2: SE^2 = (1 + 2) / 16 * 4 / 3 = 1/4, t of 3 is 3.182."""
    found = estimate([[1, 0, 1, 0]], list("abcd"), lowest=-9)
    assert found[:3] == pytest.approx((0.5, 0.5 - 3.1824 / 2, 1.0), abs=1e-4)
    assert found[3:] == (1, 4, 4)
    assert estimate([[1, 0, 1, 0]], list("abcd"), lowest=0.0).low == 0


@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 999))
def test_the_interval_equals_a_second_implementation(k, n, seed):
    rng = np.random.default_rng(seed)
    values, groups = rng.integers(-1, 2, (k, n)).tolist(), rng.choice(list("abcd"), n).tolist()
    if len(set(groups)) == 1:
        with pytest.raises(ValueError, match="one group"):
            estimate(values, groups)
        return
    expected, (low, high) = by_hand(values, groups)
    found = estimate(values, groups, lowest=-99)
    assert found[:3] == pytest.approx((expected, low, min(high, 1)), abs=1e-9)


@pytest.mark.parametrize(("one_way", "is_clear"), [(3, False), (4, False), (6, True), (9, True)])
def test_few_disagreements_are_judged_as_by_the_exact_test(one_way, is_clear):
    """Of 300 pictures, `one_way` speak for one variant and none for the other (McNemar)."""
    assert (stats.binomtest(one_way, one_way).pvalue < 0.05) == is_clear
    found = estimate([[1] * one_way + [0] * (300 - one_way)], range(300))
    assert (found.low > 0) == is_clear


def test_one_repetition_decides_nothing():
    right = {variant: answers[:1] for variant, answers in draw_variants(3.0).items()}
    rows = make_ablation(right).differences()
    assert any(row["low"] > 0 for row in rows)
    assert {row["verdict"] for row in rows} == {"open with one repetition"}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_difference_is_found_with_its_direction(sign):
    made = make_ablation(draw_variants(sign * 0.8))
    verdicts = {row["name"]: row["verdict"] for row in made.differences()}
    assert verdicts == {
        "spp - plain": "within noise",
        "spp+pmt - spp": f"{'spp+pmt' if sign > 0 else 'spp'} is better",
        "spp+pmt - plain": f"{'spp+pmt' if sign > 0 else 'plain'} is better",
        "loss-averaged - logits-averaged": f"{'loss' if sign > 0 else 'logits'}-averaged is better",
    }
    table = {row["variant"]: row["mean"] for row in made.table()}
    for row in made.differences()[:3]:
        a, b = row["name"].split(" - ")
        assert row["mean"] == pytest.approx(table[a] - table[b])


@pytest.mark.parametrize("k", [3, 5])
def test_95_percent_intervals_hold_the_truth_in_at_least_93(k):
    """Pictures in pairs; difficulty of a pair and a picture, effects of seed and of both."""
    rng, n, hits, runs = np.random.default_rng(k), 300, 0, 1000
    pairs = np.repeat(np.arange(n // 2), 2)
    own, seeds, both, shift = 0.5, 0.3, 0.5, 0.3
    spread = math.sqrt(1.5 + own**2 + seeds**2 + both**2)
    truth = stats.norm.cdf((0.8 + shift) / spread) - stats.norm.cdf(0.8 / spread)
    for _ in range(runs):
        difficulty = 0.8 + rng.normal(0, 1, n) + rng.normal(0, math.sqrt(0.5), n // 2)[pairs]
        right = [
            difficulty + by + rng.normal(0, own, n // 2)[pairs]
            + rng.normal(0, seeds, (k, 1)) + rng.normal(0, both, (k, n)) > 0
            for by in (0, shift)
        ]  # fmt: skip
        found = estimate(right[1].astype(int) - right[0], pairs)
        hits += found.low <= truth <= found.high
    assert hits >= 0.93 * runs


def test_what_is_printed():
    text = str(make_ablation(draw_variants(0.8), kind=DRAWN, split="val"))
    assert "Accuracy on val (demo drawings), 3 repetitions, n = 300 pictures in 300 groups" in text
    [line] = [line for line in text.splitlines() if line.startswith("spp+pmt - spp:")]
    assert line.endswith("), 3 repetitions, n = 300: spp+pmt is better")
    for said in ("its comparison alone", "val, which also chose the epoch", "Drawn couples"):
        assert said in text
    assert "one repetition" not in text
    text = str(make_ablation(draw_variants(0, k=1)))
    assert "With one repetition, how training varies by chance is not in them." in text
    assert not any(said in text for said in ("chose the epoch", "Drawn", "1 repetitions"))


def test_the_arms_differ_in_nothing_but_their_part():
    variants = variants_of(CONFIG)
    assert tuple(variants) == VARIANTS
    stages = [variant.stage for variant in variants.values()]
    assert stages == ["plain", "spp", "spp+pmt", "spp+pmt"]
    assert [variant.dropout_loss for variant in variants.values()] == ["loss"] * 3 + ["logits"]
    assert tuple(variants_of(TrainConfig.paper()))[3] == "spp+pmt, loss-averaged"


def test_every_arm_has_the_same_seeds_and_more_repetitions_keep_the_old(
    couples, tmp_path, no_training
):
    first = ablate(couples, TrainConfig.demo(seed=4), 1, tmp_path)
    second = ablate(couples, TrainConfig.demo(seed=4), 2, tmp_path)
    assert tuple(second.tables) == VARIANTS
    assert [sorted(set(second.tables[variant]["seed"])) for variant in VARIANTS] == [[4, 5]] * 4
    kinds = [("plain", "loss"), ("spp", "loss"), ("spp+pmt", "loss"), ("spp+pmt", "logits")]
    configs = [job.config for job in no_training]
    told = [(config.stage, config.dropout_loss, config.seed) for config in configs]
    assert told == [(*kind, seed) for seed in (4, 5) for kind in kinds]
    again = ablate(couples, TrainConfig.demo(seed=4), 1, tmp_path)
    assert len(no_training) == 8
    for variant in VARIANTS:
        pd.testing.assert_frame_equal(again.tables[variant], first.tables[variant])
    assert (first.split, first.kind, len(first.groups)) == ("test", DRAWN, 6)
    assert len(set(first.groups)) == 3  # happy and unhappy twins
    assert first.answers("spp").shape == (1, 6)


def test_train_learns_val_decides_and_test_is_held_out(couples, no_training):
    made = ablate(couples, CONFIG, 1)
    folders = [CoupleFolder(couples, split).ids for split in ("train", "val", "test")]
    pool = load_pool(couples, replace(CONFIG, cache=False))
    for job in no_training:
        assert [take(pool, part).ids for part in job.parts] == folders
    assert made.tables["spp"]["id"].tolist() == folders[2]


def test_impossible_comparisons_are_refused_before_any_training(couples, tmp_path, no_training):
    with pytest.raises(ValueError, match="repetitions must be at least 1, not 0"):
        ablate(couples, CONFIG, 0)
    with pytest.raises(ValueError, match=r"dropout_loss must be one of .*, not 'both'"):
        ablate(couples, replace(CONFIG, dropout_loss="both"))
    one_group = render_couples(tmp_path / "drawn", 6, 32, splits={"train": 1, "val": 1, "test": 1})
    with pytest.raises(ValueError, match="All held-out pictures are one group"):
        ablate(one_group, CONFIG)
    assert not no_training


def test_without_test_val_is_held_out_and_pictures_without_a_group_stand_alone(
    couples, tmp_path, no_training
):
    shutil.copytree(couples, tmp_path / "couples")
    shutil.rmtree(tmp_path / "couples" / "test")
    (tmp_path / "couples" / "val" / "metadata.csv").unlink()
    made = ablate(tmp_path / "couples", CONFIG, 1)
    assert (made.split, len(set(made.groups))) == ("val", 6)


@pytest.mark.parametrize(("kind", "title"), [(DRAWN, "drawn couples"), ("photographs",) * 2])
@pytest.mark.parametrize("k", [1, 3])
def test_the_figure(kind, title, k):
    made = make_ablation(draw_variants(0.8, k), kind=kind)
    fig = plot_ablation(made)
    fig.canvas.draw()
    left, right = fig.axes
    assert title in fig.get_suptitle()
    assert f"k = {k}" in fig.get_suptitle()
    assert all("n = 300" in axis.get_xlabel() for axis in fig.axes)
    assert right.get_xlabel().endswith(f"; grey: {made.differences()[0]['verdict']}")
    for axis, rows in ((left, made.table()), (right, made.differences())):
        spans = [lines.get_segments()[0][:, 0].tolist() for lines in axis.collections]
        assert spans == [pytest.approx([row["low"], row["high"]]) for row in rows]
        means = [line.get_xdata()[0] for line in axis.lines[0:8:2]]
        assert means == pytest.approx([row["mean"] for row in rows])
        assert all(len(line.get_xdata()) == k for line in axis.lines[1:8:2])
        for line, row in zip(axis.lines[1:8:2], rows, strict=True):
            assert np.mean(line.get_xdata()) == pytest.approx(row["mean"])
