"""Find the faces in a photograph: where each is, how sure that is, and which way it looks.

By YuNet (Wu et al. 2023; its licence lies beside its file), which learned from photographs. Of our
drawn couples it finds both faces in about three of ten.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import Image

from dclib.files import extra

with extra("photo"):
    import cv2

YUNET = Path(__file__).parent / "yunet" / "face_detection_yunet_2023mar.onnx"
SIDE = 512  # pixels of the longer side in which faces are looked for
SCORE = 0.6  # least score of a face
SURE = 0.88  # 94 of 100 faces have more; a small one with less is looked for once again
SAME = 0.3  # overlap (IoU) from which two boxes are one face
LOCK = Lock()  # a detector keeps the size of its last picture

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


class Face(NamedTuple):
    """One face: its box and score (0.6 to 1), and five points (x, y), all in pixels.

    The points are the eyes, the tip of the nose and the corners of the mouth; of the pairs, what is
    on the left in an upright picture comes first. A box may reach beyond the picture.
    """

    box: Box
    score: float
    points: tuple[tuple[float, float], ...]

    @property
    def in_profile(self) -> bool:
        """Whether the nose does not lie between the eyes."""
        left, right, nose = np.array(self.points[:3])
        across = right - left
        return not 0 < float((nose - left) @ across) < float(across @ across)


def find_faces(image: Image.Image) -> tuple[Face, ...]:
    """The faces in an RGB image, the surest first.

    Those below about a tenth of the longer side are often missed. A small and doubtful one counts
    only if it is found at half the size too, since patterns look like faces at one size.
    """
    faces = _scan(image, SIDE)
    widest = max((_width(face) for face in faces), default=0.0)
    doubtful = [f for f in faces if f.score < SURE and _width(f) < widest / 2]
    if doubtful:
        again = _scan(image, SIDE // 2)
        faces = [
            face
            for face in faces
            if face not in doubtful or any(overlap(face.box, f.box) > SAME for f in again)
        ]
    return tuple(faces)


def overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    a, b = np.array(box), np.array(other)
    both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both))


def _width(face: Face) -> float:
    return face.box[2] - face.box[0]


def _scan(image: Image.Image, side: int) -> list[Face]:
    """The faces in a picture of `side` pixels along its longer side."""
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    if min(width, height) <= 32:  # one cell of YuNet's: OpenCV 4 then reads memory it never wrote
        return []
    small = image.reduce(max(1, max(image.size) // (2 * side)))  # a photo, as array, is large
    way = cv2.INTER_AREA if side < max(small.size) else cv2.INTER_LINEAR
    pixels = cv2.resize(np.asarray(small), (width, height), interpolation=way)[..., ::-1].copy()
    with LOCK:
        detector = _detector()
        detector.setInputSize((width, height))
        _, found = detector.detect(pixels)  # (K, 15) or None
    rows = np.zeros((0, 15)) if found is None else found.astype(float)
    rows[:, 2:4] += rows[:, :2]  # from x, y, width, height
    scale = np.array(image.size) / (width, height)
    places = (rows[:, :14].reshape(-1, 7, 2) * scale).round(1)  # two corners, five points
    return [
        Face(tuple(place[:2].ravel().tolist()), score, tuple(map(tuple, place[2:].tolist())))
        for place, score in zip(places, rows[:, 14].round(3).tolist())
    ]


@cache
def _detector() -> "cv2.FaceDetectorYN":
    """YuNet, without what OpenCV 5 has to say of its own engine."""
    log = getattr(cv2.utils, "logging", None)  # OpenCV 4.8 has none
    level = log and log.setLogLevel(log.LOG_LEVEL_ERROR)
    detector = cv2.FaceDetectorYN.create(str(YUNET), "", (SIDE, SIDE), SCORE)
    if log:
        log.setLogLevel(level)
    return detector
