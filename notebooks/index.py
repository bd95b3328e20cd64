"""Keep what all notebooks share in step with index.toml.

python notebooks/index.py            write README's table and the first cells of every notebook
python notebooks/index.py --check    only say what is out of step (exit status 1)
python notebooks/index.py --repo owner/name --tag v0.1.0
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # in Colab, in JupyterLab
START, END = "<!-- notebooks: written by make fix -->", "<!-- /notebooks -->"
COLAB = "https://colab.research.google.com"
Index = dict[str, Any]  # of index.toml, or of one of its notebooks

ORIGIN = """\
# @title Origin (in Colab)
import os
import re
import sys
from urllib.parse import unquote
from urllib.request import urlopen

REPO, TAG = "{repo}", "{tag}"
IN_COLAB = "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules
if IN_COLAB:  # its list of sessions tells from which repository this notebook was opened
    sessions = f"http://{{os.environ.get('COLAB_JUPYTER_IP', '172.28.0.12')}}:9000/api/sessions"
    opened = r"github\\.com/([\\w.-]+/[\\w.-]+)/blob/(.+?)/notebooks/"
    try:
        with urlopen(sessions, timeout=5) as answer:
            found = re.search(opened, unquote(answer.read().decode()))
        REPO, TAG = found.groups() if found else (REPO, TAG)
    except (OSError, ValueError):
        pass  # then the names above hold
if not REPO.startswith("OWNER"):
    os.environ["DCLIB_ORIGIN"] = f"{{REPO}}/blob/{{TAG}}"
"""
SETUP = """\
# @title Setup (safe to run again)
import importlib.util
import subprocess
from pathlib import Path

places = [Path.cwd(), *Path.cwd().parents, *Path("/content/drive/MyDrive").glob("*")]
clone = next((place for place in places if (place / "dclib/spp.py").exists()), None)
if clone:
    os.chdir(clone)
    sys.path.insert(0, str(clone))
needed = ("dclib", "av", "imgaug", "pillow_heif", "protego")
if missing := [name for name in needed if not importlib.util.find_spec(name)]:
    files = [*Path().glob("deepconnection-*.whl"), *Path().glob("*deepconnection*.zip")]
    file = max(files, key=os.path.getmtime, default=None)
    release = f"deepconnection[notebooks] @ https://github.com/{REPO}/archive/{TAG}.tar.gz"
    source = f"{file or clone}[notebooks]" if file or clone else release
    if not IN_COLAB:
        raise ModuleNotFoundError(f"No {', '.join(missing)}: in a clone, start with `make lab`.")
    if source == release and REPO.startswith("OWNER"):
        raise RuntimeError("Drag the ZIP of the repository into the file panel; run this again.")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)
    importlib.invalidate_caches()
"""


def badge(index: Index, file: str) -> str:
    """A link that opens a notebook in Colab; nothing as long as it would lead nowhere."""
    if index["repo"].startswith("OWNER/"):
        return ""
    link = f"{COLAB}/github/{index['repo']}/blob/{index['tag']}/notebooks/{file}"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"


def shared_cells(index: Index, entry: Index) -> dict[str, str]:
    """Sources of the cells that every notebook begins with, by cell id."""
    title = f"# {entry['file'][:2]} · {entry['title']}"
    table = [
        "| | |",
        "|---|---|",
        f"| You will | {entry['will']} |",
        f"| You need | {entry['need']} |",
        f"| Time | 2-core CPU: {entry['cpu']}; Colab T4: {entry['t4']} |",
        f"| Reads | {entry['reads']} |",
        f"| Writes | {entry['writes']} |",
    ]
    return {
        "title": "\n\n".join(
            part for part in (title, badge(index, entry["file"]), entry["sentence"]) if part
        ),
        "table": "\n".join(table),
        "origin": ORIGIN.format(repo=index["repo"], tag=index["tag"]).rstrip(),
        "setup": SETUP.rstrip(),
    }


def readme_table(index: Index) -> str:
    rows = [["notebook", "2-core CPU", " "], ["---"] * 3]
    for entry in index["notebook"]:
        link = f"[{entry['file'][:2]} {entry['title']}](notebooks/{entry['file']})"
        rows.append([link, entry["cpu"], badge(index, entry["file"])])
    if not rows[-1][-1]:  # no badge leads anywhere
        rows = [row[:-1] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def updated_files(index: Index) -> Iterator[tuple[Path, str]]:
    """Path and new text of README and notebooks."""
    before, start, rest = README.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"README.md has lost {START} or {END}, between which the table belongs.")
    yield README, f"{before}{start}\n{readme_table(index)}\n{end}{after}"
    for entry in index["notebook"]:
        path = HERE / entry["file"]
        notebook = nbformat.read(path, as_version=4)
        shared = shared_cells(index, entry)
        for cell in notebook.cells:
            cell.source = shared.get(cell.id, cell.source)
            if cell.id in ("origin", "setup"):
                cell.metadata.update(FOLDED)
        yield path, nbformat.writes(notebook, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--repo", help="owner/name on GitHub")
    parser.add_argument("--tag")
    args = parser.parse_args()
    path = HERE / "index.toml"
    for key in ("repo", "tag"):
        value = getattr(args, key)
        if value and not re.fullmatch(r"[\w.-]+/[\w.-]+" if key == "repo" else r"[\w./-]+", value):
            sys.exit(f"{value!r} is no {key}: write it like owner/name or v0.1.0.")
        if value:
            path.write_text(
                re.sub(f'^{key} = ".*"', f'{key} = "{value}"', path.read_text(), flags=re.M)
            )
    stale = [
        (p, text)
        for p, text in updated_files(tomllib.loads(path.read_text()))
        if p.read_text() != text
    ]
    for file, text in stale:
        if args.check:
            print(f"{file.name} is out of step with index.toml: run `make fix`.")
        else:
            file.write_text(text)
    sys.exit(1 if args.check and stale else 0)


if __name__ == "__main__":
    main()
