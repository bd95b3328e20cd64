"""How the weights learn: which of them, at which rate, and what each picture counts."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from dclib.config import TrainConfig
from dclib.model import BLOCKS, DeepConnection

# From the head down; every group learns at `lr_decay` times the rate of the one above it.
GROUPS = (("head",), *BLOCKS[::-1])
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_optimizer(model: DeepConnection, config: TrainConfig) -> Optimizer:
    """Adam or AdamW over all parameters that require a gradient, with discriminative rates.

    The head learns at config.lr, each ResNet stage at config.lr_decay times the rate of the stage
    above it (Howard & Ruder, arXiv 1801.06146, section 3.2; 1 gives all the same rate). Raises
    ValueError for an unknown optimizer, or an lr_decay that is not above 0 and up to 1.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {tuple(OPTIMIZERS)}, not {config.optimizer!r}.")
    if not 0 < config.lr_decay <= 1:
        raise ValueError(f"lr_decay lies above 0 and up to 1, not {config.lr_decay}.")
    groups = []
    for depth, names in enumerate(GROUPS):
        modules = [
            model.head if name == "head" else getattr(model.backbone, name) for name in names
        ]
        params = [p for module in modules for p in module.parameters() if p.requires_grad]
        if params:
            rate = config.lr * config.lr_decay**depth
            groups.append({"params": params, "lr": rate, "initial_lr": rate})
    return OPTIMIZERS[config.optimizer](groups, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Every group at this factor of the rate that it began with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def cosine(share: float) -> float:
    """Factor of the learning rate after this share of all steps: 1 at the start, 0 at the end."""
    return 0.5 * (1 + math.cos(math.pi * share))


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether only the head learns in this epoch."""
    return config.freeze_backbone or epoch < config.freeze_epochs


def class_weights(wanted: str | None, labels: Tensor, n_classes: int = 2) -> Tensor | None:
    """What a picture of each class counts in the loss: (n_classes,) float, or None for all alike.

    `wanted`: None, "balanced" (n / (n_classes * pictures of the class), which is 1 on average over
    the training pictures) or a positive number a class, such as "1,2". ValueError for others.

    >>> class_weights("balanced", torch.tensor([0, 0, 0, 1]))
    tensor([0.6667, 2.0000])
    """
    if wanted is None:
        return None
    if wanted == "balanced":
        return len(labels) / (n_classes * torch.bincount(labels, minlength=n_classes).float())
    try:
        weights = torch.tensor([float(weight) for weight in wanted.split(",")])
    except ValueError:
        weights = torch.empty(0)
    if len(weights) != n_classes or not (weights > 0).all():
        raise ValueError(
            f'class_weights must be "balanced" or {n_classes} positive numbers such as "1,2", '
            f"not {wanted!r}."
        )
    return weights
