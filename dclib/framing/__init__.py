"""The part of a picture that a network looks at, and where in the picture each of its pixels lies.

    whole     a square around the whole picture, as the authors had it (they squashed it)
    couple    a square around both faces, with a margin
    faces     above a square around each face, with a margin; below both together, with shoulders

A frame is a square. Nothing is ever squashed, and the margin is kept: a piece that reaches beyond
the picture is moved into it; where it does not fit, what lies beyond has the colour that means
nothing to a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from dclib.framing.cells import spread_to
from dclib.pictures import Boxes
from dclib.pictures.mark import drawn_faces

KINDS = ("whole", "couple", "faces")
BEYOND = (124, 116, 104)  # the mean colour of ImageNet

SHOULDERS = 0.6, 0.25  # of a face's side: room around both faces, and how far below they go

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


class Piece(NamedTuple):
    """A rectangle of the picture, and the one of the frame that shows it; both in pixels."""

    source: Box
    target: Box


@dataclass(frozen=True)
class Frame:
    """What a network looks at.

    image     RGB, of the size that the network takes
    pieces    what it is made of, from left to right and from above
    size      of the picture it was cut from: width, height
    """

    image: Image.Image
    pieces: tuple[Piece, ...]
    size: tuple[int, int]

    @property
    def enlarged(self) -> float:
        """How much the pieces were enlarged, the most: below 1 is made smaller."""
        return max(1 / _scale(piece) for piece in self.pieces)

    def to_picture(self, boxes: Boxes) -> list[Box]:
        """Boxes in pixels of the frame -> in pixels of the picture, each by where its middle is."""
        result = []
        for x0, y0, x1, y1 in boxes:
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            inside = (p for p in self.pieces if x < p.target[2] and y < p.target[3])
            piece = next(inside, self.pieces[-1])
            start, offset = np.array(piece.target[:2]), np.array(piece.source[:2])
            ends = (np.array([(x0, y0), (x1, y1)]) - start) * _scale(piece) + offset
            result.append(tuple(ends.ravel().tolist()))
        return result

    def spread(
        self, values: np.ndarray, shape: tuple[int, int], smooth: bool = False
    ) -> np.ndarray:
        """A map of the frame over the whole picture, (h, w) -> (H, W), 0 where nobody looked.

        `shape`: pixels (H, W) in which the picture is shown. Where two pieces overlap, their values
        add up.
        """
        whole = np.zeros(shape)
        for piece in self.pieces:
            rows, down = self._inside(piece, 1, shape[0])
            columns, across = self._inside(piece, 0, shape[1])
            whole[np.ix_(rows, columns)] += spread_to(
                values, down, across, self.image.width, smooth
            )
        return whole

    def _inside(self, piece: Piece, axis: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of n pixels along a side (0 across, 1 down) show a piece; where in the frame."""
        places = (np.arange(n) + 0.5) * self.size[axis] / n
        start, end = piece.source[axis::2]
        inside = np.flatnonzero((start <= places) & (places < end))
        shares = (places[inside] - start) / _scale(piece) + piece.target[axis]
        return inside, shares / self.image.size[axis]


def frame_picture(
    image: Image.Image, boxes: Boxes, kind: str, side: int, margin: float = 0.0
) -> Frame:
    """The frame of an RGB image around its couple: side x side pixels.

    Args:
        boxes: of the two faces, in pixels; "whole" needs none.
        kind: one of `KINDS`.
        margin: room on each side of a face or of both, as a share of a face's side.

    Raises ValueError for another kind, and unless there are two boxes.
    """
    if kind not in KINDS:
        raise ValueError(f"The frame must be one of {', '.join(KINDS)}, not {kind!r}.")
    all_of_it = (0, 0, side, side)
    if kind == "whole":
        middle = np.array(image.size) / 2
        return _join(image, side, [(_cut(image, middle, max(image.size)), all_of_it)])
    faces = np.array(sorted(boxes, key=lambda box: box[0] + box[2]), float)  # from left to right
    if faces.shape != (2, 4):
        raise ValueError(f"A couple has the boxes of two faces, not of {len(boxes)}.")
    sides = (faces[:, 2:] - faces[:, :2]).mean(1)  # (2,): width and height of each, on average
    both = np.array([faces[:, :2].min(0), faces[:, 2:].max(0)])
    (wide, high), middle, face = both[1] - both[0], both.mean(0), sides.mean()
    if kind == "couple":
        longer = max(wide, high) + 2 * margin * face
        return _join(image, side, [(_cut(image, middle, longer), all_of_it)])
    half, (room, lower) = side // 2, SHOULDERS
    left, right = (
        _cut(image, (box[:2] + box[2:]) / 2, own * (1 + 2 * margin))
        for box, own in zip(faces, sides)
    )
    height = max(1, round(max(wide / 2 + room * face, high + 2 * room * face)))
    below = _cut(image, middle + np.array((0, lower * face)), 2 * height, height)
    targets = (0, 0, half, half), (half, 0, side, half), (0, half, side, side)
    return _join(image, side, list(zip((left, right, below), targets, strict=True)))


def in_whole(boxes: Boxes | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (K, 4) in pixels of a picture -> in shares of the sides of its frame "whole".

    `size`: width and height of the picture.
    """
    side = max(size)
    start = (np.array(size) - side) / 2  # of the square around it
    return (np.reshape(boxes, (-1, 4)) - np.tile(start, 2)) / side


def find_couple(image: Image.Image) -> Boxes:
    """Boxes of the couple's faces in an RGB image: as its drawing says, else as they are found.

    Raises ValueError, one sentence, unless there are two faces.
    """
    from dclib.framing.faces import find_faces  # OpenCV

    drawn = drawn_faces(image)
    faces = [face.box for face in find_faces(image)] if drawn is None else drawn
    if few := too_few(len(faces)):
        raise ValueError(*few)
    return [faces[k] for k in pick_two(faces, image.size)]


def too_few(n: int) -> tuple[str, ...]:
    """Why n faces are not a couple: one sentence, or none."""
    if n > 1:
        return ()
    count = "Only one face was found" if n else "No face was found"
    return (f"{count}, and the network judges two people whose faces are seen.",)


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


def _cut(image: Image.Image, middle: np.ndarray, width: float, height: float | None = None) -> Box:
    """x0, y0, x1, y1 around a point, moved into the picture as far as they fit; else a square."""
    size = np.maximum(1, np.rint((width, width if height is None else height)))
    corner = np.rint(middle - size / 2)
    room = np.array(image.size) - size  # negative where it is longer than the picture
    start = np.clip(corner, np.minimum(room, 0), np.maximum(room, 0))
    x0, y0, x1, y1 = np.concatenate([start, start + size]).astype(int).tolist()
    return x0, y0, x1, y1


def _join(image: Image.Image, side: int, parts: Sequence[tuple[Box, Box]]) -> Frame:
    """The frame of parts of a picture, each with its place in the frame."""
    canvas, pieces = Image.new("RGB", (side, side), BEYOND), []
    for source, target in parts:
        start, place = np.array(source[:2]), np.array(target[:2])
        ratio = (target[2] - target[0]) / (source[2] - source[0])
        inside = np.clip(np.reshape(source, (2, 2)), 0, image.size)  # of the picture
        ends = np.rint((inside - start) * ratio).astype(int)  # where that is in the part
        size, box = np.maximum(ends[1] - ends[0], 1).tolist(), tuple(inside.ravel().tolist())
        part = image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)
        canvas.paste(part, tuple((place + ends[0]).astype(int).tolist()))
        pieces.append(Piece(source, target))
    return Frame(canvas, tuple(pieces), image.size)


def _scale(piece: Piece) -> float:
    """Pixels of the picture a pixel of the frame."""
    return (piece.source[2] - piece.source[0]) / (piece.target[2] - piece.target[0])
