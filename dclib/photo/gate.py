"""Whether a picture can be judged at all: are there two people, is there light, is it sharp?"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dclib.files import extra
from dclib.framing import too_few
from dclib.pictures import is_blank

with extra("photo"):
    import cv2

LEAST_SIDE = 64  # pixels of the shorter side
DARK = 40  # 95 % of the picture are darker than this, of 255
CLEAR = 4  # grey levels of standard deviation, from which sharpness can be measured
BLURRED = 0.68  # blur effect of the sharpest ninth: a Gaussian of about 1.2 % of the picture's side
WINDOW = 11  # pixels of the blur effect's window


def why_not(image: Image.Image, faces: Sequence[object] | None = None) -> tuple[str, ...]:
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


def blur(grey: np.ndarray, enough: float = 0.0) -> float:
    """Blur effect (Crete et al. 2007), 0 sharp to 1, of the sharpest ninth of a grey array (H, W).

    One that is sharp `enough` ends the search.
    """
    if min(grey.shape) <= WINDOW:  # what is smaller counts as sharp
        return 0.0
    ninths = [part for row in np.array_split(grey, 3) for part in np.array_split(row, 3, axis=1)]
    clear = [part for part in ninths if min(part.shape) > WINDOW and part.std() > CLEAR]
    least = 1.0
    for part in sorted(clear, key=np.std, reverse=True) or [grey]:
        least = min(least, _blur_effect(part))
        if least <= enough:
            break
    return least


def _blur_effect(grey: np.ndarray) -> float:
    """How little of its edges a grey array (H, W) loses when it is blurred, in the worse direction.

    As scikit-image's `blur_effect`, which the tests compare.
    """
    grey, effects = grey.astype(np.float64), []
    for across, window in ((1, (WINDOW, 1)), (0, (1, WINDOW))):
        soft = cv2.blur(grey, window, borderType=cv2.BORDER_REFLECT)
        sharp, blurred = (
            np.abs(cv2.Sobel(part, -1, across, 1 - across, borderType=cv2.BORDER_REFLECT))
            for part in (grey, soft)
        )
        lost = np.clip(sharp - blurred, 0, None)[2:-1, 2:-1].sum()
        edges = sharp[2:-1, 2:-1].sum()
        effects.append(1 - lost / edges if edges else 1.0)
    return max(effects)


def _shrink(image: Image.Image, side: int) -> Image.Image:
    """Grey, with at most `side` pixels along the longer side."""
    ratio = min(1, side / max(image.size))
    size = [max(1, round(length * ratio)) for length in image.size]
    return image.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
