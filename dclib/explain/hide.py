"""What the network says without a region: cells of the feature map zeroed, or pixels covered.

The ground truth for maps. It needs a pass of the head for every region, not of the backbone; only
covered pixels need that too.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclib.evaluation.interventions import paint
from dclib.gradcam import head_logits, target_weights
from dclib.model import DeepConnection

CHUNK = 64  # feature maps in the head at once


@torch.no_grad()
def hide_cells(model: DeepConnection, feature_map: Tensor, hidden: Tensor) -> Tensor:
    """Logits with some cells of the feature map set to zero: -> (B, 2).

    Args:
        feature_map: (B, C, h, w), from `dclib.gradcam.extract_features`; (1, C, h, w) is taken for
            all of `hidden`.
        hidden: (B, h, w) bool, true where a cell is to be zeroed.

    A maximum that was there goes to the runner-up in its bin. Raises ValueError for other shapes.
    """
    if hidden.dim() != 3 or hidden.shape[1:] != feature_map.shape[2:]:
        wanted = ("B", *feature_map.shape[2:])
        raise ValueError(f"hidden must be {wanted}, not {tuple(hidden.shape)}.")
    if len(feature_map) not in (1, len(hidden)):
        raise ValueError(f"{len(hidden)} masks do not fit {len(feature_map)} feature maps.")
    maps = feature_map.expand(len(hidden), -1, -1, -1)
    parts = zip(maps.split(CHUNK), hidden.split(CHUNK), strict=True)
    return torch.cat([head_logits(model, part * ~mask[:, None]) for part, mask in parts])


@torch.no_grad()
def leave_one_out(model: DeepConnection, feature_map: Tensor, target: str = "margin") -> Tensor:
    """How much a score falls when each cell alone is zeroed: (B, C, h, w) -> (B, h, w).

    `target` is a class name or "margin", as in `dclib.gradcam.grad_cam`; ValueError for others.
    """
    h, w = feature_map.shape[2:]
    alone = torch.eye(h * w, dtype=torch.bool, device=feature_map.device).view(-1, h, w)
    weights = target_weights(model.classes, [target])[0].to(feature_map.device)  # (2,)
    whole = head_logits(model, feature_map) @ weights  # (B,)
    without = [hide_cells(model, one[None], alone) @ weights for one in feature_map]
    return (whole[:, None] - torch.stack(without)).view(-1, h, w)


def cover_pixels(image: Image.Image, boxes: np.ndarray | Sequence[Sequence[float]]) -> Image.Image:
    """A picture with boxes of it in the mean colour of its rest, which says nothing of them.

    `boxes`: (K, 4), x0, y0, x1, y1 as shares of the sides, 0 to 1.
    """
    return Image.fromarray(paint(np.asarray(image.convert("RGB")), np.reshape(boxes, (-1, 4))))
