"""Does what a map shows lie on the couple? Measured where metadata.csv tells where the faces are.

Faces are in the middle of most pictures. So beside area chance, a map is compared with maps that
know nothing of the picture (uniform, centre, faces elsewhere: the mean of the boxes of all other
couples), with the evidence of another picture, with the norm of the feature map, which knows
nothing of the verdict, and with networks of random weights, which have learned nothing.
The measures: `dclib.explain.pointing`.

Where is a cell? Where the centre of what it sees is (`dclib.explain.cells`). Most tools stretch
the map over the picture instead, so that cell i of w has its centre at (i + 1/2) / w. `PLACES` has
both.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import t as student
from torch import Tensor

from dclib.augment import EvalTransform
from dclib.checkpoint import Checkpoint
from dclib.data import CoupleFolder
from dclib.evaluation.intervals import NOTHING, TAILS, effective_interval
from dclib.evaluation.robustness import choose_pictures
from dclib.evidence import find_evidence
from dclib.explain.cells import STRIDE
from dclib.explain.pointing import POINTING, find_regions, measure_maps
from dclib.extras import extra
from dclib.gradcam import METHODS, extract_features, grad_cam
from dclib.model import DeepConnection

with extra("evaluate"):
    import pandas as pd

PLACES = ("receptive field", "stretched")
SPREAD = 0.25  # standard deviation of the centred map, as a share of a side
UNTRAINED = 3  # networks of random weights
BATCH = 32
KEYS = ["map", "region", "measure"]


def locate(
    checkpoint: Checkpoint,
    root: str | Path,
    split: str = "test",
    n: int | None = None,
    size: int | None = None,
    place: str = PLACES[0],
    seed: int = 0,
) -> pd.DataFrame:
    """How much of each map lies on the faces, and on the couple: see `summarise`, `find_cases`."""
    return summarise(find_cases(checkpoint, root, split, n, size, place, seed))


def find_cases(
    checkpoint: Checkpoint,
    root: str | Path,
    split: str = "test",
    n: int | None = None,
    size: int | None = None,
    place: str = PLACES[0],
    seed: int = 0,
) -> pd.DataFrame:
    """Each measure of each map on each picture: a DataFrame with a row for each of them.

    Columns map, region, measure, id, group, value, chance, flat.

    Args:
        checkpoint: a loaded `Checkpoint`.
        root, split: a folder whose metadata.csv has the columns boxes (faces), and perhaps
            body_boxes and bystander_boxes: JSON lists of [x0, y0, x1, y1] in pixels.
        n: about so many pictures, whole groups by lot; None takes all.
        size: pixels a side of the network's input, default as it was trained. A finer map needs
            a larger one; look whether the network still answers well at it.
        place: where in the picture cells are, one of `PLACES`.

    Regions are faces, couple (with bodies), bystanders' faces where the couple does not hide them,
    and energy by area in the couple's faces less that in theirs. `value` is NaN where a picture has
    no such boxes. Raises ValueError for other places, for boxes that cannot be read,
    and for a split without any.
    """
    if place not in PLACES:
        raise ValueError(f"place must be one of {PLACES}, not {place!r}.")
    size = size or checkpoint.config["image_size"]
    dataset, chosen, groups = choose(checkpoint, root, split, n, seed)
    features = collect_features(checkpoint, dataset, chosen, size)
    h, w = features.shape[2:]
    stride = STRIDE / size if place == PLACES[0] else None
    regions = find_regions(dataset, chosen, h, w, stride)
    if not regions["faces"][1].any():
        raise ValueError(f"No picture of {root}/{split} has face boxes in metadata.csv (boxes).")
    maps = draw_maps(checkpoint.model, features) | draw_priors(regions["faces"][1], groups)
    maps["evidence of another picture"] = maps["evidence"][other_groups(groups)]
    named = [*maps.items(), *_draw_untrained(checkpoint, dataset, chosen, size, seed)]
    ids = dataset.ids
    told = {"id": [ids[index] for index in chosen], "group": groups}
    rows = [
        pd.DataFrame(told | {"map": name} | row)
        for name, values in named
        for row in measure_maps(values, regions)
    ]
    cases = pd.concat(rows).groupby([*KEYS, "id", "group"], sort=False, as_index=False)
    return cases.mean()  # over networks of random weights


def _draw_untrained(
    checkpoint: Checkpoint, dataset: CoupleFolder, chosen: Sequence[int], size: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The maps (N, h, w) of several networks of random weights, each with its name."""
    for k in range(UNTRAINED):
        model = random_network(checkpoint.model, seed + k)
        maps = draw_maps(model, collect_features(checkpoint, dataset, chosen, size, model))
        for name in ("evidence", "Grad-CAM"):
            yield f"random weights: {name}", maps[name]


def choose(
    checkpoint: Checkpoint, root: str | Path, split: str, n: int | None, seed: int = 0
) -> tuple[CoupleFolder, list[int], np.ndarray]:
    """A `CoupleFolder`, the indices of about n of its pictures, and their groups as numbers (n,).

    See `dclib.evaluation.robustness.choose_pictures`.
    """
    dataset = CoupleFolder(root, split, classes=checkpoint.model.classes)
    chosen = choose_pictures(dataset, n, seed)
    return dataset, chosen, np.unique(np.array(dataset.groups)[chosen], return_inverse=True)[1]


def random_network(model: DeepConnection, seed: int = 0) -> DeepConnection:
    """A network of the same kind that has learned nothing, in eval mode, on the same device."""
    kind = (model.stage, model.backbone_name, None, model.levels, model.head.samples)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DeepConnection(*kind, model.classes).eval().to(next(model.parameters()).device)


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


def draw_maps(model: DeepConnection, features: Tensor) -> dict[str, np.ndarray]:
    """The maps of feature maps (N, C, h, w), none below 0: {name: (N, h, w)}.

    Evidence is that of the margin: all of it, and what speaks for the network's answer. Grad-CAM
    and HiResCAM are of the class that it answers.
    """
    device, parts = next(model.parameters()).device, []
    for part in features.split(BATCH):
        part = part.to(device)
        evidence = find_evidence(model, part)
        answers, rows = evidence.logits.argmax(1), torch.arange(len(part))
        sign = torch.where(answers == model.classes.index("unhappy"), 1, -1)[:, None, None]
        found = {"evidence": evidence.margin_map.abs()}
        found["evidence for the answer"] = (sign * evidence.margin_map).clamp(min=0)
        for name, method in zip(("Grad-CAM", "HiResCAM"), METHODS, strict=True):
            found[name] = grad_cam(model, part, model.classes, method).positive[rows, answers]
        found["feature norm"] = part.norm(dim=1)
        parts.append({name: values.cpu().double().numpy() for name, values in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draw_priors(shares: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """Maps that know nothing of the picture: {name: (N, h, w)}.

    `shares` (N, h, w): how much of each cell is in a face; `groups` (N,) whole numbers from 0.
    """
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in shares.shape[1:])
    centre = np.exp(-(y[:, None] ** 2 + x**2) / (2 * SPREAD**2))
    of_group = np.zeros((groups.max() + 1, *shares.shape[1:]))
    np.add.at(of_group, groups, shares)
    return {
        "uniform": np.ones_like(shares),
        "centre": np.broadcast_to(centre, shares.shape),
        "faces elsewhere": (shares.sum(0) - of_group[groups]).clip(0),
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


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Means of `find_cases` with 95 % intervals: a DataFrame with a row a map, region and measure.

    Columns value, low, high, n, chance (mean over pictures), excluded (pictures without such
    boxes), flat (maps that show nothing). Intervals are for other groups of pictures, given the
    network: Wilson's for pointing (`dclib.evaluation.intervals.effective_interval`), else
    Student's t.
    """
    rows = []
    for key, part in cases.groupby(KEYS, sort=False):
        there = part[part["value"].notna()]
        if len(there):
            row = dict(zip(KEYS, key, strict=True))
            row |= mean_row(there["value"], there["group"], proportion=key[2] == POINTING)
            row |= {"chance": there["chance"].mean(), "excluded": len(part) - len(there)}
            rows.append(row | {"flat": there["flat"].sum()})
    return pd.DataFrame(rows)


def versus(cases: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Map `first` less map `second`, paired by picture, of the table of `find_cases`.

    Columns map, less (the names), region, measure, value, low, high, n. Raises ValueError for a
    map that is not in the table.
    """
    keys, rows = ["id", "group", "region", "measure"], []
    of = [cases[cases["map"] == name].set_index(keys)["value"] for name in (first, second)]
    if not all(map(len, of)):
        raise ValueError(f"There are no maps {first!r} and {second!r}, only {set(cases['map'])}.")
    paired = (of[0] - of[1]).dropna().reset_index()
    for (region, measure), part in paired.groupby(keys[2:], sort=False):
        row = {"map": first, "less": second, "region": region, "measure": measure}
        rows.append(row | mean_row(part["value"], part["group"]))
    return pd.DataFrame(rows)


def mean_row(values: ArrayLike, groups: ArrayLike, proportion: bool = False) -> dict[str, float]:
    """value, low, high and n of values (N,): their mean and 95 % interval, groups as wholes.

    The variance is that of a ratio, from sums over groups (Cochran 1977, section 6.3); of a
    `proportion` the interval is Wilson's. NaN ends for a single group, and all NaN for no value.
    """
    values, (names, group) = np.asarray(values, float), np.unique(groups, return_inverse=True)
    n, g = len(values), len(names)
    mean, ends = values.mean() if n else np.nan, NOTHING
    if g > 1:
        sums = np.bincount(group, values - mean) / n
        variance = np.square(sums).sum() * g / (g - 1)
        ends = mean + student.ppf(TAILS, g - 1) * np.sqrt(variance)
        if proportion:
            ends = effective_interval(mean, variance, n, g, g - 1)
    return {"value": float(mean), "low": float(ends[0]), "high": float(ends[1]), "n": n}
