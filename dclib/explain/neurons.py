"""What the 100 neurons before the last layer do, in one picture and on many.

With BatchNorm folded (see evidence.py) a neuron that is off adds nothing to the margin:

    margin = const + sum_n (w'_unhappy,n - w'_happy,n) relu(z_n)

and the weight's sign says which way a neuron pulls. Region maps and crops show where a feature
fired, not why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES, strata
from dclib.data.loading import CoupleFolder, choose_pictures, keep, make_loader, read_boxes
from dclib.evaluate.intervals import area_intervals, group_interval
from dclib.explain.evidence import FoldedHead, find_evidence, fold_head
from dclib.files import extra
from dclib.framing import Box, in_whole
from dclib.framing.cells import STRIDE, cell_edges, covered_cells
from dclib.model import DeepConnection
from dclib.predict import extract_features

with extra("evaluate"):
    import pandas as pd

DRAWS, BATCH = 1000, 32
SAME = 0.999  # correlation of two neurons' activations from which they are called duplicates


@dataclass(frozen=True)
class States:
    """What every neuron did on N pictures; contributions are in log-odds, after temperature.

    `on_faces` by chance would be `face_area`; both are NaN for pictures without boxes.
    """

    ids: np.ndarray  # (N,), as are the next three
    groups: np.ndarray
    sources: np.ndarray
    labels: np.ndarray  # true for unhappy
    z: np.ndarray  # (N, 100), inputs of the neurons' ReLUs; a neuron is on where z > 0
    by_level: np.ndarray  # (N, 100, L), z by pyramid level, but for its bias
    cells: np.ndarray  # (N, 100, 2), row and column of the strongest cell of a region map
    on_faces: np.ndarray  # (N, 100), share of a region map's positive mass on face boxes
    face_area: np.ndarray  # (N,), share of the map that the boxes cover
    maps: np.ndarray  # (100, h, w), mean region map of the pictures on which a neuron is on
    weights: np.ndarray  # (2, 100), folded, of happy and unhappy
    const: float  # what the margin has besides
    levels: tuple[int, ...]  # bins a side of the pyramid's L levels
    threshold: float  # of the verdict
    split: str
    size: int  # pixels a side of the network's input

    @property
    def activations(self) -> np.ndarray:
        """relu(z): (N, 100)."""
        return np.maximum(self.z, 0)

    @property
    def pull(self) -> np.ndarray:
        """What a neuron's activation of 1 adds to the margin, above 0 towards unhappy: (100,)."""
        return self.weights[1] - self.weights[0]

    @property
    def contributions(self) -> np.ndarray:
        """What each neuron adds to the margin: (N, 100)."""
        return self.pull * self.activations

    @property
    def margins(self) -> np.ndarray:
        """Log-odds for unhappy: (N,)."""
        return self.const + self.contributions.sum(1)

    @property
    def answers(self) -> np.ndarray:
        """Whether the answer is unhappy: (N,) bool."""
        return 1 / (1 + np.exp(-self.margins)) >= self.threshold

    @property
    def group_numbers(self) -> np.ndarray:
        """Groups as whole numbers from 0: (N,)."""
        return np.unique(self.groups, return_inverse=True)[1]

    def __str__(self) -> str:
        counts = ", ".join(f"{(self.labels == k).sum()} {name}" for k, name in enumerate(CLASSES))
        return f"{self.split}: n = {len(self.ids)} ({counts}) in {len(set(self.groups))} groups"


def activation_states(
    checkpoint: Checkpoint, root: str | Path, split: str = "test", n: int | None = None
) -> States:
    """The `States` of a loaded `Checkpoint` on one split of a folder of couples.

    `n`: about so many pictures, whole groups by lot; None takes all.
    """
    config, model = checkpoint.config, checkpoint.model
    head = fold_head(model, config["temperature"])
    dataset = CoupleFolder(root, split, checkpoint.transform, model.classes)
    dataset = keep(dataset, choose_pictures(dataset, n))
    order = [head.classes.index(name) for name in CLASSES]
    offset = head.offset.double().cpu().numpy()[order]
    return States(
        ids=np.array(dataset.ids),
        groups=np.array(dataset.groups),
        sources=np.array(dataset.column("source")),
        labels=(dataset.labels == head.classes.index(CLASSES[1])).numpy(),
        weights=head.last.double().cpu().numpy()[order],
        const=float(offset[1] - offset[0]),
        levels=head.levels,
        threshold=config["threshold"],
        split=split,
        size=config["image_size"],
        **_watch(model, head, dataset, config["image_size"]),
    )


@torch.no_grad()
def _watch(
    model: DeepConnection, head: FoldedHead, dataset: CoupleFolder, size: int
) -> dict[str, np.ndarray]:
    """What `States` holds of neurons and regions; region maps are reduced batch by batch."""
    whole = dataset.transform.frame == "whole"  # else faces are nearly all that there is
    faces = [
        in_whole(boxes, dataset.picture(index).size) if len(boxes) and whole else boxes[:0]
        for index, boxes in enumerate(read_boxes(dataset))
    ]  # (K, 4) a picture, in shares of its square
    parts: list[dict[str, np.ndarray]] = []
    maps = np.zeros(())  # (100, h, w) from the first batch on
    for images, _ in make_loader(dataset, BATCH):
        feature_map = extract_features(model, images.to(head.bias.device))  # (B, C, h, w)
        regions = find_evidence(head, feature_map).neuron_maps.cpu().double().numpy()
        part = _split_inputs(model, head, feature_map)
        on = part["z"] > 0  # (B, 100)
        maps = maps + (regions * on[..., None, None]).sum(0)  # (B, 100, h, w) -> (100, h, w)
        parts.append(part | _reduce(regions, faces[: len(on)], size))
        faces = faces[len(on) :]
    states = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    often = (states["z"] > 0).sum(0)[:, None, None]
    return states | {"maps": maps / np.maximum(often, 1)}


def _split_inputs(
    model: DeepConnection, head: FoldedHead, feature_map: Tensor
) -> dict[str, np.ndarray]:
    """The neurons' inputs z (B, 100), and the parts of the pyramid's levels (B, 100, L)."""
    weight = model.head.lin1.weight.float()  # (100, P * C * bins)
    pooled = model.pool(feature_map)  # (B, P * C * bins)
    channels = feature_map.shape[1]
    sizes = [channels * n * n for n in head.levels]
    branches = pooled.shape[1] // sum(sizes)
    pairs = [tensor.unflatten(1, (branches, -1)).split(sizes, 2) for tensor in (pooled, weight)]
    parts = [F.linear(x.flatten(1), w.flatten(1)) for x, w in zip(*pairs, strict=True)]
    by_level = torch.stack(parts, 2).double()  # (B, 100, L)
    z = head.bias.double() + by_level.sum(2)
    return {"z": z.cpu().numpy(), "by_level": by_level.cpu().numpy()}


def _reduce(regions: np.ndarray, faces: Sequence[np.ndarray], size: int) -> dict[str, np.ndarray]:
    """What is kept of region maps (B, 100, h, w): strongest cells and the share on faces."""
    h, w = regions.shape[2:]
    strongest = regions.reshape(*regions.shape[:2], -1).argmax(2)  # (B, 100)
    cells = np.stack(np.unravel_index(strongest, (h, w)), 2)
    edges = cell_edges(h, size), cell_edges(w, size)
    covered = np.stack([covered_cells(boxes, *edges) for boxes in faces])[:, None]  # (B, 1, h, w)
    covered[[not len(boxes) for boxes in faces]] = np.nan
    mass = np.maximum(regions, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing excites a neuron
        on_faces = (mass * covered).sum((2, 3)) / mass.sum((2, 3))
    return {"cells": cells, "on_faces": on_faces, "face_area": covered.mean((1, 2, 3))}


def neuron_table(states: States, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """What each neuron is, measured on `States`: a DataFrame with a row a neuron.

    pull: towards unhappy above 0, see `States`.
    rate_*: share of a class's pictures on which it is on (`group_interval`).
    auroc: how often it is higher on the unhappy one of a random pair (`logit_interval`).
    strength: mean absolute value of what it adds to the margin.
    level: the pyramid level on which its input depends most, by their covariance.
    on_faces, face_area: means over pictures with boxes on which it is on.
    dead, always_on; duplicate_of: the first neuron that says the same (correlation `SAME`), or -1.

    Columns that end in _low and _high are 95 % intervals for other groups of pictures.
    """
    labels, groups, on = states.labels, states.group_numbers, states.z > 0
    if labels.all() or not labels.any():
        raise ValueError("All pictures are of one class; take more of them (n), or other ones.")
    table = pd.DataFrame({"pull": states.pull})
    kinds = strata(groups, labels)
    for name, counted in zip(CLASSES, (~labels, labels), strict=True):
        rates = [group_interval(k[None], counted[None], groups, kinds) for k in on.T]
        columns = [f"rate_{name}{end}" for end in ("", "_low", "_high")]
        table[columns] = np.array(rates)[:, [0, 2, 3]]
    table["strength"] = np.abs(states.contributions).mean(0)
    areas = area_intervals(states.activations.T, labels, groups, draws, seed)
    table[["auroc", "auroc_low", "auroc_high"]] = areas
    parts = states.by_level - states.by_level.mean(0)  # (N, 100, L)
    covariances = (parts * parts.sum(2, keepdims=True)).sum(0)
    table["level"] = np.array(states.levels)[covariances.argmax(1)]
    seen = np.where(on & np.isfinite(states.on_faces), 1.0, np.nan)
    for name, values in (("on_faces", states.on_faces), ("face_area", states.face_area[:, None])):
        table[name] = pd.DataFrame(seen * values).mean()
    table["dead"], table["always_on"] = ~on.any(0), on.all(0)
    return table.assign(duplicate_of=_duplicates(states.activations)).rename_axis("neuron")


def _duplicates(activations: np.ndarray) -> np.ndarray:
    """The first neuron that each is a copy of, but for scale and offset, or -1: (100,)."""
    rest = activations - activations.mean(0)
    unit = rest / np.maximum(np.linalg.norm(rest, axis=0), 1e-12)
    same = np.triu(unit.T @ unit >= SAME, 1)  # [k, n]: n comes after k
    return np.where(same.any(0), same.argmax(0), -1)


@dataclass(frozen=True)
class Crop:
    """A part of a picture that excites a neuron: `image`, where it is from, and relu(z)."""

    image: Image.Image
    id: str
    label: str
    activation: float


def top_crops(
    states: States, dataset: CoupleFolder, neuron: int, n: int = 9, context: float = 2.0
) -> list[Crop]:
    """What excites a neuron most: up to `n` `Crop`s, at most one a group, the strongest first.

    `dataset`: the `CoupleFolder` of these states. `context`: side of a crop in steps from cell to
    cell. It is centred where the strongest cell of the neuron's region map looks, but moved where
    it would leave what the network looks at. Where the neuron is off there is no crop.
    """
    places = {name: index for index, name in enumerate(dataset.ids)}
    z, crops = states.z[:, neuron], dict[str, Crop]()  # by group
    for row in np.argsort(-z, kind="stable"):
        if z[row] <= 0 or len(crops) == n:
            break
        if states.groups[row] not in crops:
            index = places[states.ids[row]]
            box = _crop_box(states.cells[row, neuron], states.size, context)
            (ends,) = dataset.framed(index).to_picture([box])
            picture, (x0, y0, x1, y1) = dataset.picture(index), map(round, ends)
            label = CLASSES[int(states.labels[row])]
            crops[states.groups[row]] = Crop(
                picture.crop((x0, y0, x1, y1)), states.ids[row], label, float(z[row])
            )
    return list(crops.values())


def _crop_box(cell: np.ndarray, size: int, context: float) -> Box:
    """x0, y0, x1, y1 around a cell (row, column), inside an input of `size` pixels a side."""
    side = min(context * STRIDE, size)
    top, left = (float(np.clip(place * STRIDE - side / 2, 0, size - side)) for place in cell)
    return left, top, left + side, top + side
