"""Feature maps computed once, where neither the ResNet nor the pictures change in training."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from dclib.data.loading import CoupleFolder, EvalTransform, keep, make_loader
from dclib.model import BLOCKS, DeepConnection
from dclib.predict import eval_mode, extract_features, pick_device, to_device
from dclib.train.config import TrainConfig
from dclib.train.precision import make_precision

BATCH = 64  # pictures that the ResNet sees at once
MOST = 2 * 2**30  # bytes of feature maps that are kept in memory


@contextmanager
def features_once(
    model: DeepConnection, config: TrainConfig, *datasets: CoupleFolder
) -> Iterator[tuple[CoupleFolder, ...]]:
    """Data sets to train `model` on, and to ask it about, within the `with` block.

    Where all of its ResNet is frozen and no picture is augmented, their items are feature maps
    (C, h, w), computed once, and the model takes these for as long. Other networks with the same
    ResNet find them again. Else, or where they would fill the memory, all stays as it is.
    """
    if not _is_fixed(model, config, datasets):
        yield datasets
        return
    backbone, given = model.to(pick_device(config.device)).backbone, []
    for dataset in datasets:
        given.append(copy(dataset))
        given[-1].given = _compute(model, config, dataset)
    model.backbone = nn.Sequential()
    try:
        yield tuple(given)
    finally:
        model.backbone = backbone


def _is_fixed(
    model: DeepConnection, config: TrainConfig, datasets: tuple[CoupleFolder, ...]
) -> bool:
    """Whether all feature maps stay the same, and fit into memory."""
    frozen = config.freeze_stages == len(BLOCKS) and len(model.backbone) > 0
    if not frozen or any(type(dataset.transform) is not EvalTransform for dataset in datasets):
        return False
    image, _ = datasets[0][0]
    return extract_features(model, image[None]).nbytes * sum(map(len, datasets)) < MOST


def _compute(
    model: DeepConnection, config: TrainConfig, dataset: CoupleFolder
) -> dict[Path, Tensor]:
    """The feature map of every picture by its path; those in `dataset.maps` are known already."""
    device = next(model.parameters()).device
    precision = make_precision(config.precision, device)
    known = dataset.maps.setdefault(_fingerprint(model, dataset.transform, str(precision)), {})
    new = [row for row, (path, _) in enumerate(dataset.samples) if path not in known]
    part = keep(dataset, new)
    with eval_mode(model), torch.no_grad(), precision.evaluating():
        paths = iter(part.samples)
        for images, _ in make_loader(part, BATCH, workers=config.workers) if new else ():
            for features in model.forward_features(to_device(images, device)).float().cpu():
                known[next(paths)[0]] = features.contiguous()
    return known


def _fingerprint(model: DeepConnection, transform: EvalTransform, precision: str) -> str:
    """Of all that decides a feature map but the picture."""
    view = (transform.view, transform.mean, transform.std, precision)
    digest = hashlib.sha256(repr(view).encode())
    for tensor in model.backbone.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()
