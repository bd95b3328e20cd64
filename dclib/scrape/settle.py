"""From what was fetched to what is kept: duplicates, contradictions, splits. The same every time.

Everything here is decided anew from the manifest in the order in which pictures were offered, so
that neither the order in which servers answered nor a kill on the way changes the outcome.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from dclib.files import write_whole
from dclib.scrape.dataset import write_dataset
from dclib.scrape.duplicates import NEAR, distances, duplicate_groups
from dclib.scrape.licences import attribution
from dclib.scrape.manifest import STAGES, Manifest
from dclib.scrape.split import BRIDGE, NOBODY, LeakReport, assign, leak_report
from dclib.scrape.urls import identity

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
MOST_BY_ONE_AUTHOR = 20  # pictures; more would make one person's style the label's


def settle(manifest: Manifest) -> list[dict]:
    """Decide about every fetched picture: kept, or why not. Writes the manifest, returns its rows.

    A picture under both labels is dropped with all its copies; of copies under one label the one
    that is in a split already is kept, or else the one that was offered first; more than
    `MOST_BY_ONE_AUTHOR` of an author are left out.
    """
    _remove(manifest, _near_forgotten(manifest.rows("state = 'fetched'"), manifest.forgotten()))
    fetched = sorted(manifest.rows("state = 'fetched'"), key=lambda row: not row["split"])
    reasons = dict.fromkeys((row["id"] for row in fetched), ("kept", ""))
    labels = _labels_by_identity(manifest.rows())
    groups = duplicate_groups(fetched)
    alone = set(range(len(fetched))).difference(*groups)
    for group in [*groups, *([i] for i in alone)]:
        members = [fetched[i] for i in group]
        if len(set().union(*(labels[row["identity"]] for row in members))) > 1:
            reasons |= {row["id"]: ("duplicates", "under both labels") for row in members}
        else:
            reasons |= {row["id"]: ("duplicates", "seen before") for row in members[1:]}
    by_author: Counter[str] = Counter()
    for row in fetched:
        author = row["author"].strip().lower()
        if author not in NOBODY and reasons[row["id"]][0] == "kept":
            by_author[author] += 1
            if by_author[author] > MOST_BY_ONE_AUTHOR:
                reasons[row["id"]] = ("duplicates", "many by one author")
    changes = {i: {"stage": stage, "reason": reason} for i, (stage, reason) in reasons.items()}
    for values in changes.values():
        if values["stage"] != "kept":
            values |= {"group": "", "split": ""}
    manifest.update(changes)
    return manifest.rows()


def _near_forgotten(rows: list[dict], forgotten: list[dict]) -> list[dict]:
    """Those of the rows that show a picture which is to be forgotten, in whatever file."""
    keys = {row[name] for row in forgotten for name in ("sha256", "pixel_sha256")} - {""}
    hashed = [row for row in forgotten if row["phash"]]
    found = []
    for row in rows:
        same = {row["sha256"], row["pixel_sha256"]} & keys
        if same or (hashed and distances([row], hashed).min() <= NEAR):
            found.append(row)
    return found


def _remove(manifest: Manifest, rows: list[dict]) -> None:
    """Forget rows in the manifest, then delete their files."""
    manifest.forget(rows)
    for row in rows:
        if row["file"]:
            (manifest.folder / "pool" / row["file"]).unlink(missing_ok=True)


def _labels_by_identity(rows: list[dict]) -> dict[str, set[str]]:
    """Under which labels an address was offered, dropped offers included."""
    labels = defaultdict(set)
    for row in rows:
        labels[row["identity"]].add(row["label"])
    return labels


def make_dataset(folder: str | Path, destination: str | Path) -> LeakReport:
    """Divide what a collection kept into splits (`dclib.scrape.split.SHARES`), and write them.

    The data set and its ATTRIBUTION.md go to `destination`. Pictures that were in a split before
    stay there. Raises what `Manifest`, `assign` and `write_dataset` do.
    """
    with Manifest(folder) as manifest:
        kept = manifest.rows("stage = 'kept' OR reason = ?", (BRIDGE,))
        places = assign(kept)
        changes = {}
        for row, place in zip(kept, places, strict=True):
            outcome = ("split", place["reason"]) if place["reason"] else ("kept", "")
            changes[row["id"]] = {"group": place["group"], "split": place["split"]}
            changes[row["id"]] |= dict(zip(("stage", "reason"), outcome))
        manifest.update(changes)
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
    """Remove a picture and keep it from coming back.

    `what` is its URL, the URL of its page, its sha256, or the name of its file in `pool`.

    Its copies go too, and from the data set `destination` if there is one; whatever else is there
    stays as it is. Returns how many were removed. Raises ValueError if it is empty or unknown,
    and what `Manifest` and `write_dataset` raise.
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
        rows = [row for row in manifest.rows() if row["id"] in ids]
        _remove(manifest, rows)
        settle(manifest)
        if destination is not None and Path(destination).exists():
            _write_placed(manifest, destination)
    return len(rows)


def funnel(rows: Iterable[dict]) -> list[tuple[str, str, int]]:
    """What became of every candidate: list of (stage, reason, count), in the order of stages."""
    counts = Counter((row["stage"] or "open", row["reason"]) for row in rows)
    order = {stage: i for i, stage in enumerate((*STAGES[:-1], "open", "kept"))}
    return [
        (stage, reason, n)
        for (stage, reason), n in sorted(
            counts.items(), key=lambda c: (order[c[0][0]], -c[1], c[0])
        )
    ]


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
