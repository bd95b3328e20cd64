"""Write the folder that training reads, from a collection or from a folder of one's own.

python -m dclib.scrape.dataset my_pictures data/mine
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from dclib.data import CLASSES, SUFFIXES, list_pictures, read_metadata
from dclib.files import save_json, write_whole
from dclib.pictures import PictureError, read_picture
from dclib.scrape.duplicates import duplicate_groups, fingerprints, is_flat
from dclib.scrape.split import LeakReport, assign, leak_report

COLUMNS: tuple[str, ...] = ("file_name", "label", "group", "source", "licence", "author")
COLUMNS += ("title", "url", "page")
COLUMNS += ("sha256", "width", "height", "bytes", "phash", "dhash", "series")
MARK = "dataset.json"  # tells a folder that we wrote, and may change, from any other


def write_dataset(rows: Sequence[dict], destination: str | Path) -> Path:
    """Make `destination` hold exactly these rows, as `dclib.data.CoupleFolder` reads them.

    Args:
        rows: dicts with path (where the picture is now), file (its name in the data set), label,
            split, group and what else of `COLUMNS` is known.

    Pictures are linked, or copied where that cannot be done. Files that are there already stay
    untouched, those of earlier runs that no row names any more go. Can be killed and run again.
    Raises FileExistsError for a folder, or a picture in it, that is not ours.
    """
    destination, before = Path(destination), read_places(destination)
    wanted = {Path(row["split"], row["label"], row["file"]): row for row in rows}
    _refuse_others(destination, wanted, before)
    splits = {row["split"] for row in rows}
    for split in {*before.values()} - splits:
        shutil.rmtree(destination / split, ignore_errors=True)
    parts = sorted(f"{row.get('sha256')} {row['label']} {row['split']}" for row in rows)
    places = {row["file"]: row["split"] for row in rows}
    version = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    mark = {"version": version, "n": len(rows), "splits": places}
    plan = mark | {"splits": before | places}  # what is ours, should we be killed
    save_json(destination / MARK, plan)
    for label in CLASSES:
        for path in destination.glob(f"*/{label}/*"):
            ours = path.name in before or path.suffix == ".part"
            if ours and path.relative_to(destination) not in wanted:
                path.unlink()
    for relative, row in wanted.items():
        _link(row["path"], destination / relative)
    for split in splits:
        chosen = [row for row in rows if row["split"] == split]
        _write_rows(destination / split / "metadata.csv", chosen)
    save_json(destination / MARK, mark)
    return destination


def _refuse_others(destination: Path, wanted: Container[Path], before: Container[str]) -> None:
    """Raise FileExistsError for a picture beside ours that somebody else put there."""
    for label in CLASSES:
        for path in sorted(destination.glob(f"*/{label}/[!.]*")):
            ours = path.name in before or path.relative_to(destination) in wanted
            if path.suffix.lower() in SUFFIXES and not ours:
                raise FileExistsError(
                    f"{path} was put there by hand and is in no group; move it away (pictures to "
                    "add belong into the folder that is divided)."
                )


def read_places(destination: str | Path) -> dict[str, str]:
    """{file: split} of a data set that `write_dataset` wrote or had begun, {} if there is none.

    Raises FileExistsError for a folder that holds anything else.
    """
    destination = Path(destination)
    try:
        return json.loads((destination / MARK).read_text())["splits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        begun = [destination / f"{MARK}.unfinished"]
        if destination.exists() and list(destination.iterdir()) not in ([], begun):
            raise FileExistsError(
                f"{destination} holds something else; choose another folder."
            ) from error
        return {}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, part)
    os.replace(part, target)


def _write_rows(path: Path, rows: Iterable[dict]) -> None:
    with write_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        for row in rows:
            row = row | {"file_name": f"{row['label']}/{row['file']}"}
            writer.writerow({name: _harmless(row.get(name, "")) for name in COLUMNS})


def _harmless(value: object) -> object:
    """Text of strangers that a spreadsheet would take for a formula gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def split_folder(source: str | Path, destination: str | Path, seed: int = 0) -> LeakReport:
    """Divide a folder of one's own, source/{happy,unhappy}/*, into a data set.

    Pictures that look alike stay on one side; one that lies in both classes is left out, and so is
    what cannot be read; both are printed. A source/metadata.csv (file_name such as happy/1.jpg, and
    perhaps author, series or group, page, licence, url) is used. Run again after adding pictures:
    those placed before stay where they are. Raises what `read_folder`, `assign` and `write_dataset`
    do.
    """
    before = read_places(destination)
    rows = _without_contradictions(read_folder(source))
    rows = [row | {"split": before.get(row["file"], "")} for row in rows]
    rows = [row | place for row, place in zip(rows, assign(rows, seed=seed), strict=True)]
    placed = [row for row in rows if row["split"]]
    write_dataset(placed, destination)
    return leak_report(placed, left_out=len(rows) - len(placed))


def read_folder(source: str | Path) -> list[dict]:
    """Rows with path, file, label, size and fingerprints of source/{happy,unhappy}/**.

    Prints what is left out. Raises FileNotFoundError or ValueError if a class has no pictures.
    """
    source = Path(source)
    told = read_metadata(source)
    rows: dict[tuple[int, str], dict] = {}
    for path, label in tqdm(list_pictures(source, CLASSES), desc="reading", unit="picture"):
        try:
            image = read_picture(path).image
        except (PictureError, OSError) as error:
            print(f"Left out: {error}")
            continue
        if is_flat(image):
            print(f"Left out: {path.name} has nothing in it, one colour or close to it.")
            continue
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        row = {"path": path, "file": f"{sha256[:16]}{path.suffix.lower()}"}
        row |= {"label": CLASSES[label], "sha256": sha256, "bytes": len(content)}
        row |= {"width": image.width, "height": image.height} | fingerprints(image)
        more = {"source": source.name} | told.get(path.relative_to(source).as_posix(), {})
        more["series"] = more.get("series") or more.get("group") or ""
        rows.setdefault((label, sha256), more | row)
    return list(rows.values())


def _without_contradictions(rows: list[dict]) -> list[dict]:
    """Rows without those whose picture is also there under the other label."""
    left_out = set()
    for group in duplicate_groups(rows):
        if len({rows[i]["label"] for i in group}) > 1:
            left_out |= set(group)
            print(f"Left out, in both classes: {', '.join(str(rows[i]['path']) for i in group)}")
    return [row for i, row in enumerate(rows) if i not in left_out]


def main() -> None:
    """Divide the folder that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m dclib.scrape.dataset", description="Divide a folder of pictures."
    )
    parser.add_argument("source", type=Path, help="folder with happy/ and unhappy/")
    parser.add_argument("destination", type=Path, help="data set to make, or to add to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        print(split_folder(args.source, args.destination, seed=args.seed))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
