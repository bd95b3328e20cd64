"""The commands that write, as processes of their own: they meet, are killed, and run out of disk.

Each is forked with its imports done, so that what happens to it happens to its work.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from conftest import FORKSERVER, begin

from dclib.checkpoint import load_checkpoint

# How much of the lane to run: 1 in `make test`, more in `make torture`.
ROUNDS = int(os.environ.get("TORTURE", "1"))
LIMIT = 300  # seconds after which a command hangs
FAST = ["--preset", "demo", "--image-size", "32", "--epochs", "1", "--stage", "plain"]
FAST += ["--workers", "0", "--augment", "0", "--device", "cpu"]
COMMANDS = {  # {place} is what it writes; all else is only read
    "draw": ["dclib.drawn", "{place}", "--n", "36", "--size", "64"],
    "divide": ["dclib.scrape", "--divide", "{photos}", "{place}"],
    "scrape": ["dclib.scrape", "{place}-collection", "{place}", "--sources", "gallery"],
    "train": ["dclib.train", "{couples}", "{place}", *FAST],
    "ablate": ["dclib.train", "{couples}", "{place}", "--ablate", "1", *FAST],
    "folds": ["dclib.train", "{couples}", "{place}", "--folds", "2", "--seeds", "1", *FAST],
    "measure": ["dclib.evaluate", "{checkpoint}", "{couples}", "--out", "{place}"],
}
COMMANDS["scrape"] += ["--per-query", "3"]


@dataclass
class Outcome:
    """How a command ended: its exit status and all that it said."""

    code: int
    text: str

    @property
    def sentence(self) -> str:
        """What it complained of last."""
        return (self.text.strip().splitlines() or [""])[-1]


class Command:
    """A command under way; `with_folders` are the values of the braces."""

    def __init__(self, name, place, log, **with_folders):
        self.log, begun = log, FORKSERVER.Event()
        arguments = [part.format(place=place, **with_folders) for part in COMMANDS[name]]
        work = (arguments, log)
        self.process = FORKSERVER.Process(target=begin, args=(begun, _act, work))
        self.process.start()
        assert begun.wait(LIMIT)

    def end(self, kill_after=None):
        """Wait for its end, or kill it after some seconds; its `Outcome`."""
        self.process.join(LIMIT if kill_after is None else kill_after)
        hangs = self.process.is_alive()
        self.process.kill()
        self.process.join()
        text = "\n".join(path.read_text() for path in _words(self.log))
        assert kill_after is not None or not hangs, text
        return Outcome(self.process.exitcode, text)


def _act(arguments, log):
    """Be that command in this process, with its words in files."""
    os.chdir(log.parent)
    for number, path in enumerate(_words(log), 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = arguments
    import_module(f"{arguments[0]}.__main__").main()
    sys.stdout.flush()


def _words(log):
    """Where a command writes what it says: its results, and its complaints."""
    return log.with_suffix(".out"), log.with_suffix(".err")


def holds(name, place):
    """Raise AssertionError, or what reading it raises, unless the whole result is there."""
    if name == "train":
        load_checkpoint(place)
    elif name == "draw":
        assert json.loads((place / "recipe.json").read_text())["n"] == len(pictures(place)) == 36
    elif name in ("divide", "scrape"):
        rows = [line for file in place.glob("*/metadata.csv") for line in _rows(file)]
        assert 0 < len(pictures(place)) == len(rows)
    elif name == "ablate":
        assert json.loads((place / "done.json").read_text())
        assert (place / "ablation.png").stat().st_size > 5000
    elif name == "folds":
        assert len(_rows(place / "plain" / "predictions.csv")) == 36
    else:
        assert len(_rows(place / "predictions.csv")) == 6
        assert json.loads((place / "metrics.json").read_text())["metrics"]


def pictures(place):
    """Everything in the class folders."""
    return sorted(path for path in place.glob("*/*happy/*") if path.is_file())


def digest(place):
    """{name: hash} of all that lies in a folder, or of one file."""
    paths = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def _rows(file: Path):
    return file.read_text().splitlines()[1:]
