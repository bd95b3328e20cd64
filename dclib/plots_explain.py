"""Figures of what the network looked at. Every function returns a figure or an array.

Colours have one meaning everywhere: vermilion is evidence for unhappy, blue for happy. A map is
never stretched to its own maximum: those that are compared have one scale, and where there is no
evidence there is no colour.
"""

import numpy as np
import torch
from matplotlib.colors import to_rgb

from dclib.gradcam import upsample
from dclib.plots import HAPPY, UNHAPPY

OPACITY = 0.75  # of the colour at `scale`


def overlay(image, values, scale, colours=(HAPPY, UNHAPPY), smooth=False):
    """A map over its picture: an array (H, W, 3), 0 to 1.

    Args:
        image: Pillow image, or array (H, W, 3) of 0 to 255 or 0 to 1.
        values: (h, w); cells are stretched over the picture.
        scale: value of full colour, for all maps that are compared; larger ones look the same.
        colours: of negative values and of positive ones.
        smooth: bilinear between cells, as Grad-CAM was published; else every cell is a square.

    The picture is greyed, and as grey where a value is 0. Raises ValueError unless scale > 0.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, not {scale}.")
    picture = np.asarray(image, float)
    picture = picture / 255 if picture.max() > 1 else picture  # (H, W, 3)
    grey = picture.mean(2, keepdims=True) * 0.7 + picture * 0.3
    values = torch.as_tensor(values, dtype=torch.float32)[None, None]
    if smooth:
        values = upsample(values, picture.shape[:2])
    else:
        values = torch.nn.functional.interpolate(values, size=picture.shape[:2])
    strength = (values[0, 0].numpy() / scale).clip(-1, 1)[..., None]  # (H, W, 1)
    colour = np.where(strength < 0, to_rgb(colours[0]), to_rgb(colours[1]))
    share = OPACITY * np.abs(strength)
    return grey * (1 - share) + colour * share
