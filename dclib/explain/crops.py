"""The parts of pictures that excite a neuron most, from the region maps of its states."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dclib.data import CLASSES, CoupleFolder
from dclib.explain.cells import STRIDE
from dclib.explain.neurons import States


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

    Args:
        dataset: the `CoupleFolder` of these states (any transform).
        context: side of a crop in steps from cell to cell. It is centred where the strongest cell
            of the neuron's region map looks, but moved where it would leave the picture.

    Pictures on which the neuron is off are left out: a dead neuron has no crops.
    """
    places = {name: index for index, name in enumerate(dataset.ids)}
    found: list[Crop] = []
    seen: set[str] = set()
    for row in np.argsort(-states.z[:, neuron], kind="stable"):
        if states.z[row, neuron] <= 0 or len(found) == n:
            break
        if states.groups[row] not in seen:
            seen.add(states.groups[row])
            picture = dataset.picture(places[states.ids[row]])
            box = _crop_box(states.cells[row, neuron], states.size, picture.size, context)
            label = CLASSES[int(states.labels[row])]
            activation = float(states.z[row, neuron])
            found.append(Crop(picture.crop(box), states.ids[row], label, activation))
    return found


def _crop_box(
    cell: np.ndarray, size: int, shape: tuple[int, int], context: float
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in pixels around the centre of a cell (row, column), inside the picture.

    `size`: pixels a side of the network's input; `shape`: width and height of the picture.
    """
    ends = []
    for place, pixels in zip(cell[::-1], shape, strict=True):
        side = min(context * STRIDE / size, 1.0)
        start = np.clip(place * STRIDE / size - side / 2, 0, 1 - side)
        ends.append((round(start * pixels), round((start + side) * pixels)))
    (x0, x1), (y0, y1) = ends
    return x0, y0, x1, y1
