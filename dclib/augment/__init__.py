"""The authors' augmentation with imgaug, and the transform that trains with it.

What it draws depends only on (seed, epoch, index), so that a run is the same with any number of
loader workers, and no worker or epoch repeats another.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from dclib.data import draw_seed
from dclib.data.loading import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from dclib.framing import KINDS, Frame

if TYPE_CHECKING:
    from dclib.augment.imgaug_numpy2 import iaa


class TrainTransform(EvalTransform):
    """`EvalTransform` with a fresh variation of the picture for every (epoch, index).

    `strength` as in `authors_policy`; needs the extra "augment".
    """

    def __init__(
        self,
        size: int = 512,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        strength: float = 1.0,
        seed: int = 0,
        frame: str = KINDS[0],
        margin: float = 0.0,
    ) -> None:
        super().__init__(size, mean, std, frame, margin)
        self.strength, self.seed = strength, seed
        self.pipeline = authors_policy(strength)

    def __call__(self, picture: Image.Image | Frame, epoch: int = 0, index: int = 0) -> Tensor:
        pixels = np.asarray(self.resize(picture))
        self.pipeline.seed_(draw_seed(self.seed, epoch, index))
        return self.to_tensor(self.pipeline(image=pixels))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pipeline"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a spawned worker: build the pipeline anew, with imgaug's per-process tables."""
        vars(self).update(state)
        self.pipeline = authors_policy(self.strength)


def authors_policy(strength: float = 1.0) -> "iaa.Sequential":
    """The augmentation of the 2019 notebook, in random order for every picture (imgaug).

    `strength` scales every range: 1 as published, 0 leaves only the mirror image.
    """
    ranges = policy_ranges(strength)
    from dclib.augment.imgaug_numpy2 import iaa

    return iaa.Sequential(
        [
            iaa.Fliplr(0.5),
            iaa.Crop(percent=ranges["crop"]),
            iaa.Sometimes(0.5, iaa.GaussianBlur(sigma=ranges["blur"])),
            iaa.AdditiveGaussianNoise(scale=ranges["noise"], per_channel=0.5),
            iaa.Multiply(ranges["multiply"], per_channel=0.2),
            iaa.Affine(
                scale={axis: ranges["scale"] for axis in "xy"},
                translate_percent={axis: ranges["translate"] for axis in "xy"},
                rotate=ranges["rotate"],
                shear=ranges["shear"],
            ),
            iaa.AddToHueAndSaturation(ranges["colour"], per_channel=True),
            iaa.LinearContrast(ranges["contrast"]),  # ContrastNormalization in 2019
        ],
        random_order=True,
    )


def policy_ranges(strength: float) -> dict[str, tuple[float, float]]:
    """(low, high) of every parameter of the authors' policy, scaled about what changes nothing.

    >>> policy_ranges(0.5)["multiply"]
    (0.9, 1.1)
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"The strength of augmentation lies between 0 and 1, not {strength}.")

    def around(low: float, high: float, neutral: float = 0.0) -> tuple[float, float]:
        return (neutral + strength * (low - neutral), neutral + strength * (high - neutral))

    steps = round(10 * strength)
    return {
        "crop": around(0, 0.1),  # share of a side, each of the four drawn for itself
        "blur": around(0, 0.5),  # sigma in pixels
        "noise": around(0, 0.05 * 255),  # standard deviation in grey levels
        "multiply": around(0.8, 1.2, neutral=1),
        "scale": around(0.8, 1.2, neutral=1),
        "translate": around(-0.2, 0.2),  # share of a side
        "rotate": around(-25, 25),  # degrees
        "shear": around(-8, 8),  # degrees
        "colour": (-steps, steps),  # of hue and saturation, whole ones
        "contrast": around(0.75, 1.5, neutral=1),
    }
