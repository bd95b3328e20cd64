"""Where in the picture the cells of a feature map are.

The padding of a ResNet puts the centre of what cell i sees at pixel STRIDE * i of the network's
input (cf. arXiv 2010.02178); a map stretched over the picture would be half a cell off. A pixel
belongs to the cell with the nearest centre, so that the first of a row is narrower than the others.
"""

import numpy as np
from numpy.typing import ArrayLike

STRIDE = 32  # pixels of the input from cell to cell, in every ResNet


def cell_edges(n: int, size: int) -> np.ndarray:
    """Where n cells along a side of `size` input pixels begin and end, as shares of it: (n + 1,).

    >>> cell_edges(3, 80).tolist()
    [0.0, 0.2, 0.6, 1.0]
    """
    inner = STRIDE * (np.arange(n - 1) + 0.5) / size
    return np.concatenate([[0.0], inner, [1.0]])


def cell_centres(n: int, size: int) -> np.ndarray:
    """Where the views of n cells are centred, as shares of a side of `size` input pixels: (n,).

    >>> cell_centres(3, 80).tolist()
    [0.0, 0.4, 0.8]
    """
    return STRIDE * np.arange(n) / size


def from_centre(h: int, w: int, size: int) -> np.ndarray:
    """Squared distance of each cell's centre from that of the picture, in sides: (h, w).

    >>> from_centre(1, 3, 80).round(2).tolist()
    [[0.5, 0.26, 0.34]]
    """
    down, across = cell_centres(h, size), cell_centres(w, size)
    return (down[:, None] - 0.5) ** 2 + (across - 0.5) ** 2


def box_mask(boxes: ArrayLike, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Which points of a grid lie in one of the boxes: (K, 4), (H,), (W,) -> (H, W) bool.

    Boxes are x0, y0 (within), x1, y1 (beyond), all as shares of the picture's sides.
    """
    x0, y0, x1, y1 = np.reshape(boxes, (-1, 4)).T[..., None]  # (K, 1) each
    rows, columns = (y0 <= down) & (down < y1), (x0 <= across) & (across < x1)
    return (rows[:, :, None] & columns[:, None]).any(0)


def covered_cells(
    boxes: ArrayLike, down: np.ndarray, across: np.ndarray, hiding: ArrayLike = ()
) -> np.ndarray:
    """How much of each cell the boxes cover together: (K, 4), (h + 1,), (w + 1,) -> (h, w), 0 to 1.

    Boxes as in `box_mask`; `down` and `across` are where cells begin and end. What lies in a box of
    `hiding` (M, 4) does not count.

    >>> covered_cells([(0, 0, 0.3, 1)], cell_edges(1, 32), cell_edges(3, 80)).round(2).tolist()
    [[1.0, 0.25, 0.0]]
    """
    ends = np.concatenate([np.reshape(part, (-1, 4)) for part in (boxes, hiding)])
    y = np.union1d(down, ends[:, 1::2].clip(down[0], down[-1]))  # no box and no cell ends within
    x = np.union1d(across, ends[:, ::2].clip(across[0], across[-1]))
    at = y[:-1], x[:-1]
    inside = box_mask(boxes, *at) & ~box_mask(hiding, *at)
    areas = inside * np.diff(y)[:, None] * np.diff(x)
    areas = np.add.reduceat(areas, np.searchsorted(y, down[:-1]), 0)
    areas = np.add.reduceat(areas, np.searchsorted(x, across[:-1]), 1)  # (h, w)
    return np.minimum(areas / np.diff(down)[:, None] / np.diff(across), 1)


def spread(
    values: np.ndarray, shape: tuple[int, int], size: int, smooth: bool = False
) -> np.ndarray:
    """A map over a picture of `shape` pixels: (h, w) -> (H, W). The rest as in `spread_to`."""
    down, across = ((np.arange(n) + 0.5) / n for n in shape)  # of the pixels' centres
    return spread_to(values, down, across, size, smooth)


def spread_to(
    values: np.ndarray, down: np.ndarray, across: np.ndarray, size: int, smooth: bool = False
) -> np.ndarray:
    """A map at the points of a grid: (h, w) at (H,) and (W,), as shares of its sides -> (H, W).

    `size`: pixels a side of the network's input. `smooth` is linear between the cells' centres;
    else every cell has one value.
    """
    for axis, places in enumerate((down, across)):
        n = values.shape[axis]
        if smooth:
            at = np.interp(places, cell_centres(n, size), np.arange(n))
            lower = np.minimum(at.astype(int), max(n - 2, 0))
            share = np.expand_dims(at - lower, 1 - axis)
            upper = np.minimum(lower + 1, n - 1)
            values = values.take(lower, axis) * (1 - share) + values.take(upper, axis) * share
        else:
            cells = np.searchsorted(cell_edges(n, size)[1:-1], places, side="right")
            values = values.take(cells, axis)
    return values
