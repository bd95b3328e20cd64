"""What is in a drawn couple's picture: all follows from (seed, index), the cues from the label."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dclib.data import CLASSES, DRAWN
from dclib.drawn.canvas import SETTINGS
from dclib.drawn.drawing import Person, Scene

SHORTCUTS = ("mark", "brightness", "source")
WARM_PRINTS = f"{DRAWN}, warm prints"  # the second source of the planted fault "source"
OURS = 1473  # the couple of seed 0 that the notebooks follow: see `dclib.drawn.our_couple`

# How much each cue weighs in the couple's mood. A covered cue counts nothing.
CUES = {
    "mouth_left": 1.0,
    "mouth_right": 1.0,
    "brows_left": 0.7,
    "brows_right": 0.7,
    "gaze_left": 0.6,
    "gaze_right": 0.6,
    "closeness": 1.0,
    "lean": 1.0,
    "embrace": 0.65,
}
AGREE = 0.55  # chance that one cue points to the label, before scenes with too little evidence go
MARGIN = 1.5  # the least evidence for its label that a scene must show
COVERS = {"none": None, "sunglasses": "gaze", "scarf": "mouth", "cap": "brows"}

SKINS = {
    "light": ((250, 222, 200), (240, 200, 172)),
    "medium": ((222, 174, 134), (198, 146, 106)),
    "deep": ((150, 102, 74), (112, 74, 54)),
}
HAIR = ((52, 38, 34), (94, 62, 44), (150, 104, 62), (214, 176, 110), (168, 80, 48), (128, 124, 126))
HAIR_STYLES = {"f": ("long", "bob", "bun", "curly"), "m": ("short", "short", "bald", "curly")}
CLOTHES = (
    *((86, 124, 168), (196, 100, 92), (110, 150, 120), (226, 182, 96), (140, 112, 160)),
    *((70, 84, 104), (214, 206, 196), (98, 160, 164), (176, 128, 108)),
)
LIGHTS = {"day": (1.0, 0), "warm": (1.0, 1), "cold": (1.0, -1), "dim": (0.72, 0)}
Look = dict[str, Any]  # fields of `Person` that stay the same in both pictures, and "tone"


def sample_scene(
    seed: int, index: int, shortcut: str | None = None
) -> tuple[Scene, dict[str, Any]]:
    """What is in picture `index` of the set `seed`: a `Scene` and a flat dict of its attributes.

    Even pictures are happy, odd ones unhappy; pictures 2k and 2k + 1 show the same couple.
    `shortcut` plants a fault that audits should find: "mark" puts a disc into the corner of every
    unhappy picture, "brightness" darkens them, "source" takes 85 % of them and 15 % of the happy
    ones from a second source, `WARM_PRINTS`, whose pictures have a warm tone.
    """
    if shortcut is not None and shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut must be one of {SHORTCUTS} or None, not {shortcut!r}.")
    group, label = divmod(index, len(CLASSES))
    looks = _sample_looks(np.random.default_rng([seed, 0, group]))
    rng = np.random.default_rng([seed, 1, index])
    covers = [str(cover) for cover in rng.choice(list(COVERS), 2, p=[0.82, 0.06, 0.06, 0.06])]
    cues = _sample_cues(rng, 1 if label == 0 else -1, covers)
    couple = _place_couple(rng, looks, cues, covers)
    bystanders = tuple(_sample_bystander(rng) for _ in range(rng.choice(3, p=[0.5, 0.3, 0.2])))
    light = str(rng.choice(list(LIGHTS), p=[0.4, 0.2, 0.2, 0.2]))
    brightness, warmth = LIGHTS[light]
    lot = np.random.default_rng([seed, 2, index]).random()  # of its own: the scene stays as it is
    printed = shortcut == "source" and lot < (0.15, 0.85)[label]
    dimmed = 0.8 if shortcut == "brightness" and label == 1 else 1
    scene = Scene(
        couple=couple,
        bystanders=bystanders,
        setting=str(rng.choice(SETTINGS)),
        decor=int(rng.integers(2**31)),
        embrace=cues["embrace"] > 0,
        front=int(rng.integers(2)),
        brightness=brightness * rng.uniform(0.92, 1.08) * dimmed,
        warmth=warmth * rng.uniform(0.5, 1) + (2.5 if printed else 0),
        mark=shortcut == "mark" and label == 1,
    )
    attributes = {
        "label": CLASSES[label],
        "group": f"drawn-{seed}-{group:05d}",
        "source": WARM_PRINTS if printed else DRAWN,
    }
    attributes |= _tags(scene, light, looks, covers)
    return scene, attributes | {f"cue_{name}": round(value, 4) for name, value in cues.items()}


def _tags(scene: Scene, light: str, looks: Sequence[Look], covers: Sequence[str]) -> dict[str, Any]:
    """The nuisances of a scene, one column each."""
    moods = [person.mouth for person in scene.bystanders]
    tags: dict[str, Any] = {
        "light": light,
        "setting": scene.setting,
        "scale": "close" if scene.couple[0].radius > 0.15 else "medium",
        "bystanders": len(moods),
        "bystander_mood": round(float(np.mean(moods)), 4) if moods else "",
    }
    for side, look, cover in zip(("left", "right"), looks, covers, strict=True):
        tags[f"presentation_{side}"] = look["presentation"]
        tags[f"skin_{side}"] = look["tone"]
        tags[f"cover_{side}"] = cover
    return tags


def _sample_looks(rng: np.random.Generator) -> list[Look]:
    """What stays the same in both pictures of a couple, for each of the two."""
    looks = []
    for _ in range(2):
        presentation = str(rng.choice(["f", "m"]))
        tone = str(rng.choice(list(SKINS)))
        looks.append(
            {
                "presentation": presentation,
                "tone": tone,
                "skin": SKINS[tone][rng.integers(2)],
                "hair": HAIR[rng.integers(len(HAIR))],
                "hair_style": HAIR_STYLES[presentation][rng.integers(4)],
                "clothes": CLOTHES[rng.integers(len(CLOTHES))],
                "pattern": str(rng.choice(["plain", "stripes", "collar"])),
                "beard": bool(presentation == "m" and rng.random() < 0.3),
                "glasses": bool(rng.random() < 0.2),
            }
        )
    return looks


def _sample_cues(rng: np.random.Generator, mood: int, covers: Sequence[str]) -> dict[str, float]:
    """Cues from -1 (speaks for unhappy) to 1 (for happy) whose visible sum supports `mood`."""
    covered = {f"{COVERS[cover]}_{side}" for side, cover in zip(("left", "right"), covers)}
    while True:
        signs = np.where(rng.random(len(CUES)) < AGREE, mood, -mood)
        cues = dict(zip(CUES, (signs * rng.uniform(0.35, 1, len(CUES))).tolist()))
        cues["embrace"] = math.copysign(1.0, cues["embrace"])  # the hand is there or it is not
        if mood * sum(CUES[k] * value for k, value in cues.items() if k not in covered) >= MARGIN:
            return cues


def _place_couple(
    rng: np.random.Generator, looks: Sequence[Look], cues: dict[str, float], covers: Sequence[str]
) -> tuple[Person, Person]:
    """The two with their looks, cues and covers, as close to each other as the cues say."""
    close = rng.random() < 0.85  # busts, as couple photos mostly are
    radius = rng.uniform(0.165, 0.2) if close else rng.uniform(0.11, 0.14)
    apart = radius * (2.4 - 0.6 * cues["closeness"])
    centre, height = rng.uniform(0.48, 0.52), rng.uniform(0.36, 0.48)
    people = []
    for side, inwards, look, cover in zip(("left", "right"), (1, -1), looks, covers, strict=True):
        people.append(
            Person(
                x=centre - inwards * apart / 2,
                y=height + rng.uniform(-0.25, 0.25) * radius,
                radius=radius * rng.uniform(0.95, 1.05),
                tilt=inwards * 16 * cues["lean"] + rng.uniform(-3, 3),
                mouth=cues[f"mouth_{side}"],
                brows=cues[f"brows_{side}"],
                gaze=inwards * cues[f"gaze_{side}"],
                gape=rng.uniform(0.5, 1) if rng.random() < 0.35 else 0.0,
                cover=cover,
                **{name: value for name, value in look.items() if name != "tone"},
            )
        )
    left, right = people
    return left, right


def _sample_bystander(rng: np.random.Generator) -> Person:
    """Somebody small behind the couple, in a mood of their own."""
    look, _ = _sample_looks(rng)
    mood = rng.choice([-1, 1])
    return Person(
        x=rng.uniform(0.04, 0.96),
        y=rng.uniform(0.22, 0.4),
        radius=rng.uniform(0.045, 0.07),
        tilt=rng.uniform(-8, 8),
        mouth=mood * rng.uniform(0.35, 1),
        brows=mood * rng.uniform(0.35, 1),
        gaze=rng.uniform(-1, 1),
        gape=0.0,
        cover="none",
        **{name: value for name, value in look.items() if name != "tone"},
    )
