"""48 faces of one photo: what augmentation can do to a picture, each way with its name.

A show of imgaug's range, not the training policy (that is `dclib.augment.authors_policy`). Every
variant changes grey pictures too, and leaves what is in the picture to be recognised.
"""

from typing import Any

import numpy as np
from PIL import Image

from dclib.augment.imgaug_numpy2 import iaa
from dclib.data import draw_seed
from dclib.pictures import Source, encode, read_picture

Variants = dict[str, iaa.Augmenter]

SIDE = 256  # pixels of the longer side; what imgaug counts in pixels is made for it
SHORTEST = 64  # pixels of the shorter side, whatever the format


def augmentation_grid(image: Source, n: int = 48, seed: int = 0) -> dict[str, np.ndarray]:
    """The first `n` named variants of a picture: {name: (H, W, 3) uint8}, the longer side 256 px.

    `image`: whatever `dclib.pictures.read_picture` takes. `seed` decides where rain falls and
    patches lie.
    """
    variants = _variants()
    if not 1 <= n <= len(variants):
        raise ValueError(f"n is {n}, but there are 1 to {len(variants)} variants to choose from.")
    pixels, grid = _fit(read_picture(image).image), {}
    for index, (name, augmenter) in enumerate(list(variants.items())[:n]):
        augmenter.seed_(draw_seed(seed, index))
        grid[name] = augmenter(image=pixels)
    return grid


def _fit(image: Image.Image) -> np.ndarray:
    scale = SIDE / max(image.size)
    width, height = (max(round(scale * side), SHORTEST) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def _variants() -> Variants:
    return _geometry() | _light() | _colour() | _focus() | _damage() | _weather_and_style()


def _geometry() -> Variants:
    """Other places, angles and shapes; what comes in from outside is the picture's reflection."""

    def affine(**changes: Any) -> iaa.Affine:
        return iaa.Affine(mode="reflect", **changes)

    return {
        "mirror image": iaa.Fliplr(1),
        "turned 15° left": affine(rotate=-15),
        "turned 20° right": affine(rotate=20),
        "sheared": affine(shear=16),
        "stretched": affine(scale={"x": 1.35, "y": 1.0}),
        "zoomed in": affine(scale=1.4),
        "zoomed out": iaa.Affine(scale=0.75),
        "moved left": affine(translate_percent={"x": -0.18}),
        "cropped off centre": iaa.Crop(percent=(0.0, 0.2, 0.25, 0.05), sample_independently=False),
        "seen from the side": iaa.PerspectiveTransform(scale=(0.12, 0.14)),
        "mirrored and turned": iaa.Sequential([iaa.Fliplr(1), affine(rotate=10, scale=1.1)]),
        "under water": iaa.ElasticTransformation(alpha=(80.0, 90.0), sigma=9.0, mode="reflect"),
    }


def _light() -> Variants:
    return {
        "brighter": iaa.Multiply(1.35),
        "darker": iaa.Multiply(0.6),
        "flat contrast": iaa.LinearContrast(0.5),
        "strong contrast": iaa.LinearContrast(1.7),
        "lifted shadows": iaa.GammaContrast(0.55),
        "deep shadows": iaa.GammaContrast(1.9),
        "dusk from below": iaa.BlendAlphaVerticalLinearGradient(
            iaa.Multiply(0.25), min_value=0, max_value=1, start_at=0.1, end_at=0.9
        ),
        "lamp from the right": iaa.BlendAlphaHorizontalLinearGradient(
            iaa.Multiply(1.6), min_value=0, max_value=1, start_at=0.2, end_at=1
        ),
        "local contrast": iaa.AllChannelsCLAHE(clip_limit=8, tile_grid_size_px=8),
        "faded print": iaa.Sequential([iaa.LinearContrast(0.6), iaa.Add(50)]),
    }


def _colour() -> Variants:
    def tint(red: float, green: float, blue: float) -> iaa.Sequential:
        factors = enumerate((red, green, blue))
        return iaa.Sequential([iaa.WithChannels(c, iaa.Multiply(factor)) for c, factor in factors])

    grey = iaa.Grayscale(1.0)
    return {
        "warm light": tint(1.2, 1.0, 0.75),
        "cold light": tint(0.7, 0.95, 1.25),
        "neon light": tint(0.8, 1.2, 0.85),
        "sepia": iaa.Sequential([grey, tint(1.07, 0.87, 0.63)]),
        "black and white": iaa.Sequential([grey, iaa.SigmoidContrast(gain=8, cutoff=0.45)]),
        "moonlight": iaa.Sequential([iaa.Grayscale(0.7), tint(0.4, 0.5, 0.8)]),
        "vivid": iaa.Sequential([iaa.MultiplySaturation(1.7), iaa.SigmoidContrast(6, 0.55)]),
        "poster": iaa.Posterize(nb_bits=2),
        "eight colours": iaa.KMeansColorQuantization(n_colors=8, to_colorspace="RGB"),
    }


def _focus() -> Variants:
    return {
        "out of focus": iaa.GaussianBlur(2.8),
        "motion blur": iaa.MotionBlur(k=19, angle=60, direction=0),
        "sharpened": iaa.Sharpen(alpha=1.0, lightness=1.2),
        "embossed": iaa.Emboss(alpha=0.8, strength=1.5),
        "brush strokes": iaa.Sequential([iaa.MedianBlur(k=9), iaa.Sharpen(1.0, 1.0)]),
    }


def _damage() -> Variants:
    return {
        "film grain": iaa.AdditiveGaussianNoise(scale=28),
        "colour noise": iaa.AdditiveGaussianNoise(scale=45, per_channel=True),
        "salt and pepper": iaa.SaltAndPepper(0.07),
        "big pixels": iaa.AveragePooling(8),
        "JPEG artefacts": iaa.Lambda(_jpeg),
        "cut-outs": iaa.Cutout(nb_iterations=3, size=0.2, fill_mode="constant", cval=128),
        "missing patches": iaa.CoarseDropout(0.08, size_percent=0.1),
    }


def _jpeg(images: list[np.ndarray], *_: Any) -> list[np.ndarray]:
    """By Pillow, because imgaug's own warns that imageio will change."""
    for image in images:
        image[:] = np.asarray(read_picture(encode(Image.fromarray(image), quality=4)).image)
    return images


def _weather_and_style() -> Variants:
    return {
        "rain": iaa.Rain(nb_iterations=2, drop_size=0.015, speed=0.1),
        "snow": iaa.Snowflakes(density=0.06, flake_size=0.6, speed=0.01),
        "fog": iaa.BlendAlpha(0.65, iaa.Fog()),
        "cartoon": iaa.Cartoon(segmentation_size=1.0, saturation=2.0, edge_prevalence=1.0),
        "mosaic": iaa.UniformVoronoi(n_points=1500, p_replace=1.0),
    }
