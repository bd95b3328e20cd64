"""Pictures changed on purpose: what a network says to them tells what it answers from."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dclib.data import CoupleFolder, read_boxes
from dclib.evaluation.parts import keep

COARSE, FINE = 12, 96  # pixels a side of a thumbnail, and of the picture that it is made from
GROW = 0.2  # share of its sides by which a face box is grown on all four: hair and ears look out


class Changed(Dataset):
    """The items of a `CoupleFolder`, its pictures changed by `change(image, index)` before."""

    def __init__(
        self, dataset: CoupleFolder, change: Callable[[Image.Image, int], Image.Image]
    ) -> None:
        self.dataset, self.change = dataset, change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.change(self.dataset.picture(index), index)
        return self.dataset.transform(image), self.dataset.samples[index][1]


def with_boxes(dataset: CoupleFolder) -> tuple[CoupleFolder, list[np.ndarray]]:
    """Those pictures that have boxes, and the boxes; see `find_couples`."""
    boxes = find_couples(dataset)
    wanted = [index for index, found in enumerate(boxes) if len(found)]
    return keep(dataset, wanted), [boxes[index] for index in wanted]


def find_couples(dataset: CoupleFolder) -> list[np.ndarray]:
    """Where the couple of each picture is: [(K, 4), ...], x0, y0, x1, y1 as shares of its sides.

    From the columns body_boxes and boxes (faces, grown by `GROW`) of metadata.csv. Without growing,
    hair alone told the classes of drawn couples apart with AUROC 0.73, because it shows where the
    heads are; with it 0.49. Empty (0, 4) for a picture without boxes of bodies: faces alone would
    leave most of the couple to be seen. Raises ValueError as `dclib.data.read_boxes` does.
    """
    found = []
    both = zip(read_boxes(dataset, "body_boxes"), read_boxes(dataset), strict=True)
    for index, (bodies, faces) in enumerate(both):
        if len(bodies):
            sides = np.tile(faces[:, 2:] - faces[:, :2], 2)  # (K, 4)
            grown = faces + GROW * sides * (-1, -1, 1, 1)
            bodies = np.concatenate([bodies, grown]) / np.tile(dataset.picture(index).size, 2)
        found.append(bodies)
    return found


def pair_boxes(boxes: Sequence[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    """The boxes of each picture, and those of one of the other class drawn at random.

    What is painted over would tell by its shape how close a couple is. So does the union of the
    boxes of a happy and an unhappy picture, but not whose picture it is. `labels` (N,) are 0 and 1;
    raises ValueError if all are the same.
    """
    rng = np.random.default_rng(0)
    others = [np.flatnonzero(labels != label) for label in (0, 1)]
    return [
        np.concatenate([own, boxes[rng.choice(others[label])]])
        for own, label in zip(boxes, labels, strict=True)
    ]


def paint(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (shares of the sides) painted with the mean colour of the rest: (H, W, 3) uint8.

    Mid grey where there is no rest. Nothing of what was painted over has a say in the colour.
    """
    height, width = pixels.shape[:2]
    hidden = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in np.clip(boxes, 0, 1) * (width, height, width, height):
        hidden[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    painted = pixels.copy()
    painted[hidden] = 127 if hidden.all() else np.rint(pixels[~hidden].mean(0))
    return painted


def thumbnails(dataset: CoupleFolder, boxes: Sequence[np.ndarray]) -> np.ndarray:
    """The surroundings of all pictures, coarse: (N, COARSE * COARSE * 3) floats, 0 to 255.

    `boxes` as `with_boxes` gives them; painted over are those of `pair_boxes`.
    """
    rows, step = [], FINE // COARSE
    for index, hidden in enumerate(pair_boxes(boxes, dataset.labels.numpy())):
        image = dataset.picture(index)
        small = image.resize((FINE, FINE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        cells = paint(np.asarray(small), hidden).reshape(COARSE, step, COARSE, step, 3)
        rows.append(cells.mean((1, 3)).ravel())
    return np.array(rows)


def match_levels(levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Factors (N,) after which both classes have the same distribution of mean levels (N,).

    Each picture gets the level that has, among all pictures, the rank that it has in its class: the
    order within a class stays, and where the classes are alike next to nothing is changed.
    """
    wanted = np.zeros(len(levels))
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        ranks = levels[members].argsort(kind="stable").argsort()
        wanted[members] = np.quantile(levels, (ranks + 0.5) / len(members), method="hazen")
    return wanted / np.maximum(levels, 1)


def brighten(image: Image.Image, factor: float) -> Image.Image:
    """All values of an RGB picture times a factor, cut off at 255."""
    return image.point([min(255, round(value * factor)) for value in range(256)] * 3)
