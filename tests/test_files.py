"""Whole files; and without optional packages every module imports, or names its extra."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions, requires

import pytest
from conftest import FORKSERVER
from packaging.requirements import Requirement

from dclib.files import extra, file_hash, save_json, write_whole


def test_a_json_file_is_whole_or_the_one_before(tmp_path):
    path = tmp_path / "new" / "told.json"
    save_json(path, {"n": 1})
    with pytest.raises(TypeError):
        save_json(path, {"n": 2, "odd": {1, 2}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_json(path, {"n": float("nan")})
    assert json.loads(path.read_text()) == {"n": 1}


def test_after_an_exception_the_file_is_as_before(tmp_path):
    path = tmp_path / "a.txt"
    with write_whole(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists()
    with pytest.raises(RuntimeError), write_whole(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "whole"


def write_slowly(path, written):
    with write_whole(path) as unfinished:
        unfinished.write_text("half")
        written.set()
        time.sleep(60)


def test_after_a_kill_the_file_is_as_before(tmp_path, start_child):
    path, written = tmp_path / "a.txt", FORKSERVER.Event()
    path.write_text("whole")
    child = start_child(write_slowly, path, written)
    assert written.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert path.read_text() == "whole"
    with write_whole(path) as unfinished:  # what the killed one left is no hindrance
        unfinished.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_the_hash_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 5000)
    assert file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------ optional packages


OURS = "deepconnection"
IMPORT_ALL = """
import importlib, json, pkgutil, sys

sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # None: cannot be imported
import dclib

said = {}
for module in pkgutil.walk_packages(dclib.__path__, "dclib.", onerror=lambda name: None):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        said[module.name] = str(error)
print(json.dumps(said))
"""


def distributions(name, extras=()):
    """All that installing a package brings, itself included."""
    found, todo = set(), {(name, frozenset(extras))}
    while todo:
        name, extras = todo.pop()
        found.add((name, extras))
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker and not any(
                requirement.marker.evaluate({"extra": wanted}) for wanted in extras or {""}
            ):
                continue
            todo |= {(requirement.name, frozenset(requirement.extras))} - found
    return {re.sub(r"[-_.]+", "-", name).lower() for name, _ in found}


def test_every_module_names_the_extra_that_brings_what_it_misses():
    modules = {
        module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
        for module, names in packages_distributions().items()
    }
    core, everything = distributions(OURS), distributions(OURS, ["notebooks"])
    hidden = [name for name, by in modules.items() if by & everything and not by & core]
    assert {"pandas", "sklearn", "matplotlib", "cv2", "av", "bs4", "ipywidgets"} <= set(hidden)
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(hidden)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert {"dclib.evaluate.metrics", "dclib.plots", "dclib.frames", "dclib.scrape"} <= set(said)
    assert not {"dclib.train", "dclib.model", "dclib.explain.evidence", "dclib.checkpoint"} & set(
        said
    )
    for module, sentence in said.items():
        match = re.fullmatch(r"(\w+)[.\w]* is missing: .*\[(\w+)\]'`.*", sentence)
        assert match, f"{module}: {sentence}"
        missing, name = match.groups()
        assert modules[missing] & distributions(OURS, [name]), f"{module}: {sentence}"


def test_other_errors_pass():
    with pytest.raises(ImportError, match="cannot import name"), extra("plots"):
        from json import nothing_of_this_name  # noqa: F401
