"""A film in, a line over time out: how the network reads the couple, second by second."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import find_evidence, fold_head
from dclib.files import extra
from dclib.framing import BEYOND, Frame, too_few
from dclib.framing.faces import find_faces
from dclib.photo.gate import why_not
from dclib.pictures import Boxes
from dclib.pictures.frames import Clip, VideoSource
from dclib.predict import extract_features, label_of
from dclib.video import timeline
from dclib.video.follow import NO_FACES, Followed

with extra("video"):
    import pandas as pd

NOT_SURE = "The network is not sure enough."
MARGINS = ("margin", "margin_sd")
Row = dict[str, Any]  # what is known of a frame


@dataclass(frozen=True)
class VideoResult:
    """How a network read a film.

    name, duration   of the film; seconds
    frames           a DataFrame, one row a sampled frame: time (seconds), shot, margin (log-odds
                     for unhappy, after temperature), margin_sd (of dropout), faces (NaN: nobody
                     looked), reason (why not assessable, or ""), smooth, low, high (line and band)
    maps             (N, h, w) float32, exact evidence for unhappy by cell, one scale for all; means
                     nothing where `looks` is None
    looks            what the network looked at in each frame, without its pixels; None: nothing
    threshold        probability of "unhappy" from which that is the label
    abstain          confidence below which there is no label, or None
    notes            sentences that belong beside it
    """

    name: str
    duration: float
    frames: pd.DataFrame
    maps: np.ndarray
    looks: tuple[Frame | None, ...]
    threshold: float
    abstain: float | None
    notes: tuple[str, ...]

    @property
    def scale(self) -> float:
        """Log-odds of full colour on all maps of this film: 99 % of the cells are below."""
        seen = np.abs(self.maps[[look is not None for look in self.looks]])
        return (float(np.quantile(seen, 0.99)) if seen.size else 0.0) or 1.0

    @property
    def cuts(self) -> list[float]:
        """Seconds at which a new shot begins."""
        return self.frames["time"][self.frames["shot"].diff() > 0].tolist()

    @property
    def seconds(self) -> pd.DataFrame:
        """A DataFrame, one row a second: second, margin, low, high, n, of, label, reason."""
        names = ("time", "smooth", "low", "high", "reason")
        rows = timeline.by_second(*(self.frames[name].to_numpy() for name in names))
        for row in rows:
            row["label"] = self.label(row["margin"])
            if row["label"] == NOT_ASSESSABLE and not row["reason"]:
                row["reason"] = NOT_SURE
        return pd.DataFrame(rows)

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Stretches of one label: see `dclib.video.timeline.spans`."""
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
        labels = self.seconds["label"].value_counts()
        counts = ", ".join(f"{n} {label}" for label, n in labels.items())
        head = f"{self.name}: {self.duration:.1f} s, {len(self.frames)} frames, {counts} (seconds)"
        return "\n".join([head, *(f"Note: {note}" for note in self.notes)])


def score_video(
    source: VideoSource,
    checkpoint: Checkpoint | str | Path,
    rate: float = 4.0,
    batch_size: int = 16,
    progress: bool = True,
    faces: Callable[[float], Boxes] | None = None,
) -> VideoResult:
    """How the network reads a film, as a `VideoResult`; not a finding about the people in it.

    Args:
        source: path or bytes of a video.
        checkpoint: a loaded `Checkpoint`, or the path of its folder.
        rate: frames judged a second, at most 60; 2 to 5 is enough for people.
        batch_size: frames that the network sees at once.
        faces: boxes in pixels at a time in seconds, where they are known (drawn films); else they
            are looked for: in every frame by a network that looks at faces, else once a second.

    Memory grows by one row and one small map a frame.
    Raises VideoError, FileNotFoundError, CheckpointError or ValueError.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    checkpoint = load_checkpoint(checkpoint)
    clip = Clip(source, rate)
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    frames = prepare(clip, checkpoint, faces)
    rows, maps, looks = [], [], []
    bar = tqdm(total=int(clip.duration * rate) or None, unit="frame", disable=not progress)
    with bar, ThreadPoolExecutor(1) as ahead:  # decodes while the network works
        waiting = ahead.submit(list, islice(frames, batch_size))
        while batch := waiting.result():
            waiting = ahead.submit(list, islice(frames, batch_size))
            images = torch.stack([image for image, *_ in batch])  # (B, 3, S, S)
            evidence = find_evidence(head, extract_features(checkpoint.model, images))
            values = torch.stack([evidence.margin, evidence.margin_sd], 1).double().cpu().tolist()
            rows += [
                row | ({"margin": m, "margin_sd": s} if seen else dict.fromkeys(MARGINS, np.nan))
                for (_, row, seen), (m, s) in zip(batch, values)
            ]
            looks += [seen for *_, seen in batch]
            maps.append(evidence.margin_map.float().cpu().numpy())
            bar.update(len(batch))
    return assemble(clip, checkpoint, rows, np.concatenate(maps), looks)


def prepare(
    clip: Clip, checkpoint: Checkpoint, known: Callable[[float], Boxes] | None
) -> Iterator[tuple[Tensor, Row, Frame | None]]:
    """Every frame as the network's input (3, S, S), its row but for the margins, and its look.

    Where there are no two faces to look at, the input is blank and the look None. The two are the
    same from frame to frame, up to a cut: see `dclib.video.follow`.
    """
    transform = checkpoint.transform
    blank = Image.new("RGB", (transform.size, transform.size), BEYOND)
    often = known is not None or transform.frame != "whole"
    every = 1 if often else max(1, round(clip.rate))  # frames from one look for faces to the next
    before: timeline.Thumbnail | None = None
    older: timeline.Thumbnail | None = None
    followed = Followed()
    for k, (time, image) in enumerate(clip):
        boxes: Boxes | None = None
        if known:
            boxes = known(time)
        elif k % every == 0 and not checkpoint.knows_only_drawings:
            boxes = [face.box for face in find_faces(image)]
        now = timeline.thumbnail(image)
        row: Row = {"time": time, "reason": " ".join(why_not(image))}
        row["faces"] = np.nan if boxes is None else float(len(boxes))
        row["change"] = timeline.change(before, now) if before else 0.0
        row["back"] = timeline.change(older, now) if older else np.nan
        if before and timeline.is_cut(before, now):
            followed.forget()
        frame, unseen = followed.frame(transform, image, time, boxes)
        row["reason"] = row["reason"] or unseen
        seen = frame and replace(frame, image=blank)  # pixels of all frames would fill the memory
        yield transform(frame or Frame(blank, (), blank.size)), row, seen
        older, before = before, now


def assemble(
    clip: Clip,
    checkpoint: Checkpoint,
    rows: list[Row],
    maps: np.ndarray,
    looks: Sequence[Frame | None],
) -> VideoResult:
    """The `VideoResult` of all rows: shots, faces between looks, line and band."""
    names = ["time", "margin", "margin_sd", "faces", "change", "back", "reason"]
    table = pd.DataFrame(rows, columns=names)
    back = np.r_[table.pop("back").to_numpy()[1:], np.nan]  # of the frames on both sides
    table["shot"] = timeline.find_cuts(table.pop("change"), back).cumsum()
    table["faces"] = table.groupby("shot")["faces"].transform(lambda faces: faces.ffill().bfill())
    few = table["faces"] < 2
    table.loc[few, "reason"] = [
        " ".join(filter(None, (reason, *too_few(int(faces)))))
        for reason, faces in zip(table.loc[few, "reason"], table.loc[few, "faces"])
    ]
    good = (table["reason"] == "").to_numpy()
    time, margin, sd, shot = (table[k].to_numpy() for k in ("time", "margin", "margin_sd", "shot"))
    table["smooth"], table["low"], table["high"] = timeline.smooth(time, margin, sd, shot, good)
    drawn = [DRAWINGS_ONLY] if checkpoint.knows_only_drawings else []
    if drawn and table["faces"].isna().all():
        drawn.append(NO_FACES)
    return VideoResult(
        name=clip.name,
        duration=clip.duration,
        frames=table,
        maps=maps,
        looks=tuple(looks),
        threshold=checkpoint.config["threshold"],
        abstain=checkpoint.abstain,
        notes=(*drawn, *clip.notes),
    )
