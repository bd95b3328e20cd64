"""One folder for the whole series: what one notebook chose and made, all later ones use.

On a computer of your own it is the clone; in Colab a folder in your Drive, if you allow that. The
choices stand in `workspace.toml` in it, to read and to edit; a setting in a notebook's cell comes
before them. Where nothing is chosen, a notebook works on drawn couples.
"""

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dclib.colab import in_colab
from dclib.files import write_whole
from dclib.rules import Rule, check, one_of

DRIVE = Path("/content/drive")
FOLDER, CHOICES = "deepconnection", "workspace.toml"
PRESETS = ("demo", "colab", "paper")
LINE = Rule(
    "one line of text (in a path, / in place of \\)",
    lambda v: isinstance(v, str) and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", v),
)
RULES = dict.fromkeys(("contact?", "source?", "data?", "checkpoint?"), LINE)
RULES["preset?"] = one_of(*PRESETS)
HEADER = """\
# What the notebooks use unless a setting in one of their cells says otherwise. A line that is
# removed is a choice that was never made. Paths are relative to the folder of this file.
"""
WHY = (
    "Colab forgets its disk, and each notebook runs on a machine of its own. With a folder in your "
    "Google Drive the next notebook finds what this one makes: allow it in the window that opens. "
    '"No thanks" works too: then what is made here is lost when this machine is.'
)


NOTHING = {  # what is told of a choice that was not made
    "data": "drawn couples",
    "checkpoint": "none of yours",
    "contact": "none",
    "source": "none",
}


class Use(NamedTuple):
    """What a notebook works on. None: drawn couples, or the network inside the package."""

    data: Path | None  # a folder of photographs
    preset: str
    checkpoint: Path | None
    contact: str
    source: str
    results: Path | None  # where figures of photographs go; drawn ones go where they always do


@dataclass(frozen=True)
class Workspace:
    """A folder and the choices in it; `enter` finds it."""

    folder: Path

    @property
    def choices(self) -> Path:
        """The file of choices; another one where DCLIB_CHOICES names it, as `make test` does."""
        return Path(os.environ.get("DCLIB_CHOICES") or self.folder / CHOICES)

    def path(self, name: str | Path) -> Path:
        """A file or folder of the workspace; an absolute path stays as it is."""
        return self.folder / Path(name).expanduser()

    def chosen(self) -> dict[str, str]:
        """The choices that were made. Raises ValueError, one sentence, for a file that is none."""
        try:
            choices = tomllib.loads(self.choices.read_text(encoding="utf-8-sig"))
            check(choices, RULES)
        except FileNotFoundError:
            return {}
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(
                f"{self.choices} cannot be used: {error} Mend it or remove it."
            ) from error
        return {name: value for name, value in choices.items() if f"{name}?" in RULES and value}

    def keep(self, **choices: str | Path) -> None:
        """Add choices, or replace them; paths inside the workspace are kept relative to it."""
        told = {name: self._short(value) for name, value in choices.items()}
        check(told, RULES)
        before, gone = self.chosen(), {*told}
        other = "data" in told and self._at(told["data"]) != self._at(before.get("data", ""))
        if "checkpoint" in before and other:
            gone.add("checkpoint")
            print(
                f"{before['checkpoint']} was trained on other pictures: it is not chosen any more."
            )
        with write_whole(self.choices) as unfinished:
            unfinished.write_text(self._rewritten(gone, told), encoding="utf-8")
        print(f"{self.choices} now says {_list(told)}; the next notebooks use it.")

    def _rewritten(self, gone: set[str], told: dict[str, str]) -> str:
        """The file without some choices and with others; what else somebody wrote there stays."""
        there = self.choices.read_text(encoding="utf-8-sig") if self.choices.exists() else HEADER
        choice = re.compile(rf"\s*[\"']?({'|'.join(gone)})[\"']?\s*=")
        lines = there.rstrip("\n").split("\n")
        tables = (row for row, line in enumerate(lines) if line.lstrip().startswith("["))
        end = next(tables, len(lines))  # what follows a table's name belongs to it
        kept = [line for line in lines[:end] if not choice.match(line)]
        kept += [f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in told.items()]
        return "\n".join([*kept, *lines[end:], ""])

    def use(self, **given: str) -> Use:
        """What to work on, told in one line: `given`, or else what was chosen, or drawn couples.

        Args:
            given: those of data, preset, checkpoint, contact and source that the notebook needs;
                "" is as chosen.

        Raises FileNotFoundError, with what to do, for a data set or checkpoint that is needed and
        not there.
        """
        needed, given = tuple(given), {name: value for name, value in given.items() if value}
        check(given, RULES)
        chosen = {name: value for name, value in self.chosen().items() if name in needed}
        use: dict[str, Any] = dict.fromkeys(("contact", "source", "data", "checkpoint"), "")
        use |= chosen | given
        for name in ("data", "checkpoint"):
            use[name] = self._folder(name, use[name], name in given) if use[name] else None
        gpu = torch.cuda.is_available()
        use.setdefault("preset", "colab" if use["data"] or gpu else "demo")
        use["results"] = self.path("results") if use["data"] else None
        told = ", ".join(f"{name}: {use[name] or NOTHING[name]}" for name in needed)
        said = ["this notebook's cell"] * bool(given)
        said += [str(self.choices)] * bool(chosen.keys() - given.keys())
        by = f"chosen in {' and '.join(said)}" if said else "as nothing was chosen"
        print(f"Uses {told} ({by}).")
        if use["data"] and use["preset"] == "demo":
            print("WARNING: the preset demo is for drawn couples; take colab for photographs.")
        return Use(**use)

    def _folder(self, name: str, value: str, given: bool) -> Path:
        """A folder that is there."""
        folder = self.path(value)
        if not folder.is_dir():
            where = "this notebook's cell" if given else str(self.choices)
            ways = {
                "data": "gather it with notebook 01, or connect the drive that it is on",
                "checkpoint": "train it with notebook 03, or connect the drive that it is on",
            }[name]
            instead = {"data": "drawn couples", "checkpoint": "a network that is there"}[name]
            raise FileNotFoundError(
                f"{folder} is not there, which {where} names as {name}: {ways}; or empty that "
                f"entry to work with {instead}."
            )
        return folder

    def _short(self, value: str | Path) -> str:
        """A path of the workspace without it; other values as text."""
        if isinstance(value, Path) and self._at(value).is_relative_to(self._at("")):
            value = self._at(value).relative_to(self._at(""))
        return str(value)

    def _at(self, value: str | Path) -> Path:
        """Where a path is, however it is written."""
        return Path(os.path.abspath(self.path(value)))


def enter() -> Workspace:
    """The current folder; in Colab one in Drive, if that is allowed. Told in one line.

    A clone that the setup cell found, in Drive or elsewhere, is the workspace itself.
    """
    space = Workspace(Path())
    if in_colab() and not Path("dclib/spp.py").exists():
        if _mount():
            space = Workspace(DRIVE / "MyDrive" / FOLDER)
            space.folder.mkdir(exist_ok=True)
        else:
            print("No Drive: this machine's disk is used, which Colab will clear.")
    chosen = space.chosen()
    told = f"chosen there: {_list(chosen)}" if chosen else "nothing is chosen there yet"
    print(f"Workspace: {space.folder.resolve()}; {told}.")
    return space


def show_next(notebook: str) -> None:
    """Show a link to the next notebook: in Colab to where this one was opened, else to the file.

    In Colab without such a place: how to open it.
    """
    from IPython.display import Markdown, display

    title = Path(notebook).stem.replace("_", " ")
    origin = os.environ.get("DCLIB_ORIGIN", "")  # the setup cell knows it: owner/name/blob/tag
    text = f"[{title}]({notebook})"
    if in_colab() and origin:
        text = f"[{title}](https://colab.research.google.com/github/{origin}/notebooks/{notebook})"
    elif in_colab():
        text = f"{title} (*File*, *Upload notebook*, `notebooks/{notebook}`)"
    display(Markdown(f"Next: {text}"))


def _mount() -> bool:
    """Whether Drive is there, after asking for it if need be."""
    if (DRIVE / "MyDrive").is_dir():
        return True
    print(WHY)
    try:
        from google.colab import drive

        drive.mount(str(DRIVE))
    except Exception as error:  # refused, closed, timed out: Colab raises several kinds
        print(f"Drive could not be used ({error or type(error).__name__}).")
    return (DRIVE / "MyDrive").is_dir()


def _list(choices: dict[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in choices.items())
