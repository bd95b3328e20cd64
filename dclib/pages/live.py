"""What the live panel shows of a timeline: a sentence, numbers, and a curve as SVG."""

import html
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from dclib.data import NOT_ASSESSABLE
from dclib.live import LiveTimeline, State
from dclib.pages.regions import notes_html
from dclib.photo import how_sure, percent, sigmoid
from dclib.plots import HAPPY, UNHAPPY

WIDTH, HEIGHT, LEFT, BELOW = 640, 150, 70, 18
LEAST = 20  # seconds that the time axis shows at least
POINTS = 300  # states that are drawn at most, evenly chosen

Place = Callable[[float], float]  # of a time along the curve, or of a margin up it


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
