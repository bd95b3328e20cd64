"""A drawn film whose couples change their mood at known times, so that a timeline can be scored."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dclib.drawn.canvas import draw_backdrop
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import OURS, sample_scene

# Shots one after another: what is seen, and the moods in it with their seconds.
PLAN = (
    ("couple", (("happy", 4), ("unhappy", 4))),
    ("couple", (("unhappy", 5),)),
    ("empty", ((None, 3),)),
    ("couple", (("unhappy", 3), ("happy", 4))),
    ("dark", ((None, 3),)),
    ("couple", (("happy", 4),)),
)
TURN = 0.5  # seconds in which a mood changes
DARKNESS = 0.12  # of the light, in a dark shot


def render_clip(
    path: str | Path, seed: int = 0, plan: Sequence = PLAN, size: int = 256, rate: float = 12
) -> dict:
    """Draw a film of couples into an MP4, size x size pixels; returns the truth about it, a dict.

    The couples are those of `sample_scene`, their cues pass from one mood to the other within half
    a second; bystanders keep moods of their own. `plan` is a sequence of shots ("couple", "empty"
    or "dark", ((mood or None, seconds), ...)). The truth holds shots, moods (each a list of
    start, end and what), cuts and changes in seconds, and is also saved beside the film as JSON.
    The same arguments give the same pictures. Needs the extra "video".
    """
    from dclib.frames import write_mp4

    truth, images = _schedule(plan), _draw(plan, seed, size, rate)
    path = write_mp4(path, images, rate)
    truth |= {"seed": seed, "rate": rate, "size": size}
    Path(path).with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n")
    return truth


def _schedule(plan):
    """Shots, moods, cuts and changes of a plan, in seconds."""
    shots, moods, changes, time = [], [], [], 0.0
    for kind, parts in plan:
        if kind not in ("couple", "empty", "dark"):
            raise ValueError(f"A shot is of a couple, empty or dark, not {kind!r}.")
        shots.append({"start": time, "end": time + sum(s for _, s in parts), "kind": kind})
        for number, (mood, seconds) in enumerate(parts):
            moods.append({"start": time, "end": time + seconds, "mood": mood})
            if number:
                changes.append(time)
            time += seconds
    cuts = [shot["start"] for shot in shots[1:]]
    return {"duration": time, "shots": shots, "moods": moods, "cuts": cuts, "changes": changes}


def _draw(plan, seed, size, rate):
    """The pictures of all shots, one after another."""
    start = 0
    for number, (kind, parts) in enumerate(plan):
        happy, unhappy = _sample_pair(seed, number)
        end = start + sum(seconds for _, seconds in parts)
        for tick in range(math.ceil(start * rate), math.ceil(end * rate)):
            time = tick / rate
            if kind == "empty":
                room = draw_backdrop(happy.setting, happy.decor, max(size // 2, 16))
                yield room.resize((size, size), Image.BILINEAR)
                continue
            share = _unhappiness(parts, time - start)
            scene = _between(happy, unhappy, share, time)
            light = DARKNESS if kind == "dark" else 1
            yield draw_scene(replace(scene, brightness=scene.brightness * light), size)
        start = end


def _sample_pair(seed, number):
    """The two scenes of a couple whose faces are all uncovered, with cues to exchange.

    The search begins at `OURS`: at seed 0 that couple is in the first shot, and nobody is in a film
    that the demo networks, trained on the first 1,200 couples of that seed, have seen.
    """
    for group in range(OURS + number * 1000, OURS + (number + 1) * 1000):
        scenes = [sample_scene(seed, 2 * group + label)[0] for label in (0, 1)]
        if all(person.cover == "none" for scene in scenes for person in scene.couple):
            return scenes
    raise RuntimeError("A thousand couples, and a covered face in each.")


def _unhappiness(parts, time):
    """0 happy to 1 unhappy, `time` seconds into a shot; changes are smooth around their time."""
    share, start = float(parts[0][0] == "unhappy"), 0
    for (_, seconds), (mood, _) in itertools.pairwise(parts):
        start += seconds
        along = float(np.clip((time - start) / TURN + 0.5, 0, 1))
        share += (float(mood == "unhappy") - share) * along * along * (3 - 2 * along)
    return share


def _between(happy, unhappy, share, time):
    """The happy scene with its couple's cues moved towards those of the unhappy one."""
    centre = sum(person.x for person in happy.couple) / 2
    people = []
    for side, (glad, sad) in enumerate(zip(happy.couple, unhappy.couple, strict=True)):
        sway = math.sin(2 * math.pi * (0.4 * time + 0.3 * side))
        reach = [abs(person.x - other) / person.radius for person, other in
                 ((glad, centre), (sad, sum(p.x for p in unhappy.couple) / 2))]  # fmt: skip
        apart = _mix(*reach, share) * glad.radius
        cues = {name: _mix(getattr(glad, name), getattr(sad, name), share)
                for name in ("mouth", "brows", "gaze", "tilt")}  # fmt: skip
        cues["tilt"] += 1.5 * sway
        x = centre + (-apart if side == 0 else apart) + 0.004 * sway
        people.append(replace(glad, x=x, y=glad.y + 0.003 * sway, **cues))
    embrace = happy.embrace if share < 0.5 else unhappy.embrace
    return replace(happy, couple=tuple(people), embrace=embrace)


def _mix(start, end, share):
    return start + (end - start) * share
