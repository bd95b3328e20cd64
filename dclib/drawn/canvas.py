"""A canvas in frame units, and the places that a couple can stand in front of.

(0, 0) is the top left corner of the frame, (1, 1) the bottom right one. Points are rounded to whole
pixels of the canvas, so that a scene gives the same bytes on every machine.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, ...]  # red, green, blue, and opacity if it is not full; 0 to 255

GRADIENTS = {
    "park": ((158, 208, 236), (222, 240, 236)),
    "beach": ((140, 200, 232), (250, 228, 200)),
    "city": ((72, 84, 128), (214, 158, 140)),
    "room": ((232, 216, 196), (214, 194, 172)),
    "cafe": ((190, 150, 120), (150, 112, 92)),
}
SETTINGS = tuple(GRADIENTS)


class Canvas:
    """A square Pillow image to draw on in frame units."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.side = image.width
        self.draw = ImageDraw.Draw(image, "RGBA")

    def _pixels(self, points: ArrayLike) -> list[int]:
        return np.rint(np.asarray(points) * self.side).astype(int).ravel().tolist()

    def polygon(self, points: ArrayLike, fill: Colour) -> None:
        """A filled outline through points (n, 2)."""
        self.draw.polygon(self._pixels(points), fill)

    def line(self, points: ArrayLike, fill: Colour, width: float) -> None:
        """A line through points (n, 2), with round joints and ends."""
        pixels, thick = self._pixels(points), max(1, round(width * self.side))
        self.draw.line(pixels, fill, thick, joint="curve")
        for x, y in (pixels[:2], pixels[-2:]):
            self.draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill)

    def disc(self, centre: Sequence[float] | np.ndarray, radius: float, fill: Colour) -> None:
        """A filled circle around a point (2,)."""
        x, y = centre
        self.draw.ellipse(self._pixels([(x - radius, y - radius), (x + radius, y + radius)]), fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """A filled rectangle."""
        self.draw.rectangle(self._pixels([(x0, y0), (x1, y1)]), fill)


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor < 1) or lighter (factor > 1) version of an RGB colour.

    >>> shade((100, 200, 0), 0.5)
    (50, 100, 0)
    """
    towards, weight = 0 if factor < 1 else 255, min(abs(1 - factor), 1)
    return tuple(round(c + (towards - c) * weight) for c in colour)


def draw_backdrop(setting: str, seed: int, size: int) -> Image.Image:
    """One of `SETTINGS`, furnished from `seed`, slightly out of focus: RGB, size x size pixels."""
    top, bottom = GRADIENTS[setting]
    gradient = Image.new("RGB", (1, 2))
    gradient.putdata([top, bottom])
    image = gradient.resize((size, size), Image.Resampling.BILINEAR)
    _DECOR[setting](Canvas(image), np.random.default_rng(seed))
    return image.filter(ImageFilter.BoxBlur(size / 100))


def _park(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.disc((rng.uniform(0.1, 0.9), 0.12), 0.07, (255, 244, 200))
    horizon = rng.uniform(0.5, 0.62)
    for x in rng.uniform(-0.1, 1.1, 3):
        canvas.disc((x, horizon + 0.28), 0.42, (150, 190, 140))
    for x in np.linspace(0, 1, 4) + rng.uniform(-0.12, 0.12, 4):
        top, width = rng.uniform(0.22, 0.4), rng.uniform(0.09, 0.15)
        canvas.box(x - 0.015, top, x + 0.015, horizon + 0.1, (134, 106, 84))
        for dx, dy in ((-0.6, 0.2), (0.6, 0.2), (0, -0.3)):
            canvas.disc((x + dx * width, top + dy * width), width, (118, 168, 116))
    canvas.box(0, horizon + 0.1, 1, 1, (142, 186, 122))


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    sea = rng.uniform(0.4, 0.5)
    canvas.disc((rng.uniform(0.2, 0.8), sea - 0.06), 0.08, (255, 236, 190))
    canvas.box(0, sea, 1, 1, (96, 168, 190))
    for y in sea + rng.uniform(0.02, 0.2, 6):
        x = rng.uniform(0, 0.8)
        canvas.line([(x, y), (x + 0.15, y)], (190, 224, 226), 0.006)
    canvas.box(0, sea + 0.24, 1, 1, (234, 208, 164))


def _city(canvas: Canvas, rng: np.random.Generator) -> None:
    for x in np.linspace(0, 0.9, 7):
        top, width = rng.uniform(0.2, 0.55), rng.uniform(0.1, 0.18)
        canvas.box(x, top, x + width, 1, shade((96, 92, 122), rng.uniform(0.8, 1.1)))
        for wx, wy in rng.uniform(0, 1, (8, 2)):
            corner = (x + 0.1 * width + 0.7 * width * wx, top + 0.03 + 0.5 * wy)
            canvas.box(*corner, corner[0] + 0.016, corner[1] + 0.022, (250, 214, 140))
    for x, y in rng.uniform(0, 1, (9, 2)):
        canvas.disc((x, 0.3 + 0.7 * y), rng.uniform(0.02, 0.05), (255, 216, 150, 90))


def _room(canvas: Canvas, rng: np.random.Generator) -> None:
    x = rng.uniform(0.08, 0.55)
    canvas.box(x, 0.06, x + 0.36, 0.46, (250, 246, 238))
    canvas.box(x + 0.02, 0.08, x + 0.34, 0.44, (176, 214, 232))
    canvas.box(x + 0.17, 0.08, x + 0.19, 0.44, (250, 246, 238))
    canvas.box(0, rng.uniform(0.68, 0.8), 1, 1, (188, 150, 140))
    y = rng.uniform(0.12, 0.2)
    side = 0.8 if x < 0.3 else 0.0
    canvas.box(side, y, side + 0.16, y + 0.2, (160, 120, 96))
    canvas.box(side + 0.02, y + 0.02, side + 0.14, y + 0.18, tuple(rng.integers(140, 230, 3)))


def _cafe(canvas: Canvas, rng: np.random.Generator) -> None:
    for y in (0.3, 0.52):
        canvas.box(0, y, 1, y + 0.015, (96, 68, 56))
        for x in rng.uniform(0, 1, 7):
            height = rng.uniform(0.04, 0.1)
            canvas.box(x, y - height, x + 0.05, y, tuple(rng.integers(110, 220, 3)))
    for x in rng.uniform(0.05, 0.95, 3):
        canvas.line([(x, 0), (x, 0.1)], (70, 52, 46), 0.006)
        canvas.disc((x, 0.12), 0.09, (255, 226, 160, 60))
        canvas.disc((x, 0.12), 0.035, (255, 232, 176))


_DECOR = {"park": _park, "beach": _beach, "city": _city, "room": _room, "cafe": _cafe}
