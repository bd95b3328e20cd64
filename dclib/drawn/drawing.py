"""Draw a couple: from a `Scene` (what is in the picture) to a Pillow image with exact face boxes.

Units are those of the frame (`dclib.drawn.canvas`). Shapes are painted twice too large and averaged
down, for smooth edges.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from dclib.drawn.canvas import Canvas, Colour, draw_backdrop, shade
from dclib.pictures.mark import mark_drawn

DRAWINGS = 2  # to be raised with every change of a file: sets that were drawn before are not used
SUPERSAMPLE = 2
MARK = (0.03, 0.03, 0.12, 0.12)  # where the planted mark is: x0, y0, x1, y1, shares of the sides
HEAD_HEIGHT = 1.22  # half height of a head in units of its half width
INK = (58, 42, 44)
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Person:
    """One drawn person. `x, y`: centre of the head; `radius`: half its width (frame units).

    `mouth`, `brows` run from -1 (turned down, frowning) to 1 (smiling, relaxed); `gaze` from -1
    (looking left) to 1 (looking right); `gape` from 0 (lips closed) to 1; `tilt` is the head's
    rotation, clockwise, in degrees.
    """

    x: float
    y: float
    radius: float
    tilt: float
    mouth: float
    brows: float
    gaze: float
    gape: float
    presentation: str  # "f" or "m"
    skin: Colour
    hair: Colour
    hair_style: str  # "long", "bob", "bun", "curly", "short" or "bald"
    clothes: Colour
    pattern: str  # "plain", "stripes" or "collar"
    beard: bool
    glasses: bool
    cover: str  # "none", "sunglasses", "scarf" or "cap"

    def outline(self) -> np.ndarray:
        """Corner points of the head, (48, 2): an ellipse whose lower half narrows to the chin."""
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        jaw = 0.10 if self.presentation == "m" else 0.18
        width = np.cos(t) * (1 - jaw * np.clip(np.sin(t), 0, 1) ** 2)
        return self.place(width, HEAD_HEIGHT * np.sin(t))

    def place(self, u: ArrayLike, v: ArrayLike) -> np.ndarray:
        """Head units (u right, v down, 1 is half its width) to the frame: (...) -> (..., 2)."""
        angle = np.deg2rad(self.tilt)
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = np.asarray(u, float), np.asarray(v, float)
        x, y = cos * u - sin * v, sin * u + cos * v
        return np.stack([self.x + self.radius * x, self.y + self.radius * y], axis=-1)

    def face_box(self) -> Box:
        """Exact box of the whole head, hidden parts included: x0, y0, x1, y1 in frame units."""
        return _box(self.outline())

    def body_box(self) -> Box:
        """Box of the shoulders and torso, down to the bottom edge."""
        return _box(_torso(self))


@dataclass(frozen=True)
class Scene:
    """A couple (left, right), what stands behind it, and how it is lit."""

    couple: tuple[Person, Person]
    bystanders: tuple[Person, ...]
    setting: str  # one of dclib.drawn.canvas.SETTINGS
    decor: int  # seed of the background's furniture
    embrace: bool  # the left one's hand lies on the right one's shoulder
    front: int  # who overlaps whom: 0 left, 1 right
    brightness: float  # 1 is neutral
    warmth: float  # -1 bluish to 1 reddish
    mark: bool = False  # a planted shortcut: a disc in the corner


def draw_scene(scene: Scene, size: int = 256) -> Image.Image:
    """Paint a scene. Returns an RGB Pillow image of size x size pixels, marked as drawn."""
    backdrop = draw_backdrop(scene.setting, scene.decor, max(size // 2, 16))
    side = size * SUPERSAMPLE
    canvas = Canvas(backdrop.resize((side, side), Image.Resampling.BILINEAR))
    behind, before = scene.couple[1 - scene.front], scene.couple[scene.front]
    for person in (*scene.bystanders, behind, before):
        _draw_person(canvas, person)
    if scene.embrace:
        _draw_hand(canvas, *scene.couple)
    image = _light(canvas.image.reduce(SUPERSAMPLE), scene)
    if scene.mark:  # after the light, as a watermark would be
        ImageDraw.Draw(image).ellipse([size * share for share in MARK], "white")
    mark_drawn(image, [person.face_box() for person in scene.couple])
    return image


def _box(points: np.ndarray) -> Box:
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def _light(image: Image.Image, scene: Scene) -> Image.Image:
    """The picture in the brightness and warmth of its scene."""
    gains = (1 + 0.05 * scene.warmth, 1.0, 1 - 0.1 * scene.warmth)
    table = [min(255, round(v * scene.brightness * gain)) for gain in gains for v in range(256)]
    return image.point(table)


def _draw_person(canvas: Canvas, person: Person) -> None:
    _draw_hair_behind(canvas, person)
    _draw_body(canvas, person)
    for side in (-1, 1):
        ear = person.place(side * 0.98, 0.08)
        canvas.disc(ear, 0.17 * person.radius, shade(person.skin, 0.9))
    canvas.polygon(person.outline(), person.skin)
    _draw_features(canvas, person)
    _draw_hair(canvas, person)
    _draw_cover(canvas, person)


def _torso(person: Person) -> np.ndarray:
    """Outline of neck-less shoulders and torso, reaching below the frame."""
    r, x, top = person.radius, person.x, person.y + 1.5 * person.radius
    broad = 1.75 if person.presentation == "m" else 1.5
    t = np.linspace(np.pi, 2 * np.pi, 16)
    shoulders = np.stack([x + broad * r * np.cos(t), top + r + r * np.sin(t)], -1)
    foot = max(1.02, top + 1.2 * r)
    return np.concatenate([shoulders, [(x + broad * r, foot), (x - broad * r, foot)]])


def _draw_body(canvas: Canvas, person: Person) -> None:
    r, x, chin = person.radius, person.x, person.y + HEAD_HEIGHT * person.radius
    body = _torso(person)
    canvas.polygon(body, person.clothes)
    if person.pattern == "stripes":
        for y in np.arange(chin + 0.9 * r, 1.0, 0.45 * r):
            half = (body[:, 0].max() - body[:, 0].min()) / 2 - 0.03 * r
            canvas.box(x - half, y, x + half, y + 0.16 * r, shade(person.clothes, 1.35))
    neck = shade(person.skin, 0.86)
    canvas.box(x - 0.36 * r, chin - 0.5 * r, x + 0.36 * r, chin + 0.4 * r, neck)
    canvas.disc((x, chin + 0.36 * r), 0.37 * r, neck)
    if person.pattern == "collar":
        for side in (-1, 1):
            wing = [(x + side * 0.34 * r, chin + 0.2 * r), (x + side * 0.72 * r, chin + 0.42 * r)]
            wing += [(x + side * 0.1 * r, chin + 0.95 * r)]
            canvas.polygon(np.array(wing), shade(person.clothes, 1.5))


def _draw_features(canvas: Canvas, person: Person) -> None:
    r = person.radius
    for side in (-1, 1):
        canvas.disc(person.place(side * 0.55, 0.38), 0.2 * r, (226, 110, 100, 46))
        _draw_eye(canvas, person, side)
    if person.beard:
        t = np.linspace(0.08 * np.pi, 0.92 * np.pi, 20)
        low = np.stack([0.95 * np.cos(t) * (1 - 0.1 * np.sin(t) ** 2), 1.2 * np.sin(t)], -1)
        high = np.stack([np.cos(t[::-1]) * 0.8, 0.28 + 0.1 * np.sin(t)], -1)
        canvas.polygon(person.place(*np.concatenate([low, high]).T), person.hair)
    nose = person.place([-0.04, -0.12, 0.08], [0.02, 0.32, 0.36])
    canvas.line(nose, shade(person.skin, 0.74), 0.055 * r)
    _draw_mouth(canvas, person)
    if person.glasses:
        t = np.linspace(0, 2 * np.pi, 20)
        for side in (-1, 1):
            rim = person.place(side * 0.43 + 0.3 * np.cos(t), -0.08 + 0.27 * np.sin(t))
            canvas.line(rim, INK, 0.05 * r)
        canvas.line(person.place([-0.13, 0.13], [-0.1, -0.1]), INK, 0.05 * r)


def _draw_eye(canvas: Canvas, person: Person, side: int) -> None:
    r, t = person.radius, np.linspace(0, 2 * np.pi, 20)
    white = person.place(side * 0.43 + 0.25 * np.cos(t), -0.08 + 0.18 * np.sin(t))
    canvas.polygon(white, (252, 250, 246))
    canvas.disc(person.place(side * 0.43 + 0.13 * person.gaze, -0.07), 0.13 * r, INK)
    t = np.linspace(np.pi, 2 * np.pi, 8)
    lid = person.place(side * 0.43 + 0.26 * np.cos(t), -0.08 + 0.18 * np.sin(t))
    canvas.line(lid, INK, 0.05 * r)
    # A relaxed brow is an arch; a frowning one slants down towards the nose.
    inner, outer = -0.42 - 0.16 * person.brows, -0.46 + 0.12 * person.brows
    arch = [outer, min(inner, outer) - 0.06 - 0.03 * person.brows, inner]
    brow = person.place(side * np.array([0.68, 0.43, 0.16]), arch)
    canvas.line(brow, shade(person.hair, 0.7), 0.11 * r)


def _draw_mouth(canvas: Canvas, person: Person) -> None:
    u = np.linspace(-1, 1, 13)
    bend = 0.27 * person.mouth * (1 - 2 * u**2)  # middle below the corners: a smile
    lip = person.place(0.5 * u, 0.64 + bend)
    if person.gape > 0:
        smiling = person.mouth > 0
        gape = 0.0 if smiling else 0.26 * person.gape * np.sqrt(1 - u**2)
        other = person.place(0.5 * u, 0.64 + bend * 0.35 + gape)
        canvas.polygon(np.concatenate([lip, other[::-1]]), (138, 46, 52))
        if smiling:  # teeth
            canvas.line(other, (252, 250, 246), 0.07 * person.radius)
    around = person.hair if person.beard else person.skin
    dark = sum(around) < 400  # lips must stand out from every skin and beard alike
    canvas.line(lip, (232, 132, 122) if dark else (160, 62, 66), 0.1 * person.radius)


def _draw_hair_behind(canvas: Canvas, person: Person) -> None:
    t = np.linspace(0, 2 * np.pi, 32)
    colour = shade(person.hair, 0.88)
    if person.hair_style in ("long", "bob"):
        width, length = (1.26, 1.95) if person.hair_style == "long" else (1.3, 1.08)
        drop = np.where(np.sin(t) > 0, length, 1.36)
        canvas.polygon(person.place(width * np.cos(t), -0.05 + drop * np.sin(t)), colour)
    elif person.hair_style == "bun":
        canvas.disc(person.place(0.1, -1.42), 0.42 * person.radius, colour)
    elif person.hair_style == "curly":
        for angle in np.linspace(0.9 * np.pi, 2.1 * np.pi, 11):
            curl = person.place(1.05 * np.cos(angle), -0.1 + 1.15 * np.sin(angle))
            canvas.disc(curl, 0.36 * person.radius, colour)


def _draw_hair(canvas: Canvas, person: Person) -> None:
    """The hair over the forehead: between the head's outline and a hairline."""
    if person.hair_style == "bald":
        return
    t = np.linspace(np.pi, 2 * np.pi, 20)
    outer = np.stack([1.06 * np.cos(t), 0.02 + 1.32 * np.sin(t)], -1)
    depth = {"short": 0.62, "curly": 0.6, "bun": 0.66}.get(person.hair_style, 0.55)
    part = 0.25 * np.cos(t[::-1]) if person.hair_style in ("short", "bob") else 0
    line = -0.05 + part * 0.4 + depth * np.sin(t[::-1]) * 1.15
    inner = np.stack([0.98 * np.cos(t[::-1]), line], -1)
    canvas.polygon(person.place(*np.concatenate([outer, inner]).T), person.hair)


def _draw_cover(canvas: Canvas, person: Person) -> None:
    """What hides a part of the face: sunglasses, a scarf or a cap."""
    r, t = person.radius, np.linspace(0, 2 * np.pi, 20)
    if person.cover == "sunglasses":
        for side in (-1, 1):
            lens = person.place(side * 0.44 + 0.36 * np.cos(t), -0.1 + 0.3 * np.sin(t))
            canvas.polygon(lens, (44, 40, 48))
        canvas.line(person.place([-0.95, 0.95], [-0.18, -0.18]), (44, 40, 48), 0.07 * r)
    elif person.cover == "scarf":
        u = np.linspace(-1.06, 1.06, 12)
        top = np.stack([u, 0.42 - 0.1 * u**2], -1)
        low = np.stack([0.95 * np.cos(t[:11]), 0.9 + 0.75 * np.sin(t[:11])], -1)
        edge = person.place(*np.concatenate([top, low]).T)
        canvas.polygon(edge, shade(person.clothes, 0.75))
    elif person.cover == "cap":
        half = np.linspace(np.pi, 2 * np.pi, 20)
        crown = person.place(1.12 * np.cos(half), -0.2 + 1.3 * np.sin(half))
        canvas.polygon(crown, shade(person.clothes, 0.8))
        peak = person.place([-1.15, 1.15], [-0.26, -0.26])
        canvas.line(peak, shade(person.clothes, 0.6), 0.2 * r)


def _draw_hand(canvas: Canvas, left: Person, right: Person) -> None:
    """The left one's hand on the right one's far shoulder."""
    r = left.radius
    skin = shade(left.skin, 0.94)
    broad = _torso(right)[:, 0].max() - right.x
    x, y = right.x + 0.72 * broad, right.y + 1.72 * right.radius
    for k in range(4):  # fingers come over the shoulder from behind
        tip = x + (0.24 * k - 0.42) * r, y + (0.5 - 0.04 * k) * r
        finger = [(x + (0.2 * k - 0.3) * r, y), tip]
        canvas.line(finger, shade(skin, 0.8), 0.21 * r)
        canvas.line(finger, skin, 0.17 * r)
    canvas.line([(x - 0.28 * r, y), (x + 0.3 * r, y + 0.1 * r)], skin, 0.3 * r)
