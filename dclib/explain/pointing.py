"""The pointing game and its kin: how maps over cells lie to boxes in the picture.

pointing         is the centre of the strongest cell in a box (pointing game, arXiv 1608.00507)
energy / area    share of the map's mass in the boxes (energy-based pointing, arXiv 1910.01279) over
                 the share of the map that they cover: 1 is chance

A cell is 32 px of the network's input and may be as large as a face, so maps are not smoothed, and
there is no tolerance: the usual 15 px would be half a cell. A flat map misses, ties count in part,
and pictures without the boxes in question are NaN.

`mark_evidence` asks the same of a network that learned a planted mark: is the evidence there?
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dclib.data.loading import CoupleFolder, read_boxes
from dclib.drawn.drawing import MARK
from dclib.evaluate.intervals import mean_row
from dclib.explain.sanity import Sample, draw_maps, other_groups, random_network, signed_maps
from dclib.files import extra
from dclib.framing import in_whole, pick_two
from dclib.framing.cells import box_mask, cell_centres, cell_edges, covered_cells, from_centre
from dclib.pictures.mark import drawn_faces

with extra("evaluate"):
    import pandas as pd

TIE = 1e-5  # values that differ by less, as a share of the largest, are equal
POINTING, ENERGY = "pointing", "energy / area"
COLUMNS = ("boxes", "body_boxes", "bystander_boxes")  # of metadata.csv: faces, bodies, others
FACES, AGAINST = "faces", "faces less bystanders' faces"
SPREAD = 0.25  # standard deviation of the centred map, as a share of a side
UNTRAINED = 3  # networks of random weights
KEYS = ["map", "region", "measure"]


class Regions(NamedTuple):
    """Where boxes of N pictures are on maps of h x w cells, each (N, h, w)."""

    centres: np.ndarray  # whether the centre of a cell is in one of the couple's faces
    faces: np.ndarray  # how much of the cell is
    others: np.ndarray  # how much is in bystanders' faces where the couple does not hide them


def find_regions(dataset: CoupleFolder, h: int, w: int, size: int) -> Regions:
    """`Regions` of a `CoupleFolder`; `size`: pixels a side of the network's input."""
    middles = cell_centres(h, size), cell_centres(w, size)
    edges = cell_edges(h, size), cell_edges(w, size)
    parts = [
        (
            box_mask(faces, *middles),
            covered_cells(faces, *edges),
            covered_cells(others, *edges, np.concatenate([faces, bodies])),
        )
        for faces, bodies, others in _boxes(dataset)
    ]
    return Regions(*map(np.stack, zip(*parts, strict=True)))


def _boxes(dataset: CoupleFolder) -> Iterator[list[np.ndarray]]:
    """Faces, bodies and bystanders' faces of each picture, (K, 4) each in shares of its square.

    Where metadata.csv tells no face of a photograph, they are looked for. Of more than two faces
    those that the network looks at are the couple's (`pick_two`), the others bystanders'.
    """
    from dclib.framing.faces import find_faces  # OpenCV

    known = zip(*(read_boxes(dataset, column) for column in COLUMNS), strict=True)
    for index, (faces, bodies, others) in enumerate(known):
        image = dataset.picture(index)
        if not len(faces) and drawn_faces(image) is None:
            faces = np.array([face.box for face in find_faces(image)]).reshape(-1, 4)
        two = list(pick_two(faces.tolist(), image.size))
        faces, others = faces[two], np.concatenate([others, np.delete(faces, two, axis=0)])
        yield [in_whole(boxes, image.size) for boxes in (faces, bodies, others)]


def measure_maps(values: np.ndarray, regions: Regions) -> list[dict]:
    """Measures of maps (N, h, w), none below 0: dicts of region, measure, value (N,), chance, flat.

    `chance` is (N,), or one number for all pictures; `flat` (N,) as of `is_flat`.
    """

    def by_area(shares: np.ndarray) -> np.ndarray:
        area = shares.mean((1, 2))
        return energy_share(values, shares) / np.where(area > 0, area, np.nan)

    on_faces = by_area(regions.faces)
    hits = np.where(np.isnan(on_faces), np.nan, pointing_hit(values, regions.centres))
    rows = (
        (FACES, POINTING, hits, regions.centres.mean((1, 2))),
        (FACES, ENERGY, on_faces, 1.0),
        (AGAINST, ENERGY, on_faces - by_area(regions.others), 0.0),
    )
    names = ("region", "measure", "value", "chance")
    return [dict(zip(names, row, strict=True)) | {"flat": is_flat(values)} for row in rows]


def pointing_hit(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How much of the strongest cells of maps is `inside`: (..., h, w) twice -> (...), 0 to 1."""
    if not np.isfinite(values).all():
        raise ValueError("A map holds values that are no numbers; nothing is its maximum.")
    most, scale = values.max((-2, -1)), np.abs(values).max((-2, -1))
    strongest = values >= (most - TIE * scale)[..., None, None]
    share = (strongest * inside).sum((-2, -1)) / strongest.sum((-2, -1))
    return np.where(is_flat(values), 0.0, share)


def is_flat(values: np.ndarray) -> np.ndarray:
    """Whether maps (..., h, w) have no strongest cell: (...) bool."""
    return np.ptp(values, (-2, -1)) <= TIE * np.abs(values).max((-2, -1))


def energy_share(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Share of the mass of maps (..., h, w) in boxes that cover `shares` of their cells: (...).

    0 for a map without any mass.
    """
    if not (values >= 0).all():
        raise ValueError("The energy of a map needs values of at least 0.")
    total = values.sum((-2, -1))
    return (values * shares).sum((-2, -1)) / np.where(total > 0, total, 1.0)


def locate(sample: Sample) -> pd.DataFrame:
    """How much of each map lies on the faces of the couple: means with 95 % intervals.

    The metadata.csv of the pictures has a column boxes (faces), and perhaps body_boxes and
    bystander_boxes: JSON lists of [x0, y0, x1, y1] in pixels. Of photographs without, faces are
    looked for, and the two most prominent are the couple's. Energy by area is also that of the
    couple's faces less that of bystanders' faces, where the couple does not hide them.

    Columns map, region, measure, value, low, high, n, chance (mean over pictures), excluded
    (pictures without such boxes), flat (maps that show nothing). Intervals are for other groups of
    pictures, given the network: Wilson's for pointing
    (`dclib.evaluate.intervals.effective_interval`), else Student's t.
    """
    return _summarise(_find_cases(sample))


def _find_cases(sample: Sample) -> pd.DataFrame:
    """A row a picture, map, region and measure: those, id, group, value, chance, flat."""
    dataset, groups = sample.dataset, sample.groups
    h, w = sample.features.shape[2:]
    regions = find_regions(dataset, h, w, sample.size)
    if not regions.faces.any():
        where = dataset.root / dataset.split
        raise ValueError(f"In no picture of {where} faces are told in metadata.csv, or found.")
    maps = draw_maps(sample.model, sample.features)
    maps |= draw_priors(regions.faces, groups, sample.size)
    maps["evidence of another picture"] = maps["evidence"][other_groups(groups)]
    pictures = {"id": dataset.ids, "group": groups}
    rows = [
        pd.DataFrame(pictures | {"map": name} | row)
        for name, values in [*maps.items(), *_draw_untrained(sample)]
        for row in measure_maps(values, regions)
    ]
    cases = pd.concat(rows).groupby([*KEYS, "id", "group"], sort=False, as_index=False)
    return cases.mean()  # over networks of random weights


def _draw_untrained(sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
    """The maps (N, h, w) of several networks of random weights, each with its name."""
    for k in range(UNTRAINED):
        model = random_network(sample.model, k)
        maps = draw_maps(model, sample.features_of(model))
        for name in ("evidence", "Grad-CAM"):
            yield f"random weights: {name}", maps[name]


def draw_priors(shares: np.ndarray, groups: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Maps that know nothing of the picture: {name: (N, h, w)}.

    `shares` (N, h, w): how much of each cell is in a face; `groups` (N,) whole numbers from 0.
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


def _summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Means of `_find_cases` with intervals, a row a map, region and measure."""
    rows = []
    for key, part in cases.groupby(KEYS, sort=False):
        known = part[part["value"].notna()]
        if len(known):
            row = dict(zip(KEYS, key, strict=True))
            row |= mean_row(known["value"], known["group"], proportion=key[2] == POINTING)
            row |= {"chance": known["chance"].mean(), "excluded": len(part) - len(known)}
            rows.append(row | {"flat": known["flat"].sum()})
    return pd.DataFrame(rows)


def mark_evidence(sample: Sample) -> pd.DataFrame:
    """Share of the absolute evidence in the cells on which the planted mark lies, by class.

    Only unhappy pictures have it. Columns map, label, value, low, high, n, area (share of cells).
    """
    h, w = sample.features.shape[2:]
    edges = cell_edges(h, sample.size), cell_edges(w, sample.size)
    touched = covered_cells([MARK], *edges) > 0  # (h, w)
    labels, rows = sample.dataset.labels.numpy(), []
    for name, maps in signed_maps(sample.model, sample.features).items():
        shares = energy_share(np.abs(maps), touched)  # (N,)
        for index, label in enumerate(sample.dataset.classes):
            part = labels == index
            row = {"map": name, "label": label} | mean_row(shares[part], sample.groups[part])
            rows.append(row | {"area": touched.mean()})
    return pd.DataFrame(rows)
