"""Whether a picture can be judged at all: are there two people, is there light, is it sharp?

Faces are found with Haar features (Viola and Jones 2001) of OpenCV up to version 4, else with local
binary patterns of scikit-image. Both know photographs of faces seen from the front.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from dclib.files import extra
from dclib.pictures import Boxes, is_blank

with extra("photo"):
    import cv2
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade
    from skimage.measure import blur_effect

HAAR, LBP = "OpenCV's Haar cascade", "scikit-image's LBP cascade"
HAAR_FILE = "haarcascade_frontalface_alt2.xml"
HAAR_SIDE, LBP_SIDE = 384, 256  # pixels of the longer side in which faces are looked for
LEAST_FACE = 24  # pixels there
TILTS = (0, 20, -20)  # degrees; cascades miss heads that lean further than about ten
SAME = 0.2  # overlap (IoU) from which two boxes are one face
LEAST_SIDE = 64  # pixels of the shorter side
DARK = 40  # 95 % of the picture are darker than this, of 255
CLEAR = 4  # grey levels of standard deviation, from which sharpness can be measured
BLURRED = 0.68  # blur effect of the sharpest ninth: a Gaussian of about 1.2 % of the picture's side


def find_faces(image: Image.Image) -> Boxes:
    """Boxes of the faces in a picture, to a tenth of a pixel; also tilted while fewer than two.

    Faces below about a sixteenth of the longer side, profiles and hidden faces are missed.
    """
    grey = _shrink(image, LBP_SIDE if detector() == LBP else HAAR_SIDE)
    centre = np.array(grey.size) / 2
    faces: list[np.ndarray] = []
    for tilt in TILTS:
        if len(faces) > 1:
            break
        for x, y, side in _scan(np.asarray(grey.rotate(tilt, Image.Resampling.BILINEAR))):
            across, down = np.array([x, y]) + side / 2 - centre
            cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
            middle = centre + np.array([across * cos - down * sin, across * sin + down * cos])
            box = np.concatenate([middle - side / 2, middle + side / 2])
            if all(overlap(box, other) < SAME for other in faces):
                faces.append(box)
    scale = np.tile(np.array(image.size) / grey.size, 2)
    ends = np.tile(image.size, 2)
    return tuple(tuple(np.clip(box * scale, 0, ends).round(1).tolist()) for box in faces)


def detector() -> str:
    """Which of the two finds the faces here: `HAAR` or `LBP`."""
    return LBP if _haar() is None else HAAR


def why_not(image: Image.Image, faces: Boxes | None = None) -> tuple[str, ...]:
    """Why a picture cannot be judged, in sentences; empty if it can.

    Measured at 256 pixels of the longer side; sharp is what has a sharp ninth, since backgrounds
    are often blurred. `faces` None: nobody looked for them.
    """
    reasons = []
    if min(image.size) < LEAST_SIDE:
        size = f"{image.width} x {image.height}"
        reasons.append(f"The picture is too small ({size} pixels; {LEAST_SIDE} are the least).")
    small = _shrink(image, 256)
    grey = np.asarray(small)
    if np.quantile(grey, 0.95) < DARK:
        reasons.append("The picture is too dark.")
    elif is_blank(small):
        reasons.append("There is nothing to be seen: it is one colour or close to it.")
    elif blur(grey, BLURRED) > BLURRED:
        reasons.append("The picture is too blurred.")
    return (*reasons, *(() if faces is None else too_few(len(faces))))


def too_few(n: int) -> tuple[str, ...]:
    """Why n faces are not a couple: one sentence, or none."""
    if n > 1:
        return ()
    count = "Only one face was found" if n else "No face was found"
    return (f"{count}, and the network judges two people seen from the front.",)


def blur(grey: np.ndarray, enough: float = 0.0) -> float:
    """Blur effect (Crete et al. 2007), 0 sharp to 1, of the sharpest ninth of a grey array (H, W).

    One that is sharp `enough` ends the search.
    """
    if min(grey.shape) <= 11:  # the window of the blur effect: what is smaller counts as sharp
        return 0.0
    ninths = [part for row in np.array_split(grey, 3) for part in np.array_split(row, 3, axis=1)]
    clear = [part for part in ninths if min(part.shape) > 11 and part.std() > CLEAR]
    least = 1.0
    for part in sorted(clear, key=np.std, reverse=True) or [grey]:
        least = min(least, blur_effect(part))
        if least <= enough:
            break
    return least


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (4,): x0, y0, x1, y1."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    both = float(np.prod(np.clip(sides, 0, None)))
    return both / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - both)


def _shrink(image: Image.Image, side: int) -> Image.Image:
    """Grey, with at most `side` pixels along the longer side."""
    ratio = min(1, side / max(image.size))
    size = [max(1, round(length * ratio)) for length in image.size]
    return image.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _scan(grey: np.ndarray) -> list[tuple[int, int, int]]:
    """Faces in a grey array (H, W): (x, y, side) of each."""
    if min(grey.shape) < LEAST_FACE:
        return []
    if haar := _haar():
        boxes = haar.detectMultiScale(grey, 1.1, 3, minSize=(LEAST_FACE, LEAST_FACE))
        return [(x, y, width) for x, y, width, _ in boxes]
    sizes = {"min_size": (LEAST_FACE, LEAST_FACE), "max_size": grey.shape[::-1]}
    boxes = _lbp().detect_multi_scale(grey, 1.1, 1.3, **sizes, min_neighbor_number=4)
    return [(box["c"], box["r"], box["width"]) for box in boxes]


@cache
def _haar() -> "cv2.CascadeClassifier | None":
    """OpenCV's classifier, or None: OpenCV 5 has neither the class nor the files."""
    if not hasattr(cv2, "CascadeClassifier"):
        return None
    folders = [Path(sys.prefix) / "share/opencv4/haarcascades"]  # where conda keeps them
    if data := getattr(cv2, "data", None):  # of the wheels on PyPI
        folders.insert(0, Path(data.haarcascades))
    files = [folder / HAAR_FILE for folder in folders if (folder / HAAR_FILE).is_file()]
    return cv2.CascadeClassifier(str(files[0])) if files else None


@cache
def _lbp() -> Cascade:
    return Cascade(lbp_frontal_face_cascade_filename())
