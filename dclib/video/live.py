"""The camera: a line over time that grows with every frame, without looking ahead."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.colab import in_colab
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import find_evidence, fold_head
from dclib.framing.faces import find_faces
from dclib.photo import limits, not_sure
from dclib.photo.gate import why_not
from dclib.pictures import Boxes, PictureError, read_picture
from dclib.plots import HAPPY, UNHAPPY
from dclib.predict import extract_features, how_sure, label_of, percent, sigmoid
from dclib.video.follow import Followed
from dclib.video.timeline import Thumbnail, is_cut, thumbnail, weighted_mean
from dclib.web import html as web
from dclib.web.html import ipywidgets

PAUSE = 3.0  # seconds without a frame after which smoothing starts anew
RATE = 5  # frames a second at most
FACES_EVERY = 1.0  # seconds, where the network looks at the whole picture
WIDTH, HEIGHT, LEFT, BELOW = 640, 150, 70, 18  # of the curve, and of what is written around it
LEAST = 20  # seconds that the time axis shows at least
POINTS = 300  # states that are drawn at most, evenly chosen
START, STOP = ("dc-film-button", "Start the camera"), ("dc-stop-button", "Stop")
WELCOME = (
    "Frames go to the machine that runs this, nowhere else, and are forgotten at once. The answers "
    "are kept while this panel is; save them if you want them."
)
COLAB = (
    "In Colab that machine is Google's, and this panel has not been tried there: if no answer "
    "comes, use the notebook on your own computer."
)
Place = Callable[[float], float]  # of a time along the curve, or of a margin up it


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
    """Answers smoothed as they come: the mean of the shot's assessable frames so far.

    A frame that came t seconds ago weighs exp(-t / tau), and nothing after 8 tau. Not assessable:
    where such frames hold less than half of the weight, and where the network is not sure enough.
    """

    def __init__(
        self, threshold: float = 0.5, abstain: float | None = None, tau: float = 2
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
        """The `State` after a frame; `reason` says why the frame alone is not assessable."""
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
            latest = next(filter(None, reversed(reasons)))
            return math.nan, math.nan, math.nan, NOT_ASSESSABLE, latest
        smooth, reach = weighted_mean(weights[usable], margins[usable], sds[usable])
        unhappy = sigmoid(smooth)
        label = label_of(smooth, self.threshold, self.abstain)
        reason = " ".join(not_sure(max(unhappy, 1 - unhappy), self.abstain))
        return smooth, smooth - reach, smooth + reach, label, reason

    def to_csv(self) -> str:
        """A line a frame, as text; a number that is not known is left empty."""
        table = pd.DataFrame(self.states, columns=[field.name for field in fields(State)])
        return table.round(4).to_csv(index=False, lineterminator="\n")


def numbers_sentence(state: State) -> str:
    """How sure the network is, with the 95 % band, or why nothing is said."""
    if state.label == NOT_ASSESSABLE:
        return state.reason
    name = "unhappy"
    prob, low, high = (sigmoid(value) for value in (state.smooth, state.low, state.high))
    if prob < 0.5:
        name, prob, low, high = "happy", 1 - prob, 1 - high, 1 - low
    band = f"95 % band {percent(low)} to {percent(high)}"
    return f"It gives {name} {percent(prob)} ({band}): {how_sure(prob)}."


def timeline_svg(states: Sequence[State], threshold: float = 0.5) -> str:
    """Probability of "unhappy" over time: frames as dots, the smoothed line with its band.

    Grey is not assessable; a line across is a cut or a pause; dashed is the network's threshold.
    """
    step = -(-len(states) // POINTS) or 1
    states = [*states[:-1:step][: POINTS - 1], *states[-1:]]
    end = max([LEAST, *(state.time for state in states[-1:])])

    def x(time: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * time / end, 1)

    def y(margin: float) -> float:
        return round((HEIGHT - BELOW) * (1 - sigmoid(margin)), 1)

    shown = [(x(state.time), y(state.margin)) for state in states if not state.reason]
    dots = "".join(f'<circle cx="{cx}" cy="{cy}" r="1.5"/>' for cx, cy in shown)
    parts = [f'<g fill="#999">{dots}</g>', *_runs(states, x, y), *_frame(threshold, end)]
    return (
        f'<svg class="dc-curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="probability '
        f'of unhappy over {end:.0f} seconds">{"".join(parts)}</svg>'
    )


def _runs(states: Sequence[State], x: Place, y: Place) -> list[str]:
    """Stretches of one label within a shot, each up to the next state."""
    parts, before = [], None
    runs = [list(run) for _, run in groupby(states, lambda s: (s.shot, s.label))]
    for run, follows in zip(runs, [*runs[1:], []]):
        left, label = x(run[0].time), run[0].label
        if before not in (None, run[0].shot):
            parts.append(f'<line x1="{left}" x2="{left}" y2="{HEIGHT - BELOW}" stroke="#000"/>')
        before = run[0].shot
        run = run + [state for state in follows[:1] if state.shot == before]
        if label == NOT_ASSESSABLE:
            place = f'x="{left}" width="{max(2, x(run[-1].time) - left)}" height="{HEIGHT - BELOW}"'
            parts.append(f'<rect {place} fill="#888" opacity="0.25"/>')
        else:
            parts.append(_curve(run, HAPPY if label == "happy" else UNHAPPY, x, y))
    return parts


def _curve(run: Sequence[State], colour: str, x: Place, y: Place) -> str:
    """The line of a stretch and its band."""
    run = [state for state in run if not math.isnan(state.smooth)]
    edge = [(s.time, s.high) for s in run] + [(s.time, s.low) for s in reversed(run)]
    band = " ".join(f"{x(time)},{y(value)}" for time, value in edge)
    line = " ".join(f"{x(s.time)},{y(s.smooth)}" for s in run)
    return (
        f'<polygon points="{band}" fill="{colour}" opacity="0.2"/>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
    )


def _frame(threshold: float, end: float) -> list[str]:
    """What is drawn around the curve: threshold, box, and words at the ends of both axes."""
    bottom, text = HEIGHT - BELOW, 'font-size="12" font-family="sans-serif" fill="#444"'
    level = round(bottom * (1 - threshold), 1)
    return [
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{level}" y2="{level}" stroke="#666" '
        'stroke-dasharray="4 4"/>',
        f'<rect x="{LEFT}" width="{WIDTH - LEFT}" height="{bottom}" fill="none" stroke="#ccc"/>',
        f'<text y="12" {text}>unhappy</text><text y="{bottom - 2}" {text}>happy</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 3}" {text}>0 s</text>',
        f'<text x="{WIDTH}" y="{HEIGHT - 3}" text-anchor="end" {text}>{end:.0f} s</text>',
    ]


def live_panel(checkpoint: Checkpoint | str | Path) -> "LivePanel":
    """A widget that shows what a network says about the camera's picture, up to 5 times a second.

    Frames go to the kernel behind this notebook and are not kept. The camera closes on Stop.
    """
    return LivePanel(checkpoint)


class LivePanel(web.Panel):
    """Buttons, the camera's picture, how old the answer is, and the answer with its timeline."""

    def __init__(self, checkpoint: Checkpoint | str | Path) -> None:
        self.checkpoint = load_checkpoint(checkpoint)
        self.head = fold_head(self.checkpoint.model, self.checkpoint.config["temperature"])
        self.upload = ipywidgets.FileUpload(accept="image/jpeg")
        self.upload.layout.display = "none"
        self.save = ipywidgets.Button(description="Save the answers")
        self.clear = ipywidgets.Button(description="Clear")
        self.status, self.answer, self.saved = (ipywidgets.HTML() for _ in range(3))
        line = f'<p class="dc-age" data-rate="{RATE}"></p>'
        camera = ipywidgets.HTML(web.camera_html(START, STOP) + line)
        row = ipywidgets.Box([self.upload, self.save, self.clear, self.saved]).add_class("dc-row")
        sheet = ipywidgets.HTML(f"<style>{web.CSS}</style>{web.start_script()}")
        super().__init__([sheet, camera, self.status, self.answer, row])
        self.add_class("dc-browser")
        self.upload.observe(self.take_frame, names="value")
        self.save.on_click(lambda _: self.offer())
        self.clear.on_click(lambda _: self.forget())
        self.answered = 0  # milliseconds: the name of the last frame
        self.forget()

    def forget(self) -> None:
        """As if no frame had come yet."""
        config = self.checkpoint.config
        self.timeline = LiveTimeline(config["threshold"], self.checkpoint.abstain)
        self.began: float | None = None  # the browser's clock at the first frame
        self.before: Thumbnail | None = None  # of the last frame
        self.faces: Boxes | None = None
        self.followed = Followed()
        self.looked = -math.inf  # when they were looked for
        drawn = self.checkpoint.knows_only_drawings
        self.notes: tuple[str, ...] = (DRAWINGS_ONLY,) if drawn else ()
        self.saved.value = ""
        self.show()

    def take_frame(self, _: object = None) -> None:
        """Answer a frame; whatever happens, the browser gets an answer, since it waits for one."""
        frames = web.uploaded_files(self.upload)
        if not frames:
            return
        web.clear_uploads(self.upload)
        name, data = frames[0]
        try:
            self.answered = int(Path(name).stem)
            self.look(read_picture(data).image, self.answered / 1000)
            self.show()
        except PictureError as error:
            self.show(str(error))
        except Exception as error:
            self.show(f"The network could not look at this frame ({error}).")

    def look(self, image: Image.Image, clock: float) -> None:
        """Add a frame to the timeline; `clock` is the browser's time of it, in seconds."""
        self.began = clock if self.began is None else self.began
        states = self.timeline.states
        time = max(clock - self.began, states[-1].time if states else 0.0)  # clocks are put back
        now = thumbnail(image)
        cut = self.before is not None and is_cut(self.before, now)
        self.before = now
        due = cut or time - self.looked >= FACES_EVERY
        transform = self.checkpoint.transform
        if (due or transform.frame != "whole") and not self.checkpoint.knows_only_drawings:
            self.faces, self.looked = [face.box for face in find_faces(image)], time
        if cut:
            self.followed.forget()
        frame, unseen = self.followed.frame(transform, image, time, self.faces)
        margin, sd = math.nan, math.nan
        if frame:
            images = transform(frame)[None]  # (3, H, W) -> (1, 3, H, W)
            evidence = find_evidence(self.head, extract_features(self.checkpoint.model, images))
            margin, sd = evidence.margin.item(), evidence.margin_sd.item()
            self.notes = limits(self.checkpoint, frame)
        reason = " ".join(why_not(image, self.faces)) or unseen
        self.timeline.add(time, margin, sd, reason, cut)

    def show(self, problem: str = "") -> None:
        """Write the answer; what is said aloud is only said when it changes."""
        states = self.timeline.states
        state = states[-1] if states else None
        if problem:
            status = web.status_html(problem, error=True)
        elif state:
            assessed = state.label != NOT_ASSESSABLE
            sentence = f"The network says {state.label}." if assessed else "Not assessable."
            status = web.status_html(sentence, label=state.label)
        else:
            status = web.status_html(WELCOME, *([COLAB] if in_colab() else []))
        if status != self.status.value:
            self.status.value = status
        self.answer.value = (  # the browser waits for the number of its frame
            f'<div class="dc-answer dc-panel" data-answered="{self.answered}">'
            f"<p>{html.escape(numbers_sentence(state) if state else '')}</p>"
            f"{timeline_svg(states, self.timeline.threshold)}{web.notes_html(self.notes)}</div>"
        )

    def offer(self) -> None:
        """The answers so far as a file that the browser saves."""
        self.saved.value = web.link("live.csv", self.timeline.to_csv().encode())
