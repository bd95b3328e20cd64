"""The series as Colab runs it; `make colab`, or python tests/colab/run.py 3.13 3.12.

For each Python: an environment with Colab's packages at their versions. In it the setup cell
installs from an archive of the repository, as from Git; from a clone in Drive; and from an uploaded
wheel; no version of Colab's may change. Then every notebook from top to bottom, in a folder outside
the clone that holds only it and the wheel, on the small settings of the tests; and the tests of the
panels, on these old widgets and against the installed wheel.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UV = ROOT / ".uv" / "bin" / "uv"
TESTS = ["test_photo", "test_photo_page", "test_photo_panel", "test_framing", "test_framing_faces"]
TESTS += ["test_pictures_heif", "test_pictures_colour", "test_odd_pictures", "test_pictures_frames"]
TESTS += ["test_video", "test_video_export", "test_video_live", "test_video_timeline"]


def call(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


def versions(python):
    """{package: version} of an environment."""
    listed = call(UV, "pip", "freeze", "--python", python, capture_output=True).stdout
    return dict(line.split("==") for line in listed.split() if "==" in line)


def prepare(notebook, folder, wheel):
    """An empty folder with the wheel and the notebook, whose config has the tests' settings."""
    folder.mkdir()
    shutil.copy(wheel, folder)
    cells = nbformat.read(notebook, as_version=4)
    config = next(cell for cell in cells.cells if cell.id == "config")
    small = config.metadata.nbmake.mock
    config.source += "".join(f"\n{name} = {value!r}" for name, value in small.items())
    nbformat.write(cells, folder / notebook.name)
    return folder / notebook.name


def setup_cell(drive, archive):
    """The setup cell with Drive in a folder, and a file in place of GitHub's archive."""
    notebook = nbformat.read(ROOT / "notebooks" / "07_your_couple_photo.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.id == "setup")
    link = "https://github.com/{REPO}/archive/{TAG}.tar.gz"
    assert "/content/drive/MyDrive" in source and link in source
    source = source.replace("/content/drive/MyDrive", str(drive)).replace(link, archive.as_uri())
    return source.replace('"OWNER/', '"somebody/')


def install_three_ways(python, wheel, home, environment, before):
    """The setup cell with nothing but an archive, a clone in Drive, or a wheel beside it.

    Each is run twice; the second time all is importable, and whoever calls pip fails.
    """
    drive, archive = home / "drive", home / "v.tar.gz"
    call("git", "archive", "--prefix=deepconnection/", "-o", archive, "HEAD", cwd=ROOT)
    for way in ("archive", "clone", "wheel"):
        (here := home / f"from-{way}").mkdir()
        if way == "clone":
            call("git", "clone", "--quiet", ROOT, drive / "deepconnection")
        if way == "wheel":
            shutil.copy(wheel, here)
        cell = setup_cell(drive if way == "clone" else home / "no drive", archive)
        there = drive / "deepconnection" if way == "clone" else python.parent.parent
        shown = f"\nimport av, dclib.augment\nprint('Installed from the {way}:', dclib.__file__)"
        shown += f"\nassert Path(dclib.__file__).is_relative_to({str(there)!r}), {str(there)!r}"
        again = f"import subprocess\nsubprocess.run = None\n{cell}"
        call(python, "-c", cell + shown, cwd=here, env=environment)
        call(python, "-c", again, cwd=here, env=environment)
        added = check_versions(python, before)
        call(UV, "pip", "uninstall", "--quiet", "--python", python, "deepconnection", *added)


def check_versions(python, before):
    """Names of the packages that came; SystemExit if one of Colab's own has changed."""
    after = versions(python)
    changed = {name: (v, after.get(name)) for name, v in before.items() if after.get(name) != v}
    if changed:
        raise SystemExit(f"The setup cell changed Colab's own packages: {changed}")
    return sorted(set(after) - set(before))


def run(python, notebook, folder, environment):
    start = time.monotonic()
    jupyter = python.with_name("jupyter-execute")
    call(jupyter, "--inplace", notebook.name, cwd=folder, env=environment)
    print(f"{notebook.name}: {time.monotonic() - start:.0f} s", flush=True)


def lane(version, wheel, home):
    """Everything on one Python; raises where something fails."""
    python = home / "env" / "bin" / "python"
    call(UV, "venv", "--quiet", "--clear", "--python", version, home / "env")
    call(
        UV, "pip", "install", "--no-config", "--quiet", "--python", python, "-r", HERE / "pins.txt"
    )
    before = versions(python)
    environment = os.environ | {
        "COLAB_RELEASE_TAG": "stand-in",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONPATH": str(HERE),
    }
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    install_three_ways(python, wheel, home, environment, before)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        folder = home / notebook.stem
        run(python, prepare(notebook, folder, wheel), folder, environment)
    added = check_versions(python, before)
    print(f"Python {version}: {len(before)} packages of Colab unchanged; added {', '.join(added)}.")
    call(UV, "pip", "install", "--no-config", "--quiet", "--python", python, "hypothesis")
    where = "import dclib, sys; assert dclib.__file__.startswith(sys.prefix), dclib.__file__"
    call(python, "-c", where, cwd=home)
    tests = [ROOT / "tests" / f"{name}.py" for name in TESTS]
    options = ["-q", "-c", os.devnull, "--rootdir", ROOT / "tests", "-p", "no:cacheprovider"]
    call(python, "-m", "pytest", *options, *tests, cwd=home)


def main():
    with tempfile.TemporaryDirectory() as folder:
        call(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        for version in sys.argv[1:]:
            start = time.monotonic()
            lane(version, wheel, Path(folder) / version)
            print(f"Python {version}: {time.monotonic() - start:.0f} s in all.", flush=True)


if __name__ == "__main__":
    main()
