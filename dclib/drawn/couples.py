"""Drawn couples, whose weak cues (mouths, brows, gazes, closeness, lean, embrace) together decide.

What must not matter (light, place, skin, presentation, bystanders, covered faces, scale) is drawn
independently of the label. Every couple, a `group`, is drawn twice: once happy and once unhappy.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from dclib.data import CLASSES
from dclib.drawn.drawing import DRAWINGS, Box, draw_scene
from dclib.drawn.scenes import OURS, sample_scene
from dclib.files import save_json, write_folder

RECIPE = "recipe.json"
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


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
    root, splits = Path(root), splits or SHARES
    recipe = {"n": n, "seed": seed, "size": size, "splits": splits, "shortcut": shortcut}
    recipe["drawings"] = DRAWINGS
    if n < 2 * len(splits):
        raise ValueError(f"n is {n}, but {len(splits)} splits need at least {2 * len(splits)}.")
    present = _read_recipe(root)

    def same(folder: Path) -> bool:
        return _read_recipe(folder) == recipe and _is_whole(folder, n)

    if same(root):
        return root
    if present is not None and present | {"drawings": DRAWINGS} == recipe:
        what = "only some of its drawings" if present == recipe else "older drawings"
        raise FileExistsError(f"{root} holds {what}; delete it or choose another folder.")
    with (
        write_folder(root, same) as unfinished,
        tqdm(total=n, desc="drawing couples", unit="picture") as progress,
    ):
        for split, indices in _split_indices(n, splits).items():
            rows = []
            for index in indices:
                rows.append(_render_one(unfinished / split, index, seed, size, shortcut))
                progress.update()
            with (unfinished / split / "metadata.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        save_json(unfinished / RECIPE, recipe)
    return root


def _render_one(
    folder: Path, index: int, seed: int, size: int, shortcut: str | None
) -> dict[str, Any]:
    """Draw and save one picture; return its row of metadata.csv."""
    scene, attributes = sample_scene(seed, index, shortcut)
    buffer = io.BytesIO()
    draw_scene(scene, size).save(buffer, "JPEG", quality=92, subsampling=0)
    file_name = f"{attributes['label']}/{index:05d}.jpg"
    (folder / file_name).parent.mkdir(parents=True, exist_ok=True)
    (folder / file_name).write_bytes(buffer.getvalue())
    boxes = {
        "boxes": [person.face_box() for person in scene.couple],
        "body_boxes": [person.body_box() for person in scene.couple],
        "bystander_boxes": [person.face_box() for person in scene.bystanders],
    }
    row = {
        "file_name": file_name,
        **{name: attributes.pop(name) for name in ("label", "group", "source")},
        "licence": "MIT",
        "author": "dclib.drawn",
        "url": "",
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    row |= {name: json.dumps(_to_pixels(value, size)) for name, value in boxes.items()}
    return row | attributes


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


def _read_recipe(root: Path) -> dict[str, Any] | None:
    """How the set in a folder was drawn; None if it is no such set."""
    try:
        recipe = json.loads((root / RECIPE).read_text())
    except (OSError, ValueError):
        return None
    return {"drawings": 1} | recipe if isinstance(recipe, dict) else None  # the first had no number


def _is_whole(root: Path, n: int) -> bool:
    """Whether all drawings of a set are there."""
    return len(list(root.glob("*/*/*.jpg"))) == n
