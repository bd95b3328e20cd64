"""Does a network answer from the couple, or from something that came along with the labels?

Three checks: can the metadata of the files tell the classes apart, can a coarse thumbnail in which
the couple is painted over, can the network, when it sees the surroundings only?
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES, splits_of
from dclib.data.loading import CoupleFolder, keep, make_loader, read_boxes
from dclib.evaluate.intervals import area_intervals
from dclib.evaluate.predictions import choices_of, describe, make_table, margins
from dclib.evaluate.probe import HIGH, METADATA, Check, fit_folds, measure_pictures, probe
from dclib.predict import predict_logits

SURROUNDINGS, HIDDEN = "surroundings", "couple hidden"
NAMES = (METADATA, SURROUNDINGS, HIDDEN)
_NO_BOXES = "metadata.csv tells no boxes of the couple (column body_boxes) in both classes"
COARSE, FINE = 12, 96  # pixels a side of a thumbnail, and of the picture that it is made from
GROW = 0.2  # share of its sides by which a face box is grown on all four: hair and ears look out


def audit(checkpoint: Checkpoint, root: str | Path) -> str:
    """Look for shortcuts of a loaded checkpoint on a data set; what was found, in sentences.

    The network answers to the split test, which decided nothing in training (without one, to val);
    the checks without a network take all splits. A check that the pictures do not allow says why.
    """
    split = splits_of(root)[-1]
    dataset = CoupleFolder(root, split, checkpoint.transform, checkpoint.model.classes)
    checks = [check_metadata(root), check_surroundings(root), check_hidden(checkpoint, dataset)]
    checks = [replace(check, checks=len(checks)) for check in checks]
    pictures = describe(make_table(dataset, np.zeros((len(dataset), len(CLASSES)))))
    rule = (
        f"A warning needs an AUROC above {HIGH} and an interval of {100 - 5 / len(checks):.0f} % "
        f"(Bonferroni, {len(checks)} checks) without chance."
    )
    done = sum(check.n > 0 for check in checks)
    end = f"Nothing was found by {done} checks; a shortcut of another kind may be there."
    if found := [check.name for check in checks if check.warns]:
        end = f"Found: {', '.join(found)}; look there before you trust the accuracy."
    title = f"{checkpoint.folder} on {Path(root).name}/{split}, {pictures}"
    return "\n  ".join([title, *map(str, checks), rule, end])


def check_metadata(root: str | Path) -> Check:
    """`dclib.evaluate.probe.probe` on all splits of a data set."""
    try:
        return probe(measure_pictures(root))
    except ValueError as error:
        return Check(METADATA, str(error).rstrip("."))


def check_surroundings(root: str | Path) -> Check:
    """A regression on coarse thumbnails without the couple: it finds marks, and gaps in tone."""
    parts = []
    for split in splits_of(root):
        dataset, boxes = with_boxes(CoupleFolder(root, split))
        if len(set(dataset.labels.tolist())) == len(CLASSES):
            parts.append((thumbnails(dataset, boxes), dataset.labels, dataset.groups))
    if not parts:
        return Check(SURROUNDINGS, _NO_BOXES)
    columns, labels, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
    numbers = np.unique(groups, return_inverse=True)[1]
    try:
        scores, _ = fit_folds(columns, labels, numbers, inverse_penalty=0.01)
    except ValueError as error:
        return Check(SURROUNDINGS, str(error).rstrip("."))
    says = "A probe of coarse thumbnails with the couple painted over"
    return _check(SURROUNDINGS, says, labels == 1, scores, groups)


def check_hidden(checkpoint: Checkpoint, dataset: CoupleFolder) -> Check:
    """What the network tells of the classes when the couple is painted over."""
    dataset, boxes = with_boxes(dataset)
    if len(set(dataset.labels.tolist())) < len(CLASSES):
        return Check(HIDDEN, _NO_BOXES)
    painted = Painted(dataset, pair_boxes(boxes, dataset.labels.numpy()))
    logits, _ = predict_logits(checkpoint.model, make_loader(painted, 32))
    table = make_table(dataset, logits, **choices_of(checkpoint))
    says = "The network on pictures with the couple painted over"
    return _check(HIDDEN, says, table["label"] == CLASSES[1], margins(table), table["group"])


def _check(
    name: str, says: str, unhappy: ArrayLike, scores: np.ndarray, groups: ArrayLike
) -> Check:
    """The AUROC of scores (N,) as a check."""
    names, numbers = np.unique(groups, return_inverse=True)
    area, low, high = area_intervals(scores[None], np.asarray(unhappy), numbers)[0].tolist()
    return Check(name, says, area, low, high, len(scores), len(names))


class Painted(Dataset):
    """The items of a `CoupleFolder` with the boxes of each picture painted over."""

    def __init__(self, dataset: CoupleFolder, boxes: Sequence[np.ndarray]) -> None:
        self.dataset, self.boxes = dataset, boxes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = paint(np.asarray(self.dataset.picture(index)), self.boxes[index])
        path, label = self.dataset.samples[index]
        frame = self.dataset.transform.cut(Image.fromarray(pixels), self.dataset.couples.get(path))
        return self.dataset.transform(frame), label


def with_boxes(dataset: CoupleFolder) -> tuple[CoupleFolder, list[np.ndarray]]:
    """Those pictures that have boxes, and the boxes; see `find_couples`."""
    boxes = find_couples(dataset)
    wanted = [index for index, of_picture in enumerate(boxes) if len(of_picture)]
    return keep(dataset, wanted), [boxes[index] for index in wanted]


def find_couples(dataset: CoupleFolder) -> list[np.ndarray]:
    """Where the couple of each picture is: [(K, 4), ...], x0, y0, x1, y1 as shares of its sides.

    From the columns body_boxes and boxes (faces, grown by `GROW`) of metadata.csv. Without growing,
    hair alone told the classes of drawn couples apart with AUROC 0.73, because it shows where the
    heads are; with it 0.49. Empty (0, 4) without boxes of bodies: faces alone hide too little.
    """
    couples = []
    both = zip(read_boxes(dataset, "body_boxes"), read_boxes(dataset), strict=True)
    for index, (bodies, faces) in enumerate(both):
        if len(bodies):
            sides = np.tile(faces[:, 2:] - faces[:, :2], 2)  # (K, 4)
            grown = faces + GROW * sides * (-1, -1, 1, 1)
            bodies = np.concatenate([bodies, grown]) / np.tile(dataset.picture(index).size, 2)
        couples.append(bodies)
    return couples


def pair_boxes(boxes: Sequence[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    """The boxes of each picture, and those of one of the other class drawn at random.

    What is painted over would tell by its shape how close a couple is. So does the union of the
    boxes of a happy and an unhappy picture, but not whose picture it is. `labels` (N,): 0 and 1.
    """
    rng = np.random.default_rng(0)
    others = [np.flatnonzero(labels != label) for label in (0, 1)]
    return [
        np.concatenate([own, boxes[rng.choice(others[label])]])
        for own, label in zip(boxes, labels, strict=True)
    ]


def paint(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (shares of the sides) painted with the mean colour of the rest: (H, W, 3) uint8."""
    height, width = pixels.shape[:2]
    hidden = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in np.clip(boxes, 0, 1) * (width, height, width, height):
        hidden[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    painted = pixels.copy()
    painted[hidden] = 127 if hidden.all() else np.rint(pixels[~hidden].mean(0))
    return painted


def thumbnails(dataset: CoupleFolder, boxes: Sequence[np.ndarray]) -> np.ndarray:
    """The surroundings of all pictures, coarse: (N, COARSE * COARSE * 3) floats, 0 to 255."""
    rows, step = [], FINE // COARSE
    for index, hidden in enumerate(pair_boxes(boxes, dataset.labels.numpy())):
        image = dataset.picture(index)
        small = image.resize((FINE, FINE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        cells = paint(np.asarray(small), hidden).reshape(COARSE, step, COARSE, step, 3)
        rows.append(cells.mean((1, 3)).ravel())
    return np.array(rows)
