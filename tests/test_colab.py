import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from dclib import colab
from dclib.model import MultiSampleDropoutHead


def test_source_is_printed_without_a_notebook(capsys):
    colab.show_source(colab.in_colab, MultiSampleDropoutHead)
    printed = capsys.readouterr().out
    assert printed.startswith('def in_colab() -> bool:\n    """True in a Colab kernel')
    assert "\nclass MultiSampleDropoutHead(nn.Module):" in printed


def test_source_is_a_block_of_code_in_a_notebook(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: "a kernel")
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    colab.show_source(colab.in_colab)
    ((data, raw),) = shown
    assert raw and not capsys.readouterr().out
    assert data["text/plain"].startswith("def in_colab() -> bool:")
    assert data["text/markdown"] == f"````python\n{data['text/plain']}\n````"


def test_uploads_leave_the_folder_as_it_was(monkeypatch, tmp_path):
    """Colab's dialog writes beside what is there, under a name of its own if need be."""

    def upload():
        Path("us (1).jpg" if Path("us.jpg").exists() else "us.jpg").write_bytes(b"new")
        return {"us.jpg": b"new"}

    files = types.SimpleNamespace(upload=upload)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))
    monkeypatch.chdir(tmp_path)
    Path("us.jpg").write_bytes(b"old")
    assert colab.upload_photos() == {"us.jpg": b"new"}
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.fixture
def calls(monkeypatch):
    """Colab with a GPU and no apex; pip's calls are noted and answered with `calls.code`."""
    seen = types.SimpleNamespace(code=0, commands=[])

    def run(command, **_):
        seen.commands.append(command)
        return types.SimpleNamespace(returncode=seen.code, stderr="building\nno CUDA toolkit\n")

    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(colab.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_apex_is_installed_in_colab_with_a_gpu(calls):
    assert colab.install_apex() == f"Installed Apex from {colab.APEX}."
    (command,) = calls.commands
    assert command[-1] == colab.APEX
    assert {"--no-build-isolation", "--no-deps"} <= set(command)


def test_a_failed_installation_says_why(calls):
    calls.code = 1
    assert colab.install_apex() == "Apex could not be installed: no CUDA toolkit"


def test_nothing_is_installed_elsewhere(calls, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "only installed in Colab with a GPU" in colab.install_apex()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    assert "only installed in Colab with a GPU" in colab.install_apex()
    monkeypatch.setattr(colab.importlib.util, "find_spec", lambda name: object())
    assert "There is an apex already" in colab.install_apex()
    assert not calls.commands
