"""The same two people from frame to frame, whoever else walks through the picture."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dclib.data.loading import EvalTransform
from dclib.framing import Frame, pick_two
from dclib.pictures import Boxes

REACH = 1.0  # of a face's side: further from frame to frame, it is another face
GROWTH = 1.6  # a face that is so many times larger or smaller is another one, too
LOST = 1.0  # seconds without both of them after which two are chosen anew
NO_FACES = "Faces were not looked for: what finds them knows photographs only."
HIDDEN = "One of the two people who were there is hidden, or has gone."


class Followed:
    """The couple of a film: chosen as in a photograph at the start of a shot, then followed.

    Faces belong together by place and size from one frame to the next; nobody is recognised. Where
    one of the two has not been found for a second, two are chosen anew.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A new shot."""
        self.couple: Boxes = []
        self.seen = -math.inf  # when both were there

    def frame(
        self, transform: EvalTransform, image: Image.Image, time: float, faces: Boxes | None
    ) -> tuple[Frame | None, str]:
        """What the network looks at in a frame of a film, or None; and why ("": too few faces).

        `time` in seconds; `faces`: boxes of all, in pixels, or None if nobody looked.
        """
        couple = None if faces is None else self.find(time, faces, image.size)
        if couple or transform.frame == "whole":
            return transform.cut(image, couple), ""
        if faces is None:
            return None, NO_FACES
        return None, HIDDEN if len(faces) > 1 else ""

    def find(self, time: float, faces: Boxes, size: tuple[int, int]) -> Boxes | None:
        """Boxes of the two among all faces of a frame; None where they are not both there.

        `time` in seconds, boxes in pixels, `size`: width and height of the frame.
        """
        found = again(self.couple, faces)
        if found is None and time - self.seen >= LOST and len(faces) >= 2:
            found = pick_two(faces, size)
        if found is None:
            return None
        self.couple, self.seen = [faces[k] for k in found], time
        return self.couple


def again(couple: Boxes, faces: Boxes) -> Sequence[int] | None:
    """Which of the faces are the two of a moment ago, the likest; None unless both are there."""
    if not couple or len(faces) < 2:
        return None
    (before, old), (after, new) = (_place(boxes) for boxes in (couple, faces))
    far = np.linalg.norm(before[:, None] - after, axis=2) / old[:, None]  # (2, K) in sides
    growth = np.abs(np.log(old[:, None] / new))
    unlike = np.where((far > REACH) | (growth > math.log(GROWTH)), np.inf, far + growth)
    both = unlike[0][:, None] + unlike[1]  # (K, K): the first is row, the second column
    np.fill_diagonal(both, np.inf)  # one face is not two
    first, second = np.unravel_index(np.argmin(both), both.shape)
    return sorted((int(first), int(second))) if np.isfinite(both[first, second]) else None


def _place(boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Middles (K, 2) and sides (K,) of boxes."""
    ends = np.array(boxes, float).reshape(-1, 2, 2)
    return ends.mean(1), (ends[:, 1] - ends[:, 0]).mean(1)
