"""Two commands at once that write the same place: each does its work or says in words why not."""

import random
import time
from itertools import combinations_with_replacement

import pytest
from lane import COMMANDS, ROUNDS, Command, holds

PAIRS = list(combinations_with_replacement(COMMANDS, 2))
if ROUNDS == 1:  # the short version: those that people really start twice
    PAIRS = [(name, name) for name in ("draw", "train", "scrape", "divide")]


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_at_once(first, second, number, folders, tmp_path):
    foreign = tmp_path / "place.old"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    place, rng = tmp_path / "place", random.Random(f"{first} {second} {number}")
    commands = [Command(first, place, tmp_path / "1", **folders)]
    time.sleep(rng.choice((0, 0.05, 0.3, 1)))
    commands.append(Command(second, place, tmp_path / "2", **folders))
    outcomes = [command.end() for command in commands]
    assert 0 in [outcome.code for outcome in outcomes], outcomes
    for name, outcome in zip((first, second), outcomes, strict=True):
        assert "Traceback" not in outcome.text, outcome.text
        if outcome.code == 0:
            holds(name, place)
        else:
            assert outcome.sentence.endswith("."), outcome.text
    assert (foreign / "notes.txt").read_text() == "mine"
    left = {path.name for path in tmp_path.iterdir() if path.suffix not in (".out", ".err")}
    # a training that another command got ahead of keeps its state
    assert left <= {"place", "place-collection", "place.old", "place.run"}, left
