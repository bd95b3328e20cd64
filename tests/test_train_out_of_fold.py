import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from dclib.data import draw_seed, splits_of
from dclib.data.loading import CoupleFolder
from dclib.drawn import render_couples
from dclib.evaluate.predictions import LOGITS, check_predictions, predict_folder, read_predictions
from dclib.evaluate.probe import measure_pictures, probe
from dclib.train import TrainConfig, loop, make_transforms
from dclib.train import studies as module
from dclib.train.studies import (
    FILE,
    INNER,
    TABLE,
    baselines,
    divide,
    load_pool,
    main,
    out_of_fold,
    train_fold,
)

CONFIG = TrainConfig.demo(image_size=32, epochs=2, batch_size=8, workers=0, augment=0, device="cpu")
GROUPINGS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 19)), min_size=4, max_size=80
)  # label and group of each picture


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
    part = pool.part([30, 2], plain)
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
    assert [path.name for path, _ in pool.unreadable] == ["broken.jpg"]
    assert "36 pictures" in str(pool) and "1 unreadable left out" in str(pool)


def test_decoded_pictures_are_used_and_change_nothing(couples, tmp_path, monkeypatch):
    root = shutil.copytree(couples, tmp_path / "data", ignore=shutil.ignore_patterns(".cache"))
    config = replace(CONFIG, train_sizes=(32, 40))
    transforms = make_transforms(config)
    indices, keys = range(0, 36, 5), [(epoch, index) for epoch in (0, 1) for index in range(8)]

    def look(pool):
        return [pool.part(indices, transform)[key][0] for transform in transforms for key in keys]

    expected = look(load_pool(root, replace(config, cache=False)))
    cached = load_pool(root, config)
    monkeypatch.setattr("dclib.data.read_picture", None)
    assert all(torch.equal(a, b) for a, b in zip(expected, look(cached), strict=True))


def test_the_scored_fold_decides_nothing(couples):
    """Its labels change neither the answers nor what was chosen; those of the inner part do."""
    pool = load_pool(couples, CONFIG)
    parts = divide(pool.labels, pool.groups, 3, 0)[1]
    expected = train_fold(pool, parts, CONFIG, progress=False)
    assert expected["ids"] == pool.part(parts.scored).ids

    def flipped(indices):
        other = pool.part(range(len(pool)))
        for index in indices:
            path, label = pool.samples[index]
            other.samples[index] = (path, 1 - label)
        return train_fold(other, parts, CONFIG, progress=False)

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
        train_fold(pool, parts, config)
    train_set, val_set = told.value.args
    assert train_set.ids == pool.part(parts.train).ids
    assert val_set.ids == pool.part(parts.inner).ids
    varied, plain = (type(transform) for transform in make_transforms(config))
    assert (type(train_set.transform), type(val_set.transform)) == (varied, plain)
    assert varied is not plain


@pytest.fixture
def no_training(monkeypatch):
    """Stands in for training; lists what was trained."""
    trained = []

    def stand_in(pool, parts, config, state, progress):
        trained.append((config.seed, tuple(parts.scored)))
        scored = pool.part(parts.scored)
        rng = np.random.default_rng(config.seed)
        logits = rng.normal(size=(len(scored), 2)).tolist()
        chosen = {"temperature": 1 + rng.random(), "threshold": rng.random(), "epoch": 1}
        return {"ids": scored.ids, "logits": logits} | chosen

    monkeypatch.setattr(module, "train_fold", stand_in)
    return trained


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
    assert len({seed for seed, _ in no_training}) == 12
    assert len({scored for _, scored in no_training}) == 6  # the division is of `seeds` alone
    assert no_training[4][0] == draw_seed(0, 1, 1)


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
    saved = read_predictions(tmp_path / TABLE)
    pd.testing.assert_frame_equal(saved, both, check_dtype=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FILE, TABLE])


def test_an_unfinished_run_has_no_table(couples, no_training, tmp_path, monkeypatch):
    """Half of the folds would look like a whole table of fewer pictures."""
    trained = module.train_fold

    def dies(*args):
        if len(no_training) == 2:
            raise KeyboardInterrupt
        return trained(*args)

    monkeypatch.setattr(module, "train_fold", dies)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert len(json.loads((tmp_path / FILE).read_text())["folds"]) == 2


def test_another_run_in_the_folder_is_refused(couples, no_training, tmp_path):
    out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    for changed, folds, splits, said in (
        (replace(CONFIG, lr=0.5), 3, None, "has lr = 0.001, not 0.5: use its settings"),
        (replace(CONFIG, stage="spp"), 3, None, r"has stage = 'spp\+pmt', not 'spp'"),
        (CONFIG, 4, None, "has folds = 3, not 4"),
        (CONFIG, 3, ["train"], "has splits = "),
    ):
        with pytest.raises(ValueError, match=said):
            out_of_fold(couples, changed, folds, (0,), tmp_path, splits)
    saved = json.loads((tmp_path / FILE).read_text())
    saved["settings"]["data"] = "0"
    (tmp_path / FILE).write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="has data = '0', not "):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(ValueError, match="holds predictions of something else; take another"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    assert len(no_training) == 3


@pytest.mark.parametrize("text", ["", '{"folds": [', "[]", "{}", '{"folds": [{"seed": 0}]}'])
def test_a_damaged_file_is_refused(couples, tmp_path, no_training, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=rf"{FILE} cannot be read .*; delete it to begin again"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)


def test_answers_to_other_pictures_are_refused(couples, tmp_path, no_training):
    out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    saved = json.loads((tmp_path / FILE).read_text())
    first, second = saved["folds"][:2]
    first["ids"], second["ids"] = second["ids"], first["ids"]
    (tmp_path / FILE).write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="answers to other pictures for seed 0, fold 0; delete"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)
    first["logits"].pop()
    (tmp_path / FILE).write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="does not have two logits for each picture"):
        out_of_fold(couples, CONFIG, 3, (0,), tmp_path)


def run(root, folder):
    """A run of seconds, in a process that may be killed."""
    table = out_of_fold(root, CONFIG, 2, (0, 1), folder, progress=False)
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
    """Killed within the first training, and within the first one of another seed."""
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    start_child(run, couples, tmp_path / "undisturbed").join()
    for fold in ("seed-0-fold-0", "seed-1-fold-0"):
        process = start_child(run_until, couples, tmp_path / "killed", f"{fold}.run")
        state = tmp_path / "killed" / f"{fold}.run" / "state.pt"
        while process.is_alive() and not state.exists():
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert state.exists()
    start_child(run, couples, tmp_path / "killed").join()
    whole, again = (pd.read_pickle(path) for path in sorted(tmp_path.glob("*/whole.pkl")))
    pd.testing.assert_frame_equal(whole, again, check_exact=True)
    tables = [path.read_bytes() for path in tmp_path.glob(f"*/{TABLE}")]
    assert tables[0] == tables[1]
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {FILE, TABLE, "whole.pkl"}
    margins = whole.pivot(index="id", columns="seed", values=LOGITS[0])
    assert (margins[0] != margins[1]).all()


def test_of_several_processes_the_first_writes(couples, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "dclib.train", couples, tmp_path / "out"]
    command += ["--preset", "demo", "--image-size", "32", "--epochs", "1", "--batch-size", "8"]
    command += ["--workers", "0", "--augment", "0", "--device", "cpu", "--folds", "2"]
    done = subprocess.run(
        [*map(str, command), "--seeds", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 of 2: seed 0, fold 1") == 1
    assert "(epoch 1, temperature" in done.stdout  # people count from 1
    assert done.stdout.count("majority") == 1
    assert "in 2 processes in float32" in done.stdout
    table = read_predictions(tmp_path / "out" / "spp+pmt" / TABLE)
    assert len(table) == 36


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
    found = baselines(uneven, table, seed=3)["metadata only"]
    margins = found[LOGITS[1]] - found[LOGITS[0]]
    area = roc_auc_score(found["label"] == "unhappy", margins)
    assert area == pytest.approx(probe(measure_pictures(uneven), seed=3).auroc)
    assert area > 0.6
    assert (found["fold"] == -1).all()
    known = table.set_index("id")[["label", "group", "source"]]
    pd.testing.assert_frame_equal(found.set_index("id")[known.columns], known.loc[found["id"]])


def test_baselines_of_a_checkpoint_learn_from_the_other_pictures(uneven, drawn_checkpoint):
    from dclib.checkpoint import load_checkpoint

    table = predict_folder(load_checkpoint(drawn_checkpoint), uneven, "test")
    found = baselines(uneven, table)
    labels = [row["label"] for row in measure_pictures(uneven)]
    happy = labels.count("happy") - (table["label"] == "happy").sum()
    share = (happy + 1) / (len(labels) - len(table) + 2)
    assert np.exp(found["majority"][LOGITS[0]]).tolist() == pytest.approx([share] * len(table))
    assert set(found["metadata only"]["id"]) == set(table["id"])
    with pytest.raises(ValueError, match="does not have the picture nowhere; is it another"):
        baselines(uneven, table.replace(table["id"].iloc[0], "nowhere"))


def command(monkeypatch, *arguments):
    fixed = ["--preset", "demo", "--image-size", "32", "--workers", "0", "--augment", "0"]
    monkeypatch.setattr(sys, "argv", ["crossval", *map(str, arguments), *fixed])
    main()


def test_command_line(couples, tmp_path, monkeypatch, capsys, no_training):
    options = ["--folds", "3", "--seeds", "2", "--stages", "resnet34", "spp", "--lr", "0.01"]
    command(monkeypatch, couples, tmp_path, *options)
    said = capsys.readouterr().out
    assert len(no_training) == 12
    for stage in ("resnet34", "spp"):
        assert f"{stage}, n = 36 pictures (18 happy, 18 unhappy) in 18 groups, 2 seeds" in said
        assert f"(stage {stage}) from a random start" in said
        settings = json.loads((tmp_path / stage / FILE).read_text())["settings"]
        assert (settings["stage"], settings["lr"]) == (stage, 0.01)
        assert len(read_predictions(tmp_path / stage / TABLE)) == 72
    header = next(line for line in said.splitlines() if "metadata only" in line)
    assert header.split() == ["resnet34", "spp", "majority", "metadata", "only"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "1"], "folds must be at least 2, not 1."),
        (["--folds", "19"], "19 folds need 19 groups with happy pictures or more; there are 18."),
        (["--seeds", "0"], "There must be at least 1 seed."),
    ],
)
def test_settings_that_mean_nothing(couples, tmp_path, monkeypatch, options, said):
    with pytest.raises(SystemExit, match=said):
        command(monkeypatch, couples, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_one_class_only_and_no_data(couples, tmp_path, monkeypatch):
    root = shutil.copytree(couples, tmp_path / "data")
    for split in splits_of(root):
        shutil.rmtree(root / split / "unhappy")
    with pytest.raises(SystemExit, match="has no folder 'unhappy'"):
        command(monkeypatch, root, tmp_path / "out")
    with pytest.raises(SystemExit, match=r"There is no folder .*; a data set is"):
        command(monkeypatch, tmp_path / "none", tmp_path / "out")


def test_one_couple_in_all_pictures(couples, tmp_path, monkeypatch):
    root = shutil.copytree(couples, tmp_path / "data", ignore=shutil.ignore_patterns("val", "test"))
    path = root / "train" / "metadata.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"group": "them"} for row in rows)
    with pytest.raises(SystemExit, match="5 folds need 5 groups with happy pictures or more"):
        command(monkeypatch, root, tmp_path / "out")
