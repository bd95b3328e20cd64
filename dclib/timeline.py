"""From answers to single frames to a line over time. Functions of arrays, one value a frame.

Margins are smoothed in log-odds, within a shot, over frames that could be judged.
"""

import numpy as np
from PIL import Image

CUT = 0.18  # change from frame to frame (0 to 1) from which it can be a cut
TIMES = 3.0  # and so many times the usual change around it
SIGMA = 0.75  # seconds, of the Gaussian that smooths
Z95 = 1.96
HAPPY, UNHAPPY, NOT_ASSESSABLE = "happy", "unhappy", "not assessable"

Thumbnail = tuple[np.ndarray, np.ndarray]


def thumbnail(image: Image.Image) -> Thumbnail:
    """What changes are measured on: (16 * 16 * 3,) colours and (48,) histogram, of 0 to 1."""
    pixels = np.asarray(image.resize((16, 16), reducing_gap=2.0), float) / 255
    counts = [np.histogram(pixels[..., c], 16, (0, 1))[0] for c in range(3)]
    return pixels.ravel(), np.concatenate(counts) / pixels.shape[0] / pixels.shape[1]


def change(before: Thumbnail, after: Thumbnail) -> float:
    """How much two thumbnails differ, 0 to 1: half by place, half by colours wherever they are."""
    return 0.5 * np.abs(before[0] - after[0]).mean() + np.abs(before[1] - after[1]).sum() / 12


def find_cuts(changes, returns):
    """Whether a new shot begins with each frame: (N,) bool.

    Args:
        changes: (N,) change from the frame before.
        returns: (N,) change between the frames before and after this one; small where it was a
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


def smooth(times, margins, sds, shots, good, sigma=SIGMA):
    """Smoothed margins and the 95 % band: three arrays (N,), NaN where `good` is False.

    The band adds up what dropout would change (its standard deviation `sds` does not fall with more
    frames: they share their neurons) and how much frames differ from the line, divided by the
    effective number of frames, (sum w)^2 / sum w^2 of the Gaussian weights w.
    """
    times, margins, sds = (np.asarray(values, float) for values in (times, margins, sds))
    line, low, high = np.full((3, len(times)), np.nan)
    for shot in np.unique(shots):
        k = np.flatnonzero((shots == shot) & good)
        if not len(k):
            continue
        weights = np.exp(-0.5 * ((times[k, None] - times[k]) / sigma) ** 2)
        total = weights.sum(1)
        line[k] = weights @ margins[k] / total
        spread = (weights * (margins[k] - line[k][:, None]) ** 2).sum(1) / total
        n = total**2 / (weights**2).sum(1)
        reach = Z95 * np.sqrt((weights @ sds[k] / total) ** 2 + spread / n)
        low[k], high[k] = line[k] - reach, line[k] + reach
    return line, low, high


def by_second(times, line, low, high, reasons):
    """One dict a second: second, margin, low, high, n (frames judged), of, reason.

    Not assessable, with the most frequent reason and NaN, where less than half of its frames are.
    """
    seconds, rows = np.floor(np.asarray(times) + 1e-9).astype(int), []
    reasons = np.asarray(reasons, object)
    for second in range(seconds.max() + 1):
        of = seconds == second
        good = of & (reasons == "")
        row = {"second": second, "n": int(good.sum()), "of": int(of.sum()), "reason": ""}
        enough = good.sum() * 2 >= max(of.sum(), 1)
        values = (line, low, high)
        row |= {
            name: float(np.mean(v[good])) if enough else np.nan
            for name, v in zip(("margin", "low", "high"), values, strict=True)
        }
        if not enough:
            bad = [text for text in reasons[of] if text]
            row["reason"] = max(set(bad), key=bad.count) if bad else "There is no frame."
        rows.append(row)
    return rows


def moments(times, line, shots, n=6, apart=2.0):
    """Moments to look at: at most n dicts of time, kind and question, in order of time.

    The sharpest turns within a shot (over two seconds) and the extremes, at least `apart` seconds
    from each other. They are questions: the line says how the network reads pixels, not why.
    """
    found = []
    for shot in np.unique(shots):
        k = np.flatnonzero((shots == shot) & np.isfinite(line))
        for at in k:
            before = line[k[np.argmin(np.abs(times[k] - times[at] + 1))]]
            after = line[k[np.argmin(np.abs(times[k] - times[at] - 1))]]
            found.append((abs(after - before), times[at], "turn", np.sign(after - before)))
    finite = np.flatnonzero(np.isfinite(line))
    if not len(finite):
        return []
    extremes = [("most unhappy", finite[np.argmax(line[finite])])]
    extremes.append(("most happy", finite[np.argmin(line[finite])]))
    chosen = [{"time": float(times[k]), "kind": kind, "question": f"What is seen when the network "
               f"gives its {kind} answer?"} for kind, k in extremes]  # fmt: skip
    for size, time, kind, sign in sorted(found, reverse=True):
        if len(chosen) >= n or size < 1:  # log-odds
            break
        if all(abs(time - other["time"]) >= apart for other in chosen):
            way = "unhappy" if sign > 0 else "happy"
            question = f"What changes here, where the answer turns towards {way}?"
            chosen.append({"time": float(time), "kind": kind, "question": question})
    return sorted(chosen, key=lambda moment: moment["time"])


def spans(labels, reasons, length=1.0):
    """Stretches of equal label and reason: dicts of start, end (seconds), label, reason."""
    found = []
    for k, what in enumerate(zip(labels, reasons, strict=True)):
        if found and (found[-1]["label"], found[-1]["reason"]) == what:
            found[-1]["end"] = (k + 1) * length
        else:
            label, reason = what
            found.append(
                {"start": k * length, "end": (k + 1) * length, "label": label, "reason": reason}
            )
    return found
