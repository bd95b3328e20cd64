"""The record of a collection: one row for every picture that was ever offered, kept or not.

One SQLite file. A change is committed before the next one begins, so that a process can be killed
at any moment; while a run has the file open, a second run on the same folder is refused.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from dclib.files import writing
from dclib.scrape.sources import Candidate, identity

# A row's state: listed, later (tried again by the next run), refused (never again), fetched.
# Its stage: where a picture that was not kept was lost, in the order of the funnel.
STAGES = ("listing", "licence", "fetch", "quality", "duplicates", "split", "kept")
OFFERED = tuple(field.name for field in fields(Candidate))
KEYS = ("sha256", "pixel_sha256", "phash", "dhash", "phash_mirrored", "dhash_mirrored")
MEASURES = ("width", "height", "bytes", "red", "green", "blue")

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS queries (
    id INTEGER PRIMARY KEY, source TEXT, label TEXT, query TEXT, next TEXT,
    pages INTEGER DEFAULT 0, UNIQUE (source, label, query)
);
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY, identity TEXT, source TEXT, label TEXT, query TEXT,
    {" ".join(f"{name} TEXT," for name in OFFERED)}
    state TEXT DEFAULT 'listed', stage TEXT DEFAULT '', reason TEXT DEFAULT '',
    detail TEXT DEFAULT '', tries INTEGER DEFAULT 0, time TEXT DEFAULT '',
    file TEXT DEFAULT '', {" ".join(f"{name} TEXT DEFAULT ''," for name in KEYS)}
    {" ".join(f"{name} DEFAULT ''," for name in MEASURES)}
    "group" TEXT DEFAULT '', split TEXT DEFAULT '',
    UNIQUE (source, label, query, identity)
);
CREATE INDEX IF NOT EXISTS by_identity ON pictures (identity);
CREATE TABLE IF NOT EXISTS forgotten (
    identity TEXT, {" ".join(f"{name} TEXT," for name in KEYS)} time TEXT
);
"""


class Manifest:
    """The manifest of a folder; use it in a `with` statement.

    Raises RuntimeError while another run has it open, ValueError for a file that is damaged or not
    ours, OSError where nothing can be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.path = path = self.folder / "manifest.sqlite"
        try:
            self._open()
        except sqlite3.OperationalError as error:
            raise RuntimeError(
                f"{path} cannot be used ({error}): another run has this folder open, or it cannot "
                "be written."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path} is no manifest, or a damaged one ({error}): put a copy of it back, or "
                "choose another folder."
            ) from error

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=0.5)
        self._db.row_factory = sqlite3.Row
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            tables = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if others := {row["name"] for row in tables} - {"queries", "pictures", "forgotten"}:
                raise sqlite3.DatabaseError(f"it has a table {min(others)}")
            self._db.execute("PRAGMA journal_mode = WAL")  # a commit costs no wait for the disk
            self._db.executescript(SCHEMA)
            if (fault := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(fault)
        except sqlite3.Error:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Changes that are kept all together or, after a kill or on a full disk, not at all."""
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path} cannot be written ({error}): make room first.") from error

    def rows(self, where: str = "1", values: Sequence[str] = ()) -> list[dict]:
        """Pictures that meet a condition (SQL, `?` for values), in the order they were offered."""
        cursor = self._db.execute(f"SELECT * FROM pictures WHERE {where} ORDER BY id", values)
        return [dict(row) for row in cursor]

    def forgotten(self) -> list[dict]:
        """What is known of pictures that are not to come back: identity, `KEYS` and time."""
        return [dict(row) for row in self._db.execute("SELECT * FROM forgotten ORDER BY rowid")]

    def query(self, source: str, label: str, query: str, first: str | None) -> dict:
        """Where a listing stands: id, next (`first` if new, None at the end), pages, count."""
        key = (source, label, query)
        with self._change():
            self._insert("queries", dict(zip(("source", "label", "query"), key)) | {"next": first})
        same = "source = ? AND label = ? AND query = ?"
        state = dict(self._db.execute(f"SELECT * FROM queries WHERE {same}", key).fetchone())
        count = self._db.execute(f"SELECT COUNT(*) FROM pictures WHERE {same}", key).fetchone()[0]
        return state | {"count": count}

    def add_page(self, state: dict, candidates: Iterable[Candidate], next_page: str | None) -> None:
        """One page of results of a `query`, and where the next one is, in one transaction."""
        with self._change():
            for candidate in candidates:
                self._add(state, candidate)
            change = "UPDATE queries SET next = ?, pages = pages + 1 WHERE id = ?"
            self._db.execute(change, (next_page, state["id"]))

    def _add(self, state: dict, candidate: Candidate) -> None:
        row = {name: state[name] for name in ("source", "label", "query")} | asdict(candidate)
        row |= {"identity": identity(candidate.url) or candidate.url, "time": now()}
        reason = row["objection"]
        if self.rows("identity = ?", (row["identity"],)):
            reason = "listed before"
        if self._db.execute("SELECT 1 FROM forgotten WHERE identity = :identity", row).fetchone():
            reason = "forgotten"
        if reason:
            row |= {"state": "refused", "stage": "listing", "reason": reason}
        self._insert("pictures", row)

    def _insert(self, table: str, row: dict) -> None:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self._db.execute(
            f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", tuple(row.values())
        )

    def update(self, changes: Mapping[int, dict]) -> None:
        """Set columns of rows, {id: {column: value}}: all of them or, after a kill, none."""
        with self._change():
            for row_id, values in changes.items():
                self._set(row_id, values)

    def _set(self, row_id: int, values: dict) -> None:
        places = ", ".join(f'"{name}" = ?' for name in values)
        self._db.execute(f"UPDATE pictures SET {places} WHERE id = ?", (*values.values(), row_id))

    def forget(self, rows: Iterable[dict]) -> None:
        """Keep of these rows only what is needed to refuse the pictures when they come again."""
        empty = dict.fromkeys([*OFFERED, "file", *KEYS, *MEASURES, "group", "split"], "")
        empty |= {"state": "refused", "stage": "listing", "reason": "forgotten", "detail": ""}
        with self._change():
            for row in rows:
                self._set(row["id"], empty)
                keys = {name: row[name] for name in KEYS} | {"time": now()}
                for known_as in {row["identity"], identity(row["url"])}:  # thumbnail, full size
                    self._insert("forgotten", {"identity": known_as} | keys)


def now() -> str:
    """The time as it is written into the manifest: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
