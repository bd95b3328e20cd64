"""Train DeepConnection on a folder of couples, from Python or from the command line.

python -m dclib.train data/couples checkpoints/mine --preset colab --stage spp+pmt
torchrun --nproc-per-node 2 -m dclib.train data/couples checkpoints/mine
"""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from dclib.checkpoint import Checkpoint
from dclib.train import train_checkpoint
from dclib.train.config import TrainConfig
from dclib.train.distributed import (
    has_joined,
    join_processes,
    leave_processes,
)
from dclib.train.loop import TensorBoard

ARGUMENTS: dict[
    Any, dict[str, Any]
] = {  # how the command line reads settings that are not one plain value
    bool: {"action": argparse.BooleanOptionalAction},
    str | None: {"type": str},
    float | None: {"type": float},
    tuple[int, ...]: {"type": int, "nargs": "+"},
    tuple[float, ...]: {"type": float, "nargs": "+"},
}


def make_parser() -> argparse.ArgumentParser:
    """The command line: the settings, and what to do with them."""
    parser = argparse.ArgumentParser(prog="python -m dclib.train", description="Train on a folder.")
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("checkpoint", type=Path, help="folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    parser.add_argument(
        "--ablate",
        type=int,
        nargs="?",
        const=3,
        metavar="K",
        help="compare the stages instead, with K repetitions (3); numbers and ablation.png go to "
        "the folder",
    )
    parser.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="write curves there")
    return add_settings(parser)


def run_command(
    config: TrainConfig,
    data: Path,
    checkpoint: Path,
    resume: bool,
    ablate: int | None,
    tensorboard: Path | None,
) -> Checkpoint | str | None:
    """What the command line asks for; returns what to print.

    Raises ValueError for options that exclude each other.
    """
    if ablate is not None:
        if resume or tensorboard:
            raise ValueError(
                "--ablate goes on by itself and has no curves: leave out --resume "
                "and --tensorboard."
            )
        return run_ablation(config, data, checkpoint, ablate)
    watchers = [TensorBoard(tensorboard)] if tensorboard else []
    return train_checkpoint(data, checkpoint, config, resume, watchers)


def run_ablation(config: TrainConfig, data: Path, folder: Path, repetitions: int) -> str | None:
    """The comparison as text, from the first process, which also draws it; None from others."""
    from dclib.train.studies import ablate

    ablation = ablate(data, config, repetitions, folder)
    if not join_processes(config.device)[0].first:
        return None
    from dclib.plots import save_figure
    from dclib.train.plots import plot_ablation

    figure = save_figure(plot_ablation(ablation), folder / "ablation.png")
    return f"{ablation}\n\nDrawn in {figure}."


def main() -> None:
    """The command line; see the module."""
    run_main(make_parser(), run_command)


def add_settings(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with the presets and every setting of `TrainConfig` by its name."""
    parser.add_argument("--preset", choices=("paper", "colab", "demo"), default="colab")
    settings = parser.add_argument_group("settings, instead of the preset's (see TrainConfig)")
    for setting in fields(TrainConfig):
        how = ARGUMENTS.get(setting.type, {"type": setting.type})
        settings.add_argument(f"--{setting.name.replace('_', '-')}", default=None, **how)
    return parser


def run_main(parser: argparse.ArgumentParser, run: Callable[..., object]) -> None:
    """Parse the command line and print what `run(config, **the other arguments)` returns.

    Of several processes only the first prints. What went wrong becomes one sentence.
    """
    args = vars(parser.parse_args())
    changes = {setting.name: args.pop(setting.name) for setting in fields(TrainConfig)}
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in changes.items()
        if value is not None
    }
    if changes.get("weights") == "none":
        changes["weights"] = None
    try:
        config = getattr(TrainConfig, args.pop("preset"))(**changes)
        processes, _ = join_processes(config.device)
        if processes.world > 1:
            signal.signal(signal.SIGTERM, _told_to_stop)
        with nullcontext() if processes.first else redirect_stdout(io.StringIO()):
            print(run(config, **args))
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        if has_joined():
            _leave_at_once(str(error))
        sys.exit(str(error))
    finally:
        leave_processes()


def _told_to_stop(*_: object) -> None:
    """torchrun ends the other processes when one has died: say what to do."""
    _leave_at_once(
        "This process was told to stop, as when another process of its run has died: start again "
        "with --resume to go on from the run's state."
    )


def _leave_at_once(said: str) -> NoReturn:
    """Say it and end, with exit status 1 and no more steps: what is saved is whole at any moment.

    `sys.exit` frees the network before it speaks, and that can wait for a process that has died;
    raised by a signal, it can be lost in C++ code that is under way.
    """
    with suppress(RuntimeError):  # a signal came while this very buffer was being written
        sys.stdout.flush()
    os.write(2, f"{said}\n".encode())  # not sys.stderr, for the same reason
    os._exit(1)


if __name__ == "__main__":
    main()
