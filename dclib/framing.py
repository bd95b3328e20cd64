"""The part of a picture that a network looks at, and where in the picture each of its pixels lies.

    whole     the picture as it is, as the authors had it
    couple    a square around both faces, with a margin
    faces     two squares side by side, one around each face, with a margin: twice as wide as high

Nothing is ever squashed, and the margin is kept: a square that reaches beyond the picture is moved
into it; where it does not fit, what lies beyond has the colour that means nothing to a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from dclib.cells import spread_to
from dclib.pictures import Boxes

KINDS = ("whole", "couple", "faces")
BEYOND = (124, 116, 104)  # the mean colour of ImageNet
LONGEST = 3  # sides: what is longer still is made smaller, not squashed

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


class Piece(NamedTuple):
    """A rectangle of the picture, and the one of the frame that shows it; both in pixels."""

    source: Box
    target: Box


@dataclass(frozen=True)
class Frame:
    """What a network looks at.

    image     RGB, not yet of the size that the network takes
    pieces    what it is made of, from left to right
    size      of the picture it was cut from: width, height
    """

    image: Image.Image
    pieces: tuple[Piece, ...]
    size: tuple[int, int]

    def fit(self, side: int) -> Image.Image:
        """The image as a network takes it: `side` pixels along its shorter side."""
        ratio = min(side / min(self.image.size), LONGEST * side / max(self.image.size))
        width, height = (max(1, round(length * ratio)) for length in self.image.size)
        return self.image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)

    def to_picture(self, boxes: Boxes) -> list[Box]:
        """Boxes in pixels of the frame -> in pixels of the picture, each by where its middle is."""
        result = []
        for x0, y0, x1, y1 in boxes:
            piece = next((p for p in self.pieces if (x0 + x1) / 2 < p.target[2]), self.pieces[-1])
            start, offset = np.array(piece.target[:2]), np.array(piece.source[:2])
            ends = (np.array([(x0, y0), (x1, y1)]) - start) * _scale(piece) + offset
            result.append(tuple(ends.ravel().tolist()))
        return result

    def spread(
        self,
        values: np.ndarray,
        shape: tuple[int, int],
        size: int | tuple[int, int],
        smooth: bool = False,
    ) -> np.ndarray:
        """A map of the frame over the whole picture, (h, w) -> (H, W), 0 where nobody looked.

        `shape`: pixels (H, W) in which the picture is shown. `size`: of the network's input,
        a side or (height, width). Where two pieces overlap, their values add up.
        """
        whole = np.zeros(shape)
        for piece in self.pieces:
            rows, down = self._inside(piece, 1, shape[0])
            columns, across = self._inside(piece, 0, shape[1])
            whole[np.ix_(rows, columns)] += spread_to(values, down, across, size, smooth)
        return whole

    def _inside(self, piece: Piece, axis: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of n pixels along a side (0 across, 1 down) show a piece; where in the frame."""
        places = (np.arange(n) + 0.5) * self.size[axis] / n
        start, end = piece.source[axis::2]
        inside = np.flatnonzero((start <= places) & (places < end))
        shares = (places[inside] - start) / _scale(piece) + piece.target[axis]
        return inside, shares / self.image.size[axis]


def frame_picture(image: Image.Image, boxes: Boxes, kind: str, margin: float = 0.0) -> Frame:
    """The frame of an RGB image around its couple.

    Args:
        boxes: of the two faces, in pixels; "whole" needs none.
        kind: one of `KINDS`.
        margin: room on each side of a face or of both, as a share of a face's side.

    Raises ValueError for another kind, and unless there are two boxes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    if kind == "whole":
        ends = (0.0, 0.0, float(image.width), float(image.height))
        return Frame(image, (Piece(ends, ends),), image.size)
    faces = np.array(sorted(boxes, key=lambda box: box[0] + box[2]), float)  # from left to right
    if faces.shape != (2, 4):
        raise ValueError(f"A couple has the boxes of two faces, not of {len(boxes)}.")
    sides = (faces[:, 2:] - faces[:, :2]).mean(1)  # (2,): width and height of each, on average
    if kind == "faces":
        rooms = sides * (1 + 2 * margin)
        return _join(image, [_square(face, room, image) for face, room in zip(faces, rooms)])
    both = np.concatenate([faces[:, :2].min(0), faces[:, 2:].max(0)])
    longer = (both[2:] - both[:2]).max()
    return _join(image, [_square(both, longer + 2 * margin * sides.mean(), image)])


def pick_two(boxes: Boxes, size: tuple[int, int]) -> tuple[int, ...]:
    """Which two faces are the couple: the largest and most central; fewer if there are fewer.

    `size`: width and height of the picture. A face at its corner counts a third of one in the
    middle.
    """

    def weight(k: int) -> float:
        start, end = np.array(boxes[k][:2]), np.array(boxes[k][2:])
        away = np.linalg.norm(start + end - size) / np.linalg.norm(size)  # 0 in the middle to 1
        return float((end - start).mean() * (1.5 - away))

    return tuple(sorted(sorted(range(len(boxes)), key=weight, reverse=True)[:2]))


def _square(box: np.ndarray, side: float, image: Image.Image) -> tuple[int, int, int]:
    """x0, y0 and side of a square around a box (4,), moved into the picture as far as it fits."""
    side = max(1, round(side))
    corner = np.rint((box[:2] + box[2:] - side) / 2)
    room = np.array(image.size) - side  # negative where the square is longer than the picture
    x, y = np.clip(corner, np.minimum(room, 0), np.maximum(room, 0)).astype(int).tolist()
    return x, y, side


def _join(image: Image.Image, squares: Sequence[tuple[int, int, int]]) -> Frame:
    """The frame of one or two squares side by side, as large as the largest."""
    side = max(side for *_, side in squares)
    canvas = Image.new("RGB", (len(squares) * side, side), BEYOND)
    pieces = []
    for k, (x, y, own) in enumerate(squares):
        cut = Image.new("RGB", (own, own), BEYOND)
        inside = (max(x, 0), max(y, 0), min(x + own, image.width), min(y + own, image.height))
        cut.paste(image.crop(inside), (inside[0] - x, inside[1] - y))
        canvas.paste(cut.resize((side, side), Image.Resampling.BICUBIC), (k * side, 0))
        source = (float(x), float(y), float(x + own), float(y + own))
        pieces.append(Piece(source, (float(k * side), 0.0, float((k + 1) * side), float(side))))
    return Frame(canvas, tuple(pieces), image.size)


def _scale(piece: Piece) -> float:
    """Pixels of the picture a pixel of the frame."""
    return (piece.source[2] - piece.source[0]) / (piece.target[2] - piece.target[0])
