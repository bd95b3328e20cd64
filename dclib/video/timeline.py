"""From answers to single frames to a line over time: functions of arrays, one value a frame.

Margins are in log-odds for unhappy, times in seconds; a reason is "" where a frame could be judged.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from dclib.predict import Z95

CUT = 0.18  # change from frame to frame (0 to 1) from which it can be a cut
TIMES = 3.0  # and so many times the usual change around it
ALIKE = 0.5  # correlation of colours by place from which only the light or the camera has changed
SIGMA = 0.75  # seconds, of the Gaussian that smooths
APART = 2.0  # seconds at least from a turn to another moment to look at
Thumbnail = tuple[np.ndarray, np.ndarray]


def thumbnail(image: Image.Image) -> Thumbnail:
    """What changes are measured on: colours of 16 x 16 pixels (768,), a histogram (48,), 0 to 1."""
    pixels = np.asarray(image.resize((16, 16), reducing_gap=2.0), float) / 255
    counts = [np.histogram(pixels[..., c], 16, (0, 1))[0] for c in range(3)]
    return pixels.ravel(), np.concatenate(counts) / pixels.shape[0] / pixels.shape[1]


def change(before: Thumbnail, after: Thumbnail) -> float:
    """How much two thumbnails differ, 0 to 1: half by place, half by colours wherever they are."""
    return 0.5 * np.abs(before[0] - after[0]).mean() + np.abs(before[1] - after[1]).sum() / 12


def is_cut(before: Thumbnail, after: Thumbnail) -> bool:
    """Whether two thumbnails show two scenes, not one in another light, without looking ahead."""
    first, second = ((c - c.mean()) / max(c.std(), 1 / 255) for c, _ in (before, after))
    return bool(change(before, after) > CUT and (first * second).mean() < ALIKE)


def find_cuts(changes: ArrayLike, returns: ArrayLike) -> np.ndarray:
    """Whether a new shot begins with each frame of a film: (N,) bool.

    `changes` (N,) are from the frame before, `returns` (N,) between the frames before and after
    this one, or NaN. A cut changes much, and several times more than the second around it, as
    motion changes every frame. In a flash, which is none, the frames before and after are alike.
    """
    changes, returns = np.asarray(changes, float), np.asarray(returns, float)
    cuts = np.zeros(len(changes), bool)
    for k in range(1, len(changes)):
        around = np.r_[changes[max(1, k - 4) : k], changes[k + 1 : k + 5]]
        usual = np.median(around) if len(around) else 0.0
        flash = returns[k] < CUT / 2 or (k > 1 and returns[k - 1] < CUT / 2)
        cuts[k] = changes[k] > max(CUT, TIMES * usual) and not flash
    return cuts


def smooth(
    times: ArrayLike, margins: ArrayLike, sds: ArrayLike, shots: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The line over a film: margins smoothed by a Gaussian in time, within each shot.

    All arguments are (N,), one value a frame; `times` rise, `sds` are the margins' standard
    deviations under dropout, `good` says which frames could be judged. Returns line, low and high,
    (N,) each: the mean and both ends of its 95 % band, NaN where a frame could not be judged.
    """
    times, margins, sds = (np.asarray(values, float) for values in (times, margins, sds))
    line, low, high = np.full((3, len(times)), np.nan)
    for shot in np.unique(shots):
        frames = np.flatnonzero((shots == shot) & good)  # a cut starts anew
        first = np.searchsorted(times[frames], times[frames] - 8 * SIGMA)  # further: no weight
        end = np.searchsorted(times[frames], times[frames] + 8 * SIGMA, side="right")
        for k, i, j in zip(frames, first, end):
            near = frames[i:j]
            weights = np.exp(-0.5 * ((times[near] - times[k]) / SIGMA) ** 2)
            line[k], reach = weighted_mean(weights, margins[near], sds[near])
            low[k], high[k] = line[k] - reach, line[k] + reach
    return line, low, high


def weighted_mean(weights: np.ndarray, margins: np.ndarray, sds: np.ndarray) -> tuple[float, float]:
    """Mean of margins (K,), and how far its 95 % band reaches to either side.

        sd^2 = sum_i w_i sd_i^2 / sum_i w_i + s^2 / n,     n = (sum_i w_i)^2 / sum_i w_i^2

    with s^2 the weighted variance of the margins, unbiased for such weights. The dropout's sd_i do
    not shrink with n, as all frames share one network; the frames count as independent.
    """
    weights = weights / weights.sum()
    mean, inverse_n = float(weights @ margins), float(weights @ weights)
    variance = float(weights @ (margins - mean) ** 2) / max(1 - inverse_n, 1e-9)
    return mean, Z95 * float(np.sqrt(weights @ sds**2 + variance * inverse_n))


def by_second(
    times: np.ndarray, line: np.ndarray, low: np.ndarray, high: np.ndarray, reasons: np.ndarray
) -> list[dict[str, Any]]:
    """One dict a second: second, n (frames judged), of (all frames), reason, margin, low, high.

    Where less than half of the frames were judged, the means are NaN and the reason is the usual.
    """
    seconds = np.floor(times + 1e-9).astype(int)
    rows: list[dict[str, Any]] = []
    for second in range(seconds.max() + 1):
        within = seconds == second
        good = within & (reasons == "")
        n, total = int(good.sum()), int(within.sum())
        row: dict[str, Any] = {"second": second, "n": n, "of": total, "reason": ""}
        if n * 2 >= max(total, 1):
            means = [float(values[good].mean()) for values in (line, low, high)]
        else:
            bad = [text for text in reasons[within] if text]
            row["reason"] = max(set(bad), key=bad.count) if bad else "There is no frame."
            means = [np.nan] * 3
        rows.append(row | dict(zip(("margin", "low", "high"), means)))
    return rows


def moments(
    times: np.ndarray, line: np.ndarray, shots: np.ndarray, n: int = 6
) -> list[dict[str, Any]]:
    """Moments to look at: at most n dicts of time, kind and question, in order of time.

    The extremes, then the sharpest turns within a shot (by 1 log-odds or more over two seconds), at
    least `APART` from each other.
    """
    if not np.isfinite(line).any():
        return []
    turns = []
    for shot in np.unique(shots):
        k = np.flatnonzero((shots == shot) & np.isfinite(line))
        for at in k:
            before = line[k[np.argmin(np.abs(times[k] - times[at] + 1))]]
            after = line[k[np.argmin(np.abs(times[k] - times[at] - 1))]]
            if abs(after - before) >= 1:
                turns.append((abs(after - before), times[at], after > before))
    extremes = {np.nanargmin(line): "most happy", np.nanargmax(line): "most unhappy"}
    chosen: list[dict[str, Any]] = []
    for frame, kind in extremes.items():
        question = f"What is seen when the network gives its {kind} answer?"
        chosen.append({"time": float(times[frame]), "kind": kind, "question": question})
    for _, time, up in sorted(turns, reverse=True):
        if all(abs(time - other["time"]) >= APART for other in chosen):
            way = "unhappy" if up else "happy"
            question = f"What changes here, where the answer turns towards {way}?"
            chosen.append({"time": float(time), "kind": "turn", "question": question})
    return sorted(chosen[:n], key=lambda moment: moment["time"])


def spans(labels: Iterable[str], reasons: Iterable[str]) -> list[dict[str, Any]]:
    """Stretches of equal label and reason, given one a second: dicts of start, end, label, reason.

    >>> spans(["happy", "happy", "unhappy"], ["", "", ""])[1]
    {'start': 2.0, 'end': 3.0, 'label': 'unhappy', 'reason': ''}
    """
    stretches, second = [], 0.0
    for (label, reason), group in groupby(zip(labels, reasons, strict=True)):
        end = second + len(list(group))
        stretches.append({"start": second, "end": end, "label": label, "reason": reason})
        second = end
    return stretches
