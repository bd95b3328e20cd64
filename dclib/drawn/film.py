"""A drawn film whose couples change their mood at known times, so that a timeline can be scored."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dclib.data import CLASSES
from dclib.drawn.canvas import draw_backdrop
from dclib.drawn.drawing import Scene, draw_scene
from dclib.drawn.scenes import OURS, sample_scene
from dclib.files import save_json
from dclib.pictures.mark import drawn_faces

Parts = Sequence[tuple[str | None, float]]  # moods one after another with their seconds
Plan = Sequence[tuple[str, Parts]]  # shots one after another: what is seen, and the moods in it
PLAN: Plan = (
    ("couple", (("happy", 4), ("unhappy", 4))),
    ("couple", (("unhappy", 5),)),
    ("empty", ((None, 3),)),
    ("couple", (("unhappy", 3), ("happy", 4))),
    ("dark", ((None, 3),)),
    ("couple", (("happy", 4),)),
)
RATE = 12  # frames a second
TURN = 0.5  # seconds in which a mood changes
DARKNESS = 0.12  # of the light, in a dark shot


def render_film(
    path: str | Path, seed: int = 0, plan: Plan = PLAN, size: int = 256
) -> dict[str, Any]:
    """Draw a film of couples into an MP4, size x size pixels; returns the truth about it, a dict.

    `plan` is a sequence of shots ("couple", "empty" or "dark", ((mood or None, seconds), ...)). The
    couples are those of `sample_scene`; their cues pass from mood to mood within half a second. The
    truth holds shots, moods (each a list of start, end and what), cuts and changes in seconds, and
    faces (boxes in pixels of the couple in each of the film's frames); it is also saved beside the
    film as JSON. The same arguments give the same pictures.
    """
    from dclib.pictures.frames import write_mp4

    truth = _schedule(plan) | {"seed": seed, "rate": RATE, "size": size, "faces": []}

    def frames() -> Iterator[Image.Image]:
        for image in _draw(plan, seed, size):
            boxes = np.round(drawn_faces(image) or (), 1)
            truth["faces"].append(boxes.tolist())
            yield image

    write_mp4(path, frames(), RATE)
    save_json(Path(path).with_suffix(".json"), truth)
    return truth


def _schedule(plan: Plan) -> dict[str, Any]:
    """Shots, moods, cuts and changes of a plan, in seconds."""
    shots: list[dict[str, Any]] = []
    moods: list[dict[str, Any]] = []
    changes, time = [], 0.0
    for kind, parts in plan:
        if kind not in ("couple", "empty", "dark"):
            raise ValueError(f"A shot is of a couple, empty or dark, not {kind!r}.")
        if unknown := {mood for mood, _ in parts} - {*CLASSES, None}:
            raise ValueError(f"A mood is happy, unhappy or None, not {unknown.pop()!r}.")
        shots.append({"start": time, "end": time + sum(s for _, s in parts), "kind": kind})
        for number, (mood, seconds) in enumerate(parts):
            moods.append({"start": time, "end": time + seconds, "mood": mood})
            if number:
                changes.append(time)
            time += seconds
    cuts = [shot["start"] for shot in shots[1:]]
    return {"duration": time, "shots": shots, "moods": moods, "cuts": cuts, "changes": changes}


def _draw(plan: Plan, seed: int, size: int) -> Iterator[Image.Image]:
    """The pictures of all shots, one after another."""
    start = 0.0
    for number, (kind, parts) in enumerate(plan):
        happy, unhappy = _sample_pair(seed, number)
        end = start + sum(seconds for _, seconds in parts)
        for tick in range(math.ceil(start * RATE), math.ceil(end * RATE)):
            time = tick / RATE
            if kind == "empty":
                room = draw_backdrop(happy.setting, happy.decor, max(size // 2, 16))
                yield room.resize((size, size), Image.Resampling.BILINEAR)
                continue
            share = _unhappiness(parts, time - start)
            scene = _between(happy, unhappy, share, time)
            light = DARKNESS if kind == "dark" else 1
            yield draw_scene(replace(scene, brightness=scene.brightness * light), size)
        start = end


def _sample_pair(seed: int, number: int) -> list[Scene]:
    """The two scenes of a couple with uncovered faces, from `OURS` on: no demo network saw them."""
    for group in range(OURS + number * 1000, OURS + (number + 1) * 1000):
        scenes = [sample_scene(seed, 2 * group + label)[0] for label in (0, 1)]
        if all(person.cover == "none" for scene in scenes for person in scene.couple):
            return scenes
    raise RuntimeError("A thousand couples, and a covered face in each.")


def _unhappiness(parts: Parts, time: float) -> float:
    """0 happy to 1 unhappy, `time` seconds into a shot; changes are smooth around their time."""
    share, start = float(parts[0][0] == "unhappy"), 0.0
    for (_, seconds), (mood, _) in itertools.pairwise(parts):
        start += seconds
        along = float(np.clip((time - start) / TURN + 0.5, 0, 1))
        share += (float(mood == "unhappy") - share) * along * along * (3 - 2 * along)
    return share


def _between(happy: Scene, unhappy: Scene, share: float, time: float) -> Scene:
    """The happy scene with its couple's cues moved towards those of the unhappy one."""
    centre, other = (sum(person.x for person in scene.couple) / 2 for scene in (happy, unhappy))
    people = []
    for side, (glad, sad) in enumerate(zip(happy.couple, unhappy.couple, strict=True)):
        sway = math.sin(2 * math.pi * (0.4 * time + 0.3 * side))
        close, far = abs(glad.x - centre) / glad.radius, abs(sad.x - other) / sad.radius
        apart = _mix(close, far, share) * glad.radius
        between = replace(
            glad,
            x=centre + (-apart if side == 0 else apart) + 0.004 * sway,
            y=glad.y + 0.003 * sway,
            mouth=_mix(glad.mouth, sad.mouth, share),
            brows=_mix(glad.brows, sad.brows, share),
            gaze=_mix(glad.gaze, sad.gaze, share),
            tilt=_mix(glad.tilt, sad.tilt, share) + 1.5 * sway,
        )
        people.append(between)
    left, right = people
    embrace = happy.embrace if share < 0.5 else unhappy.embrace
    return replace(happy, couple=(left, right), embrace=embrace)


def _mix(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
