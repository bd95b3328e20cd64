"""Out-of-fold predictions: every picture is answered by a network that never saw its group.

All pictures of a data set are divided into folds. For each fold a network is trained on the others,
of which an inner part of about 15 % decides the epoch, the temperature and the threshold; the
scored fold decides nothing. No group (one couple, one photographer) is ever on two of these sides.

    python -m dclib.train data/couples results --preset colab --folds 5 --seeds 3
    torchrun --nproc-per-node 2 -m dclib.train data/couples results --stages spp spp+pmt
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.special import expit

from dclib.data import CLASSES, DRAWN, draw_seed, fingerprint, splits_of
from dclib.data.loading import CoupleFolder, EvalTransform, keep, make_loader
from dclib.evaluate.calibration import choose_threshold, fit_temperature
from dclib.evaluate.intervals import estimate
from dclib.evaluate.metrics import format_metrics, measure, side_by_side
from dclib.evaluate.predictions import (
    LOGITS,
    answers,
    by_seed,
    check_predictions,
    describe,
    make_table,
    save_predictions,
)
from dclib.evaluate.probe import grouped_folds, guess, measure_pictures
from dclib.files import extra, save_json
from dclib.model import STAGES
from dclib.predict import predict_logits
from dclib.train import build_model, describe_run, fit, load_splits, make_transforms
from dclib.train.__main__ import add_settings, run_main
from dclib.train.cache import PictureCache, build_cache
from dclib.train.config import TrainConfig
from dclib.train.distributed import join_processes
from dclib.train.precision import make_precision
from dclib.train.resume import check_same_run, forget_state

with extra("evaluate"):
    import pandas as pd

FILE, TABLE = "crossval.json", "predictions.csv"
Key = tuple[int, int]  # of one training: seed and fold
INNER = 7  # one in so many pictures of a training part decides: 14 %
ABLATION_FILE = "ablation.json"
OTHER = {"logits": "loss", "loss": "logits"}  # of `dropout_loss`
Runs = dict[tuple[str, int], list[int]]  # by arm and seed: 1 for each picture that was right


class Parts(NamedTuple):
    """Indices of the pictures that one network learns from, that decide, and that it answers."""

    train: np.ndarray
    inner: np.ndarray
    scored: np.ndarray


class Pool(CoupleFolder):
    """Pictures of several splits of one folder, in one row; `part` takes some of them."""

    def __init__(self, splits: Sequence[CoupleFolder]) -> None:
        self.root, self.split, self.transform = splits[0].root, "", None
        self.classes = splits[0].classes
        self.samples = [sample for split in splits for sample in split.samples]
        self.unreadable = [left_out for split in splits for left_out in split.unreadable]
        self.rows = {f"{s.split}/{name}": row for s in splits for name, row in s.rows.items()}
        sizes = {size for split in splits for size in split.caches}
        self.caches = {
            size: PooledCache([s.caches[size] for s in splits if size in s.caches])
            for size in sizes
        }

    def part(self, indices: Iterable[int], transform: EvalTransform | None = None) -> "Pool":
        """The pictures of some indices, through a transform; without one, as they are."""
        part = keep(self, indices)
        part.transform = transform
        return part


class PooledCache:
    """Several `PictureCache`s of one size as one."""

    def __init__(self, caches: Iterable[PictureCache]) -> None:
        self.rows = {path: cache for cache in caches for path in cache.rows}

    def __getitem__(self, path: Path) -> Image.Image:
        return self.rows[path][path]


@dataclass(frozen=True)
class Ablation:
    """Who was right about which picture, and what follows from it.

    `correct[arm, seed]` holds one 0 or 1 for each picture of `split`, `groups` the group of each.
    `kind` is that of the data (see `dclib.data.fingerprint`), `settings` those of spp+pmt.
    """

    correct: Runs
    groups: list[str]
    split: str
    kind: str
    settings: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        """Names of the arms, as `arms_of` orders them."""
        return list(dict.fromkeys(arm for arm, _ in self.correct))

    def answers(self, arm: str) -> np.ndarray:
        """(k, n) float: 1 where the arm was right, else 0, by repetition and picture."""
        seeds = sorted(seed for name, seed in self.correct if name == arm)
        return np.array([self.correct[arm, seed] for seed in seeds], dtype=float)

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """{name of a difference: (arm, the arm that is subtracted)}."""
        stages = [("spp", "resnet34"), ("spp+pmt", "spp"), ("spp+pmt", "resnet34")]
        other = OTHER[self.settings["dropout_loss"]]
        averaged = {OTHER[other]: "spp+pmt", other: f"spp+pmt, {other}-averaged"}
        pairs = {f"{a} - {b}": (a, b) for a, b in stages}
        return pairs | {"loss-averaged - logits-averaged": (averaged["loss"], averaged["logits"])}

    def table(self) -> list[dict[str, Any]]:
        """Accuracy of each arm, mean over its repetitions: dicts of arm and an `Estimate`."""
        return [
            {"arm": arm, **estimate(self.answers(arm), self.groups, lowest=0.0)._asdict()}
            for arm in self.arms
        ]

    def differences(self) -> list[dict[str, Any]]:
        """Differences of accuracy, paired by picture and seed: dicts of name, `Estimate`, verdict.

        Each interval is for its comparison alone.
        """
        rows = []
        for name, (a, b) in self.pairs.items():
            found = estimate(self.answers(a) - self.answers(b), self.groups)
            verdict = "within noise"
            if found.low > 0 or found.high < 0:
                verdict = f"{name.split(' - ')[found.mean < 0]} is better"
            if found.k == 1:  # how much two trainings differ by chance cannot be seen
                verdict = "open with one repetition"
            rows.append({"name": name, **found._asdict(), "verdict": verdict})
        return rows

    @property
    def caution(self) -> list[str]:
        """Sentences on what these numbers do not say."""
        said = ["Each interval is for its comparison alone, not for all of them together."]
        if len(self.correct) == len(self.arms):
            said.append("With one repetition, how training varies by chance is not in them.")
        if self.split == "val":
            said.append(
                "There is no test split: val, which also chose the epoch, stands in for it."
            )
        if self.kind == DRAWN:
            said.append("Drawn couples: the order on photographs may be another.")
        return said

    def __str__(self) -> str:
        k, n = self.answers("spp").shape
        groups = len(set(self.groups))
        times, width = f"{k} repetition{'s' * (k > 1)}", max(map(len, self.arms))
        where = f"{self.split} ({self.kind}), {times}, n = {n} pictures in {groups} groups"
        lines = [f"Accuracy on {where}", f"{'arm':{width}}  accuracy  95 % interval"]
        for row in self.table():
            lines.append("{arm:{0}}  {mean:8.3f}  {low:.3f} to {high:.3f}".format(width, **row))
        lines += ["", "Differences, paired by picture and seed (95 % interval)"]
        told = "{name}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {0}, n = {n}: {verdict}"
        lines += [told.format(times, **row) for row in self.differences()]
        return "\n".join([*lines, "", *self.caution])


def out_of_fold(
    root: str | Path,
    config: TrainConfig,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    splits: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train `folds` networks for each seed; the table of their answers (see evaluate/predictions.py).

    Args:
        config: the `TrainConfig` of every training but for its seed, which is drawn from
            config.seed, the seed and the fold.
        folder: every finished training is saved there at once, in crossval.json, and the state of
            the one that runs; the next call goes on. At the end predictions.csv holds the table.
            None: nowhere.
        splits: which pictures, such as ("train", "val"); default those of all splits.

    Raises ValueError if there is no seed, if the groups are too few for the folds (see `divide`),
    or if the folder is of other settings or data or cannot be read; and what `fit` raises.
    """
    processes, device = join_processes(config.device)
    precision = make_precision(config.precision, device, config.opt_level)
    config = replace(config, precision=precision.name)  # what it comes to is said once, and kept
    pool = processes.first_prepares(lambda: load_pool(root, config, splits))
    plan = _plan(pool, folds, seeds)
    told, tables = _identity(root, config, folds, splits), []
    done = load_folds(folder, told)
    print(_describe_data(pool, told["data"], plan))
    if plan.keys() - done.keys():
        print(describe_run(config, pool.part(plan[min(plan)].train), processes.world))
    for (seed, fold), parts in plan.items():
        state = None if folder is None else Path(folder) / f"seed-{seed}-fold-{fold}.run"
        if (seed, fold) not in done:
            own = replace(config, seed=draw_seed(config.seed, seed, fold))
            done[seed, fold] = train_fold(pool, parts, own, state, progress)
            if folder is not None and processes.first:
                save_folds(folder, told, done)
        if state is not None and processes.first:
            forget_state(state)
        tables.append(_table_of(done[seed, fold], pool.part(parts.scored), seed, fold, folder))
        print(f"{len(tables)} of {len(plan)}: {_describe_fold(tables[-1], done[seed, fold])}")
    table = check_predictions(pd.concat(tables, ignore_index=True))
    if folder is not None and processes.first:
        save_predictions(table, Path(folder) / TABLE)
    return table


def _plan(pool: Pool, folds: int, seeds: Sequence[int]) -> dict[Key, Parts]:
    """Which pictures each training learns from, decides on and answers."""
    plan = {
        (seed, fold): parts
        for seed in seeds
        for fold, parts in enumerate(divide(pool.labels, pool.groups, folds, seed))
    }
    if not plan:
        raise ValueError("There must be at least 1 seed.")
    return plan


def train_fold(
    pool: Pool, parts: Parts, config: TrainConfig, state: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train one network; a dict of its answers to the scored fold and what the inner part chose.

    `state`: a folder from where a training that was cut off goes on. Of the scored fold only the
    pixels are used.
    """
    varied, plain = make_transforms(config)
    model, inner = build_model(config), pool.part(parts.inner, plain)
    history = fit(
        model, pool.part(parts.train, varied), inner, config, state, True, progress=progress
    )
    logits, labels = predict_logits(model, make_loader(inner, 32))
    temperature = fit_temperature(logits.numpy(), labels.numpy())
    margins = (logits[:, 1] - logits[:, 0]).numpy().astype(float)
    threshold = choose_threshold(expit(margins / temperature), labels.numpy())
    scored = pool.part(parts.scored, plain)
    logits, _ = predict_logits(model, make_loader(scored, 32))
    return {
        "ids": scored.ids,
        "logits": logits.double().tolist(),
        "temperature": temperature,
        "threshold": threshold,
        "epoch": history.best_epoch,
    }


def _identity(
    root: str | Path, config: TrainConfig, folds: int, splits: Sequence[str] | None
) -> dict[str, Any]:
    """What a run is: settings that must stay the same, and the data set."""
    settings, data = json.loads(json.dumps(asdict(config))), fingerprint(root)
    named = list(splits or splits_of(root))
    settings |= {"data": data["sha256"], "folds": folds, "splits": named}
    return {"settings": settings, "data": data}


def _table_of(
    answered: dict[str, Any], scored: Pool, seed: int, fold: int, folder: str | Path | None
) -> pd.DataFrame:
    if answered["ids"] != scored.ids:
        raise ValueError(
            f"{FILE} in {folder} has answers to other pictures for seed {seed}, fold {fold}; "
            "delete it to begin again."
        )
    chosen = {name: answered[name] for name in ("temperature", "threshold")}
    return make_table(scored, answered["logits"], seed, fold, **chosen)


def _describe_data(pool: Pool, data: dict[str, Any], plan: Mapping[Key, Parts]) -> str:
    seeds, folds = (len({key[i] for key in plan}) for i in (0, 1))
    return (
        f"{len(pool)} pictures in {len(set(pool.groups))} groups of {data['name']} "
        f"({data['kind']}), {folds} folds, {seeds} seed{'s' * (seeds > 1)}."
    )


def _describe_fold(table: pd.DataFrame, answered: dict[str, Any]) -> str:
    first = table.iloc[0]
    chosen = f"temperature {first.temperature:.2f}, threshold {first.threshold:.2f}"
    right = (answers(table) == (table["label"] == CLASSES[1])).sum()
    return (
        f"seed {first.seed}, fold {first.fold}: {right} of {len(table)} right "
        f"(epoch {answered['epoch'] + 1}, {chosen})"
    )


def save_folds(
    folder: str | Path, told: dict[str, Any], done: Mapping[Key, dict[str, Any]]
) -> None:
    """Write crossval.json whole or not at all."""
    rows = [{"seed": seed, "fold": fold} | row for (seed, fold), row in done.items()]
    save_json(Path(folder) / FILE, told | {"folds": rows})


def load_folds(folder: str | Path | None, told: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    """{(seed, fold): answers} of all trainings that are saved; empty if there are none.

    Raises ValueError for a file that cannot be read, one of another run than `told`, and a folder
    that holds a table of predictions only.
    """
    if folder is None:
        return {}
    path = Path(folder) / FILE
    if not path.exists():
        if (Path(folder) / TABLE).exists():
            raise ValueError(f"{folder} holds predictions of something else; take another folder.")
        return {}
    try:
        saved = json.loads(path.read_text())
        done = {(row.pop("seed"), row.pop("fold")): row for row in saved["folds"]}
        before = dict(saved["settings"])
        if any(np.shape(row["logits"]) != (len(row["ids"]), 2) for row in done.values()):
            raise ValueError("a training in it does not have two logits for each picture")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to begin again.") from error
    check_same_run(folder, before, told["settings"])
    print(f"Going on with the run in {folder}: {len(done)} trainings were done before.")
    return done


def baselines(root: str | Path, table: pd.DataFrame, seed: int = 0) -> dict[str, pd.DataFrame]:
    """What one gets without looking: {"majority": table, "metadata only": table}.

    Both answer to the pictures of the table's first seed, with temperature 1 and threshold 0.5.
    Majority: log-odds of the class shares in the rest of the table, by fold; each class counts once
    more (Laplace), as there may be no rest. A fold with more of a class leaves less of it in the
    rest, so that the AUROC over all folds can be below 0.5 without meaning anything. Metadata only:
    a logistic regression on size, weight, mean colour and source, which divides the pictures into
    folds of its own (`dclib.evaluate.probe`; its fold is -1). For predictions of a checkpoint
    (fold -1) both learn from all other pictures of the folder. Raises ValueError if the folder
    lacks one of the table's pictures, or if a class has fewer than five groups, and as
    `dclib.evaluate.probe.measure_pictures` does.
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
            share = (learned[name] + 1) / (learned.total() + len(CLASSES))
            majority.loc[part.index, column] = np.log(share)
    scores = dict(zip((row["id"] for row in known), guess(known, seed)[0]))
    margins = one["id"].map(scores)
    guessed = one.assign(fold=-1, **{LOGITS[0]: -margins / 2, LOGITS[1]: margins / 2})
    return {"majority": check_predictions(majority), "metadata only": check_predictions(guessed)}


def make_parser() -> argparse.ArgumentParser:
    """The command line: the settings, and what to do with them."""
    parser = argparse.ArgumentParser(
        prog="python -m dclib.train",
        description="Out-of-fold predictions of a data set. What was cut off goes on by itself.",
    )
    parser.add_argument("data", type=Path, help="folder with train/ and perhaps val/ and test/")
    parser.add_argument("folder", type=Path, help="where FOLDER/<stage>/predictions.csv is written")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="how often all folds are trained")
    parser.add_argument("--stages", nargs="+", choices=STAGES, help="several, instead of --stage")
    return add_settings(parser)


def run_command(
    config: TrainConfig,
    data: Path,
    folder: Path,
    folds: int,
    seeds: int,
    stages: Sequence[str] | None,
) -> str | None:
    """What the command line asks for; returns what to print."""
    tables = {}
    for stage in stages or (config.stage,):
        changed = replace(config, stage=stage)
        tables[stage] = out_of_fold(data, changed, folds, range(seeds), folder / stage)
        print(f"\n{stage}, {describe(tables[stage])}\n{format_metrics(measure(tables[stage]))}\n")
    if not join_processes(config.device)[0].first:
        return None
    together = side_by_side(tables | baselines(data, next(iter(tables.values()))))
    files = ", ".join(str(folder / stage / TABLE) for stage in tables)
    return f"{together.to_string()}\n\nWritten: {files}"


def main() -> None:
    """The command line; see the module."""
    run_main(make_parser(), run_command)


def load_pool(root: str | Path, config: TrainConfig, splits: Sequence[str] | None = None) -> Pool:
    """A `Pool` of the named splits, default all, with the decoded pictures that a run needs."""
    folders = [CoupleFolder(root, split) for split in splits or splits_of(root) or ("train",)]
    if config.cache:
        sizes = {size for transform in make_transforms(config) for size in transform.sizes}
        for folder in folders:
            build_cache(folder, sorted(sizes))
    return Pool(folders)


def divide(labels: ArrayLike, groups: ArrayLike, folds: int, seed: int) -> list[Parts]:
    """`Parts` of each fold, arrays of indices; no group is in two of them, classes are even.

    Labels (N,) 0 or 1, groups (N,). Another seed divides otherwise. Raises ValueError for less than
    2 folds, and if a class has fewer groups than folds, or too few for an inner part.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, not {folds}.")
    labels, groups = np.asarray(labels), np.unique(groups, return_inverse=True)[1]
    for index, name in enumerate(CLASSES):
        found = len(np.unique(groups[labels == index]))
        if found < folds:
            raise ValueError(
                f"{folds} folds need {folds} groups with {name} pictures or more; there are "
                f"{found}. Take fewer folds, or gather more first."
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
        parts = Parts(rest[cut[0]], rest[cut[1]], scored)
        sides = [set(groups[part]) for part in parts]
        assert sum(map(len, sides)) == len(set.union(*sides)), "a group is on two sides"
        plan.append(parts)
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


def arms_of(config: TrainConfig) -> dict[str, TrainConfig]:
    """{arm: its config}: the three stages, and spp+pmt with the other kind of dropout.

    Raises ValueError for an unknown dropout_loss.
    """
    if config.dropout_loss not in OTHER:
        raise ValueError(f"dropout_loss must be one of {(*OTHER,)}, not {config.dropout_loss!r}.")
    arms = {stage: replace(config, stage=stage) for stage in STAGES}
    other = OTHER[config.dropout_loss]
    return arms | {f"spp+pmt, {other}-averaged": replace(arms["spp+pmt"], dropout_loss=other)}


def ablate(
    root: str | Path,
    config: TrainConfig,
    repetitions: int = 3,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Ablation:
    """Train four arms with the seeds config.seed, config.seed + 1, ... and compare them.

    Held out is test, or val where there is no test. Every finished training is saved at once in
    `folder`/ablation.json, and the next call goes on from there. Raises ValueError if that file is
    of other settings or data, or cannot be read, or if an interval would be impossible (no
    repetition, a single group); and what `fit` raises.
    """
    if repetitions < 1:
        raise ValueError(f"repetitions must be at least 1, not {repetitions}.")
    arms = arms_of(config)
    data, split = fingerprint(root), "test" if "test" in splits_of(root) else "val"
    groups = CoupleFolder(root, split).groups
    estimate(np.zeros((1, len(groups))), groups)  # says now what cannot be compared later
    settings = json.loads(json.dumps(asdict(config)))  # as they are read again
    del settings["stage"]
    settings |= {"data": data["sha256"], "n": len(groups)}
    told = {"settings": settings, "data": data, "split": split}
    saved, correct = load_runs(folder, told), {}
    first = join_processes(config.device)[0].first
    for seed in range(config.seed, config.seed + repetitions):
        for arm, changed in arms.items():
            if (arm, seed) not in saved:
                saved[arm, seed] = train_arm(root, replace(changed, seed=seed), split, progress)
                if folder is not None and first:
                    save_runs(folder, told, saved)
            right = correct[arm, seed] = saved[arm, seed]
            done = f"{len(correct)} of {len(arms) * repetitions}"
            print(f"{done}: {arm}, seed {seed}: {sum(right)} of {len(right)} in {split} right")
    return Ablation(correct, groups, split, data["kind"], settings)


def train_arm(root: str | Path, config: TrainConfig, split: str, progress: bool) -> list[int]:
    """Train one network; returns a 0 or 1 for each picture of `split`."""
    splits, model = load_splits(root, config), build_model(config)
    fit(model, splits["train"], splits["val"], config, progress=progress)
    logits, labels = predict_logits(model, make_loader(splits[split], 32))
    return (logits.argmax(1) == labels).int().tolist()


def save_runs(folder: str | Path, told: dict[str, Any], runs: Runs) -> None:
    """Write ablation.json whole or not at all."""
    rows = [{"arm": arm, "seed": seed, "correct": right} for (arm, seed), right in runs.items()]
    save_json(Path(folder) / ABLATION_FILE, told | {"runs": rows})


def load_runs(folder: str | Path | None, told: dict[str, Any]) -> Runs:
    """All trainings that are saved; empty if there are none.

    Raises ValueError for a file that cannot be read, and for one of another run than `told`.
    """
    if folder is None or not (Path(folder) / ABLATION_FILE).exists():
        return {}
    path = Path(folder) / ABLATION_FILE
    try:
        saved = json.loads(path.read_text())
        runs = {(run["arm"], run["seed"]): run["correct"] for run in saved.pop("runs")}
        before = dict(saved["settings"])
        if any(len(right) != before["n"] or set(right) - {0, 1} for right in runs.values()):
            raise ValueError("a training in it does not have one 0 or 1 for each picture")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to begin again.") from error
    check_same_run(folder, before, told["settings"])
    print(f"Going on with the comparison in {folder}: {len(runs)} trainings were done before.")
    return runs


if __name__ == "__main__":
    main()
