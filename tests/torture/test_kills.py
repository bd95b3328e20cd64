"""Killed at any moment and begun again, a command ends as if nothing had happened."""

import random
import time

import pytest
from lane import COMMANDS, ROUNDS, Command, digest, holds

# Files that hold times or places of their own; `holds` looks at them.
OWN = {"metrics.json", "ablation.png", "done.json", "manifest.sqlite", "README.md"}
NAMES = list(COMMANDS) if ROUNDS > 1 else ["draw", "train", "divide"]


def content(place):
    found = digest(place)
    if any(place.parent.glob("*-collection")):  # from a gallery that has another port every time
        return {name: h for name, h in found.items() if name.endswith(".jpg")}
    return {name: h for name, h in found.items() if name.split("/")[-1] not in OWN}


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(name, folders, tmp_path):
    (tmp_path / "whole").mkdir()
    started = time.monotonic()
    whole = Command(name, tmp_path / "whole" / "place", tmp_path / "whole" / "log", **folders)
    outcome = whole.end()
    assert outcome.code == 0, outcome.text
    lasts = time.monotonic() - started

    folder, rng = tmp_path / "killed", random.Random(name)
    for mine in ("place.old", "place.unfinished"):
        (folder / mine).mkdir(parents=True)
        (folder / mine / "notes.txt").write_text("mine")
    for _ in range(4 * ROUNDS):
        command = Command(name, folder / "place", folder / "log", **folders)
        outcome = command.end(kill_after=rng.uniform(0, lasts))
        assert "Traceback" not in outcome.text, outcome.text
    again = Command(name, folder / "place", folder / "log", **folders).end()
    if again.code and name == "train":  # it says that there is a state to go on from
        assert "resume" in again.sentence, again.text
        COMMANDS["resume"] = [*COMMANDS["train"], "--resume"]
        again = Command("resume", folder / "place", folder / "log", **folders).end()
    assert again.code == 0, again.text
    holds(name, folder / "place")
    assert content(folder / "place") == content(tmp_path / "whole" / "place")
    for mine in ("place.old", "place.unfinished"):
        assert (folder / mine / "notes.txt").read_text() == "mine"
    left = {path.name for path in folder.iterdir()} - {"place-collection", "log.out", "log.err"}
    assert left == {"place", "place.old", "place.unfinished"}
