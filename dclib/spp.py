"""Spatial pyramid pooling (He et al., arXiv 1406.4729): a fixed-length vector from any feature map.

Level n lays an n x n grid over the map and keeps the maximum of every bin; the levels are
concatenated. Along an axis of a cells, bin i runs from floor(i * a / n) to ceil((i + 1) * a / n).

The 2019 code used windows of ceil(a / n) with a padding that PyTorch refuses for most sizes (224,
288, 320, 384, 640 px and most non-square images raise). Where n divides a both give the same bins,
so that its trained weights fit: 256, 512 and 768 px with levels 8, 4, 2, 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = (8, 4, 2, 1)


def spatial_pyramid_pool(feature_map: Tensor, levels: Sequence[int] = LEVELS) -> Tensor:
    """Max-pool a map over pyramids of bins.

    Args:
        feature_map: any floating dtype, every height and width from 1 up.
        levels: bins a side, one number a level.

    Shape: (B, C, H, W) -> (B, C * sum(n * n for n in levels)); per level the channel runs slowest,
    then the bin's row, then its column.

    >>> spatial_pyramid_pool(torch.zeros(2, 512, 7, 10)).shape
    torch.Size([2, 43520])
    """
    _check_levels(levels)
    if feature_map.dim() != 4 or 0 in feature_map.shape[1:]:
        raise ValueError(f"feature_map must be (B, C, H, W), not {tuple(feature_map.shape)}.")
    pooled = [F.adaptive_max_pool2d(feature_map, n).flatten(1) for n in levels]  # (B, C * n * n)
    return torch.cat(pooled, dim=1)


class SpatialPyramidPool(nn.Module):
    """`spatial_pyramid_pool` as a layer; bad levels raise when it is made."""

    def __init__(self, levels: Sequence[int] = LEVELS) -> None:
        super().__init__()
        _check_levels(levels)
        self.levels = tuple(levels)

    def forward(self, feature_map: Tensor) -> Tensor:
        return spatial_pyramid_pool(feature_map, self.levels)

    def out_features(self, channels: int) -> int:
        """Length of the vector that `channels` maps become."""
        return channels * sum(n * n for n in self.levels)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


def _check_levels(levels: Sequence[int]) -> None:
    if not levels or any(not isinstance(n, int) or n < 1 for n in levels):
        raise ValueError(f"levels must be whole numbers from 1 up, such as {LEVELS}, not {levels}.")
