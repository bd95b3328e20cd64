import hashlib
import json
import os
import signal
import time

import pytest

from dclib.files import file_hash, save_json, write_whole


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
    from conftest import FORKSERVER

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
