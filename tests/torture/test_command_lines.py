"""Odd command lines: each does what it was asked for, or says in one sentence why it cannot."""

import shutil

import pytest
from lane import COMMANDS, ROUNDS, Command, digest, holds

NUMBERS = ("nan", "-inf", "-1", "0", "0.5", "1e400", "9" * 30, "x", "")
SETTINGS = ("levels", "image-size", "mean", "std", "augment", "dropout-samples", "freeze-epochs")
SETTINGS += ("frame-margin", "freeze-stages")
SETTINGS += ("lr", "lr-decay", "weight-decay", "clip", "batch-size", "accumulate", "epochs")
SETTINGS += ("patience", "seed", "workers")
OPTIONS = {
    "draw": ("n", "seed", "size"),
    "divide": ("seed",),
    "scrape": ("per-query",),
    "train": SETTINGS,
    "ablate": ("ablate",),
    "folds": ("folds", "seeds"),
}
CHOICES = ("stage", "backbone", "weights", "frame", "augmenter", "dropout-loss", "optimizer")
CHOICES += ("precision",)
WORDS = {  # options that take words, or files
    "draw": ("shortcut",),
    "scrape": ("queries", "sources", "contact", "forget"),
    "train": (*CHOICES, "device", "preset"),
    "measure": ("split", "against"),
}
LINES = [(name, option, NUMBERS) for name, options in OPTIONS.items() for option in options]
TEXTS = ("nothing", "", "/dev/null", "{couples}", "{place}", "-")
LINES += [(name, option, TEXTS) for name, options in WORDS.items() for option in options]
if ROUNDS == 1:  # the short version: one value of every fourth option
    LINES = [(*line[:2], line[2][2:3]) for line in LINES[::4]]
READERS = ["divide", "train", "ablate", "folds", "measure"]
CONTENTS = ("file", "notes", "couples", "checkpoint")
FILLED = [(name, content) for name in COMMANDS for content in CONTENTS]
if ROUNDS == 1:  # those that train several networks look at their places as "train" does
    READERS = ["divide", "train", "measure"]
    FILLED = [pair for pair in FILLED if pair[0] not in ("ablate", "folds") or pair[1] == "notes"]
PLACES = ("", "{couples}/train/metadata.csv", "{couples}/nowhere", "{empty}", "{checkpoint}")
PLACES += ("{files}", "/dev/null", "{couples}/train", "bad\nname", "a" * 300)


def run(name, arguments, folder, folders):
    """The outcome of a command with other arguments than the lane's."""
    COMMANDS["odd"] = arguments
    return name, Command("odd", folder / "place", folder / "log", **folders).end()


def is_answer(name, outcome, place):
    """Whether it did its work, or said in a sentence why not and left nothing behind."""
    assert "Traceback" not in outcome.text, outcome.text
    if outcome.code == 0:
        holds(name, place)
    else:
        assert outcome.sentence.endswith((".", "'", ")")), outcome.text
        assert len(outcome.sentence) < 600
        assert not place.exists() or not any(place.iterdir())


@pytest.mark.parametrize(("name", "option", "values"), LINES)
def test_odd_values(name, option, values, folders, tmp_path):
    for number, value in enumerate(values):
        if option == "epochs" and value == "9" * 30:
            continue  # a wish that can be granted, in time
        folder = tmp_path / str(number)
        folder.mkdir()
        line = [*COMMANDS[name], f"--{option}={value}"]
        is_answer(*run(name, line, folder, folders), folder / "place")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READERS)
def test_odd_places_to_read(name, place, folders, tmp_path):
    """A folder to read from that is none, is empty, or holds something else."""
    odd = {"empty": tmp_path / "empty", "files": tmp_path / "files"}
    odd["empty"].mkdir()
    odd["files"].mkdir()
    (odd["files"] / "notes.txt").write_text("mine")
    for number in range(1, 3 if name == "measure" else 2):
        if (name, place, number) == ("measure", "{checkpoint}", 1):
            continue  # there it belongs
        line = list(COMMANDS[name])
        line[number + (name == "divide")] = place
        name, outcome = run(name, line, tmp_path, folders | odd)
        assert outcome.code, outcome.text
        is_answer(name, outcome, tmp_path / "place")


@pytest.mark.parametrize(("name", "content"), FILLED)
def test_a_place_to_write_that_holds_something_else(name, content, folders, tmp_path):
    """A file, foreign files, pictures, another command's result: all stay as they are."""
    place = tmp_path / "place"
    if content == "file":
        place.write_text("mine")
    elif content == "notes":
        (place / "sub").mkdir(parents=True)
        (place / "sub" / "notes.txt").write_text("mine")
    else:
        shutil.copytree(folders[content], place)
    before = digest(tmp_path)
    outcome = Command(name, place, tmp_path / "log", **folders).end()
    assert "Traceback" not in outcome.text, outcome.text
    if outcome.code == 0:
        holds(name, place)
    else:
        assert outcome.sentence.endswith("."), outcome.text
    after = digest(tmp_path)
    kept = {path for path in before if content != "checkpoint" or outcome.code}
    assert all(after.get(path) == before[path] for path in kept)
