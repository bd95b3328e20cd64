"""Power mean transformation (after Zhang & Wu, Pattern Recognition 2019) as DeepConnection has it.

    pmt(x) = concat(s * log(1 + |x|), s * log(1 + |x|)^2),  s = sign(x)

This is the formula of the 2019 DeepConnection code, with log1p in place of log(1 + x), which loses
small values in half precision. The layer equation of the paper itself was not available to us.
Behind ReLU and max pooling x >= 0, so that s only matters for other uses.
"""

import torch
from torch import Tensor, nn


def power_mean_transform(x: Tensor) -> Tensor:
    """Compress large activations: two odd, monotone functions of x side by side.

    Computed in float32 (float64 for float64 input), also under autocast, and returned in x's dtype.

    Shape: (B, F) -> (B, 2 * F), the log half first.

    >>> power_mean_transform(torch.tensor([[0.0, 1.0]]))
    tensor([[0.0000, 0.6931, 0.0000, 0.4805]])
    """
    if not x.is_floating_point():
        raise TypeError(f"power_mean_transform needs a floating-point tensor, not {x.dtype}.")
    wide = x if x.dtype == torch.float64 else x.float()
    log = torch.log1p(wide.abs())
    sign = torch.sign(wide)
    return torch.cat([sign * log, sign * log * log], dim=1).to(x.dtype)


class PowerMeanTransform(nn.Module):
    """`power_mean_transform` as a layer."""

    width_multiplier = 2

    def forward(self, x: Tensor) -> Tensor:
        return power_mean_transform(x)
