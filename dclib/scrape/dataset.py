"""What is kept of a collection, and the folder that training reads, from it or from one's own."""

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from dclib import files
from dclib.data import CLASSES, SPLITS, read_split
from dclib.data.listing import patiently, suffix_of, walk
from dclib.data.metadata import COLUMNS, FILE, told
from dclib.pictures import PictureError, is_blank, read_picture
from dclib.scrape.duplicates import NEAR, distances, duplicate_groups, fingerprints
from dclib.scrape.licences import attribution
from dclib.scrape.manifest import STAGES, Manifest
from dclib.scrape.sources import identity
from dclib.scrape.split import BRIDGE, assign, leak_report

MARK = "dataset.json"  # tells a folder that we wrote, and may change, from any other
STAND_IN = "one file, several pages"
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
    "not a picture": "nothing or a web page, perhaps a bot check: try later or at home",
    STAND_IN: "such as a picture that says it is no longer there",
    "under both labels": "found by happy and by unhappy phrases; make them more distinct",
    "many by one author": "one style must not become the label",
    "too small": "the source has only small files",
}


def settle(manifest: Manifest) -> list[dict]:
    """Decide about every fetched picture: kept, or why not. Writes the manifest, returns its rows.

    A picture under both labels is dropped with all its copies, and so is one file that several
    addresses gave as pictures of several names ("no longer available"); of copies under one label
    the one that is in a split already is kept, or else the one that was offered first; more than
    `MOST_BY_ONE_AUTHOR` of an author are left out.
    """
    _remove(manifest, _near_forgotten(manifest.rows("state = 'fetched'"), manifest.forgotten()))
    fetched = sorted(manifest.rows("state = 'fetched'"), key=lambda row: not row["split"])
    labels = defaultdict(set)  # under which an address was offered, dropped offers included
    for row in manifest.rows():
        labels[row["identity"]].add(row["label"])
    places = defaultdict(set)  # that gave the same file, and what they called it
    for row in fetched:
        place = identity(row["url"]), told(row["title"]) or identity(row["page"])
        places["" if row["split"] else row["sha256"]].add(place)
    places.pop("", None)  # what has a place in the data set was found good before
    stand_ins = {
        key for key, found in places.items() if min(len({*s} - {""}) for s in zip(*found)) > 1
    }
    reasons: dict[int, str] = {}  # "" for what is kept
    copies = duplicate_groups(fetched)
    alone = set(range(len(fetched))).difference(*copies)
    for group in [*copies, *([i] for i in alone)]:
        members = [fetched[i] for i in group]
        both = len(set().union(*(labels[row["identity"]] for row in members))) > 1
        stand_in = not stand_ins.isdisjoint(row["sha256"] for row in members)
        why = "under both labels" if both else STAND_IN if stand_in else "seen before"
        reasons |= {row["id"]: why for row in members}
        if not (both or stand_in):
            reasons[members[0]["id"]] = ""
    by_author: Counter[str] = Counter()
    for row in fetched:
        author = told(row["author"])
        if author and not reasons[row["id"]]:
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
    files.remove_files(manifest.folder / "pool", {row["file"] for row in rows} - {""})


def clear_pool(manifest: Manifest) -> None:
    """Delete the files of what is forgotten: a kill may have come before they went."""
    hashes = {row["sha256"] for row in manifest.forgotten()} - {""}
    files.remove_files(manifest.folder / "pool", {f"{sha256[:16]}.jpg" for sha256 in hashes})


def make_dataset(folder: str | Path, destination: str | Path) -> str:
    """Divide what a collection kept, and write it with ATTRIBUTION.md; what was placed stays.

    Returns the leak report. Raises FileNotFoundError, before anything is written, for pictures that
    were deleted by hand, and what `Manifest`, `assign` and `write_dataset` do.
    """
    with Manifest(folder) as manifest:
        kept = manifest.rows("stage = 'kept' OR reason = ?", (BRIDGE,))
        places = assign(kept)
        for place in places:
            place["stage"] = "split" if place["reason"] else "kept"
        manifest.update({row["id"]: place for row, place in zip(kept, places, strict=True)})
        placed, there = _placed(manifest), _names(destination)
        paths = [row["path"] for row in placed if row["file"] not in there]
        if lost := [path for path in paths if not path.exists()]:
            raise FileNotFoundError(
                f"{len(lost)} pictures are missing, such as {lost[0]}: collect again, and they "
                "come back."
            )
        _write_placed(placed, destination)
        return leak_report(placed, left_out=len(kept) - len(placed))


def _placed(manifest: Manifest) -> list[dict]:
    """Rows that have a place in the data set, for `write_dataset`."""
    placed = manifest.rows("stage = 'kept' AND split != ''")
    return [row | {"path": manifest.folder / "pool" / row["file"]} for row in placed]


def _names(destination: str | Path) -> set[str]:
    """Files of the pictures that a data set holds."""
    return {path.name for path in _present(Path(destination))}


def _write_placed(placed: Sequence[dict], destination: str | Path) -> None:
    """Make the data set hold these rows, and the credits."""
    with claim(destination):
        write_dataset(placed, destination)
        with files.write_whole(Path(destination, "ATTRIBUTION.md")) as unfinished:
            unfinished.write_text(attribution(placed), encoding="utf-8")


def forget(
    folder: str | Path, what: str | Iterable[str], destination: str | Path | None = None
) -> int:
    """Remove pictures, and keep them from coming back; return how many files went, with copies.

    `what` is a picture's URL, the URL of its page, its sha256, or the name of its file in `pool`;
    or several of these. They go from the data set `destination` too, if there is one; whatever else
    is there stays as it is. Can be killed and called again. Raises, before anything goes,
    ValueError if one is empty or unknown, and what `Manifest` and `write_dataset` do.
    """
    names = [what] if isinstance(what, str) else list(what)
    if not names or not all(name.strip() for name in names):
        raise ValueError("Say which picture: its URL, that of its page, its sha256 or its file.")
    with Manifest(folder) as manifest:
        clear_pool(manifest)
        ids = set()
        for name in names:
            where = "sha256 = ? OR url = ? OR page = ? OR identity = ? OR file = ?"
            asked = manifest.rows(where, (name.lower(), name, name, identity(name) or name, name))
            if not asked:
                raise ValueError(f"No picture here has the URL, sha256 or file {name!r}.")
            ids |= {row["id"] for row in asked}
        known = manifest.rows("sha256 != ''")  # fetched, or to be fetched once more
        for group in duplicate_groups(known):
            members = {known[i]["id"] for i in group}
            if members & ids:
                ids |= members
        same = {row["identity"] for row in manifest.rows() if row["id"] in ids}
        going = [row for row in manifest.rows() if row["identity"] in same]  # offered twice, too
        removed = {row["file"] for row in going if row["file"]}
        if destination is not None and Path(destination).exists():  # first: it may refuse
            stays = [row for row in _placed(manifest) if row["identity"] not in same]
            there = _names(destination)  # nothing is added, which the pool may have lost
            _write_placed([row for row in stays if row["file"] in there], destination)
            pixels = Path(destination, ".cache").glob("*.npy")  # a training writes them again
            files.remove_files(Path(destination, ".cache"), [path.name for path in pixels])
        _remove(manifest, going)
        settle(manifest)
    return len(removed)


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


@contextmanager
def claim(destination: str | Path) -> Iterator[dict[str, str]]:
    """Have a data set for this process alone; gives {file: split} of what is in it.

    Raises, before any work, RuntimeError while another process writes it, FileExistsError for a
    folder that holds anything else, OSError where nothing can be written.
    """
    destination = Path(destination)
    with files.hold(destination, f"Another process writes {destination}: wait until it has ended."):
        places = _read_mark(destination)["splits"]
        files.check_place(destination / MARK)
        yield places


def write_dataset(rows: Sequence[dict], destination: str | Path) -> Path:
    """Make `destination` hold exactly these rows, as training reads them.

    Args:
        rows: dicts with path (where the picture is now), file (its name in the data set), label,
            split, group and what else of `COLUMNS` is known.

    Pictures are linked, or copied where that cannot be done. Files that are there already stay
    untouched, those of earlier runs that no row names any more go. Can be killed and run again.
    Raises FileExistsError for a folder, or a picture or table in it, that is not ours.
    """
    destination, before = Path(destination), _read_mark(Path(destination))
    places, tables = {row["file"]: row["split"] for row in rows}, _tables(rows)
    if not _is_places(places):
        raise ValueError("A picture's file must be a bare name, and its split train, val or test.")
    wanted = {destination / row["split"] / row["label"] / row["file"]: row for row in rows}
    unwanted = [path for path in _present(destination) if path not in wanted]
    _refuse_others(destination, [p for p in unwanted if p.name not in before["splits"]], before)
    parts = sorted(f"{row.get('sha256')} {row['label']} {row['split']}" for row in rows)
    version = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    hashes = [hashlib.sha256(content).hexdigest() for content in tables.values()]
    mark = {"version": version, "n": len(rows), "splits": places, "tables": hashes}
    both = {"splits": before["splits"] | places, "tables": [*before["tables"], *hashes]}
    files.save_json(destination / MARK, mark | both)  # all of it is ours, should we be killed
    gone = [f"{split}/{FILE}" for split in {*before["splits"].values()} - tables.keys()]
    gone += [path.relative_to(destination).as_posix() for path in unwanted]
    files.remove_files(destination, gone)
    for path, row in wanted.items():
        _link(row["path"], path)
    for split, content in tables.items():
        with files.write_whole(destination / split / FILE) as unfinished:
            unfinished.write_bytes(content)
    files.save_json(destination / MARK, mark)
    return destination


def _present(destination: Path) -> list[Path]:
    """The pictures that training would read."""
    folders = [destination / split / label for split in SPLITS for label in CLASSES]
    return [path for folder in folders if folder.is_dir() for path in walk(folder)[0]]


def _refuse_others(destination: Path, pictures: Sequence[Path], before: dict) -> None:
    """Raise FileExistsError for pictures, and for tables, that a person put there or changed."""
    if pictures:
        raise FileExistsError(
            f"{pictures[0]} was put there by hand and is in no group; move it away (pictures to "
            "add belong into the folder that is divided)."
        )
    for path in [destination / split / FILE for split in SPLITS if before["tables"]]:
        if path.exists() and files.file_hash(path) not in before["tables"]:
            raise FileExistsError(f"{path} was changed by hand and would be lost; move it away.")


def _read_mark(destination: Path) -> dict:
    """What `write_dataset` noted of a data set that it wrote or had begun."""
    try:
        mark = json.loads((destination / MARK).read_text())
        if _is_places(mark["splits"]) and isinstance(mark["version"], str):
            return {"splits": mark["splits"], "tables": [*mark.get("tables", ())]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    there = destination.iterdir() if destination.exists() else ()
    if not all(files.WORKSHOP.fullmatch(path.name) for path in there):
        raise FileExistsError(f"{destination} holds something else; choose another folder.")
    return {"splits": {}, "tables": []}


def _is_places(places: object) -> bool:
    """Whether it is {name of a file: split}, none of which leads anywhere else."""
    return isinstance(places, dict) and all(
        re.fullmatch(r"[^./\\][^/\\]*", file) and split in SPLITS for file, split in places.items()
    )


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    with files.writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or a file system without links
        content = patiently(Path.read_bytes, source)
        with files.write_whole(target) as unfinished:
            unfinished.write_bytes(content)


def _tables(rows: Iterable[dict]) -> dict[str, bytes]:
    """What metadata.csv tells in each split."""
    texts: dict[str, io.StringIO] = {}
    for row in rows:
        text = texts.setdefault(row["split"], io.StringIO(newline=""))
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="")
        if not text.tell():
            writer.writeheader()
        row = row | {"file_name": f"{row['label']}/{row['file']}"}
        writer.writerow({name: files.harmless(row.get(name, "")) for name in COLUMNS})
    return {split: text.getvalue().encode() for split, text in texts.items()}


def split_folder(source: str | Path, destination: str | Path, seed: int = 0) -> str:
    """Divide a folder of one's own, source/{happy,unhappy}/*, into a data set.

    Pictures that look alike stay on one side; one that lies in both classes is left out, and so is
    what cannot be read; both are printed. A source/metadata.csv (file_name such as happy/1.jpg, and
    perhaps author, series, group, page, licence, url) is used. Run again after adding pictures:
    those placed before stay where they are. Raises what `claim`, `read_folder`, `assign` and
    `write_dataset` do.
    """
    source, destination = Path(source), Path(destination)
    with claim(destination) as before:
        if source.resolve() in destination.resolve().parents:
            raise ValueError(f"{destination} lies in {source}, which is divided; choose another.")
        rows = read_folder(source)
        _drop_both(rows)
        rows = [row | {"split": before.get(row["file"], "")} for row in rows if row["label"]]
        rows = [row | place for row, place in zip(rows, assign(rows, seed=seed), strict=True)]
        once: dict[tuple[str, str], dict] = {}  # of equal files, bound by what is told of each
        for row in rows:
            if row["split"]:
                once.setdefault((row["label"], row["sha256"]), row)
        placed = list(once.values())
        if gone := before.keys() - {row["file"] for row in placed}:
            print(f"{len(gone)} pictures go from {destination}: {source} no longer gives them.")
        write_dataset(placed, destination)
    return leak_report(placed, left_out=sum(not row["split"] for row in rows))


def _drop_both(rows: Sequence[dict]) -> None:
    """Take the label from pictures that lie in both classes, and print them."""
    for group in duplicate_groups(rows):
        if len({rows[i]["label"] for i in group}) > 1:
            print(f"Left out, in both classes: {', '.join(str(rows[i]['path']) for i in group)}")
            for i in group:
                rows[i]["label"] = ""


def read_folder(source: Path) -> list[dict]:
    """Rows (path, file, label, size, fingerprints) of source/{happy,unhappy}; prints the rest."""
    pictures, meta, notes = read_split(source)
    print(*notes, sep="\n", end="\n" * bool(notes))
    rows = []
    for path, label in tqdm(pictures, desc="reading", unit="picture"):
        try:
            image = patiently(read_picture, path).image
        except PictureError as error:
            print(f"Left out: {error}")
            continue
        if is_blank(image):
            print(f"Left out: {path.name} has nothing in it, one colour or close to it.")
            continue
        content = patiently(Path.read_bytes, path)
        sha256 = hashlib.sha256(content).hexdigest()
        row = {"path": path, "file": f"{sha256[:16]}{suffix_of(path)}"}
        row |= {"label": CLASSES[label], "sha256": sha256, "bytes": len(content)}
        row |= {"width": image.width, "height": image.height} | fingerprints(image)
        more = {"source": source.name} | meta.get(path.relative_to(source).as_posix(), {})
        more["series"] = more.get("series") or more.get("group") or ""
        rows.append(more | row)
    return rows
