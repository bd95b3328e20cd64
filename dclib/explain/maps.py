"""Maps of many pictures as arrays, and what else trials of maps need.

`dclib.explain.localisation` and `dclib.explain.faithfulness` put these maps to the test.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dclib.augment import EvalTransform
from dclib.checkpoint import Checkpoint
from dclib.data import CoupleFolder
from dclib.evaluation.parts import choose_pictures
from dclib.evidence import find_evidence
from dclib.gradcam import extract_features, grad_cam
from dclib.model import DeepConnection

BATCH = 32  # pictures in memory
CAMS = {"Grad-CAM": "grad-cam", "HiResCAM": "hirescam"}


def load_features(
    checkpoint: Checkpoint,
    root: str | Path,
    split: str = "test",
    n: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, np.ndarray]:
    """Feature maps (N, C, h, w) and groups (N,) of about n pictures.

    `size`: pixels a side of the network's input, default as it was trained; see `choose`.
    """
    dataset, chosen, groups = choose(checkpoint, root, split, n, seed)
    return collect_features(checkpoint, dataset, chosen, size), groups


def choose(
    checkpoint: Checkpoint, root: str | Path, split: str, n: int | None, seed: int = 0
) -> tuple[CoupleFolder, list[int], np.ndarray]:
    """A `CoupleFolder`, the indices of about n of its pictures, and their groups as numbers (n,).

    See `dclib.evaluation.parts.choose_pictures`.
    """
    dataset = CoupleFolder(root, split, classes=checkpoint.model.classes)
    chosen = choose_pictures(dataset, n, seed)
    return dataset, chosen, np.unique(np.array(dataset.groups)[chosen], return_inverse=True)[1]


def collect_features(
    checkpoint: Checkpoint,
    dataset: CoupleFolder,
    chosen: Sequence[int],
    size: int | None = None,
    model: DeepConnection | None = None,
) -> Tensor:
    """Feature maps (N, C, h, w) of chosen pictures, on the CPU.

    `size`: pixels a side of the input, default the checkpoint's; `model` takes its network's place.
    """
    config, model = checkpoint.config, model or checkpoint.model
    transform = EvalTransform(size or config["image_size"], config["mean"], config["std"])
    device, maps = next(model.parameters()).device, []
    for start in range(0, len(chosen), BATCH):
        pictures = [dataset.picture(index) for index in chosen[start : start + BATCH]]
        images = torch.stack([transform(picture) for picture in pictures]).to(device)
        maps.append(extract_features(model, images).cpu())  # (B, C, h, w)
    return torch.cat(maps)


def random_network(model: DeepConnection, seed: int = 0) -> DeepConnection:
    """A network of the same kind that has learned nothing, in eval mode, on the same device."""
    kind = (model.stage, model.backbone_name, None, model.levels, model.head.samples)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DeepConnection(*kind, model.classes).eval().to(next(model.parameters()).device)


def draw_maps(model: DeepConnection, features: Tensor) -> dict[str, np.ndarray]:
    """The maps of feature maps (N, C, h, w), none below 0: {name: (N, h, w)}.

    Evidence is that of the margin: all of it, and what speaks for the network's answer. Grad-CAM
    and HiResCAM are of the class that it answers.
    """

    def draw(part: Tensor) -> dict[str, Tensor]:
        evidence = find_evidence(model, part)
        answers, rows = evidence.logits.argmax(1), torch.arange(len(part))
        sign = torch.where(answers == model.classes.index("unhappy"), 1, -1)[:, None, None]
        maps = {"evidence": evidence.margin_map.abs()}
        maps["evidence for the answer"] = (sign * evidence.margin_map).clamp(min=0)
        for name, method in CAMS.items():
            maps[name] = grad_cam(model, part, model.classes, method).positive[rows, answers]
        return maps | {"feature norm": part.norm(dim=1)}

    return _in_batches(draw, model, features)


def signed_maps(model: DeepConnection, features: Tensor) -> dict[str, np.ndarray]:
    """What each cell adds to the log-odds for unhappy, by kind of map: {name: (N, h, w)}."""

    def draw(part: Tensor) -> dict[str, Tensor]:
        cams = {n: grad_cam(model, part, ["margin"], way)["margin"] for n, way in CAMS.items()}
        return {"evidence": find_evidence(model, part).margin_map} | cams

    return _in_batches(draw, model, features)


def _in_batches(
    draw: Callable[[Tensor], dict[str, Tensor]], model: DeepConnection, features: Tensor
) -> dict[str, np.ndarray]:
    """What `draw` gives for feature maps (B, C, h, w) on the network's device, of all of them."""
    device = next(model.parameters()).device
    drawn = [draw(part.to(device)) for part in features.split(BATCH)]
    return {
        name: torch.cat([maps[name].cpu().double() for maps in drawn]).numpy() for name in drawn[0]
    }


def other_groups(groups: np.ndarray) -> np.ndarray:
    """For each picture the index of one of another group, every picture once: (N,) -> (N,).

    >>> other_groups(np.array([0, 0, 1, 1])).tolist()
    [2, 3, 0, 1]

    Some stay in their group where one group has more than half of all pictures.
    """
    order = np.argsort(groups, kind="stable")
    others = np.empty_like(order)
    others[order] = np.roll(order, np.bincount(groups).max())
    return others
