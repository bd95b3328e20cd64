"""The series as Colab runs it; `make colab`, or python tests/colab/run.py 3.13 3.12.

For each Python: an environment with Colab's packages at their versions. In it the setup cell
installs from an archive of the repository, as from Git; from a clone in Drive; and from an uploaded
wheel; no version of Colab's may change. Then every notebook from top to bottom, in a folder outside
the clone that holds only it and the wheel, on the small settings of the tests, with one Drive for
all: as it is; after one entry in notebook 01; and after one in 03. Last the tests of the panels, on
these old widgets and against the installed wheel, and those of faces on each of the three wheels of
OpenCV that Colab has.
"""

import os
import re
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
# Three packages with one folder, of which the last that was installed wins: which, nobody knows.
OPENCV = ["opencv-python", "opencv-python-headless", "opencv-contrib-python"]
AGAIN = ["--reinstall", "--no-deps"]
FACES = ["test_framing", "test_framing_faces", "test_photo", "test_photo_gate"]


def call(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


def versions(python):
    """{package: version} of an environment."""
    listed = call(UV, "pip", "freeze", "--python", python, capture_output=True).stdout
    return dict(line.split("==") for line in listed.split() if "==" in line)


# What a person enters, by notebook, and what the later ones must say that they use.
PHOTOGRAPHS = "Uses checkpoint: .*checkpoints/{0}, data: .*{0}.*[(]chosen in .*workspace.toml[)]"
WALKS = {
    "nothing": (
        {},
        "Uses checkpoint: none of yours, data: drawn couples.*[(]as nothing was chosen[)]",
    ),
    "a contact in 01": (
        {"01": {"CONTACT": "ada@example.org"}},
        PHOTOGRAPHS.format(r"couples-openverse\+commons"),
    ),
    "a folder in 03": ({"03": {"DATA": "photographs"}}, PHOTOGRAPHS.format("photographs")),
}
# In place of the web: the drawn gallery, whatever source was asked for.
NO_WEB = """
from dclib.scrape import queries
ours = queries.open_sources
queries.open_sources = lambda names, contact, phrases, *gallery: ours("gallery", "", "", *gallery)
"""


def prepare(notebook, folder, wheel, drive, entered):
    """An empty folder with the wheel and the notebook, whose config has the tests' settings."""
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)
    cells = nbformat.read(notebook, as_version=4)
    setup, config = (
        next(cell for cell in cells.cells if cell.id == name) for name in ("setup", "config")
    )
    setup.source += (
        f"\nimport dclib.colab.workspace\ndclib.colab.workspace.DRIVE = Path({str(drive)!r})"
    )
    setup.source += NO_WEB * notebook.name.startswith("01")
    small = config.metadata.nbmake.mock | entered
    if notebook.name.startswith("03") and drive.parent.name != "nothing":
        # Weights of ImageNet are not at hand, and in drawings that were gathered nobody is found.
        small["CHANGES"] |= {"weights": None, "frame": "whole"}
        del small["CHECKPOINT"]
    config.source += "".join(f"\n{name} = {value!r}" for name, value in small.items())
    nbformat.write(cells, folder / notebook.name)
    return folder / notebook.name


def walk(python, wheel, home, environment, name):
    """The series in eight folders with one Drive; raises SystemExit if a choice was not heard."""
    entries, wanted = WALKS[name]
    home, begun = home / name, min(entries, default="01")
    drive = home / "drive"
    render = "from dclib.drawn import render_couples; render_couples('photographs', 60)"
    (drive / "MyDrive" / "deepconnection").mkdir(parents=True)
    call(sys.executable, "-c", render, cwd=drive / "MyDrive" / "deepconnection")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        number = notebook.name[:2]
        if number < begun or (entries and number == "02"):
            continue
        if begun == "01" and entries and number == "05":
            continue  # in drawings that were gathered faces are neither told nor found
        ready = prepare(notebook, home / notebook.stem, wheel, drive, entries.get(number, {}))
        run(python, ready, ready.parent, environment)
        said = [
            output.text
            for cell in nbformat.read(ready, as_version=4).cells
            for output in cell.get("outputs", [])
            if output.output_type == "stream"
        ]
        if number in ("04", "05", "06") and not re.search(wanted, "".join(said)):
            raise SystemExit(f"{notebook.name}, after {name}, does not say {wanted!r}: {said}")
    print(f"After {name}: {sum(map(len, entries.values()))} entries in all.", flush=True)


def setup_cell(drive, archive):
    """The setup cell with Drive in a folder, and a file in place of GitHub's archive."""
    notebook = nbformat.read(ROOT / "notebooks" / "07_your_couple_photo.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.id in ("origin", "setup"))
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
        "COLAB_JUPYTER_IP": "127.0.0.1",  # where no list of sessions is
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONPATH": str(HERE),
    }
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    install_three_ways(python, wheel, home, environment, before)
    for name in WALKS:
        walk(python, wheel, home, environment, name)
    added = check_versions(python, before)
    print(f"Python {version}: {len(before)} packages of Colab unchanged; added {', '.join(added)}.")
    call(UV, "pip", "install", "--no-config", "--quiet", "--python", python, "hypothesis")
    where = "import dclib, sys; assert dclib.__file__.startswith(sys.prefix), dclib.__file__"
    call(python, "-c", where, cwd=home)
    tests = [ROOT / "tests" / f"{name}.py" for name in TESTS]
    options = ["-q", "-c", os.devnull, "--rootdir", ROOT / "tests", "-p", "no:cacheprovider"]
    call(python, "-m", "pytest", *options, *tests, cwd=home)
    for wheel in OPENCV:
        own = f"{wheel}=={before[wheel]}"
        call(UV, "pip", "install", "--no-config", "--quiet", *AGAIN, "--python", python, own)
        call(python, "-c", f"import cv2; print('Faces, by {own}:', cv2.__version__)", cwd=home)
        faces = [ROOT / "tests" / f"{name}.py" for name in FACES]
        call(python, "-m", "pytest", *options, *faces, cwd=home)


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
