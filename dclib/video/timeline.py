"""From answers to single frames to a line over time. Functions of arrays, one value a frame.

Margins are smoothed in log-odds, within a shot, over frames that could be judged. Times are in
seconds; a reason is "" for a frame that could be judged.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from dclib.predict import Z95

CUT = 0.18  # change from frame to frame (0 to 1) from which it can be a cut
TIMES = 3.0  # and so many times the usual change around it
SIGMA = 0.75  # seconds, of the Gaussian that smooths
APART = 2.0  # seconds at least from a turn to another moment to look at
Thumbnail = tuple[np.ndarray, np.ndarray]


def thumbnail(image: Image.Image) -> Thumbnail:
    """What changes are measured on, of an RGB image: (768,) colours and (48,) histogram, 0 to 1.

    The colours are those of 16 x 16 pixels; the histogram has 16 bins a channel.
    """
    pixels = np.asarray(image.resize((16, 16), reducing_gap=2.0), float) / 255
    counts = [np.histogram(pixels[..., c], 16, (0, 1))[0] for c in range(3)]
    return pixels.ravel(), np.concatenate(counts) / pixels.shape[0] / pixels.shape[1]


def change(before: Thumbnail, after: Thumbnail) -> float:
    """How much two thumbnails differ, 0 to 1: half by place, half by colours wherever they are."""
    return 0.5 * np.abs(before[0] - after[0]).mean() + np.abs(before[1] - after[1]).sum() / 12


def find_cuts(changes: ArrayLike, returns: ArrayLike) -> np.ndarray:
    """Whether a new shot begins with each frame: (N,) bool.

    Args:
        changes: (N,) `change` from the frame before.
        returns: (N,) `change` between the frames before and after this one; small where it was a
            flash. NaN where there is none.

    A cut changes much, and several times more than the second around it (motion changes every
    frame). Neither the first frame nor a flash of one frame is one.
    """
    changes, returns = np.asarray(changes, float), np.asarray(returns, float)
    cuts = np.zeros(len(changes), bool)
    for k in range(1, len(changes)):
        around = np.r_[changes[max(1, k - 4) : k], changes[k + 1 : k + 5]]
        usual = np.median(around) if len(around) else 0.0
        there = changes[k] > max(CUT, TIMES * usual)
        flash = returns[k] < CUT / 2 or (k > 1 and returns[k - 1] < CUT / 2)
        cuts[k] = there and not flash
    return cuts


def smooth(
    times: ArrayLike, margins: ArrayLike, sds: ArrayLike, shots: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smoothed margins and both ends of the 95 % band: (N,) each, NaN where `good` (N,) is False.

    The line is the mean with Gaussian weights (`SIGMA`) within a shot, the band that of
    `weighted_mean`. `times` rise within a shot; memory is linear in the number of frames.
    """
    times, margins, sds = (np.asarray(values, float) for values in (times, margins, sds))
    line, low, high = np.full((3, len(times)), np.nan)
    for shot in np.unique(shots):
        k = np.flatnonzero((shots == shot) & good)
        first = np.searchsorted(times[k], times[k] - 8 * SIGMA)  # further away: no weight
        after = np.searchsorted(times[k], times[k] + 8 * SIGMA, side="right")
        for at, *ends in zip(k, first, after, strict=True):
            near = k[slice(*ends)]
            weights = np.exp(-0.5 * ((times[near] - times[at]) / SIGMA) ** 2)
            line[at], reach = weighted_mean(weights, margins[near], sds[near])
            low[at], high[at] = line[at] - reach, line[at] + reach
    return line, low, high


def weighted_mean(weights: np.ndarray, margins: np.ndarray, sds: np.ndarray) -> tuple[float, float]:
    """Mean of margins (K,), and how far its 95 % band reaches to either side.

        sd^2 = sum_i w_i sd_i^2 / sum_i w_i + s^2 / n,     n = (sum_i w_i)^2 / sum_i w_i^2

    with s^2 the weighted variance of the margins, unbiased for such weights. The dropout's sd_i do
    not shrink with n, as all frames share one network; the frames count as independent, which they
    are not quite.
    """
    weights = weights / weights.sum()
    mean, inverse_n = float(weights @ margins), float(weights @ weights)
    variance = float(weights @ (margins - mean) ** 2) / max(1 - inverse_n, 1e-9)
    return mean, Z95 * float(np.sqrt(weights @ sds**2 + variance * inverse_n))


def by_second(
    times: np.ndarray, line: np.ndarray, low: np.ndarray, high: np.ndarray, reasons: np.ndarray
) -> list[dict[str, Any]]:
    """One dict a second: second, n (frames judged), of (all frames), reason, margin, low, high.

    Margin and band are means; where less than half of the frames were judged they are NaN and the
    reason is the most frequent one, else "".
    """
    seconds = np.floor(times + 1e-9).astype(int)
    rows: list[dict[str, Any]] = []
    for second in range(seconds.max() + 1):
        of = seconds == second
        good = of & (reasons == "")
        n, frames = int(good.sum()), int(of.sum())
        row: dict[str, Any] = {"second": second, "n": n, "of": frames, "reason": ""}
        if n * 2 >= max(frames, 1):
            means = [float(values[good].mean()) for values in (line, low, high)]
        else:
            bad = [text for text in reasons[of] if text]
            row["reason"] = max(set(bad), key=bad.count) if bad else "There is no frame."
            means = [np.nan] * 3
        rows.append(row | dict(zip(("margin", "low", "high"), means, strict=True)))
    return rows


def moments(
    times: np.ndarray, line: np.ndarray, shots: np.ndarray, n: int = 6
) -> list[dict[str, Any]]:
    """Moments to look at: at most n dicts of time, kind and question, in order of time.

    The extremes, then the sharpest turns within a shot (by 1 log-odds or more over two seconds) at
    least `APART` from what was chosen before. They are questions: the line says how the network
    reads pixels, not why.
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
    found: list[dict[str, Any]] = []
    for second, (label, reason) in enumerate(zip(labels, reasons, strict=True)):
        if found and (found[-1]["label"], found[-1]["reason"]) == (label, reason):
            found[-1]["end"] = second + 1.0
        else:
            ends = {"start": float(second), "end": second + 1.0}
            found.append(ends | {"label": label, "reason": reason})
    return found
