"""What is kept of a collection, and the folder that training reads, from it or from one's own."""

import csv
import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from dclib.data import CLASSES, SUFFIXES, list_pictures, read_metadata
from dclib.files import save_json, write_whole
from dclib.pictures import PictureError, is_blank, read_picture
from dclib.scrape.duplicates import NEAR, distances, duplicate_groups, fingerprints
from dclib.scrape.licences import attribution
from dclib.scrape.manifest import STAGES, Manifest
from dclib.scrape.sources import identity
from dclib.scrape.split import BRIDGE, NOBODY, LeakReport, assign, leak_report

COLUMNS: tuple[str, ...] = ("file_name", "label", "group", "source", "licence", "author")
COLUMNS += (
    "title",
    "url",
    "page",
    "sha256",
    "width",
    "height",
    "bytes",
    "phash",
    "dhash",
    "series",
)
MARK = "dataset.json"  # tells a folder that we wrote, and may change, from any other
MOST_BY_ONE_AUTHOR = 20  # pictures; more would make one person's style the label's
# What to do about a reason; the beginnings of reasons.
HINTS = {
    "http 403": "the site refuses; from a cloud computer try at home",
    "http 404": "the source lists a file that has gone",
    "http 429": "asked too often; wait and run again",
    "host busy": "the site asked for a rest; run again later",
    "robots.txt unknown": "no answer means no; run again later",
    "robots.txt": "the site does not want robots there",
    "opt-out": "the owner does not want it used for training",
    "licence unknown": "no licence that allows adaptations was stated",
    "by-n": "the licence forbids adaptations or commercial use",
    "under both labels": "found by happy and by unhappy phrases; make them more distinct",
    "many by one author": "one style must not become the label",
    "too small": "the source has only small files",
}


def settle(manifest: Manifest) -> list[dict]:
    """Decide about every fetched picture: kept, or why not. Writes the manifest, returns its rows.

    A picture under both labels is dropped with all its copies; of copies under one label the one
    that is in a split already is kept, or else the one that was offered first; more than
    `MOST_BY_ONE_AUTHOR` of an author are left out.
    """
    _remove(manifest, _near_forgotten(manifest.rows("state = 'fetched'"), manifest.forgotten()))
    fetched = sorted(manifest.rows("state = 'fetched'"), key=lambda row: not row["split"])
    labels = defaultdict(set)  # under which an address was offered, dropped offers included
    for row in manifest.rows():
        labels[row["identity"]].add(row["label"])
    reasons: dict[int, str] = {}  # "" for what is kept
    copies = duplicate_groups(fetched)
    alone = set(range(len(fetched))).difference(*copies)
    for group in [*copies, *([i] for i in alone)]:
        members = [fetched[i] for i in group]
        both = len(set().union(*(labels[row["identity"]] for row in members))) > 1
        reasons |= {row["id"]: "under both labels" if both else "seen before" for row in members}
        if not both:
            reasons[members[0]["id"]] = ""
    by_author: Counter[str] = Counter()
    for row in fetched:
        author = row["author"].strip().lower()
        if author not in NOBODY and not reasons[row["id"]]:
            by_author[author] += 1
            if by_author[author] > MOST_BY_ONE_AUTHOR:
                reasons[row["id"]] = "many by one author"
    gone = {"stage": "duplicates", "group": "", "split": ""}
    manifest.update(
        {i: {"reason": why} | (gone if why else {"stage": "kept"}) for i, why in reasons.items()}
    )
    return manifest.rows()


def _near_forgotten(rows: list[dict], forgotten: list[dict]) -> list[dict]:
    """Those of the rows that show a picture which is to be forgotten, in whatever file."""
    keys = {row[name] for row in forgotten for name in ("sha256", "pixel_sha256")} - {""}
    hashed = [row for row in forgotten if row["phash"]]
    return [
        row
        for row in rows
        if {row["sha256"], row["pixel_sha256"]} & keys
        or (hashed and distances([row], hashed).min() <= NEAR)
    ]


def _remove(manifest: Manifest, rows: list[dict]) -> None:
    """Forget rows in the manifest, then delete their files."""
    manifest.forget(rows)
    for row in rows:
        if row["file"]:
            (manifest.folder / "pool" / row["file"]).unlink(missing_ok=True)


def make_dataset(folder: str | Path, destination: str | Path) -> LeakReport:
    """Divide what a collection kept into splits (`dclib.scrape.split.SHARES`), and write them.

    The data set and its ATTRIBUTION.md go to `destination`. Pictures that were in a split before
    stay there. Raises what `Manifest`, `assign` and `write_dataset` do.
    """
    with Manifest(folder) as manifest:
        kept = manifest.rows("stage = 'kept' OR reason = ?", (BRIDGE,))
        places = assign(kept)
        for place in places:
            place["stage"] = "split" if place["reason"] else "kept"
        manifest.update({row["id"]: place for row, place in zip(kept, places, strict=True)})
        placed = _write_placed(manifest, destination)
        return leak_report(placed, left_out=len(kept) - len(placed))


def _write_placed(manifest: Manifest, destination: str | Path) -> list[dict]:
    """Make the data set hold what has a place in it, and the credits; return these rows."""
    placed = manifest.rows("stage = 'kept' AND split != ''")
    for row in placed:
        row["path"] = manifest.folder / "pool" / row["file"]
    write_dataset(placed, destination)
    with write_whole(Path(destination, "ATTRIBUTION.md")) as unfinished:
        unfinished.write_text(attribution(placed), encoding="utf-8")
    return placed


def forget(folder: str | Path, what: str, destination: str | Path | None = None) -> int:
    """Remove a picture, and keep it from coming back; return how many went, copies included.

    `what` is its URL, the URL of its page, its sha256, or the name of its file in `pool`. It goes
    from the data set `destination` too, if there is one; whatever else is there stays as it is.
    Raises ValueError if it is empty or unknown, and what `Manifest` and `write_dataset` raise.
    """
    if not what.strip():
        raise ValueError("Say which picture: its URL, that of its page, its sha256 or its file.")
    with Manifest(folder) as manifest:
        known = "sha256 = ? OR url = ? OR page = ? OR identity = ? OR file = ?"
        asked = manifest.rows(known, (what.lower(), what, what, identity(what) or what, what))
        if not asked:
            raise ValueError(f"No picture here has the URL, sha256 or file {what!r}.")
        fetched = manifest.rows("state = 'fetched'")
        ids = {row["id"] for row in asked}
        for group in duplicate_groups(fetched):
            members = {fetched[i]["id"] for i in group}
            if members & ids:
                ids |= members
        _remove(manifest, [row for row in manifest.rows() if row["id"] in ids])
        settle(manifest)
        if destination is not None and Path(destination).exists():
            _write_placed(manifest, destination)
    return len(ids)


def funnel(rows: Iterable[dict]) -> list[tuple[str, str, int]]:
    """What became of every candidate: list of (stage, reason, count), in the order of stages."""
    counts = Counter((row["stage"] or "open", row["reason"]) for row in rows)
    order = (*STAGES[:-1], "open", "kept")
    steps = [(stage, reason, n) for (stage, reason), n in counts.items()]
    return sorted(steps, key=lambda step: (order.index(step[0]), -step[2], step))


def kept_rows(rows: Iterable[dict]) -> list[dict]:
    """Rows of pictures that are kept. Raises ValueError if there are none."""
    kept = [row for row in rows if row["stage"] == "kept"]
    if not kept:
        raise ValueError("No picture was kept; the lines above say what became of each.")
    return kept


def describe(rows: Sequence[dict]) -> str:
    """The funnel as text, with what can be done about the commonest losses."""
    kept = sum(row["stage"] == "kept" for row in rows)
    lines = [f"{len(rows)} candidates, {kept} kept."]
    for stage, reason, n in funnel(rows):
        if stage != "kept":
            hint = next((hint for key, hint in HINTS.items() if reason.startswith(key)), "")
            lines.append(f"{n:6} {stage}: {reason or 'not fetched yet'}{hint and f' ({hint})'}")
    later = sum(row["state"] == "later" for row in rows)
    if later:
        lines.append(f"{later} failures may pass: run it again, and only they are tried again.")
    return "\n".join(lines)


def write_dataset(rows: Sequence[dict], destination: str | Path) -> Path:
    """Make `destination` hold exactly these rows, as training reads them.

    Args:
        rows: dicts with path (where the picture is now), file (its name in the data set), label,
            split, group and what else of `COLUMNS` is known.

    Pictures are linked, or copied where that cannot be done. Files that are there already stay
    untouched, those of earlier runs that no row names any more go. Can be killed and run again.
    Raises FileExistsError for a folder, or a picture in it, that is not ours.
    """
    destination, before = Path(destination), read_places(destination)
    wanted = {destination / row["split"] / row["label"] / row["file"]: row for row in rows}
    present = [path for label in CLASSES for path in sorted(destination.glob(f"*/{label}/*"))]
    unwanted = [path for path in present if path not in wanted]
    _refuse_others(path for path in unwanted if path.name not in before)
    splits = {row["split"] for row in rows}
    for split in {*before.values()} - splits:
        shutil.rmtree(destination / split, ignore_errors=True)
    parts = sorted(f"{row.get('sha256')} {row['label']} {row['split']}" for row in rows)
    places = {row["file"]: row["split"] for row in rows}
    version = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    mark = {"version": version, "n": len(rows), "splits": places}
    save_json(destination / MARK, mark | {"splits": before | places})  # ours, should we be killed
    for path in unwanted:
        if path.name in before or path.suffix == ".part":
            path.unlink(missing_ok=True)
    for path, row in wanted.items():
        _link(row["path"], path)
    for split in splits:
        chosen = [row for row in rows if row["split"] == split]
        _write_rows(destination / split / "metadata.csv", chosen)
    save_json(destination / MARK, mark)
    return destination


def _refuse_others(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            raise FileExistsError(
                f"{path} was put there by hand and is in no group; move it away (pictures to add "
                "belong into the folder that is divided)."
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
            sentence = f"{destination} holds something else; choose another folder."
            raise FileExistsError(sentence) from error
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
    before, rows = read_places(destination), read_folder(source)
    for group in duplicate_groups(rows):
        if len({rows[i]["label"] for i in group}) > 1:
            print(f"Left out, in both classes: {', '.join(str(rows[i]['path']) for i in group)}")
            for i in group:
                rows[i]["label"] = ""
    rows = [row | {"split": before.get(row["file"], "")} for row in rows if row["label"]]
    rows = [row | place for row, place in zip(rows, assign(rows, seed=seed), strict=True)]
    placed = [row for row in rows if row["split"]]
    write_dataset(placed, destination)
    return leak_report(placed, left_out=len(rows) - len(placed))


def read_folder(source: str | Path) -> list[dict]:
    """Rows with path, file, label, size and fingerprints of source/{happy,unhappy}/**.

    Prints what is left out. Raises FileNotFoundError or ValueError if a class has no pictures.
    """
    source = Path(source)
    meta = read_metadata(source)
    rows: dict[tuple[int, str], dict] = {}
    for path, label in tqdm(list_pictures(source, CLASSES), desc="reading", unit="picture"):
        try:
            image = read_picture(path).image
        except (PictureError, OSError) as error:
            print(f"Left out: {error}")
            continue
        if is_blank(image):
            print(f"Left out: {path.name} has nothing in it, one colour or close to it.")
            continue
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        row = {"path": path, "file": f"{sha256[:16]}{path.suffix.lower()}"}
        row |= {"label": CLASSES[label], "sha256": sha256, "bytes": len(content)}
        row |= {"width": image.width, "height": image.height} | fingerprints(image)
        more = {"source": source.name} | meta.get(path.relative_to(source).as_posix(), {})
        more["series"] = more.get("series") or more.get("group") or ""
        rows.setdefault((label, sha256), more | row)
    return list(rows.values())
