"""A line over time that grows with every frame of a camera, without looking ahead."""

import csv
import html
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.colab import in_colab
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import find_evidence, fold_head
from dclib.photo import faces as assess
from dclib.photo import limits, not_sure
from dclib.pictures import Boxes, PictureError, read_picture
from dclib.plots import HAPPY, UNHAPPY
from dclib.predict import extract_features, how_sure, label_of, percent, sigmoid
from dclib.video.timeline import weighted_mean
from dclib.web.html import (
    CSS,
    camera_html,
    clear_uploads,
    ipywidgets,
    link,
    notes_html,
    start_script,
    status_html,
    uploaded_files,
)

TAU = 2.0  # seconds in which the weight of a frame falls to 37 %
PAUSE = 3.0  # seconds without a frame after which smoothing starts anew
SAME_COLOURS, SAME_PLACES = 0.6, 0.5  # below both of them two frames show two scenes
WIDTH, HEIGHT, LEFT, BELOW = 640, 150, 70, 18
LEAST = 20  # seconds that the time axis shows at least
POINTS = 300  # states that are drawn at most, evenly chosen
Place = Callable[[float], float]  # of a time along the curve, or of a margin up it
RATE = 5  # frames a second at most
FACES_EVERY = 1.0  # seconds; they cost more than the network
START, STOP = ("dc-film-button", "Start the camera"), ("dc-stop-button", "Stop")
WELCOME = (
    "Frames go to the machine that runs this, nowhere else, and are forgotten at once. The answers "
    "are kept while this panel is; save them if you want them."
)
COLAB = (
    "In Colab that machine is Google's, and this panel has not been tried there: if no answer "
    "comes, use the notebook on your own computer."
)


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

    over the assessable frames i of the shot, with the band of `weighted_mean`. Not
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


def label_sentence(state: State) -> str:
    """A state's label, as the network's."""
    if state.label == NOT_ASSESSABLE:
        return "Not assessable."
    return f"The network says {state.label}."


def numbers_sentence(state: State) -> str:
    """How sure the network is, with the 95 % band, or why nothing is said."""
    if state.label == NOT_ASSESSABLE:
        return state.reason
    unhappy, low, high = (sigmoid(value) for value in (state.smooth, state.low, state.high))
    name = "unhappy" if unhappy >= 0.5 else "happy"
    if name == "happy":
        unhappy, low, high = 1 - unhappy, 1 - high, 1 - low
    return (
        f"It gives {name} {percent(unhappy)} (95 % band {percent(low)} to {percent(high)}): "
        f"{how_sure(unhappy)}."
    )


def answer_html(words: str, timeline: LiveTimeline, notes: Iterable[str], answered: int) -> str:
    """Sentence, curve and notes; the browser waits for the number `answered` of its last frame."""
    return (
        f'<div class="dc-answer dc-panel" data-answered="{answered}"><p>{html.escape(words)}</p>'
        f"{timeline_svg(timeline.states, timeline.threshold)}{notes_html(notes)}</div>"
    )


def timeline_svg(states: Sequence[State], threshold: float = 0.5) -> str:
    """Probability of "unhappy" over the whole time: dots are frames, the line and its band smooth.

    Grey is not assessable; a line across is a cut or a pause; dashed is the network's threshold.
    """
    step = -(-len(states) // POINTS) or 1
    states = [*states[:-1:step][: POINTS - 1], *states[-1:]]
    end = max([LEAST, *(state.time for state in states[-1:])])

    def x(time: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * time / end, 1)

    def y(margin: float) -> float:
        return round((HEIGHT - BELOW) * (1 - sigmoid(margin)), 1)

    dots = "".join(
        f'<circle cx="{x(s.time)}" cy="{y(s.margin)}" r="1.5"/>' for s in states if not s.reason
    )
    parts = [f'<g fill="#999">{dots}</g>', *_runs(states, x, y), *_frame(threshold, end)]
    return (
        f'<svg class="dc-curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="probability '
        f'of unhappy over {end:.0f} seconds">{"".join(parts)}</svg>'
    )


def _runs(states: Sequence[State], x: Place, y: Place) -> list[str]:
    """Stretches of one label within a shot, each up to the next state."""
    parts, at = [], 0
    for (shot, label), group in groupby(states, lambda s: (s.shot, s.label)):
        run = list(group)
        begin, at = at, at + len(run)
        follows = states[at : at + 1]
        if begin > 0 and states[begin - 1].shot != shot:
            across = f'x1="{x(run[0].time)}" x2="{x(run[0].time)}"'
            parts.append(f'<line {across} y2="{HEIGHT - BELOW}" stroke="#000"/>')
        if follows and follows[0].shot == shot:
            run += follows
        if label == NOT_ASSESSABLE:
            width = max(2, x(run[-1].time) - x(run[0].time))
            place = f'x="{x(run[0].time)}" width="{width}" height="{HEIGHT - BELOW}"'
            parts.append(f'<rect {place} fill="#888" opacity="0.25"/>')
        else:
            parts.append(_curve(run, HAPPY if label == "happy" else UNHAPPY, x, y))
    return parts


def _curve(run: Sequence[State], colour: str, x: Place, y: Place) -> str:
    """The line of a stretch and its band."""
    run = [state for state in run if state.smooth == state.smooth]  # not NaN
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

    `checkpoint` is a loaded `Checkpoint`, or the path of its folder. No frame is kept or sent
    anywhere but to the kernel behind this notebook; the answers are saved when asked for, by the
    browser. The camera closes on Stop, and with the page.
    """
    return LivePanel(checkpoint)


class LivePanel(ipywidgets.VBox):
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
        camera = ipywidgets.HTML(camera_html(START, STOP) + line)
        row = ipywidgets.Box([self.upload, self.save, self.clear, self.saved]).add_class("dc-row")
        sheet = ipywidgets.HTML(f"<style>{CSS}</style>{start_script()}")
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
        self.before: Image.Image | None = None  # the last frame
        self.faces: Boxes | None = None
        self.looked = -math.inf  # when they were looked for
        drawn = self.checkpoint.knows_only_drawings
        self.notes: tuple[str, ...] = (DRAWINGS_ONLY,) if drawn else ()
        self.saved.value = ""
        self.show()

    def take_frame(self, _: object = None) -> None:
        """Answer a frame; whatever happens, the browser gets an answer, since it waits for one."""
        frames = uploaded_files(self.upload)
        if not frames:
            return
        clear_uploads(self.upload)
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
        """Add a frame of a time, in seconds of the browser's clock, to the timeline."""
        self.began = clock if self.began is None else self.began
        states = self.timeline.states
        time = max(clock - self.began, states[-1].time if states else 0.0)  # clocks are put back
        cut = self.before is not None and is_cut(image, self.before)
        self.before = image
        due = cut or time - self.looked >= FACES_EVERY
        if due and not self.checkpoint.knows_only_drawings:
            self.faces, self.looked = assess.find_faces(image), time
        images = self.checkpoint.transform(image)[None]  # (3, S, S) -> (1, 3, S, S)
        evidence = find_evidence(self.head, extract_features(self.checkpoint.model, images))
        reason = " ".join(assess.why_not(image, self.faces))
        margin, sd = evidence.margin.item(), evidence.margin_sd.item()
        self.timeline.add(time, margin, sd, reason, cut)
        self.notes = limits(self.checkpoint, image)

    def show(self, problem: str = "") -> None:
        """Write the answer; what is said aloud is only said when it changes."""
        state = self.timeline.states[-1] if self.timeline.states else None
        words = numbers_sentence(state) if state else ""
        if problem:
            said = status_html(problem, error=True)
        elif state:
            said = status_html(label_sentence(state), label=state.label)
        else:
            said = status_html(WELCOME, *([COLAB] if in_colab() else []))
        if said != self.status.value:
            self.status.value = said
        self.answer.value = answer_html(words, self.timeline, self.notes, self.answered)

    def offer(self) -> None:
        """The answers so far as a file that the browser saves."""
        self.saved.value = link("live.csv", self.timeline.to_csv().encode())
