"""From a picture to the network's input: one transform for training, one for everything else.

Both squash the picture to size x size pixels and normalise it, as the authors do. The training
one varies it with imgaug in between. What it draws depends only on (seed, epoch, index), so that a
run is the same with any number of loader workers, and no worker or epoch repeats another.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

if TYPE_CHECKING:
    from dclib.augment.imgaug_numpy2 import iaa

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class EvalTransform:
    """RGB Pillow image -> (3, size, size) float32, normalised by mean and std of [0, 1] values.

    `sizes`: pixels that alternate by epoch instead, as spatial pyramid pooling allows (He et al.,
    arXiv 1406.4729, section 3.3). Raises ValueError for a size below 1.
    """

    def __init__(
        self,
        size: int = 512,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        sizes: Sequence[int] = (),
    ) -> None:
        self.sizes = tuple(sizes) or (size,)
        if min(*self.sizes, size) < 1:
            raise ValueError(f"size must be at least 1 pixel, not {min(*self.sizes, size)}.")
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)

    def __call__(self, image: Image.Image, epoch: int = 0, index: int = 0) -> Tensor:
        return self.to_tensor(self.resize(image, epoch))

    def size_at(self, epoch: int) -> int:
        """Pixels a side in this epoch."""
        return self.sizes[epoch % len(self.sizes)]

    def resize(self, image: Image.Image, epoch: int = 0) -> Image.Image:
        """The picture squashed to the size of this epoch."""
        size = self.size_at(epoch)
        return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)

    def to_tensor(self, pixels: Image.Image | np.ndarray) -> Tensor:
        """Normalise: an RGB image or (H, W, 3) uint8 -> (3, H, W) float32."""
        return functional.normalize(functional.to_tensor(pixels), self.mean, self.std)

    def finish(self, batch: Tensor, device: str | torch.device) -> Tensor:
        """What is left to do with a loader's batch on the device that trains: here, to go there."""
        return batch.to(device, non_blocking=True)

    def undo(self, images: Tensor) -> Tensor:
        """Back to colours: (..., 3, H, W) normalised -> (..., H, W, 3) float in [0, 1]."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (images.cpu() * std + mean).clamp(0, 1).movedim(-3, -1)


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
        sizes: Sequence[int] = (),
    ) -> None:
        super().__init__(size, mean, std, sizes)
        self.strength, self.seed = strength, seed
        self.pipeline = authors_policy(strength)

    def __call__(self, image: Image.Image, epoch: int = 0, index: int = 0) -> Tensor:
        pixels = np.asarray(self.resize(image, epoch))
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

    `strength` scales every range: 1 as published, 0 leaves only the mirror image. Raises ValueError
    outside [0, 1], and ModuleNotFoundError, saying what to install, where imgaug is missing.
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

    Raises ValueError for a strength outside [0, 1].

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


def draw_seed(*numbers: int) -> int:
    """One 31-bit seed from several numbers, without the collisions of adding them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)
