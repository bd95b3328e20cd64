"""A folder of photographed faces, of which `dclib.drawn.composed` makes couples.

faces/{train,val[,test]}/{happy,neutral,unhappy}/*.jpg    one face a picture
faces/metadata.csv    file_name, group (a person, or a film), licence, author, if you know them
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from dclib.data import SPLITS, splits_of
from dclib.data.listing import Samples, list_pictures, overlooked, patiently
from dclib.data.metadata import FILE, group_names, read_metadata, read_table, refuse_tables
from dclib.framing.faces import Box, find_faces
from dclib.pictures import PictureError, read_picture

EXPRESSIONS = ("happy", "neutral", "unhappy")
# The split in a row's file_name, which need not name a picture that is there.
PLACE = re.compile(
    rf"(?<![^/\\\s])({'|'.join(SPLITS)})\s*[/\\]\s*({'|'.join(EXPRESSIONS)})\s*[/\\]", re.IGNORECASE
)


class Portrait(NamedTuple):
    """A photographed face."""

    path: Path
    expression: str
    group: str
    licence: str
    author: str
    box: Box  # in pixels of its picture
    colour: bool


Rows = Mapping[str, Mapping[str, str]]
Cast = dict[str, dict[str, list[Portrait]]]  # by expression and group


def list_portraits(root: Path) -> dict[str, Samples]:
    """Pictures (path, index of its expression) by split.

    Prints what else is there. Raises what `list_pictures` does, and ValueError for metadata in
    another place.
    """
    pictures = {}
    for split in dict.fromkeys(("train", "val", *splits_of(root))):
        pictures[split], others = list_pictures(root / split, EXPRESSIONS)
        refuse_tables(root, [*others, *root.glob("metadata*")])
        for sentence in overlooked(root / split, others):
            print(sentence)
    return pictures


def read_people(root: Path, pictures: Mapping[str, Samples]) -> Rows:
    """Group, licence and author of each picture by its path below `root`.

    A picture of which nobody told a group is one of its own. Prints how many rows of the table name
    no picture. Raises ValueError for a group in two splits, by these rows too.
    """
    names = [path.relative_to(root).as_posix() for part in pictures.values() for path, _ in part]
    rows = {name: {"group": name, "licence": "", "author": ""} for name in names}
    told, notes = read_metadata(root, names)
    print(*notes, sep="\n", end="\n" * bool(notes))
    table = [*told.values(), *read_table(root / FILE)]
    groups = group_names(table)
    home: dict[str, str] = {}
    for row, group in zip(table, groups, strict=True):
        place = PLACE.search(row["file_name"])
        split = place[1].casefold() if place else ""
        if place and group and (other := home.setdefault(group, split)) != split:
            raise ValueError(
                f"Group {group!r} of {root / FILE} is in {other} and in {split}: move all pictures "
                "of a person into one split."
            )
    for (name, row), group in zip(told.items(), groups):
        rows[name] = {column: row.get(column, "") for column in rows[name]}
        rows[name]["group"] = group or name
    return rows


def read_portraits(root: Path, split: str, pictures: Samples, rows: Rows) -> list[Portrait]:
    """The faces of a split: of each picture the widest that is found; a sentence on the others."""
    portraits = []
    for path, expression in tqdm(pictures, desc=f"faces of {split}", unit="picture"):
        try:
            image = patiently(read_picture, path).image
        except PictureError:
            continue
        if box := _widest_face(image):
            colour = bool(np.ptp(np.asarray(image, int), axis=2).mean() > 4)
            row = rows[path.relative_to(root).as_posix()]
            portraits.append(Portrait(path, EXPRESSIONS[expression], box=box, colour=colour, **row))
    if left_out := len(pictures) - len(portraits):
        print(f"Left out of {split}: {left_out} of {len(pictures)} pictures, with no face found.")
    return portraits


def _widest_face(image: Image.Image) -> Box | None:
    border = max(image.size) // 4  # close portraits lack the room that a detector wants
    boxes = [face.box for face in find_faces(ImageOps.expand(image, border))]
    if not boxes:
        return None
    x0, y0, x1, y1 = max(boxes, key=lambda box: box[2] - box[0])
    return x0 - border, y0 - border, x1 - border, y1 - border


def cast_by_look(folder: Path, portraits: Sequence[Portrait]) -> list[Cast]:
    """Casts of one look each: grey, in colour; where neither has all expressions, all as grey.

    So the look of a couple says nothing of its label. Raises ValueError for fewer than two people
    of an expression.
    """
    looks = [_sort(p for p in portraits if p.colour == colour) for colour in (False, True)]
    if casts := [cast for cast in looks if not _lacking(cast)]:
        return casts
    cast = _sort(portrait._replace(colour=False) for portrait in portraits)
    if lacking := _lacking(cast):
        raise ValueError(
            f"Couples need two people at least of each expression; {folder / lacking} shows "
            f"{len(cast[lacking])} with a face that is found."
        )
    return [cast]


def _sort(portraits: Iterable[Portrait]) -> Cast:
    cast: Cast = {name: {} for name in EXPRESSIONS}
    for portrait in portraits:
        cast[portrait.expression].setdefault(portrait.group, []).append(portrait)
    return cast


def _lacking(cast: Cast) -> str:
    """An expression of which there are fewer than two people; "" if there is none."""
    return next((name for name in EXPRESSIONS if len(cast[name]) < 2), "")
