"""The command line of everything that trains: settings, several processes, errors as a sentence."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import fields
from typing import Any, NoReturn

from dclib.config import TrainConfig
from dclib.training.distributed import has_joined, join_processes, leave_processes

ARGUMENTS: dict[
    Any, dict[str, Any]
] = {  # how the command line reads settings that are not one plain value
    bool: {"action": argparse.BooleanOptionalAction},
    str | None: {"type": str},
    float | None: {"type": float},
    tuple[int, ...]: {"type": int, "nargs": "+"},
    tuple[float, ...]: {"type": float, "nargs": "+"},
}


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
