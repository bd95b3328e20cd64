"""Out-of-fold predictions: every picture is answered by a network that never saw its group.

All pictures of a data set are divided into folds. For each fold a network is trained on the others,
of which an inner part of about 15 % decides the epoch, the temperature and the threshold; the
scored fold decides nothing. No group (one couple, one photographer) is ever on two of these sides.

    python -m dclib.crossval data/couples results --preset colab --folds 5 --seeds 3
    torchrun --nproc-per-node 2 -m dclib.crossval data/couples results --stages spp spp+pmt
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from dclib.augment import draw_seed
from dclib.config import TrainConfig
from dclib.data import CLASSES, fingerprint, make_loader, splits_of
from dclib.evaluate import predict_logits
from dclib.evaluation.calibration import choose_threshold, fit_temperature
from dclib.evaluation.shortcuts import guess, measure_pictures
from dclib.extras import extra
from dclib.files import save_json
from dclib.metrics import format_metrics, measure, side_by_side
from dclib.model import STAGES
from dclib.precision import make_precision
from dclib.predictions import (
    LOGITS,
    answers,
    by_seed,
    check_predictions,
    describe,
    make_table,
    save_predictions,
)
from dclib.studies.folds import Parts, Pool, divide, load_pool
from dclib.train import (
    build_model,
    describe_run,
    fit,
    make_transforms,
)
from dclib.training.command import add_settings, run_main
from dclib.training.distributed import join_processes
from dclib.training.resume import check_same_run, forget_state

with extra("evaluate"):
    import pandas as pd

FILE, TABLE = "crossval.json", "predictions.csv"
Key = tuple[int, int]  # of one training: seed and fold


def out_of_fold(
    root: str | Path,
    config: TrainConfig,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    splits: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train `folds` networks for each seed; the table of their answers (see dclib.predictions).

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
    folds of its own (`dclib.evaluation.shortcuts`; its fold is -1). For predictions of a checkpoint
    (fold -1) both learn from all other pictures of the folder. Raises ValueError if the folder
    lacks one of the table's pictures, or if a class has fewer than five groups, and as
    `dclib.evaluation.shortcuts.measure_pictures` does.
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
        prog="python -m dclib.crossval",
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


if __name__ == "__main__":
    main()
