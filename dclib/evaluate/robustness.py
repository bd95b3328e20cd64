"""How much change does a network bear? Accuracy at every level of several kinds of change.

All models answer to the same pictures at all levels. It does not follow that photographs taken in
the dark are sorted as well as darkened ones.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional
from tqdm.auto import tqdm

from dclib.data import CLASSES
from dclib.data.loading import CoupleFolder, EvalTransform, choose_pictures, read_boxes
from dclib.evaluate.metrics import Scored, proportion_interval
from dclib.evaluate.predictions import LOGITS, choices_of, make_table
from dclib.files import extra
from dclib.pictures import Boxes
from dclib.predict import predict_logits

with extra("evaluate"):
    import pandas as pd

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint

BATCH = 32  # pictures in memory
GREY = (127, 127, 127)


def brighten(image: Image.Image, level: float, boxes: Boxes) -> Image.Image:
    """All values times the level."""
    return functional.adjust_brightness(image, level)


def blur(image: Image.Image, level: float, boxes: Boxes) -> Image.Image:
    """Gaussian, as Pillow approximates it; the side is the shorter one."""
    return image.filter(ImageFilter.GaussianBlur(level * min(image.size)))


def turned(boxes: Boxes, level: float, size: tuple[int, int]) -> Boxes:
    """Boxes as large as before, around where `rotate` by `level` puts their middles."""
    angle, middle = math.radians(level), np.tile(np.array(size) / 2, 2)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    result = []
    for box in np.reshape(boxes, (-1, 4)) - middle:
        centre = (box[:2] + box[2:]) / 2
        result.append(tuple((box + np.tile(turn @ centre - centre, 2) + middle).tolist()))
    return result


def rotate(image: Image.Image, level: float, boxes: Boxes) -> Image.Image:
    """Counter-clockwise; black corners, as in the authors' augmentation."""
    return functional.rotate(image, level, InterpolationMode.BILINEAR)


def hide(image: Image.Image, level: float, boxes: Boxes) -> Image.Image:
    """Grey from the lower edge of each box upwards: the mouth goes first."""
    image = image.copy()
    for x0, y0, x1, y1 in boxes:
        top = y1 - level * (y1 - y0)
        image.paste(GREY, (round(x0), round(top), round(x1), round(y1)))
    return image


class Sweep(NamedTuple):
    """What is varied: `unit` of the levels, the levels, and the one that leaves all as it is.

    `reference` None is the size that the network was trained for; `change` is None where the
    network's input is changed instead of the picture.
    """

    unit: str
    levels: tuple[float, ...]
    reference: float | None
    change: Callable[[Image.Image, float, Boxes], Image.Image] | None = None


SWEEPS = {
    "brightness": Sweep("factor", (0.25, 0.5, 0.75, 1.5, 2), 1, brighten),
    "blur": Sweep("sigma / side", (0.005, 0.01, 0.02, 0.04), 0, blur),
    "rotation": Sweep("degrees", (-45, -20, -10, 10, 20, 45), 0, rotate),
    "hidden": Sweep("share of each face", (0.25, 0.5, 0.75, 1), 0, hide),
    "size": Sweep("px, input", (128, 192, 256, 384, 512, 768), None),
    "aspect": Sweep("width / height", (0.5, 0.7, 1.4, 2), 1),
}


def predict_sweeps(
    models: Mapping[str, "Checkpoint"],
    root: str | Path,
    split: str = "test",
    n: int | None = 200,
    levels: Mapping[str, Sequence[float]] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """What each model answers at each level: a table of predictions with four columns more.

    Args:
        models: {name: loaded `Checkpoint`}.
        n: about so many pictures; None takes all. "hidden" needs `boxes` in metadata.csv.
        levels: {kind: levels} instead of those of `SWEEPS`; the reference comes by itself.

    The columns are model, sweep, level and `reference`, whether that level leaves all as it is.
    """
    wanted = {kind: sweep.levels for kind, sweep in SWEEPS.items()} | dict(levels or {})
    if unknown := wanted.keys() - SWEEPS.keys():
        raise ValueError(f"There is no sweep {min(unknown)!r}; there are {', '.join(SWEEPS)}.")
    transforms = [checkpoint.transform for checkpoint in models.values()]
    framed = (transform for transform in transforms if transform.frame != "whole")
    dataset = CoupleFolder(root, split, next(framed, None))  # the same pictures for all models
    chosen = choose_pictures(dataset, n)
    boxes = [of_picture.tolist() for of_picture in read_boxes(dataset)]
    if without := sum(not boxes[index] for index in chosen):
        print(f"hidden: {without} of {len(chosen)} pictures have no face boxes.")
    pictures, parts = make_table(dataset, np.zeros((len(dataset), len(CLASSES)))), []
    answers = _ask_all(models, dataset, chosen, boxes, wanted, progress)
    for (name, kind, level), logits in answers.items():
        checkpoint = models[name]
        order = [checkpoint.model.classes.index(label) for label in CLASSES]
        part = pictures.iloc[list(logits)].assign(model=name, sweep=kind, level=float(level))
        part["reference"] = level == reference_of(kind, checkpoint)
        part[LOGITS] = torch.stack(list(logits.values()))[:, order].double().numpy()
        parts.append(part.assign(**choices_of(checkpoint)))
    return pd.concat(parts, ignore_index=True)


def _ask_all(
    models: Mapping[str, "Checkpoint"],
    dataset: CoupleFolder,
    chosen: Sequence[int],
    boxes: Sequence[Boxes],
    wanted: Mapping[str, Sequence[float]],
    progress: bool,
) -> dict[tuple[str, str, float], dict[int, Tensor]]:
    """{(model, kind, level): {index: logits (2,)}}; every picture is decoded once."""
    answers: dict[tuple[str, str, float], dict[int, Tensor]] = defaultdict(dict)
    bar = tqdm(total=len(chosen), desc="sweeps", unit="picture", disable=not progress)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            images = dict(zip(part, pool.map(dataset.picture, part), strict=True))
            for name, checkpoint in models.items():
                ask = partial(_ask, checkpoint, dataset, images, boxes, pool)
                as_is = ask(part, "size", checkpoint.config["image_size"])
                for kind, levels in wanted.items():
                    shown = [index for index in part if kind != "hidden" or boxes[index]]
                    reference = reference_of(kind, checkpoint)
                    for level in {*levels, reference} if shown else ():
                        told = as_is if level == reference else ask(shown, kind, level)
                        answers[name, kind, level] |= {index: told[index] for index in shown}
            bar.update(len(part))
    return answers


def _ask(
    checkpoint: "Checkpoint",
    dataset: CoupleFolder,
    images: Mapping[int, Image.Image],
    boxes: Sequence[Boxes],
    pool: ThreadPoolExecutor,
    shown: Sequence[int],
    kind: str,
    level: float,
) -> dict[int, Tensor]:
    """{index: logits (2,)} of the pictures `shown` as a sweep has them at a level."""

    def prepared(index: int) -> Tensor:
        image = change_picture(images[index], kind, level, boxes[index])
        couple = dataset.couples.get(dataset.samples[index][0], ())
        if kind == "rotation":
            couple = turned(couple, level, image.size)
        return prepare(image, couple, checkpoint.transform, kind, level)

    inputs = torch.stack(list(pool.map(prepared, shown)))  # (B, 3, H, W)
    logits, _ = predict_logits(checkpoint.model, [(inputs, torch.zeros(len(shown)))])
    return dict(zip(shown, logits, strict=True))


def reference_of(kind: str, checkpoint: "Checkpoint") -> float:
    """The level of a sweep that changes nothing for this `Checkpoint`."""
    reference = SWEEPS[kind].reference
    return checkpoint.config["image_size"] if reference is None else reference


def change_picture(image: Image.Image, kind: str, level: float, boxes: Boxes = ()) -> Image.Image:
    """An RGB picture as the sweep `kind` has it at `level`; `boxes` of faces, (x0, y0, x1, y1)."""
    change, reference = SWEEPS[kind].change, SWEEPS[kind].reference
    return image if change is None or level == reference else change(image, level, boxes)


def prepare(
    image: Image.Image, couple: Boxes, transform: EvalTransform, kind: str, level: float
) -> Tensor:
    """The usual preparation for an input of another size or aspect: -> (3, H, W)."""
    transform = copy(transform)
    if kind == "size":
        transform.size = int(level)
    if kind == "aspect" and level != 1:
        size = round(transform.size * level**0.5), round(transform.size / level**0.5)
        transform.size *= 2  # so that squashing is what blurs, nothing before it
        frame = transform.cut(image, couple).image
        return transform.to_tensor(frame.resize(size, Image.Resampling.BILINEAR))
    return transform(transform.cut(image, couple))


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every model at every level, of the table that `predict_sweeps` gives.

    A DataFrame with model, sweep, level, accuracy, low, high, n and reference.
    """
    rows = []
    for (model, kind), part in table.groupby(["model", "sweep"], sort=False):
        for (level, reference), answered in part.groupby(["level", "reference"]):
            scored = Scored(answered)
            n, low, high = proportion_interval([scored], "accuracy")
            rows.append((model, kind, level, scored.right.mean(), low, high, n, reference))
    names = ["model", "sweep", "level", "accuracy", "low", "high", "n", "reference"]
    return pd.DataFrame(rows, columns=names)
