"""Studies of several networks: what the parts are worth, and out-of-fold predictions.

Out of fold, every picture is answered by a network that never saw its group: for each fold of the
pictures one is trained on the others, of which an inner part of about 15 % decides the epoch, the
temperature and the threshold. No group (one couple, one photographer) is on two of these sides.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from dclib.data import CLASSES, DRAWN, draw_seed, fingerprint, splits_of
from dclib.data.loading import CoupleFolder, EvalTransform, keep, make_loader
from dclib.evaluate.calibration import choose_threshold, fit_temperature
from dclib.evaluate.intervals import estimate
from dclib.evaluate.predictions import (
    LOGITS,
    answers,
    by_seed,
    check_predictions,
    make_table,
    save_predictions,
)
from dclib.evaluate.probe import grouped_folds, guess, measure_pictures
from dclib.files import extra, save_json
from dclib.model import STAGES
from dclib.predict import predict_logits
from dclib.train import build_model, describe_run, fit, make_transforms
from dclib.train.cache import build_cache
from dclib.train.config import TrainConfig
from dclib.train.distributed import join_processes
from dclib.train.features import features_once
from dclib.train.precision import make_precision
from dclib.train.resume import DONE, forget_state, hold_state, load_done

with extra("evaluate"):
    import pandas as pd

TABLE = "predictions.csv"
INNER = 7  # one in so many pictures of a training part decides: 14 %
OTHER = {"logits": "loss", "loss": "logits"}  # of `dropout_loss`


class Parts(NamedTuple):
    """Indices of the pictures that one network learns from, that decide, and that it answers."""

    train: np.ndarray
    inner: np.ndarray
    scored: np.ndarray


class Job(NamedTuple):
    """One training, with the seed and the fold of its rows in the table of predictions."""

    config: TrainConfig
    parts: Parts
    seed: int
    fold: int = -1  # of a division that is there, into train, val and test


def load_pool(
    root: str | Path, config: TrainConfig, splits: Sequence[str] | None = None
) -> CoupleFolder:
    """The pictures of the named splits, default all, in one row; decoded ones if config.cache."""
    names, plain = splits or splits_of(root) or ("train",), make_transforms(config)[1]
    folders = [CoupleFolder(root, split, plain) for split in names]
    if config.cache:
        for folder in folders:
            build_cache(folder)
    pool = copy(folders[0])
    pool.split = ""
    pool.samples = [sample for folder in folders for sample in folder.samples]
    pool.left_out = [left_out for folder in folders for left_out in folder.left_out]
    pool.couples = {path: two for folder in folders for path, two in folder.couples.items()}
    pool.rows = {f"{f.split}/{name}": row for f in folders for name, row in f.rows.items()}
    pool.caches = {path: cache for f in folders for path, cache in f.caches.items()}
    return pool


def take(
    pool: CoupleFolder, indices: Iterable[int], transform: EvalTransform | None = None
) -> CoupleFolder:
    """The pictures of some indices, through a transform; without one, as they are."""
    part = keep(pool, indices)
    part.transform = transform
    return part


def train_each(
    pool: CoupleFolder,
    plan: Mapping[str, Job],
    folder: str | Path | None,
    settings: dict[str, Any],
    progress: bool = True,
) -> dict[str, pd.DataFrame]:
    """Train what is not done yet; tables of predictions by the names in the plan.

    Every finished training is saved at once in `folder`/done.json, the state of the one that runs
    beside it; the next call goes on. Raises ValueError if that file is of other settings.
    """
    first, tables = join_processes(settings["device"])[0].first, {}
    with hold_state(folder if first else None):
        done = load_done(folder, settings)
        for name, job in plan.items():
            state = folder and Path(folder) / f"{name.replace(',', '').replace(' ', '-')}.run"
            if name not in done:
                done[name] = train_one(pool, job, state, progress)
                if folder and first:
                    save_json(Path(folder) / DONE, {"settings": settings, "done": done})
            if state and first:
                forget_state(state)
            row, scored = done[name], take(pool, job.parts.scored)
            if row["ids"] != scored.ids:
                raise ValueError(
                    f"{DONE} in {folder} has answers to other pictures for {name}; choose another "
                    "folder, or delete it to begin again."
                )
            chosen = row["temperature"], row["threshold"]
            table = tables[name] = make_table(scored, row["logits"], job.seed, job.fold, *chosen)
            print(
                f"{len(tables)} of {len(plan)}: {name}: {_right(table).sum()} of {len(table)} "
                f"right (epoch {row['epoch'] + 1}, temperature {chosen[0]:.2f}, threshold "
                f"{chosen[1]:.2f})"
            )
    return tables


def train_one(
    pool: CoupleFolder, job: Job, state: str | Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train one network, from `state` on if that is there; its answers to the scored pictures."""
    varied, plain = make_transforms(job.config)
    model, inner = build_model(job.config), take(pool, job.parts.inner, plain)
    train_set = take(pool, job.parts.train, varied)
    scored = take(pool, job.parts.scored, plain)
    with features_once(model, job.config, train_set, inner, scored) as (train_set, inner, scored):
        history = fit(model, train_set, inner, job.config, state, True, progress=progress)
        logits, labels = predict_logits(model, make_loader(inner, 32))
        given, _ = predict_logits(model, make_loader(scored, 32))
    temperature = fit_temperature(logits.numpy(), labels.numpy())
    threshold = 0.5
    if job.fold >= 0:
        margins = (logits[:, 1] - logits[:, 0]).numpy().astype(float)
        threshold = choose_threshold(expit(margins / temperature), labels.numpy())
    return {
        "ids": scored.ids,
        "logits": given.double().tolist(),
        "temperature": temperature,
        "threshold": threshold,
        "epoch": history.best_epoch,
    }


def _settings(config: TrainConfig, data: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What must stay the same when a study goes on, as JSON gives it back."""
    pictures = {"n": sum(data["n"].values()), "sha256": data["sha256"]}
    return json.loads(json.dumps(config.identity() | {"data": pictures} | more))


def _right(table: pd.DataFrame) -> np.ndarray:
    """Which answers are right, by row: (N,) bool."""
    return answers(table) == (table["label"] == CLASSES[1]).to_numpy()


@dataclass(frozen=True)
class Ablation:
    """Tables of predictions by variant, all of the same seeds and pictures, and what they say."""

    tables: dict[str, pd.DataFrame]
    split: str  # that was held out
    kind: str  # of the data; see `dclib.data.fingerprint`
    dropout_loss: str  # of all variants but the last

    @property
    def groups(self) -> list[str]:
        """The group of each picture."""
        return by_seed(self.tables["spp"])[0]["group"].tolist()

    def answers(self, variant: str) -> np.ndarray:
        """(k, n) float: 1 where the variant was right, else 0, by repetition and picture."""
        return np.array([_right(table) for table in by_seed(self.tables[variant])], dtype=float)

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """{name of a difference: (variant, the variant that is subtracted)}."""
        stages = [("spp", "plain"), ("spp+pmt", "spp"), ("spp+pmt", "plain")]
        other = OTHER[self.dropout_loss]
        averaged = {self.dropout_loss: "spp+pmt", other: f"spp+pmt, {other}-averaged"}
        pairs = {f"{a} - {b}": (a, b) for a, b in stages}
        return pairs | {"loss-averaged - logits-averaged": (averaged["loss"], averaged["logits"])}

    def table(self) -> list[dict[str, Any]]:
        """Accuracy of each, mean over its repetitions: dicts of variant and an `Estimate`."""
        return [
            {"variant": name, **estimate(self.answers(name), self.groups, lowest=0.0)._asdict()}
            for name in self.tables
        ]

    def differences(self) -> list[dict[str, Any]]:
        """Of accuracy, paired by picture and seed: dicts of name, an `Estimate` and verdict."""
        rows = []
        for name, (a, b) in self.pairs.items():
            difference = estimate(self.answers(a) - self.answers(b), self.groups)
            verdict = "within noise"
            if difference.low > 0 or difference.high < 0:
                verdict = f"{name.split(' - ')[difference.mean < 0]} is better"
            if difference.k == 1:  # how much two trainings differ by chance cannot be seen
                verdict = "open with one repetition"
            rows.append({"name": name, **difference._asdict(), "verdict": verdict})
        return rows

    def __str__(self) -> str:
        k, n = self.answers("spp").shape
        times, width = f"{k} repetition{'s' * (k > 1)}", max(map(len, self.tables))
        groups = len(set(self.groups))
        where = f"{self.split} ({self.kind}), {times}, n = {n} pictures in {groups} groups"
        lines = [f"Accuracy on {where}", f"{'variant':{width}}  accuracy  95 % interval"]
        for row in self.table():
            lines.append("{variant:{0}}  {mean:8.3f}  {low:.3f} to {high:.3f}".format(width, **row))
        lines += ["", "Differences, paired by picture and seed (95 % interval)"]
        line = "{name}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {0}, n = {n}: {verdict}"
        lines += [line.format(times, **row) for row in self.differences()]
        lines += ["", "Each interval is for its comparison alone, not for all of them together."]
        if k == 1:
            lines.append("With one repetition, how training varies by chance is not in them.")
        if self.split == "val":
            lines.append(
                "There is no test split: val, which also chose the epoch, stands in for it."
            )
        if self.kind == DRAWN:
            lines.append("Drawn couples: the order on photographs may be another.")
        return "\n".join(lines)


def variants_of(config: TrainConfig) -> dict[str, TrainConfig]:
    """{variant: its config}: the three stages, and spp+pmt with the other kind of dropout."""
    variants = {stage: replace(config, stage=stage) for stage in STAGES}
    other = OTHER[config.dropout_loss]
    last = replace(variants["spp+pmt"], dropout_loss=other)
    return variants | {f"spp+pmt, {other}-averaged": last}


def ablate(
    root: str | Path,
    config: TrainConfig,
    repetitions: int = 3,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Ablation:
    """Train four variants with the seeds config.seed, config.seed + 1, ... and compare them.

    Held out is test, or val where there is no test. For `folder` see `train_each`. Raises
    ValueError if an interval would be impossible (no repetition, a single group).
    """
    if repetitions < 1:
        raise ValueError(f"repetitions must be at least 1, not {repetitions}.")
    variants, seeds = variants_of(config), range(config.seed, config.seed + repetitions)
    data, split = fingerprint(root), "test" if "test" in splits_of(root) else "val"
    sides = ("train", "val", split)
    pool = load_pool(root, config, list(dict.fromkeys(sides)))
    names = np.array([name.split("/")[0] for name in pool.ids])
    parts = Parts(*(np.flatnonzero(names == side) for side in sides))
    held_out = take(pool, parts.scored).groups
    estimate(np.zeros((1, len(held_out))), held_out)  # says now what cannot be compared later
    plan = {
        f"{variant}, seed {seed}": Job(replace(changed, seed=seed), parts, seed)
        for seed in seeds
        for variant, changed in variants.items()
    }
    tables = train_each(pool, plan, folder, _settings(config, data, stage="each"), progress)
    by_arm = {
        variant: pd.concat([tables[f"{variant}, seed {seed}"] for seed in seeds], ignore_index=True)
        for variant in variants
    }
    return Ablation(by_arm, split, data["kind"], config.dropout_loss)


def out_of_fold(
    root: str | Path,
    config: TrainConfig,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    splits: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train `folds` networks for each seed; the table of their answers (evaluate/predictions.py).

    Args:
        config: the `TrainConfig` of every training but for its seed, which is drawn from
            config.seed, the seed and the fold.
        folder: see `train_each`; at the end predictions.csv there holds the table. None: nowhere.
        splits: which pictures, such as ("train", "val"); default those of all splits.
    """
    processes, device = join_processes(config.device)
    precision = make_precision(config.precision, device)
    config = replace(config, precision=precision.name)  # what it comes to is said once, and kept
    pool, data = load_pool(root, config, splits), fingerprint(root)
    plan = {
        f"seed {seed}, fold {fold}": Job(
            replace(config, seed=draw_seed(config.seed, seed, fold)), parts, seed, fold
        )
        for seed in seeds
        for fold, parts in enumerate(divide(pool.labels, pool.groups, folds, seed))
    }
    if not plan:
        raise ValueError("There must be at least 1 seed.")
    print(
        f"{len(pool)} pictures in {len(set(pool.groups))} groups of {data['name']} "
        f"({data['kind']}), {folds} folds, {len(seeds)} seed{'s' * (len(seeds) > 1)}."
    )
    print(describe_run(config, take(pool, next(iter(plan.values())).parts.train), processes.world))
    settings = _settings(config, data, folds=folds, splits=list(splits or splits_of(root)))
    tables = train_each(pool, plan, folder, settings, progress)
    table = check_predictions(pd.concat(tables.values(), ignore_index=True))
    if folder is not None and processes.first:
        save_predictions(table, Path(folder) / TABLE)
    return table


def divide(labels: ArrayLike, groups: ArrayLike, folds: int, seed: int) -> list[Parts]:
    """`Parts` of each fold, arrays of indices; no group is in two of them, classes are even.

    Labels (N,) 0 or 1, groups (N,). Another seed divides otherwise. Raises ValueError if a class
    has fewer groups than folds, or too few for an inner part.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, not {folds}.")
    labels, groups = np.asarray(labels), np.unique(groups, return_inverse=True)[1]
    for index, name in enumerate(CLASSES):
        present = len(np.unique(groups[labels == index]))
        if present < folds:
            raise ValueError(
                f"{folds} folds need {folds} groups with {name} pictures or more; there are "
                f"{present}. Take fewer folds, or gather more first."
            )
    rng, plan = np.random.default_rng(seed), []
    for rest, scored in grouped_folds(labels, groups, folds, rng):
        cut = _cut_inner(labels[rest], groups[rest], rng)
        if cut is None or not len(scored):
            raise ValueError(
                f"The groups are too few or too unlike in size for {folds} folds: one of them has "
                "no picture, or leaves a class with less than two groups to train and to decide "
                "on. Take another number of folds, or gather more first."
            )
        plan.append(Parts(rest[cut[0]], rest[cut[1]], scored))
    return plan


def _cut_inner(
    labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """(train, inner), the nearest to one in `INNER` of each class; None if a class lacks groups."""
    fewest = min(len(np.unique(groups[labels == index])) for index in range(len(CLASSES)))
    if fewest < 2:
        return None

    def distance(cut: tuple[np.ndarray, np.ndarray]) -> float:
        inner = np.bincount(labels[cut[1]], minlength=len(CLASSES))
        return np.abs(inner / np.bincount(labels) - 1 / INNER).sum()

    cuts = grouped_folds(labels, groups, min(INNER, fewest), rng)
    both = [cut for cut in cuts if all(len(set(labels[side])) == len(CLASSES) for side in cut)]
    return min(both, key=distance, default=None)


def baselines(root: str | Path, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What one gets without looking: {"majority": table, "metadata only": table}.

    Both answer to the pictures of the table's first seed, with temperature 1 and threshold 0.5; for
    a checkpoint (fold -1) they learn from all other pictures of the folder. Majority: log-odds of
    the class shares in the other folds. A fold with more of a class leaves less of it there, so the
    AUROC over all folds can be below 0.5 without meaning anything. Metadata only: a logistic
    regression on size, weight, mean colour and source, with folds of its own (-1). Raises
    ValueError if a class has fewer than five groups.
    """
    one = by_seed(check_predictions(table))[0].assign(temperature=1.0, threshold=0.5)
    rows = {row["id"]: row for row in measure_pictures(root)}
    missing = [name for name in one["id"] if name not in rows]
    if missing:
        raise ValueError(f"{root} does not have the picture {missing[0]}; is it another data set?")
    ours = set(one["id"])
    known = [row for row in rows.values() if (one["fold"] == -1).any() or row["id"] in ours]
    majority = one.copy()
    for _, part in one.groupby("fold"):
        held_out = set(part["id"])
        learned = Counter(row["label"] for row in known if row["id"] not in held_out)
        for name, column in zip(CLASSES, LOGITS, strict=True):
            share = (learned[name] + 1) / (learned.total() + len(CLASSES))  # Laplace: it may be 0
            majority.loc[part.index, column] = np.log(share)
    scores = dict(zip((row["id"] for row in known), guess(known)[0]))
    margins = one["id"].map(scores)
    guessed = one.assign(fold=-1, **{LOGITS[0]: -margins / 2, LOGITS[1]: margins / 2})
    return {"majority": check_predictions(majority), "metadata only": check_predictions(guessed)}
