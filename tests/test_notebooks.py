"""The shape that all notebooks share, and the four ways in which their first cell finds dclib."""

import ast
import importlib.util
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import tomllib
import types
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import nbformat
import numpy as np
import pytest

import dclib
from dclib.data import OUR_GROUP
from dclib.drawn.couples import SHARES, _split_indices
from dclib.drawn.scenes import OURS

ROOT = Path(__file__).parents[1]
INDEX = tomllib.loads((ROOT / "notebooks" / "index.toml").read_text())
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWN = {  # whose source a notebook shows
    "01": {"Rules"},
    "02": {"authors_policy"},
    "03": {"spatial_pyramid_pool", "power_mean_transform", "MultiSampleDropoutHead", "train_step"},
    "04": {"fit_temperature"},
    "05": {"grad_cam", "fold_head"},
    "06": {"find_evidence", "own_right"},
    "07": {"predict_photo"},
    "08": {"smooth"},
}
FIRST_CELLS = ["title", "table", "origin-text", "origin", "setup-text", "setup", "imports-text"]
FIRST_CELLS += ["imports", "config-text"]


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def settings_of(name):
    """{variable: value} of a notebook's config cell."""
    (path,) = (ROOT / "notebooks").glob(f"{name}_*.ipynb")
    config = next(cell for cell in read(path).cells if cell.id == "config")
    lines = [
        line for line in ast.parse(config.source).body if isinstance(line.targets[0], ast.Name)
    ]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return read(request.param)


def test_index_lists_exactly_the_notebooks_there_are():
    assert [entry["file"] for entry in INDEX["notebook"]] == [path.name for path in PATHS]


def test_generated_parts_are_in_step():
    done = subprocess.run(
        [sys.executable, ROOT / "notebooks" / "index.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_badges_point_where_they_are_told(tmp_path):
    """`make badges` on a copy: README and every notebook follow, and a bad name is refused."""
    import shutil

    (tmp_path / "notebooks").mkdir()
    for path in [*PATHS, ROOT / "notebooks" / "index.toml", ROOT / "notebooks" / "index.py"]:
        shutil.copy(path, tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    command = [sys.executable, tmp_path / "notebooks" / "index.py"]
    subprocess.run([*command, "--repo", "ada/couples", "--tag", "v9.9"], check=True)
    for path in [tmp_path / "README.md", *(tmp_path / "notebooks").glob("*.ipynb")]:
        text = path.read_text()
        assert "colab-badge.svg" in text
        assert "/github/ada/couples/blob/v9.9/notebooks/" in text
        assert "OWNER" not in text.replace('startswith(\\"OWNER\\")', "")
    assert 'REPO, TAG = \\"ada/couples\\", \\"v9.9\\"' in path.read_text()
    refused = subprocess.run([*command, "--repo", "nonsense"], capture_output=True, check=False)
    assert b"write it like owner/name" in refused.stderr
    (tmp_path / "README.md").write_text("Without a table.")
    refused = subprocess.run([*command, "--check"], capture_output=True, check=False)
    assert b"README.md has lost" in refused.stderr


def test_no_badge_leads_nowhere():
    for path in [ROOT / "README.md", *PATHS]:
        assert "github/OWNER" not in path.read_text(), path.name


def test_same_beginning(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert ids[: len(FIRST_CELLS) + 1] == [*FIRST_CELLS, "config"]
    assert len(ids) == len(set(ids))
    assert notebook.cells[7].source.endswith(
        "print(colab.describe_machine())\nspace = workspace.enter()"
    )


def test_config_is_plain_variables_that_tests_can_shrink(notebook):
    config = next(cell for cell in notebook.cells if cell.id == "config")
    assert config.metadata.tags == ["parameters"]
    names = set()
    for line in ast.parse(config.source).body:
        assert isinstance(line, ast.Assign)
        ast.literal_eval(line.value)
        targets = line.targets[0].elts if isinstance(line.targets[0], ast.Tuple) else line.targets
        names |= {target.id for target in targets}
    assert set(config.metadata.nbmake.mock) <= names
    assert "# @param" in config.source


def test_pictures_of_people_stay_out_of_the_repository(notebook):
    """Where `DATA` or `PHOTO` may be somebody's own, figures go to build/ or are not saved."""
    config = next(cell for cell in notebook.cells if cell.id == "config").source
    if not re.search(r'^(DATA|PHOTO) = ""', config, re.M):
        return
    for cell in code_cells(notebook):
        assert "{FIGURES}" not in cell.source or "if not PHOTO:" in cell.source
        if "{figures}" in cell.source:
            apart = r'figures = (use\.results or FIGURES|"build/figures" if PHOTO )'
            assert re.search(apart, str(notebook.cells))


def test_calm(notebook):
    code = code_cells(notebook)
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in code]
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 25
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"{cell.id} has no sentence before it"
        tree = ast.parse(cell.source) if cell.cell_type == "code" else ast.parse("")
        for node in ast.walk(tree):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10


def test_no_cell_ends_by_printing_the_path_of_a_figure(notebook):
    for cell in code_cells(notebook):
        last = ast.parse(cell.source).body[-1:]
        if last and "save_figure" in ast.unparse(last[0]) and isinstance(last[0], ast.Expr):
            assert cell.source.rstrip().endswith(";"), cell.id


def test_the_notebooks_follow_one_couple(tmp_path):
    assert f"drawn-0-{OURS:05d}" == OUR_GROUP
    assert OURS in np.array(_split_indices(3000, SHARES)["test"]) // 2  # as notebook 03 draws
    for name in ("04", "05", "06"):
        assert settings_of(name)["COUPLE"] == ""
    for name in ("02", "03", "07"):
        (path,) = (ROOT / "notebooks").glob(f"{name}_*.ipynb")
        assert "our_couple(" in path.read_text()


def test_each_notebook_names_the_next_one():
    for path, following in itertools.pairwise(PATHS):
        last = read(path).cells[-2]
        assert last.source == f'workspace.show_next("{following.name}")', path.name


def test_another_seed_stops_at_no_folder(notebook):
    """The drawings stay the same; a study, which does not, has a folder for each seed."""
    code = "\n".join(cell.source for cell in code_cells(notebook))
    has_seed = re.search(r"^SEED = ", code, re.M)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and "render_couples" in ast.unparse(node.func):
            assert not re.search(r"\bSEED\b", ast.unparse(node))
        if isinstance(node, ast.JoinedStr) and "{RUNS}" in ast.unparse(node) and has_seed:
            assert "{SEED}" in ast.unparse(node)


def test_setup_is_folded_away(notebook):
    """In Colab and in JupyterLab; nbstripout keeps it, as `make check` shows."""
    for cell in notebook.cells:
        if cell.id in ("origin", "setup"):
            assert cell.metadata == {"cellView": "form", "jupyter": {"source_hidden": True}}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_shows_the_code_it_is_about(path):
    sources = "\n".join(cell.source for cell in code_cells(read(path)))
    shown = ", ".join(re.findall(r"colab\.show_source\((.*)\)", sources))
    assert {name.split(".")[-1] for name in shown.split(", ")} == SHOWN[path.stem[:2]]


def test_short_enough_to_read(notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert len(" ".join(texts).split()) <= 900


def test_nothing_is_left_of_a_run(notebook):
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "accelerator"}


def test_ends_with_its_limits(notebook):
    assert notebook.cells[-1].source.startswith("## What this does not show")


def test_figures_are_small_and_described_where_they_are_shown():
    for path in (ROOT / "figures").glob("*.png"):
        assert path.stat().st_size < 300_000, path.name
    for page in (ROOT / "README.md", ROOT / "benchmarks" / "README.md"):
        for alt, name in re.findall(r"!\[(.*?)\]\((?:\.\./)?(figures/.*?)\)", page.read_text()):
            assert len(alt) > 40 and (ROOT / name).exists(), name


# ------------------------------------------------------------------ the setup cell


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Run the cells origin and setup in an empty folder; returns the pip commands that it gave."""
    source = "\n".join(c.source for c in read(PATHS[0]).cells if c.id in ("origin", "setup"))
    commands, real = [], importlib.util.find_spec
    monkeypatch.chdir(tmp_path)

    def install(command, *, check):
        assert check  # what pip could not do stops the notebook
        assert command[1:3] == ["-m", "pip"]
        commands.append(command[3:])

    monkeypatch.setattr(subprocess, "run", install)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
    monkeypatch.setenv("DCLIB_ORIGIN", "")  # put back afterwards

    def run(missing=(), colab=False, repo="ada/couples", drive="/no/drive", port=9):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in missing else real(name)
        )
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        there = source
        for old, new in (
            ("/content/drive/MyDrive", str(drive)),
            (":9000", f":{port}"),  # of Colab's list of sessions; nothing answers at 9
            (INDEX["repo"], repo),
        ):
            assert old in there
            there = there.replace(old, new)
        exec(there, {})
        return commands

    return run


def test_setup_where_dclib_is_importable(setup, tmp_path):
    assert setup() == []
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("below", ["", "notebooks"])
def test_setup_in_a_clone(setup, below, monkeypatch):
    monkeypatch.chdir(ROOT / below)
    assert setup() == []
    assert Path.cwd() == ROOT
    assert sys.path[0] == str(ROOT)


def test_setup_in_colab_from_git(setup):
    (command,) = setup(missing=("dclib", "imgaug"), colab=True)
    tag = INDEX["tag"]
    link = f"https://github.com/ada/couples/archive/{tag}.tar.gz"
    assert command == ["install", "-q", f"deepconnection[notebooks] @ {link}"]
    assert tag == f"v{dclib.__version__}"


@contextmanager
def sessions(answer):
    """A server that gives this text as Colab's list of sessions; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/sessions"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("branch", ["main", "try/more"])
def test_setup_of_a_fork_finds_where_it_was_opened_from(setup, branch):
    link = f"https://github.com/grace/her-couples/blob/{branch}/notebooks/03_training.ipynb"
    opened = [{"path": f"fileId={quote(link)}", "name": "03_training.ipynb"}]
    with sessions(json.dumps(opened)) as port:
        (command,) = setup(("dclib",), colab=True, repo="OWNER/deepconnection", port=port)
    archive = f"https://github.com/grace/her-couples/archive/{branch}.tar.gz"
    assert command[-1] == f"deepconnection[notebooks] @ {archive}"
    assert os.environ["DCLIB_ORIGIN"] == f"grace/her-couples/blob/{branch}"


@pytest.mark.parametrize(
    "answer", ["", "<html>", '[{"path": "fileId=1a2b", "name": "03_training.ipynb"}]']
)
def test_setup_of_a_copy_in_drive_keeps_the_names_in_it(setup, answer):
    with sessions(answer) as port:
        (command,) = setup(missing=("dclib",), colab=True, port=port)
    assert "https://github.com/ada/couples/archive/" in command[-1]
    assert os.environ["DCLIB_ORIGIN"] == f"ada/couples/blob/{INDEX['tag']}"


def test_setup_in_colab_from_the_file_that_was_uploaded_last(setup):
    names = ["deepconnection-0.1.0-py3-none-any.whl", "deepconnection-0.0.9-py3-none-any.whl"]
    names += ["deepconnection-main.zip"]
    for seconds, name in enumerate(names):
        Path(name).touch()
        os.utime(name, (9 - seconds, 9 - seconds))
    (command,) = setup(missing=("dclib", "imgaug"), colab=True)
    assert command[-1] == f"{names[0]}[notebooks]"
    os.utime(names[2], (20, 20))
    assert setup(missing=("dclib", "imgaug"), colab=True)[1][-1] == f"{names[2]}[notebooks]"


def test_setup_in_colab_from_a_clone_in_drive(setup, tmp_path, monkeypatch):
    """With a folder in place of Drive; tests/colab/run.py installs from a real clone there."""
    clone = tmp_path / "drive" / "deepconnection"
    (clone / "dclib").mkdir(parents=True)
    (clone / "dclib" / "spp.py").touch()
    (command,) = setup(missing=("imgaug",), colab=True, drive=tmp_path / "drive")
    assert command[-1] == f"{clone}[notebooks]"
    assert Path.cwd() == clone


def test_setup_without_a_repository_or_outside_colab(setup, monkeypatch):
    with pytest.raises(RuntimeError, match="Drag the ZIP"):
        setup(missing=("dclib",), colab=True, repo="OWNER/deepconnection")
    monkeypatch.delitem(sys.modules, "google.colab")
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"^No av, protego: .*make lab"):
        setup(missing=("av", "protego"))
