"""The pointing game and its kin: how maps over cells lie to boxes in the picture.

pointing         is the centre of the strongest cell in a box (pointing game, arXiv 1608.00507)
strongest cell   how much of that cell's area is in the boxes
energy           share of the map's mass in the boxes (energy-based pointing, arXiv 1910.01279)
energy / area    the same, by the share of the map that the boxes cover: 1 is chance

A cell is 32 px of the network's input and may be as large as a face, so maps are not smoothed, and
there is no tolerance: the usual 15 px would be half a cell. A flat map misses, ties count in part,
and pictures without the boxes in question are NaN.
"""

from collections.abc import Iterable

import numpy as np

from dclib.data import CoupleFolder, read_boxes
from dclib.explain.cells import box_mask, cell_centres, cell_edges, covered_cells

TIE = 1e-5  # values that differ by less, as a share of the largest, are equal
POINTING = "pointing"
MEASURES = (POINTING, "strongest cell", "energy", "energy / area")
COLUMNS = ("boxes", "body_boxes", "bystander_boxes")  # of metadata.csv: faces, bodies, others
OTHERS = "bystanders' faces"
AGAINST = f"faces less {OTHERS}"

Region = tuple[np.ndarray, np.ndarray]  # centres and shares, see `find_regions`
Regions = dict[str, Region]  # by name


def find_regions(
    dataset: CoupleFolder, chosen: Iterable[int], h: int, w: int, size: int | None = None
) -> Regions:
    """Where the boxes of pictures are on maps of h x w cells: {region: (centres, shares)}.

    Both are (N, h, w): whether the centre of a cell is in a box, and how much of the cell. Regions
    are faces, couple (empty without bodies) and `OTHERS`, where no box of the couple hides them.
    `size`: pixels a side of the network's input, which says where its cells look; None stretches
    the map over the picture. Raises ValueError for boxes that cannot be read.
    """
    grid = h, w, size
    columns = [read_boxes(dataset, column) for column in COLUMNS]
    found: dict[str, list[Region]] = {"faces": [], "couple": [], OTHERS: []}
    for index in chosen:
        sides = np.tile(dataset.picture(index).size, 2)
        faces, bodies, others = (column[index] / sides for column in columns)
        couple, nobody = np.concatenate([faces, bodies]), faces[:0]
        found["faces"].append(_visible(faces, nobody, *grid))
        found["couple"].append(_visible(couple if len(bodies) else nobody, nobody, *grid))
        found[OTHERS].append(_visible(others, couple, *grid))
    return {
        name: (np.stack([centres for centres, _ in parts]), np.stack([share for _, share in parts]))
        for name, parts in found.items()
    }


def _visible(boxes: np.ndarray, hiding: np.ndarray, h: int, w: int, size: int | None) -> Region:
    """Centres (h, w) bool and shares (h, w) of cells in boxes (K, 4) that no other (M, 4) hides."""
    middles = cell_centres(h, size), cell_centres(w, size)
    centres = box_mask(boxes, *middles) & ~box_mask(hiding, *middles)
    return centres, covered_cells(boxes, cell_edges(h, size), cell_edges(w, size), hiding)


def measure_maps(values: np.ndarray, regions: Regions) -> list[dict]:
    """Measures of maps (N, h, w), none below 0: dicts of region, measure, value (N,), chance, flat.

    `regions` are those of `find_regions`. `chance` is (N,), or one number for all pictures; `flat`
    (N,) as of `is_flat`. Raises ValueError for values that are negative or not finite.
    """
    flat, rows, by_area = is_flat(values), [], {}
    for name, (centres, shares) in regions.items():
        area, energy = shares.mean((1, 2)), energy_share(values, shares)
        area = np.where(area > 0, area, np.nan)
        by_area[name] = energy / area
        hits = (pointing_hit(values, centres), pointing_hit(values, shares))
        chances = (centres.mean((1, 2)), area, area, 1.0)
        for measure, value, chance in zip(MEASURES, (*hits, energy, by_area[name]), chances):
            value = np.where(np.isnan(area), np.nan, value)
            rows.append({"region": name, "measure": measure, "value": value, "chance": chance})
    difference = by_area["faces"] - by_area[OTHERS]
    rows.append({"region": AGAINST, "measure": MEASURES[3], "value": difference, "chance": 0.0})
    return [row | {"flat": flat} for row in rows]


def pointing_hit(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How much of the strongest cells of maps is `inside`: (..., h, w) twice -> (...), 0 to 1.

    0 for a flat map. Raises ValueError for a map that is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("A map holds values that are no numbers; nothing is its maximum.")
    most, scale = values.max((-2, -1)), np.abs(values).max((-2, -1))
    strongest = values >= (most - TIE * scale)[..., None, None]
    share = (strongest * inside).sum((-2, -1)) / strongest.sum((-2, -1))
    return np.where(is_flat(values), 0.0, share)


def is_flat(values: np.ndarray) -> np.ndarray:
    """Whether maps (..., h, w) have no strongest cell: (...) bool."""
    axes = (-2, -1)
    return np.ptp(values, axes) <= TIE * np.abs(values).max(axes)


def energy_share(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Share of the mass of maps (..., h, w) in boxes that cover `shares` of their cells: (...).

    0 for a map without any mass. Raises ValueError for values that are negative or NaN.
    """
    if not (values >= 0).all():
        raise ValueError("The energy of a map needs values of at least 0.")
    total = values.sum((-2, -1))
    return (values * shares).sum((-2, -1)) / np.where(total > 0, total, 1.0)
