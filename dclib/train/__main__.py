"""Train DeepConnection on a folder of couples; compare its stages; predict out of fold.

python -m dclib.train data/couples checkpoints/mine --preset colab --stage spp+pmt
python -m dclib.train data/couples results/ablation --ablate 5
python -m dclib.train data/couples results/folds --folds 5 --seeds 3 --stages spp spp+pmt
torchrun --nproc-per-node 2 -m dclib.train data/couples checkpoints/mine
"""

import argparse
import io
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.model import STAGES
from dclib.rules import argument, sentences
from dclib.train import is_ended, train_checkpoint
from dclib.train.config import TrainConfig
from dclib.train.distributed import join_processes, leave_processes

# How the command line reads settings that are not one plain value.
ARGUMENTS: dict[Any, dict[str, Any]] = {
    bool: {"action": argparse.BooleanOptionalAction},
    str | None: {"type": lambda text: None if text == "none" else text},
    float | None: {"type": float},
    tuple[int, ...]: {"type": int, "nargs": "+"},
    tuple[float, ...]: {"type": float, "nargs": "+"},
}


def make_parser() -> argparse.ArgumentParser:
    """The command line: what to do, and every setting of `TrainConfig` by its name."""
    parser = argparse.ArgumentParser(
        prog="python -m dclib.train",
        description="Train on a folder. --ablate and --folds go on where they were cut off.",
    )
    add = parser.add_argument
    add("data", type=Path, help="folder with train/ and val/")
    add("folder", type=Path, help="folder to write")
    add("--resume", action="store_true", help="go on with a run that was cut off")
    times = argument(int, 1, 1000)
    add("--ablate", type=times, nargs="?", const=3, metavar="K", help="compare the stages, K times")
    folds = "predict out of fold: FOLDER/<stage>/predictions.csv"
    add("--folds", type=argument(int, 2, 1000), help=folds)
    add("--seeds", type=times, help="how often all folds are trained (3)")
    add("--stages", nargs="+", choices=STAGES, help="of --folds: several, instead of --stage")
    add("--preset", choices=("paper", "colab", "demo"), default="colab")
    settings = parser.add_argument_group("settings, instead of the preset's (see TrainConfig)")
    for setting in fields(TrainConfig):
        how = ARGUMENTS.get(setting.type, {"type": setting.type})
        name = f"--{setting.name.replace('_', '-')}"
        settings.add_argument(name, default=argparse.SUPPRESS, **how)
    return parser


def run_command(config: TrainConfig, args: Namespace) -> Checkpoint | str | None:
    """What the command line asks for; returns what to print."""
    study = args.ablate is not None or args.folds is not None
    if args.ablate is not None and args.folds is not None:
        raise ValueError("--ablate and --folds are two studies: give one of them.")
    if study and args.resume:
        raise ValueError("--ablate and --folds go on by themselves: leave out --resume.")
    if args.folds is None and (args.seeds is not None or args.stages):
        raise ValueError("--seeds and --stages go with --folds.")
    if args.ablate is not None:
        return run_ablation(config, args)
    if args.folds is not None:
        return run_folds(config, args)
    if args.resume and is_ended(args.folder):
        print("This training has ended, and nothing was done; without --resume it begins anew:")
        return load_checkpoint(args.folder)
    return train_checkpoint(args.data, args.folder, config, args.resume)


def run_ablation(config: TrainConfig, args: Namespace) -> str | None:
    """The comparison as text, from the first process, which also draws it; None from others."""
    from dclib.train.studies import ablate  # needs more packages than training does

    ablation = ablate(args.data, config, args.ablate, args.folder)
    if not join_processes(config.device)[0].first:
        return None
    from dclib.plots import save_figure
    from dclib.train.plots import plot_ablation

    figure = save_figure(plot_ablation(ablation), args.folder / "ablation.png")
    return f"{ablation}\n\nDrawn in {figure}."


def run_folds(config: TrainConfig, args: Namespace) -> str | None:
    """Out-of-fold predictions of several stages beside the baselines, from the first process."""
    from dclib.evaluate.metrics import format_metrics, measure, side_by_side
    from dclib.evaluate.predictions import describe
    from dclib.train.studies import TABLE, baselines, out_of_fold

    tables, seeds = {}, range(3 if args.seeds is None else args.seeds)
    for stage in args.stages or [config.stage]:
        changed = replace(config, stage=stage)
        tables[stage] = out_of_fold(args.data, changed, args.folds, seeds, args.folder / stage)
        lines = format_metrics(measure(tables[stage]), full=True)
        print(f"\n{stage}, {describe(tables[stage])}\n{lines}\n")
    if not join_processes(config.device)[0].first:
        return None
    together = side_by_side(tables | baselines(args.data, next(iter(tables.values()))))
    files = ", ".join(str(args.folder / stage / TABLE) for stage in tables)
    return f"{together.to_string()}\n\nWritten: {files}"


def main() -> None:
    """Do what the command line asks for; what went wrong becomes one sentence."""
    args = make_parser().parse_args()
    given = {s.name: vars(args)[s.name] for s in fields(TrainConfig) if s.name in args}
    changes = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    with sentences("Stopped. The same command goes on; without --ablate or --folds add --resume."):
        config = getattr(TrainConfig, args.preset)(**changes)
        processes, _ = join_processes(config.device)
        with nullcontext() if processes.first else redirect_stdout(io.StringIO()):
            print(run_command(config, args))
    leave_processes()


if __name__ == "__main__":
    main()
