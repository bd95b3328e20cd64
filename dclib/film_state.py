"""What is done of a film, kept in a folder so that a call that was cut off can go on."""

import contextlib
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dclib.checkpoint import Checkpoint
from dclib.files import file_hash, save_json, write_whole
from dclib.frames import VideoSource

COLUMNS = ("time", "margin", "margin_sd", "faces", "change", "back")

Row = dict[str, Any]  # of a frame: `COLUMNS` and "reason", without the margins until it is judged


class FilmState:
    """What is done of a film, in a folder; without a folder nothing is kept."""

    def __init__(
        self,
        folder: str | Path | None,
        source: VideoSource,
        checkpoint: Checkpoint,
        rate: float,
        batch_size: int,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.about: dict[str, Any] = {"rate": rate, "batch_size": batch_size}
        self.about["weights"] = checkpoint.config["weights_sha256"]
        self.about["temperature"] = checkpoint.config["temperature"]
        if folder is not None:
            self.about["film"] = fingerprint(source)

    def load(self) -> tuple[list[Row], list[np.ndarray]]:
        """Rows and maps so far; ValueError if they are of something else."""
        if self.folder is None or not (self.folder / "about.json").exists():
            return [], []
        try:
            about = json.loads((self.folder / "about.json").read_text())
        except ValueError as error:
            raise self._unreadable("about.json") from error
        if about != self.about:
            raise ValueError(
                f"{self.folder} holds the state of another film, network, rate or batch size; "
                "delete it or choose another folder."
            )
        if not (self.folder / "done.npz").exists():
            return [], []
        try:
            with (
                (self.folder / "done.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as done,
            ):
                table, reasons, maps = done["table"], done["reasons"].tolist(), [done["maps"]]
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
            raise self._unreadable("done.npz") from error
        rows = [dict(zip(COLUMNS, values)) for values in table.tolist()]
        return [row | {"reason": reason} for row, reason in zip(rows, reasons)], maps

    def _unreadable(self, name: str) -> ValueError:
        return ValueError(f"{self.folder}/{name} cannot be read; delete the folder to begin again.")

    def save(self, rows: list[Row], maps: list[np.ndarray], whole: bool) -> None:
        """Keep what is done; only whole batches, so that going on makes the same ones."""
        if self.folder is None or not whole:
            return
        save_json(self.folder / "about.json", self.about)
        table = np.array([[row[name] for name in COLUMNS] for row in rows])
        reasons = np.array([row["reason"] for row in rows])
        with write_whole(self.folder / "done.npz") as unfinished, unfinished.open("wb") as file:
            np.savez(file, table=table, reasons=reasons, maps=np.concatenate(maps))

    def forget(self) -> None:
        """Remove the files, and the folder if nothing else is in it."""
        if self.folder is None or not self.folder.exists():
            return
        for name in ("about.json", "done.npz"):
            for path in (self.folder / name, self.folder / f"{name}.unfinished"):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files are in it
            self.folder.rmdir()


def fingerprint(source: VideoSource) -> str:
    """SHA-256 of a film."""
    if isinstance(source, (str, Path)):
        return file_hash(source)
    return hashlib.sha256(source).hexdigest()
