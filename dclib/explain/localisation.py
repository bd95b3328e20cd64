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

from dclib.checkpoint import Checkpoint
from dclib.data import CoupleFolder
from dclib.explain.cells import from_centre
from dclib.explain.maps import choose, collect_features, draw_maps, other_groups, random_network
from dclib.explain.pointing import POINTING, find_regions, measure_maps
from dclib.extras import extra
from dclib.intervals import mean_row

with extra("evaluate"):
    import pandas as pd

PLACES = ("receptive field", "stretched")
SPREAD = 0.25  # standard deviation of the centred map, as a share of a side
UNTRAINED = 3  # networks of random weights
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
    placed = size if place == PLACES[0] else None
    regions = find_regions(dataset, chosen, h, w, placed)
    if not regions["faces"][1].any():
        raise ValueError(f"No picture of {root}/{split} has face boxes in metadata.csv (boxes).")
    maps = draw_maps(checkpoint.model, features) | draw_priors(regions["faces"][1], groups, placed)
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


def draw_priors(shares: np.ndarray, groups: np.ndarray, size: int | None) -> dict[str, np.ndarray]:
    """Maps that know nothing of the picture: {name: (N, h, w)}.

    `shares` (N, h, w): how much of each cell is in a face; `groups` (N,) whole numbers from 0;
    `size` as of `find_regions`.
    """
    _, h, w = shares.shape
    centre = np.exp(-from_centre(h, w, size) / (2 * SPREAD**2))
    of_group = np.zeros((groups.max() + 1, *shares.shape[1:]))
    np.add.at(of_group, groups, shares)
    return {
        "uniform": np.ones_like(shares),
        "centre": np.broadcast_to(centre, shares.shape),
        "faces elsewhere": (shares.sum(0) - of_group[groups]).clip(0),
    }


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Means of `find_cases` with 95 % intervals: a DataFrame with a row a map, region and measure.

    Columns value, low, high, n, chance (mean over pictures), excluded (pictures without such
    boxes), flat (maps that show nothing). Intervals are for other groups of pictures, given the
    network: Wilson's for pointing (`dclib.intervals.effective_interval`), else
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
