"""How often the labels of films are right: seconds of one film, and films as the unit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dclib.data import NOT_ASSESSABLE
from dclib.evaluate.intervals import TAILS, Accuracy, proportion, wilson_interval
from dclib.pictures import Boxes
from dclib.video import VideoResult

DRAWS = 2000


@dataclass(frozen=True)
class TimelineScore:
    """Labels of one film against what is drawn in it.

    accuracy    share of right labels among seconds that have a mood and a label; its interval is
                Wilson's with `stretches` for n, as seconds of one mood are no independent trials
    seconds     that have both
    stretches   of one mood
    coverage    share of the seconds with a mood that have a label
    empty       (declined, n): seconds without a mood, and how many of them got no label
    delays      seconds from each change of mood to the right label, NaN if it never came in time
    """

    accuracy: Accuracy
    seconds: int
    stretches: int
    coverage: float
    empty: tuple[int, int]
    delays: list[float]

    def __str__(self) -> str:
        a, (declined, n) = self.accuracy, self.empty
        delays = ", ".join("never" if np.isnan(d) else f"{d:+.2f} s" for d in self.delays)
        return (
            f"right in {a.accuracy:.3f} of {self.seconds} labelled seconds (95 % interval "
            f"{a.low:.3f} to {a.high:.3f}, by {self.stretches} stretches of one mood); labels for "
            f"{self.coverage:.0%}\n"
            f"no label in {declined} of {n} seconds without a mood to tell\n"
            f"delay at changes: {delays or 'there is none'}"
        )


def known_faces(truth: dict) -> Callable[[float], Boxes]:
    """What `score_video` takes as the `faces` of a film of `dclib.drawn.render_film`."""
    return lambda time: truth["faces"][min(round(time * truth["rate"]), len(truth["faces"]) - 1)]


def score_timeline(result: VideoResult, truth: dict) -> TimelineScore:
    """How a film was read, against the truth of `dclib.drawn.render_film` in mid-second."""
    table = result.seconds
    moods = [
        next((part["mood"] for part in truth["moods"] if part["start"] <= t < part["end"]), None)
        for t in table["second"] + 0.5
    ]
    has = np.array([mood is not None for mood in moods])
    labelled = (table["label"] != NOT_ASSESSABLE).to_numpy()
    scored = has & labelled
    right = int((table["label"].to_numpy()[scored] == np.array(moods, object)[scored]).sum())
    n, stretches = int(scored.sum()), sum(part["mood"] is not None for part in truth["moods"])
    if not n:
        raise ValueError(f"{result.name} has no second with both a mood and a label.")
    accuracy = Accuracy(right / n, n, *wilson_interval(right / n * stretches, stretches))
    empty = int((~has & ~labelled).sum()), int((~has).sum())
    delays = [_delay(result, truth, change) for change in truth["changes"]]
    return TimelineScore(accuracy, n, stretches, float(labelled[has].mean()), empty, delays)


def _delay(result: VideoResult, truth: dict, change: float) -> float:
    """Seconds from a change to the frame from which on the label is the new one, or NaN."""
    part = next(part for part in truth["moods"] if part["start"] == change)
    before = next(part for part in truth["moods"] if part["end"] == change)
    since = float("nan")
    for row in result.frames.itertuples():
        if (before["start"] + change) / 2 < row.time < part["end"]:
            if result.label(row.smooth) != part["mood"]:
                since = float("nan")
            elif np.isnan(since):
                since = row.time - change
    return since


@dataclass(frozen=True)
class FilmsScore:
    """Films as the unit, and their frames; see `evaluate_films`.

    films      share of right labels among the films that have one
    frames     share of right labels among the n_frames that have one, with interval low to high
    coverage   mean share of a film's seconds that have a label
    """

    films: Accuracy
    without_label: int
    frames: float
    low: float
    high: float
    n_frames: int
    coverage: float

    def __str__(self) -> str:
        return (
            f"films: {self.films}; {self.without_label} without a label\n"
            f"frames: {self.frames:.3f} right (95 % interval {self.low:.3f} to {self.high:.3f}, "
            f"n = {self.n_frames}, drawn by film); labels for {self.coverage:.0%} of the seconds"
        )


def evaluate_films(results: Sequence[VideoResult], labels: Sequence[str]) -> FilmsScore:
    """Accuracy over films, given the true label of each.

    The label of a film is that of the mean of its smoothed line over assessable frames; the
    interval is Wilson's over films that got one. Frames of a film resemble each other, so the
    interval of their accuracy comes from drawing whole films (cluster bootstrap, percentiles), or
    is Wilson's of as many trials as films where all films have the same share.
    """
    if len(results) != len(labels) or not len(results):
        raise ValueError(f"Give one label for each film, not {len(labels)} for {len(results)}.")
    answers = [result.label(result.frames["smooth"].mean()) for result in results]
    judged = [a == label for a, label in zip(answers, labels) if a != NOT_ASSESSABLE]
    if not judged:
        raise ValueError("No film could be judged.")
    counts = np.array([_right_frames(r, label) for r, label in zip(results, labels)])  # (N, 2)
    drawn = np.random.default_rng(0).integers(len(counts), size=(DRAWS, len(counts)))
    sums = counts[drawn].sum(1)  # (DRAWS, 2)
    shares = sums[sums[:, 1] > 0]
    low, high = np.quantile(shares[:, 0] / shares[:, 1], TAILS)
    right, n = counts.sum(0)
    if low == high:
        low, high = wilson_interval(right / n * len(counts), len(counts))
    coverage = float(np.mean([result.coverage for result in results]))
    films, missing = proportion(sum(judged), len(judged)), len(results) - len(judged)
    return FilmsScore(films, missing, float(right / n), float(low), float(high), int(n), coverage)


def _right_frames(result: VideoResult, label: str) -> tuple[int, int]:
    """(right, assessable) frames of one film, each by its own margin."""
    table = result.frames[result.frames["reason"] == ""]
    answers = table["margin"].map(result.label)
    return int((answers == label).sum()), int((answers != NOT_ASSESSABLE).sum())
