"""The authors' augmentation once more, on tensors: whole batches, on the device that trains.

The twin of `dclib.augment.authors_policy`: the same eight operations with the same ranges, each
picture with parameters and an order of its own. What a picture gets depends only on (seed, epoch,
index): not on its batch, the loader's workers or the device.

imgaug works on uint8, so every operation here ends on whole grey levels too, by rounding or cutting
off as imgaug does. What still differs: OpenCV interpolates and converts colours with fixed-point
tables (a level or two), and the noise is read from one table of normal numbers, each picture from a
place of its own, so that it is the same on every device.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from dclib.augment import policy_ranges
from dclib.data.loading import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from dclib.framing import KINDS, Frame

NOISE_PLACES = 2**22  # from where in the table a picture's noise may start
Draw = dict[str, Any]  # parameters by operation, and their "order"; see `TensorPolicy.draw`


class TensorPolicy:
    """`authors_policy(strength)` for batches; call it with images and their (epoch, index)."""

    def __init__(self, strength: float = 1.0, seed: int = 0) -> None:
        self.ranges, self.seed = policy_ranges(strength), seed

    def __call__(self, images: Tensor, keys: Sequence[tuple[int, int]] | Tensor) -> Tensor:
        """Vary `images`: (B, 3, H, W) uint8 -> the same.

        `keys`: B pairs (epoch, index), as a list or a (B, 2) tensor. A GPU takes the batch at once;
        on a CPU one picture after the other is faster, because it stays in the cache.
        """
        pairs = torch.as_tensor(keys).tolist()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}.")
        if len(pairs) != len(images):
            raise ValueError(f"{len(images)} images need as many (epoch, index), not {len(pairs)}.")
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, not {images.dtype}.")
        draws = [self.draw(epoch, index) for epoch, index in pairs]
        if images.device.type != "cpu":
            return apply_draws(images.float(), draws).to(torch.uint8)
        varied = [
            apply_draws(image.float(), [draw]).to(torch.uint8)
            for image, draw in zip(images.split(1), draws, strict=True)
        ]
        return torch.cat(varied)

    def draw(self, epoch: int, index: int) -> Draw:
        """What one picture gets: a tuple of parameters by operation, and "order", a list of names.

        Operations that would change nothing are not in the order.
        """
        rng, low_high = np.random.default_rng([self.seed, epoch, index]), self.ranges
        steps = int(low_high["colour"][1])  # to either side
        draw = {
            "mirror": (rng.random() < 0.5,),
            "crop": tuple(rng.uniform(*low_high["crop"], 4)),  # share of top, right, bottom, left
            "blur": (rng.uniform(*low_high["blur"]) * (rng.random() < 0.5),),
            "noise": (
                rng.uniform(*low_high["noise"]),
                rng.random() < 0.5,
                rng.integers(NOISE_PLACES),
            ),
            "multiply": _per_channel(rng, low_high["multiply"], 0.2),
            "affine": (
                *rng.uniform(*low_high["scale"], 2),
                *rng.uniform(*low_high["translate"], 2),
                rng.uniform(*low_high["rotate"]),
                rng.uniform(*low_high["shear"]),
            ),
            "colour": tuple(rng.integers(-steps, steps, 2, endpoint=True)),
            "contrast": (rng.uniform(*low_high["contrast"]),),
        }
        order = [name for name in rng.permutation(list(OPERATIONS)) if _changes(name, draw[name])]
        return draw | {"order": order}


class TensorTransform(EvalTransform):
    """Training with `TensorPolicy`: the loader only resizes, `finish` does the rest on the device.

    Called as transform(image, epoch, index): (3, size, size) uint8 and the (2,) key that `finish`
    needs. So its items are pairs where those of `EvalTransform` are tensors.
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
        self.policy = TensorPolicy(strength, seed)

    def __call__(  # type: ignore[override]  # pairs
        self, picture: Image.Image | Frame, epoch: int = 0, index: int = 0
    ) -> tuple[Tensor, Tensor]:
        return pil_to_tensor(self.resize(picture)), torch.tensor([epoch, index])

    def finish(  # type: ignore[override]  # pairs
        self, batch: tuple[Tensor, Tensor], device: str | torch.device
    ) -> Tensor:
        """A loader's batch -> (B, 3, size, size) float32 on `device`, varied and normalised."""
        pixels, keys = batch
        pixels = self.policy(super().finish(pixels, device), keys)
        mean, std = (torch.tensor(v).view(3, 1, 1).to(device) for v in (self.mean, self.std))
        return (pixels / 255 - mean) / std

    def undo(self, batch: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]  # pairs
        """Colours of one item of the data set: (H, W, 3) float in [0, 1]."""
        pixels, key = batch
        return super().undo(self.finish((pixels[None], key[None]), "cpu")[0])


def apply_draws(images: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Grey levels (B, 3, H, W) float32 from 0 to 255, each picture varied as its draw says.

    Step by step: always the operation whose turn it is for most pictures.
    """
    waiting = [list(draw["order"]) for draw in draws]
    while any(waiting):
        name = Counter(names[0] for names in waiting if names).most_common(1)[0][0]
        rows = [row for row, names in enumerate(waiting) if names[:1] == [name]]
        for row in rows:
            waiting[row].pop(0)
        parameters = torch.tensor([draws[row][name] for row in rows], dtype=torch.float64)
        if len(rows) == len(images):
            images = OPERATIONS[name](images, parameters)
        else:
            where = torch.tensor(rows).to(images.device)
            images = images.index_copy(0, where, OPERATIONS[name](images[where], parameters))
    return images


def _per_channel(
    rng: np.random.Generator, low_high: tuple[float, float], chance: float
) -> tuple[float, ...]:
    """One factor for each channel with this chance, else one for all three."""
    factors = rng.uniform(*low_high, 3)
    return tuple(factors if rng.random() < chance else factors[[0, 0, 0]])


def _changes(name: str, values: tuple[float, ...]) -> bool:
    """Whether an operation with these parameters does anything at all."""
    values = values[:1] if name == "noise" else values
    return tuple(values) != NEUTRAL.get(name, (0,) * len(values))


def _on(images: Tensor, values: Tensor) -> Tensor:
    """Parameters (n, k), float64 on the CPU -> (n, k, 1, 1), float32 beside the images."""
    return values.float().to(images.device)[:, :, None, None]


def _mirror(images: Tensor, _: Tensor) -> Tensor:
    return images.flip(3)


def _crop(images: Tensor, shares: Tensor) -> Tensor:
    """Cut shares of top, right, bottom, left off, then resize as OpenCV's INTER_AREA enlarges."""
    height, width = images.shape[2:]
    sides = torch.tensor([height, width, height, width])
    top, right, bottom, left = (shares * sides).round().unbind(1)
    xs = _box_positions(left, width - left - right, width)
    ys = _box_positions(top, height - top - bottom, height)
    xs, ys = F.pad(xs[:, :, None], (0, 1)), F.pad(ys[:, :, None], (1, 0))  # (x, 0) and (0, y)
    return _sample(images, xs, ys)


def _box_positions(start: Tensor, kept: Tensor, n: int) -> Tensor:
    """Where to interpolate so that each of `n` pixels is the mean of the share that it covers."""
    begins = torch.arange(n) * (kept / n)[:, None]
    share = ((begins % 1 + kept[:, None] / n - 1) * n / kept[:, None]).clamp(0, 1)
    return (begins.floor() + share).clamp(max=kept[:, None] - 1) + start[:, None]


def _affine(images: Tensor, parameters: Tensor) -> Tensor:
    """Shear y, scale, shear x, rotate and move about the centre; zeros come in from outside."""
    height, width = images.shape[2:]
    inverse = torch.linalg.inv(_affine_matrices(parameters, height, width))
    along_x, along_y, start = inverse[:, None, :2].unbind(3)  # (n, 1, 2)
    xs, ys = torch.arange(width)[:, None], torch.arange(height)[:, None]
    return _sample(images, along_x * xs, along_y * ys + start)


def _affine_matrices(parameters: Tensor, height: int, width: int) -> Tensor:
    """Scale x and y, translation x and y as shares, rotation and shear in degrees -> (n, 3, 3).

    The matrices act on pixels (x, y, 1). imgaug shears both axes by the one angle that it draws.
    """
    scale_x, scale_y, move_x, move_y, rotation, shear = parameters.unbind(1)
    rotation, slope = rotation.deg2rad(), shear.deg2rad().tan()
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    centre_x, centre_y = one * (width - 1) / 2, one * (height - 1) / 2

    def matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, one))], 1)

    to_origin = matrix((one, zero, -centre_x), (zero, one, -centre_y))
    shear_y = matrix((one, zero, zero), (slope, one, zero))
    scale = matrix((scale_x, zero, zero), (zero, scale_y, zero))
    shear_x = matrix((one, -slope, zero), (zero, one, zero))
    rotate = matrix(
        (rotation.cos(), -rotation.sin(), centre_x + move_x * width),
        (rotation.sin(), rotation.cos(), centre_y + move_y * height),
    )
    return rotate @ shear_x @ scale @ shear_y @ to_origin


def _sample(images: Tensor, by_column: Tensor, by_row: Tensor) -> Tensor:
    """Bilinear values, zero outside, in whole levels; positions (x, y) are sums of the two.

    by_column (n, W, 2) and by_row (n, H, 2), in pixels, are added on the device of the images.
    """
    size = torch.tensor(images.shape[:1:-1])
    by_column, by_row = 2 * by_column / size, (2 * by_row + 1) / size - 1
    columns, rows = (part.float().to(images.device) for part in (by_column, by_row))
    grid = columns[:, None] + rows[:, :, None]  # (n, H, W, 2)
    return F.grid_sample(images, grid, align_corners=False).round_()


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of 3 x 3 pixels: for sigma up to 0.5 the next ones weigh less than 0.0004."""
    side = torch.exp(-0.5 / sigma**2)
    side, centre = _on(images, side / (1 + 2 * side)), _on(images, 1 / (1 + 2 * side))
    x = F.pad(images, (1, 1, 1, 1), mode="reflect")
    x = (x[..., :-2] + x[..., 2:]).mul_(side).addcmul_(x[..., 1:-1], centre)
    x = (x[..., :-2, :] + x[..., 2:, :]).mul_(side).addcmul_(x[..., 1:-1, :], centre)
    return x.round_()


def _noise(images: Tensor, parameters: Tensor) -> Tensor:
    """Normal noise: (deviation, whether each channel has its own, where in the table it starts)."""
    _, channels, height, width = images.shape
    pixels, values = height * width, []
    table = _noise_table(channels * pixels, images.device)
    for _, own, start in parameters.tolist():
        start, n = int(start), channels if own else 1
        value = table[start : start + n * pixels].view(n, height, width)
        values.append(value.expand(channels, height, width))
    noise = torch.stack(values).mul_(_on(images, parameters[:, :1])).round_()
    return noise.add_(images).clamp_(0, 255)


@functools.lru_cache(maxsize=2)
def _noise_table(n: int, device: torch.device) -> Tensor:
    """Normal numbers for pictures of `n` values, drawn on the CPU so that all devices have them."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(NOISE_PLACES + n, generator=rng).to(device)


def _multiply(images: Tensor, factors: Tensor) -> Tensor:
    return (images * _on(images, factors)).clamp_(0, 255).floor_()


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return (images - 127).mul_(_on(images, factor)).add_(127).clamp_(0, 255).floor_()


def _colour(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by shift / 255 of half a circle, add to the saturation; steps as OpenCV's."""
    hue_shift, saturation_shift = _on(images, shifts).unbind(1)
    hue_shift = (hue_shift * 180 / 255).trunc()  # OpenCV counts 180 steps of 2 degrees
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    sector = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sector = torch.where(value == red, green - blue, sector)
    hue = sector.mul_(30).div_(chroma.clamp(min=1)).round_()  # in OpenCV's steps
    hue = hue.add_(hue_shift).remainder_(180).div_(30)
    saturation = chroma.mul_(255).div_(value.clamp(min=1)).round_().add_(saturation_shift)
    reach = saturation.clamp_(0, 255).mul_(value).div_(255)
    gaps = [2 - (hue - 3).abs_(), (hue - 2).abs_() - 1, (hue - 4).abs_() - 1]
    return torch.stack([value - gap.clamp_(0, 1).mul_(reach) for gap in gaps], 1).round_()


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mirror": _mirror,
    "crop": _crop,
    "blur": _blur,
    "noise": _noise,
    "multiply": _multiply,
    "affine": _affine,
    "colour": _colour,
    "contrast": _contrast,
}
NEUTRAL = {"multiply": (1, 1, 1), "affine": (1, 1, 0, 0, 0, 0), "contrast": (1,)}
