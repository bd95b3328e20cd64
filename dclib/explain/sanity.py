"""Do maps say what the network does? Three trials, none of which needs to know where to look.

rank_agreement   does a map order the cells as their loss does, one at a time?
hide_in_order    what is left of the answer when cells are hidden, or shown, in a map's order:
                 deletion and insertion curves (RISE, Petsiuk et al., arXiv 1806.07421)
cascade          does a map change when the network forgets what it learned (Adebayo et al.,
                 arXiv 1810.03292)?

Cells are hidden in the feature map, not in the picture, so that no picture is shown that the
network has never seen; what a cell knows of its surroundings is hidden with it. The cascade alone
proves little: noise passes it too (Binder et al., arXiv 2211.12486).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.stats import rankdata
from torch import Tensor

from dclib.checkpoint import Checkpoint
from dclib.data.loading import CoupleFolder, choose_pictures, keep, make_loader
from dclib.evaluate.intervals import estimate, mean_row
from dclib.explain.evidence import find_evidence
from dclib.explain.gradcam import grad_cam
from dclib.explain.hide import hide_cells, leave_one_out
from dclib.files import extra
from dclib.framing.cells import from_centre
from dclib.model import BLOCKS, DeepConnection
from dclib.predict import extract_features

with extra("evaluate"):
    import pandas as pd

STEPS = 16  # most points of a curve after its first
TRUTH = "leave one out"
PARTS = {  # what is randomised, from the last layer to the first
    "lin2": ("head.lin2",),
    "lin1": ("head.lin1", "head.bn1"),
    **{names[0]: tuple(f"backbone.{name}" for name in names) for names in BLOCKS[::-1]},
}
BATCH = 32  # pictures in memory
CAMS = {"Grad-CAM": "grad-cam", "HiResCAM": "hirescam"}


class Sample:
    """About n pictures of a split, whole groups by lot, and what a network sees in them.

    `size`: pixels a side of the network's input, by default as it was trained. A finer map needs a
    larger one; look whether the network still answers well at it.

    Attributes, besides `model` and `size`: `dataset`, a `CoupleFolder` of these pictures; `groups`
    (N,), theirs as numbers from 0.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        root: str | Path,
        split: str = "test",
        n: int | None = None,
        size: int | None = None,
    ) -> None:
        transform, self.model = checkpoint.transform, checkpoint.model
        if transform.frame != "whole":
            raise ValueError(
                f"{checkpoint.name} looks at faces only: whether maps find them can be asked of "
                'a network that sees whole pictures (frame "whole", as checkpoints/demo).'
            )
        self.size = transform.size = size or transform.size
        everything = CoupleFolder(root, split, transform, self.model.classes)
        self.dataset = keep(everything, choose_pictures(everything, n))
        self.groups = np.unique(self.dataset.groups, return_inverse=True)[1]

    @cached_property
    def features(self) -> Tensor:
        """Feature maps (N, C, h, w) of the network, on the CPU."""
        return self.features_of(self.model)

    def features_of(self, model: DeepConnection) -> Tensor:
        """Feature maps (N, C, h, w) of another network, on the CPU."""
        device = next(model.parameters()).device
        loader = make_loader(self.dataset, BATCH)
        return torch.cat([extract_features(model, x.to(device)).cpu() for x, _ in loader])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's, of each of N pairs of maps (N, h, w): (N,); NaN where one of them is flat."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)]
    ranks = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    scale = np.sqrt(np.square(ranks[0]).sum(1) * np.square(ranks[1]).sum(1))
    return (ranks[0] * ranks[1]).sum(1) / np.where(scale > 0, scale, np.nan)


def rank_agreement(model: DeepConnection, features: Tensor, groups: np.ndarray) -> pd.DataFrame:
    """Rank correlation of each map with the loss of cells one at a time: a row a map.

    Columns map, value (mean over pictures), low, high, n, excluded (one of the maps is flat). The
    last row is the truth of another picture: what a map gets for knowing where pictures differ
    little.
    """
    truth = _truth(model, features)
    maps = signed_maps(model, features)
    maps[f"{TRUTH}, of another picture"] = truth[other_groups(groups)]
    rows = []
    for name, values in maps.items():
        agreement = rank_correlation(values, truth)
        known = np.isfinite(agreement)
        row = {"map": name} | mean_row(agreement[known], groups[known])
        rows.append(row | {"excluded": int((~known).sum())})
    return pd.DataFrame(rows)


def _truth(model: DeepConnection, features: Tensor) -> np.ndarray:
    return leave_one_out(model, features.to(next(model.parameters()).device)).cpu().numpy()


def hide_in_order(
    model: DeepConnection, features: Tensor, groups: np.ndarray, size: int, temperature: float = 1.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Deletion and insertion curves of each order of cells: two DataFrames, curves and areas.

    Curves: map, curve, share (of cells hidden, or shown), value, low, high, n: the mean probability
    of the answer to the whole picture, after `temperature`. Areas under them: map, curve, value,
    low, high, n. Orders are those of `rank_cells`.
    """
    orders, sign = rank_cells(model, features, size)
    n, cells = len(features), features.shape[2] * features.shape[3]
    counts = np.unique(np.linspace(0, cells, min(cells, STEPS) + 1).round().astype(int))
    shares, points, areas = counts / cells, [], []
    for name, order in orders.items():
        ranks = torch.from_numpy(order.argsort(1)).view(n, *features.shape[2:])
        for curve in ("deletion", "insertion"):
            first = [ranks < count for count in counts]  # (N, h, w) each
            hidden = first if curve == "deletion" else [~mask for mask in first]
            margins = np.stack([_margins(model, features, mask) for mask in hidden], 1)
            probs = 1 / (1 + np.exp(-sign[:, None] * margins / temperature))  # (N, S)
            keys: dict = {"map": name, "curve": curve}
            for share, column in zip(shares, probs.T, strict=True):
                points.append(keys | {"share": share} | mean_row(column, groups))
            areas.append(keys | mean_row(trapezoid(probs, shares, axis=1), groups))
    return pd.DataFrame(points), pd.DataFrame(areas)


def rank_cells(
    model: DeepConnection, features: Tensor, size: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Orders of cells, those that support the answer first: {name: (N, h * w)}, and signs (N,).

    By each map, by the truth one cell at a time, from the centre on, and at random. A sign is 1
    where the answer is unhappy, else -1.
    """
    n, _, h, w = features.shape
    margins = _margins(model, features, torch.zeros(n, h, w, dtype=torch.bool))
    sign = np.where(margins > 0, 1, -1)
    maps = signed_maps(model, features) | {TRUTH: _truth(model, features)}
    maps = {name: sign[:, None] * values.reshape(n, -1) for name, values in maps.items()}
    maps["centre first"] = np.broadcast_to(-from_centre(h, w, size).ravel(), (n, h * w))
    maps["random"] = np.random.default_rng(0).random((n, h * w))
    return {name: np.argsort(-values, 1, kind="stable") for name, values in maps.items()}, sign


def _margins(model: DeepConnection, features: Tensor, hidden: Tensor) -> np.ndarray:
    """Log-odds for unhappy (N,) with cells hidden (N, h, w)."""
    device = next(model.parameters()).device
    logits = hide_cells(model, features.to(device), hidden.to(device)).double().cpu().numpy()
    return logits[:, model.classes.index("unhappy")] - logits[:, model.classes.index("happy")]


def cascade(sample: Sample, repetitions: int = 5) -> pd.DataFrame:
    """How like its original a map is when layers are randomised, the last first, one after another.

    Columns map, part (randomised together with all before it), similarity ("signed", or "absolute":
    of the maps without their signs), value (mean rank correlation), low, high, n, excluded (a flat
    map in some repetition). Each repetition draws random weights anew, as if before training;
    intervals are for other draws and other pictures. Part "another picture" compares the maps of
    different pictures: what is alike in all of them stays alike without having been learned.
    """
    original = signed_maps(sample.model, sample.features)
    others = {name: maps[other_groups(sample.groups)] for name, maps in original.items()}
    similar = {"another picture": [_similarities(original, others)]}
    for repetition in range(repetitions):
        changed = copy.deepcopy(sample.model)
        fresh, now = random_network(sample.model, repetition), sample.features
        for part, modules in PARTS.items():
            for name in modules:
                changed.get_submodule(name).load_state_dict(fresh.get_submodule(name).state_dict())
            if not part.startswith("lin"):  # the head has no say in the features
                now = sample.features_of(changed)
            similar.setdefault(part, []).append(_similarities(original, signed_maps(changed, now)))
    return _cascade_table(similar, sample.groups)


Similarities = dict[tuple[str, str], np.ndarray]  # {(map, similarity): (N,)}


def _similarities(
    original: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray]
) -> Similarities:
    pairs = [(name, original[name], maps[name]) for name in original]
    signed = {(name, "signed"): rank_correlation(a, b) for name, a, b in pairs}
    return signed | {(n, "absolute"): rank_correlation(np.abs(a), np.abs(b)) for n, a, b in pairs}


def _cascade_table(
    similar: Mapping[str, Sequence[Similarities]], groups: np.ndarray
) -> pd.DataFrame:
    """Means over repetitions and pictures, a row for each part, map and similarity."""
    rows = []
    for part, repetitions in similar.items():
        for name, similarity in repetitions[0]:
            values = np.stack([values[name, similarity] for values in repetitions])  # (K, N)
            known, mean, low, high = np.isfinite(values).all(0), np.nan, np.nan, np.nan
            if len(np.unique(groups[known])) > 1:
                mean, low, high, *_ = estimate(values[:, known], groups[known])
            row = {"map": name, "part": part, "similarity": similarity, "value": mean}
            row |= {"low": low, "high": high, "n": int(known.sum())}
            rows.append(row | {"excluded": int((~known).sum())})
    return pd.DataFrame(rows)


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
