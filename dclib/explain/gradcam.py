"""Grad-CAM (Selvaraju et al., arXiv 1610.02391) and HiResCAM (Draelos et al., arXiv 2011.08891).

Both are gradients of a score at the last convolution's output, so the backbone runs once, without a
graph, and only the head is differentiated: all targets together, in float32 whatever the dtype of
the network. Nothing is hooked, and the network is left as it was found.

    feature_map = extract_features(model, images)     # (B, C, h, w)
    cams = grad_cam(model, feature_map)               # (B, T, h, w), signed

Grad-CAM averages the gradient over the map, which is exact for global average pooling only. Behind
a pyramid it can light places that the network did not use; HiResCAM, and evidence.py, do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dclib.model import DeepConnection
from dclib.predict import head_logits, target_weights

METHODS = ("grad-cam", "hirescam")


@dataclass(frozen=True)
class Cams:
    """Maps of one or more targets, as computed: signed, one value a cell, never rescaled.

    `maps` (B, T, h, w) float32; `targets` names T scores.
    """

    maps: Tensor
    targets: tuple[str, ...]

    @property
    def positive(self) -> Tensor:
        """What Grad-CAM as published shows: ReLU of the maps. All zero means no evidence."""
        return self.maps.clamp(min=0)

    def __getitem__(self, target: str) -> Tensor:
        """The maps (B, h, w) of one target, by name."""
        if target not in self.targets:
            raise ValueError(f"There is no map of {target!r}, only of {', '.join(self.targets)}.")
        return self.maps[:, self.targets.index(target)]


def grad_cam(
    model: DeepConnection,
    feature_map: Tensor,
    targets: Sequence[str] = ("happy", "unhappy"),
    method: str = "grad-cam",
) -> Cams:
    """What each cell of the feature map adds to a score, by its gradient. Returns `Cams`.

        Grad-CAM: sum_k mean_ij(dy / dA_kij) * A_kij       HiResCAM: sum_k (dy / dA_kij) * A_kij

    Args:
        model: a `DeepConnection`, of any stage, dtype and mode, frozen or not.
        feature_map: (B, C, h, w), from `extract_features`.
        targets: scores y before the softmax: class names, or "margin" (unhappy minus happy).

    Works under no_grad, inference_mode and autocast.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, not {method!r}.")
    if feature_map.dim() != 4:
        raise ValueError(f"feature_map must be (B, C, h, w), not {tuple(feature_map.shape)}.")
    n, device = len(feature_map), feature_map.device
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        weights = target_weights(model.classes, targets).to(device)  # (T, n_classes)
        copies = feature_map.detach().float().repeat(len(weights), 1, 1, 1)  # (T * B, C, h, w)
        logits = head_logits(model, copies.requires_grad_())  # every target has a copy of its own
        scores = (logits.unflatten(0, (-1, n)) * weights[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, copies)
    if method == "grad-cam":
        gradient = gradient.mean((2, 3), keepdim=True)  # (T * B, C, h, w) -> (T * B, C, 1, 1)
    maps = (gradient * copies.detach()).sum(1).unflatten(0, (-1, n))  # (T, B, h, w)
    return Cams(maps.transpose(0, 1), tuple(targets))
