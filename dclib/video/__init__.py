"""A film in, a line over time out: how the network reads the couple, second by second."""

import contextlib
import hashlib
import json
import queue
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import find_evidence, fold_head
from dclib.files import extra, file_hash, save_json, write_whole
from dclib.frames import Clip, VideoSource, read_frames
from dclib.photo import faces as assess
from dclib.predict import extract_features, label_of
from dclib.video import timeline

with extra("video"):
    import pandas as pd

NO_FACES = "Faces were not looked for: what finds them knows photographs only."
NOT_SURE = "The network is not sure enough."
COLUMNS = ("time", "margin", "margin_sd", "faces", "change", "back")
Row = dict[str, Any]  # of a frame: `COLUMNS` and "reason", without the margins until it is judged
Prepared = tuple[Tensor, Row]  # the network's input (3, S, S) of a frame, and its row


@dataclass(frozen=True)
class VideoResult:
    """How a network read a film.

    name, duration   of the film; seconds
    frames           a DataFrame, one row a sampled frame: time (seconds), shot, margin (log-odds
                     for unhappy, after temperature), margin_sd (of dropout), faces (NaN: nobody
                     looked), reason (why not assessable, or ""), smooth, low, high (line and band)
    maps             (N, h, w) float32, exact evidence for unhappy by cell, one scale for all
    size             pixels a side of the network's input
    threshold        probability of "unhappy" from which that is the label
    abstain          confidence below which there is no label, or None
    notes            sentences that belong beside it
    """

    name: str
    duration: float
    frames: pd.DataFrame
    maps: np.ndarray
    size: int
    threshold: float
    abstain: float | None
    notes: tuple[str, ...]

    @property
    def cuts(self) -> list[float]:
        """Seconds at which a new shot begins."""
        return self.frames["time"][self.frames["shot"].diff() > 0].tolist()

    @property
    def seconds(self) -> pd.DataFrame:
        """A DataFrame, one row a second: second, margin, low, high, n, of, label, reason."""
        table = self.frames
        columns = (table[name].to_numpy() for name in ("time", "smooth", "low", "high", "reason"))
        rows = timeline.by_second(*columns)
        for row in rows:
            row["label"] = self.label(row["margin"])
            if row["label"] == NOT_ASSESSABLE and not row["reason"]:
                row["reason"] = NOT_SURE
        return pd.DataFrame(rows)

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Stretches of one label: dicts of start, end (seconds), label, reason."""
        table = self.seconds
        return timeline.spans(table["label"], table["reason"])

    @property
    def coverage(self) -> float:
        """Share of the seconds that got a label."""
        return float((self.seconds["label"] != NOT_ASSESSABLE).mean())

    def label(self, margin: float) -> str:
        """What a margin is called here: see `dclib.predict.label_of`."""
        return label_of(margin, self.threshold, self.abstain)

    def at(self, time: float) -> int:
        """The row of the last frame judged at or before a time in seconds; else of the first."""
        times = self.frames["time"].to_numpy()
        return max(0, int(np.searchsorted(times, time + 1e-6)) - 1)

    def moments(self, n: int = 6) -> list[dict[str, Any]]:
        """At most n moments to look at, as `dclib.video.timeline.moments` finds them."""
        time, line, shot = (self.frames[name].to_numpy() for name in ("time", "smooth", "shot"))
        return timeline.moments(time, line, shot, n)

    def __str__(self) -> str:
        table = self.seconds
        counts = ", ".join(f"{n} {label}" for label, n in table["label"].value_counts().items())
        head = f"{self.name}: {self.duration:.1f} s, {len(self.frames)} frames, {counts} (seconds)"
        return "\n".join([head, *(f"Note: {note}" for note in self.notes)])


def score_video(
    source: VideoSource,
    checkpoint: Checkpoint | str | Path,
    rate: float = 4.0,
    batch_size: int = 16,
    progress: bool = True,
    resume: str | Path | None = None,
) -> VideoResult:
    """How the network reads a film, as a `VideoResult`; not a finding about the people in it.

    Args:
        source: path or bytes of a video.
        checkpoint: a loaded `Checkpoint`, or the path of its folder.
        rate: frames judged a second, at most 60; 2 to 5 is enough for people.
        batch_size: frames that the network sees at once.
        progress: show a bar.
        resume: a folder that keeps what is done; a call that was cut off goes on from there, with
            the same result. What it keeps is removed at the end, and the folder if that was all.

    Frames are decoded ahead in a thread while the network works; memory grows by one row and one
    small map a frame only. Faces are looked for once a second.
    Raises VideoError, FileNotFoundError, CheckpointError, or ValueError for a rate that is no such
    number, a batch size below 1, and the state of another film, network, rate or batch size in
    `resume`, or one that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    checkpoint = load_checkpoint(checkpoint)
    clip = read_frames(source, rate)
    state = FilmState(resume, source, checkpoint, rate, batch_size)
    rows, maps = state.load()
    total = int(clip.duration * rate) or None  # as the file says, if it does
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    bar = tqdm(total=total, initial=len(rows), unit="frame", disable=not progress)
    with bar, Ahead(prepare(clip, checkpoint, rate, len(rows)), 2 * batch_size) as ahead:
        for batch in batches(ahead, batch_size):
            images = torch.stack([image for image, _ in batch])  # (B, 3, S, S)
            evidence = find_evidence(head, extract_features(checkpoint.model, images))
            values = torch.stack([evidence.margin, evidence.margin_sd], 1).double().cpu().tolist()
            rows += [row | {"margin": m, "margin_sd": s} for (_, row), (m, s) in zip(batch, values)]
            maps.append(evidence.margin_map.float().cpu().numpy())
            state.save(rows, maps, whole=len(batch) == batch_size)
            bar.update(len(batch))
    result = assemble(clip, checkpoint, rows, np.concatenate(maps))
    state.forget()
    return result


def prepare(clip: Clip, checkpoint: Checkpoint, rate: float, done: int) -> Iterator[Prepared]:
    """Every frame but the first `done`, which are known already, ready to be judged."""
    every = max(1, round(rate))  # frames from one look for faces to the next
    before: timeline.Thumbnail | None = None
    older: timeline.Thumbnail | None = None
    for k, (time, image) in enumerate(clip):
        now = timeline.thumbnail(image)
        if k >= done:
            look = k % every == 0 and not checkpoint.knows_only_drawings
            row: Row = {"time": time, "reason": " ".join(assess.why_not(image))}
            row["faces"] = float(len(assess.find_faces(image))) if look else np.nan
            row["change"] = timeline.change(before, now) if before else 0.0
            row["back"] = timeline.change(older, now) if older else np.nan
            yield checkpoint.transform(image), row
        older, before = before, now


def batches(items: Iterable[Prepared], size: int) -> Iterator[list[Prepared]]:
    """Lists of `size` items, the last one shorter."""
    batch: list[Prepared] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Ahead:
    """Iterate over items that a thread makes ahead, at most `size` of them.

    To be used as a context, once; what goes wrong in the thread is raised where the items are used.
    """

    def __init__(self, items: Iterable[Prepared], size: int) -> None:
        self.items, self.stopped = items, threading.Event()
        self.queue: queue.Queue[Prepared | Exception | None] = queue.Queue(size)  # None: the end
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "Ahead":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def run(self) -> None:
        """What the thread does: make items until all are made or nobody wants more."""
        try:
            for item in self.items:
                self.put(item)
                if self.stopped.is_set():
                    return
            self.put(None)
        except Exception as error:
            self.put(error)

    def put(self, item: Prepared | Exception | None) -> None:
        """Wait for a free place in the queue, but not after the end of the context."""
        while not self.stopped.is_set():
            try:
                return self.queue.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[Prepared]:
        while (item := self.queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


def assemble(clip: Clip, checkpoint: Checkpoint, rows: list[Row], maps: np.ndarray) -> VideoResult:
    """The `VideoResult` of all rows: shots, faces between looks, line and band."""
    table = pd.DataFrame(rows, columns=[*COLUMNS, "reason"])
    back = np.r_[table["back"].to_numpy()[1:], np.nan]  # of the frames on both sides of this one
    cuts = timeline.find_cuts(table["change"], back)
    table["shot"] = cuts.cumsum()
    table["faces"] = table.groupby("shot")["faces"].transform(lambda faces: faces.ffill().bfill())
    few = table["faces"] < 2
    table.loc[few, "reason"] = [
        " ".join(filter(None, (reason, *assess.too_few(int(faces)))))
        for reason, faces in zip(table.loc[few, "reason"], table.loc[few, "faces"])
    ]
    good = (table["reason"] == "").to_numpy()
    time, margin, sd, shot = (table[k].to_numpy() for k in ("time", "margin", "margin_sd", "shot"))
    table = table.drop(columns=["change", "back"])
    table["smooth"], table["low"], table["high"] = timeline.smooth(time, margin, sd, shot, good)
    drawn = (DRAWINGS_ONLY, NO_FACES) if checkpoint.knows_only_drawings else ()
    return VideoResult(
        name=clip.name,
        duration=clip.duration,
        frames=table,
        maps=maps,
        size=checkpoint.config["image_size"],
        threshold=checkpoint.config["threshold"],
        abstain=checkpoint.abstain,
        notes=(*drawn, *clip.notes),
    )


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
