"""Whole files; and without optional packages every module imports, or names its extra."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from conftest import FORKSERVER
from packaging.requirements import Requirement

from dclib.files import (
    check_folder,
    check_place,
    extra,
    file_hash,
    harmless,
    hold,
    put_back,
    remove_files,
    save_json,
    write_folder,
    write_whole,
)


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


def test_work_that_another_process_still_does_is_left_alone(tmp_path, start_child):
    path, written = tmp_path / "a.txt", FORKSERVER.Event()
    child = start_child(write_slowly, path, written)
    assert written.wait(60)
    with write_whole(path) as unfinished:
        unfinished.write_text("new")
    (workshop,) = tmp_path.glob(".dclib-*")
    assert (workshop / "a.txt").read_text() == "half"
    child.kill()
    child.join()


def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", [save_json, lambda path, content: save_folder(path, "new")])
def test_a_full_disk_is_a_sentence_with_the_place_and_nothing_is_left(write, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"place cannot be written \(No space left on device\): make"):
        write(tmp_path / "place", {})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "said"),
    [("file/x", "Not a directory"), ("n" * 300, "File name too long"), ("new/sub/x", None)],
)
def test_a_place_is_tried_before_the_work(name, said, tmp_path):
    (tmp_path / "file").write_text("mine")
    if said:
        for check in (check_place, lambda path: check_folder(path, is_ours)):
            with pytest.raises(OSError, match=f"cannot be written .{said}.: make room"):
                check(tmp_path / name)
    else:
        check_place(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ------------------------------------------------------------------ folders


def is_ours(folder):
    return (folder / "a.txt").exists()


def save_folder(folder, text, parts=("a.txt", "b.txt")):
    with write_folder(folder, is_ours, parts) as unfinished:
        (unfinished / "a.txt").write_text(text)


def test_a_folder_of_ours_is_replaced_and_what_else_is_in_it_stays(tmp_path):
    folder, link = tmp_path / "sub" / "ours", tmp_path / "link"
    save_folder(folder, "first")
    (folder / "b.txt").write_text("of an older version")
    (folder / "notes.txt").write_text("mine")
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text("mine")
    link.symlink_to(folder)
    save_folder(link, "second")
    assert link.is_symlink()
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*")}
    assert found == {"a.txt": "second", "notes.txt": "mine", "deep/a.txt": "mine"}
    assert os.listdir(folder.parent) == ["ours"]


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_folder_that_is_not_ours_is_refused_and_stays(moment, tmp_path):
    folder = tmp_path / "theirs"
    if moment == "before":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    refused = pytest.raises(FileExistsError, match="theirs holds something else")
    with refused, write_folder(folder, is_ours, ["a.txt"]):
        assert moment == "meanwhile"
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["theirs"]


def test_the_same_that_is_there_by_the_end_is_taken(tmp_path):
    with write_folder(tmp_path / "set", is_ours) as unfinished:
        (unfinished / "a.txt").write_text("mine")
        save_folder(tmp_path / "set", "theirs", None)
    assert (tmp_path / "set" / "a.txt").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["set"]


def test_killed_between_the_two_renames_the_older_one_is_put_back(tmp_path, monkeypatch):
    folder, rename, renames = tmp_path / "ours", Path.rename, []

    def dies_at_the_second(path, target):
        renames.append(path)
        if len(renames) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    save_folder(folder, "older")
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(Path, "rename", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        save_folder(folder, "newer")
    monkeypatch.undo()
    assert not folder.exists()
    put_back(folder)
    assert (folder / "a.txt").read_text() == "older"
    assert (folder / "notes.txt").read_text() == "mine"


def save_often(folder, text):
    for _ in range(300):
        save_folder(folder, text)


def test_processes_that_write_one_folder_again_and_again(tmp_path, start_child):
    folder = tmp_path / "ours"
    save_folder(folder, "first")
    (folder / "notes.txt").write_text("mine")
    children = [start_child(save_often, folder, name) for name in ("one", "two", "three")]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (folder / "a.txt").read_text() in ("one", "two", "three")
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["ours"]


def hold_it(folder, held, done):
    with hold(folder):
        held.set()
        done.wait(60)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # here it is meant
def test_a_folder_is_held_by_one_process_at_a_time(tmp_path, start_child, capsys):
    held, done = FORKSERVER.Event(), FORKSERVER.Event()
    child = start_child(hold_it, tmp_path / "run", held, done)
    assert held.wait(60)
    with pytest.raises(RuntimeError, match="it is busy"), hold(tmp_path / "run", "it is busy"):
        pass
    threading.Timer(0.5, done.set).start()
    with hold(tmp_path / "run", "waiting", wait=True), hold(tmp_path / "run"):
        assert done.is_set()
        pid = os.fork()
        if not pid:  # a forked child does not have it
            try:
                with hold(tmp_path / "run"):
                    os._exit(1)
            except RuntimeError:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert capsys.readouterr().out == "waiting\n"
    assert not any(tmp_path.iterdir())
    child.join()


def test_only_named_files_and_empty_folders_are_removed(tmp_path):
    for name in ("set/a/1.jpg", "set/a/notes.txt", "set/b/2.jpg", "outside.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    remove_files(tmp_path / "set", ["a/1.jpg", "b/2.jpg", "c/3.jpg"])
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"set", "set/a", "set/a/notes.txt", "outside.txt"}
    for odd in ("../outside.txt", str(tmp_path / "outside.txt"), "a/../../outside.txt"):
        with pytest.raises(ValueError, match="is not below"):
            remove_files(tmp_path / "set", [odd])
    remove_files(tmp_path / "set", ["a/notes.txt"])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_text_is_a_formula(text):
    assert harmless(text) == f"'{text}"
    assert [harmless(value) for value in ("a=1", -1, None)] == ["a=1", -1, None]


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
    assert {
        "dclib.evaluate.metrics",
        "dclib.plots",
        "dclib.pictures.frames",
        "dclib.scrape",
    } <= set(said)
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
