"""The package as a whole: thin import, packaging facts that must agree."""

import pickle
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
    before = loaded_after("pass") | sys.stdlib_module_names
    assert loaded_after("import dclib") - before == {"dclib"}
    assert not {"torch", "torchvision", "matplotlib", "pandas", "ipywidgets"} & loaded_after(
        "import dclib.scrape.__main__, dclib.drawn.__main__"
    )
    assert "torch" not in loaded_after("import dclib.web.photos")  # the app is there before it
    assert not {"imgaug", "ipywidgets", "matplotlib", "pandas", "sklearn"} & loaded_after(
        "import dclib.train, dclib.photo"
    )


def test_the_network_is_there_once_it_is_asked_for():
    assert set(dclib.__all__) < set(dir(dclib))
    from dclib import DeepConnection, model, pmt, spp

    assert pickle.loads(pickle.dumps(DeepConnection)) is model.DeepConnection
    assert dclib.power_mean_transform is pmt.power_mean_transform
    assert dclib.spatial_pyramid_pool is spp.spatial_pyramid_pool
    with pytest.raises(AttributeError, match="module 'dclib' has no attribute 'resnet'"):
        dclib.resnet  # noqa: B018


def test_version_is_stated_once_more_correctly():
    assert PROJECT["version"] == dclib.__version__


def test_the_pythons_are_the_same_wherever_they_are_named():
    lowest, end = map(
        int, re.match(r">=3\.(\d+),<3\.(\d+)(?=$|,!=)", PROJECT["requires-python"]).groups()
    )
    pythons = [f"3.{minor}" for minor in range(lowest, end)]
    named = "Programming Language :: Python :: "
    assert [c.removeprefix(named) for c in PROJECT["classifiers"] if named in c] == pythons
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"python: {pythons}".replace("'", '"') in workflow
    for name in ("README.md", "Makefile"):
        assert f"{pythons[0]} to {pythons[-1]}" in (ROOT / name).read_text(), name


def test_the_workflow_calls_targets_that_there_are_with_actions_pinned():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    called = re.findall(r"run: make (\w+)", workflow)
    assert {"check", "notebooks", "test", "colab", "lowest", "upgrade"} == set(called)
    assert set(called) <= set(targets)
    for action in re.findall(r"uses: (\S+)", workflow):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action


def conda_specs(name):
    """{package: specifier} of an environment file."""
    lines = re.findall(r"^  - ([a-z0-9_-]+)([^\s:]*)(?: +#.*)?$", (ROOT / name).read_text(), re.M)
    return {package: spec for package, spec in lines if package != "pip"}


def test_environments_differ_in_apex_only_and_agree_with_the_package():
    full, cpu = conda_specs("environment.yml"), conda_specs("environment-cpu.yml")
    assert full.pop("nvidia-apex") == "=25.04"  # the last with apex.amp; holds pytorch at its own
    assert full == cpu
    for name in ("environment.yml", "environment-cpu.yml"):  # the pytorch channel has ended
        assert "channels: [conda-forge, nodefaults]" in (ROOT / name).read_text()
    lowest, highest, *_ = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert full.pop("python") in {f"=3.{minor}" for minor in range(int(lowest), int(highest))}
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    specs = {}
    for requirement in (*PROJECT["dependencies"], *extras):
        package, spec = re.match(r"([a-z0-9-]+)(?:\[.*\])?(.*)", requirement).groups()
        specs[CONDA_NAMES.get(package, package)] = spec.replace("==", "=")
    specs["ipywidgets"] = ">=8,<9"  # JupyterLab 4 wants it; 7 is Colab's
    assert full == {name: spec for name, spec in specs.items() if name != "deepconnection"}


@pytest.mark.parametrize("name", ["environment.yml", "environment-cpu.yml"])
def test_environments_have_the_packages_that_were_ordered(name):
    ordered = "jupyterlab pytorch torchvision imgaug matplotlib seaborn ipywidgets requests"
    lines = re.findall(r"^  - ([a-z0-9_-]+)", (ROOT / name).read_text(), re.M)
    assert {*ordered.split(), "beautifulsoup4"} <= set(lines)


def test_no_file_speaks_of_a_private_path():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.split("\n"):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".lock", ".onnx", ".safetensors"}:
            assert not re.search(r"/(home|root|work)/\w", path.read_text()), name
