"""The package as a whole: thin import, packaging facts that must agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dclib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# name on PyPI -> name on conda-forge, where they differ
CONDA_NAMES = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}
CONDA_NAMES |= {"opencv-python": "opencv"}


def loaded_after(statement):
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_thin():
    heavy = {"imgaug", "cv2", "matplotlib", "seaborn", "ipywidgets", "scipy", "skimage", "requests"}
    assert not heavy & loaded_after("import dclib")
    assert not {"imgaug", "ipywidgets", "matplotlib", "pandas", "sklearn"} & loaded_after(
        "import dclib.train, dclib.photo, dclib.demo"
    )


def test_version_is_stated_once_more_correctly():
    assert PROJECT["version"] == dclib.__version__


@pytest.mark.parametrize("name", ["environment.yml", "environment-cpu.yml"])
def test_environments_hold_what_the_project_needs(name):
    lines = re.findall(r"^  - ([a-z0-9_-]+)", (ROOT / name).read_text(), re.M)
    needed = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        needed += [requirement for requirement in extra if not requirement.startswith("deepconn")]
    for requirement in needed:
        package = re.match(r"[a-z0-9-]+", requirement)[0]
        assert CONDA_NAMES.get(package, package) in lines, package
    ordered = "jupyterlab pytorch torchvision imgaug matplotlib seaborn ipywidgets requests"
    assert {*ordered.split(), "beautifulsoup4"} <= set(lines)
    assert ("nvidia-apex" in lines) == (name == "environment.yml")


def test_no_file_speaks_of_a_private_path():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".ipynb", ".yml"} and path.name != "uv.lock":
            assert not re.search(r"/(home|root|work)/\w", path.read_text()), name
