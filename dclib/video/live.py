"""A line over time that grows with every frame of a camera, without looking ahead."""

import csv
import io
import math
from dataclasses import astuple, dataclass, fields

import numpy as np
from PIL import Image

from dclib.data import NOT_ASSESSABLE
from dclib.photo import label_of, not_sure, sigmoid
from dclib.timeline import weighted_mean

TAU = 2.0  # seconds in which the weight of a frame falls to 37 %
PAUSE = 3.0  # seconds without a frame after which smoothing starts anew
SAME_COLOURS, SAME_PLACES = 0.6, 0.5  # below both of them two frames show two scenes


@dataclass(frozen=True)
class State:
    """What is known once a frame has been answered.

    time        of the frame, in seconds
    shot        counts what was smoothed apart: +1 at a cut or after a pause
    margin      this frame's log-odds for unhappy, after temperature
    smooth      of the frames so far, in log-odds; `low` and `high` hold 95 %. NaN if not assessable
    label       "happy", "unhappy" or "not assessable"; why the last, see `reason`
    """

    time: float
    shot: int
    margin: float
    smooth: float
    low: float
    high: float
    label: str
    reason: str


class LiveTimeline:
    """Answers smoothed as they come, in log-odds, without looking ahead.

        smooth(t) = sum_i w_i m_i / sum_i w_i,      w_i = exp(-(t - t_i) / tau)

    over the assessable frames i of the shot, with the band of `dclib.timeline.weighted_mean`. Not
    assessable: where such frames hold less than half of the weight, and where
    `dclib.photo.not_sure` says so. Frames older than 8 tau weigh nothing.
    """

    def __init__(
        self, threshold: float = 0.5, abstain: float | None = None, tau: float = TAU
    ) -> None:
        self.threshold, self.abstain, self.tau = threshold, abstain, tau
        self.states: list[State] = []
        self.recent: list[tuple[float, float, float, str]] = []  # time, margin, margin_sd, reason

    def add(
        self,
        time: float,
        margin: float,
        margin_sd: float = 0.0,
        reason: str = "",
        cut: bool = False,
    ) -> State:
        """The `State` after a frame; `reason` says why the frame alone is not assessable.

        Raises ValueError for a time before the last.
        """
        last = self.states[-1] if self.states else None
        if last and time < last.time:
            raise ValueError(f"A frame of {time} s came after one of {last.time} s.")
        anew = last is None or cut or time - last.time > PAUSE
        self.recent = [] if anew else [f for f in self.recent if time - f[0] < 8 * self.tau]
        self.recent.append((time, margin, margin_sd, reason))
        shot = (last.shot if last else -1) + anew
        self.states.append(State(time, shot, margin, *self._smooth(time)))
        return self.states[-1]

    def _smooth(self, now: float) -> tuple[float, float, float, str, str]:
        """Smooth, low, high, label and reason of a `State`."""
        times, margins, sds = np.array([frame[:3] for frame in self.recent]).T
        reasons = [reason for *_, reason in self.recent]
        usable = np.array([not reason for reason in reasons])
        weights = np.exp((times - now) / self.tau)
        if weights[usable].sum() < weights.sum() / 2:
            nan = math.nan
            return nan, nan, nan, NOT_ASSESSABLE, [reason for reason in reasons if reason][-1]
        smooth, reach = weighted_mean(weights[usable], margins[usable], sds[usable])
        unhappy = sigmoid(smooth)
        label = label_of(smooth, self.threshold, self.abstain)
        reason = " ".join(not_sure(max(unhappy, 1 - unhappy), self.abstain))
        return smooth, smooth - reach, smooth + reach, label, reason

    def to_csv(self) -> str:
        """A line a frame, as text; a number that is not known is left empty."""
        file = io.StringIO()
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow([field.name for field in fields(State)])
        for state in self.states:
            values = [round(v, 4) if isinstance(v, float) else v for v in astuple(state)]
            lines.writerow(["" if value != value else value for value in values])  # NaN
        return file.getvalue()


def is_cut(image: Image.Image, other: Image.Image) -> bool:
    """Whether two RGB Pillow images show two scenes: neither the same colours nor in places alike.

    Colours: the intersection of two histograms (Swain and Ballard 1991), which motion hardly
    changes. Places: the correlation of two grey thumbnails, which light hardly changes.
    """
    histograms, greys = [], []
    for picture in (image, other):
        pixels = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), int).reshape(-1, 3)
        red, green, blue = pixels.T // 32
        histograms.append(np.bincount(red * 64 + green * 8 + blue, minlength=512) / 64**2)
        small = picture.convert("L").resize((16, 16), Image.Resampling.BOX)
        grey = np.asarray(small, float)
        greys.append((grey - grey.mean()) / max(grey.std(), 1))  # nothing is alike on a wall
    colours, places = np.minimum(*histograms).sum(), (greys[0] * greys[1]).mean()
    return bool(colours < SAME_COLOURS and places < SAME_PLACES)
