"""Drawn couples, whose weak cues (mouths, brows, gazes, closeness, lean, embrace) together decide.

What must not matter (light, place, skin, presentation, bystanders, covered faces, scale) is drawn
independently of the label. Every couple, a `group`, is drawn twice: once happy and once unhappy.
"""

import csv
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from dclib.data import CLASSES
from dclib.drawn.drawing import DRAWINGS, Box, draw_scene
from dclib.drawn.scenes import OURS, sample_scene
from dclib.files import check_folder, save_json, write_folder
from dclib.pictures import encode

RECIPE = "recipe.json"
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
VERSIONS = ("drawings", "composer")  # what a recipe calls those of the code

Recipe = dict[str, Any]
Row = dict[str, Any]  # of metadata.csv
Make = Callable[[str, int], tuple[bytes, Row]]


def our_couple(label: str = "happy", size: int = 256) -> Image.Image:
    """The couple that all notebooks follow, drawn happy or unhappy: RGB, size x size pixels.

    It is in the test split of `render_couples(root)`, so that no demo network was trained on it.
    """
    if label not in CLASSES:
        raise ValueError(f"The couple is happy or unhappy, not {label!r}.")
    return draw_scene(sample_scene(0, 2 * OURS + CLASSES.index(label))[0], size)


def render_couples(
    root: str | Path,
    n: int = 3000,
    seed: int = 0,
    size: int = 256,
    splits: dict[str, float] | None = None,
    shortcut: str | None = None,
) -> Path:
    """Draw a data set of `n` pictures, size x size pixels, into the folder `root`; return its path.

    The folder is as `dclib.data` says, with tags, cues and boxes (x0, y0, x1, y1 in pixels) in
    metadata.csv. Half the pictures are happy; no couple is in two splits. The same arguments give
    the same bytes. `splits` maps names to shares (default `SHARES`); `shortcut` plants a fault, see
    `sample_scene`.

    A folder that already holds this very set is kept, also when another process has drawn it in the
    meantime; any other that is not empty raises FileExistsError. It appears when the last picture
    is drawn, never half full.
    """
    recipe = {"n": n, "seed": seed, "size": size, "splits": splits or SHARES, "shortcut": shortcut}
    recipe["drawings"] = DRAWINGS

    def draw(split: str, index: int) -> tuple[bytes, Row]:
        return _draw_one(index, seed, size, shortcut)

    return write_set(Path(root), recipe, draw, "drawings")


def _draw_one(index: int, seed: int, size: int, shortcut: str | None) -> tuple[bytes, Row]:
    """One picture as JPEG, and its row of metadata.csv."""
    scene, attributes = sample_scene(seed, index, shortcut)
    content = encode(draw_scene(scene, size), quality=92, subsampling=0)
    boxes = {
        "boxes": [person.face_box() for person in scene.couple],
        "body_boxes": [person.body_box() for person in scene.couple],
        "bystander_boxes": [person.face_box() for person in scene.bystanders],
    }
    row = {
        **{name: attributes.pop(name) for name in ("label", "group", "source")},
        "licence": "MIT",
        "author": "dclib.drawn",
        "url": "",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    row |= {name: json.dumps(_to_pixels(value, size)) for name, value in boxes.items()}
    return content, row | attributes


def is_there(root: Path, recipe: Recipe, what: str) -> bool:
    """Whether the folder `root` holds the set of a recipe, whose pictures are called `what`.

    Raises FileExistsError if it holds anything else, ValueError for too few pictures.
    """
    least = 2 * len(recipe["splits"])
    if recipe["n"] < least:
        parts = f"{len(recipe['splits'])} splits need at least {least}"
        raise ValueError(f"n is {recipe['n']}, but {parts}.")
    if _holds(root, recipe):
        return True
    present = _read_recipe(root)
    if present | {k: recipe[k] for k in VERSIONS if k in recipe} == recipe:
        held = f"only some of its {what}" if present == recipe else f"older {what}"
        raise FileExistsError(f"{root} holds {held}; delete it or choose another folder.")
    check_folder(root, lambda folder: _holds(folder, recipe))
    return False


def write_set(root: Path, recipe: Recipe, make: Make, what: str) -> Path:
    """Fill the folder `root` as a recipe with `n` and `splits` says, if it is not; return its path.

    make(split, index) gives a JPEG and its row of metadata.csv, which has a label. The rest is as
    in `render_couples` and `is_there`.
    """
    if is_there(root, recipe, what):
        return root
    with (
        write_folder(root, lambda folder: _holds(folder, recipe)) as unfinished,
        tqdm(total=recipe["n"], desc=what, unit="picture") as progress,
    ):
        for split, indices in _split_indices(recipe["n"], recipe["splits"]).items():
            rows = []
            for index in indices:
                content, row = make(split, index)
                row = {"file_name": f"{row['label']}/{index:05d}.jpg"} | row
                path = unfinished / split / row["file_name"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                rows.append(row)
                progress.update()
            with (unfinished / split / "metadata.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        save_json(unfinished / RECIPE, recipe)
    return root


def _to_pixels(boxes: Sequence[Box], size: int) -> list[list[float]]:
    """Boxes from frame units to pixels, cut at the frame."""
    return [[round(min(max(v, 0), 1) * size, 1) for v in box] for box in boxes]


def _split_indices(n: int, splits: Mapping[str, float]) -> dict[str, range]:
    """Which pictures go where: whole couples, in order, at least one couple a split."""
    groups = math.ceil(n / 2)
    indices: dict[str, range] = {}
    start, share = 0, 0.0
    for done, (name, part) in enumerate(splits.items(), 1):
        share += part / sum(splits.values())
        stop = min(max(round(groups * share), start + 1), groups - (len(splits) - done))
        indices[name] = range(2 * start, min(2 * stop, n))
        start = stop
    return indices


def _read_recipe(root: Path) -> Recipe:
    """How the set in a folder was made; nothing if it is no such set."""
    try:
        recipe = json.loads((root / RECIPE).read_text())
    except (OSError, ValueError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _holds(root: Path, recipe: Recipe) -> bool:
    """Whether a folder holds all pictures of a set."""
    return _read_recipe(root) == recipe and len(list(root.glob("*/*/*.jpg"))) == recipe["n"]
