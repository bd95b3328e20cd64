"""Couples composed of single photographed faces, as photographs show couples.

Two faces of different people get clothes, a place, a light, bystanders and a camera, all drawn
independently of the label, which follows from the two expressions: one smile at least is a happy
couple, none an unhappy one. `dclib.drawn.portraits` says how a folder of faces looks.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from dclib.data import CLASSES
from dclib.drawn import portraits
from dclib.drawn.canvas import SETTINGS, draw_backdrop
from dclib.drawn.couples import SHARES, is_there, write_set
from dclib.drawn.drawing import DRAWINGS
from dclib.drawn.portraits import Cast, Portrait
from dclib.drawn.scenes import CLOTHES
from dclib.files import extra, file_hash
from dclib.pictures import encode, read_picture

with extra("photo"):
    import cv2

COMPOSER = 1  # raise it with every change of what is composed
SOURCE = "composed photographs"  # no drawings: who learns from them has seen photographs
# Expressions of the two, and how often a couple of this label has them.
PAIRS = {
    "happy": {("happy", "happy"): 0.6, ("happy", "neutral"): 0.4},
    "unhappy": {
        ("neutral", "neutral"): 0.4,
        ("neutral", "unhappy"): 0.35,
        ("unhappy", "unhappy"): 0.25,
    },
}
IN_COLOUR = 0.2  # of the couples, where there are faces in colour and grey ones
SHAPES = ((4, 3), (3, 4), (1, 1), (3, 2), (2, 3), (16, 9))
SIDE = 512  # pixels of the longer side, before a picture is made smaller


def compose_couples(faces: str | Path, root: str | Path, n: int = 3000, seed: int = 0) -> Path:
    """Compose `n` pictures of couples of a folder of faces into the folder `root`; return its path.

    The splits are those of `faces`, so that nobody is in two. `group` in metadata.csv names both
    people, who are in other couples of their split too. A picture has at most 512 pixels a side.
    The rest is as in `dclib.drawn.render_couples`. Raises FileNotFoundError for another layout of
    `faces`, ValueError for a person in two splits, and for fewer than two of an expression.
    """
    faces, root = Path(faces), Path(root)
    pictures = portraits.list_portraits(faces)
    rows = portraits.read_people(faces, pictures)
    contents = [(name, file_hash(faces / name), rows[name]) for name in rows]
    digest = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    recipe = {"n": n, "seed": seed, "splits": {split: SHARES[split] for split in pictures}}
    recipe |= {"faces": digest, "composer": COMPOSER, "drawings": DRAWINGS}
    if is_there(root, recipe, "pictures"):
        return root
    everybody = {
        split: portraits.read_portraits(faces, split, part, rows)
        for split, part in pictures.items()
    }
    casts = {split: portraits.cast_by_look(faces / split, everybody[split]) for split in everybody}

    def compose(split: str, index: int) -> tuple[bytes, dict[str, Any]]:
        label, rng = CLASSES[index % 2], np.random.default_rng([seed, index])
        couple = _choose_couple(rng, casts[split], label)
        others = everybody[split]
        bystanders = [others[k] for k in rng.integers(len(others), size=rng.choice(3))]
        picture, boxes = compose_couple(rng, couple, bystanders)
        content = encode(picture, quality=int(rng.integers(60, 96)))
        credit = _credit(couple, bystanders, content)
        return content, {"label": label, **credit, "boxes": json.dumps(boxes)}

    return write_set(root, recipe, compose, "pictures")


def _credit(
    couple: Sequence[Portrait], bystanders: Sequence[Portrait], content: bytes
) -> dict[str, Any]:
    """Of a row of metadata.csv who is in the picture, and whose it is."""
    shown = [*couple, *bystanders]
    return {
        "group": "+".join(sorted(face.group for face in couple)),
        "source": SOURCE,
        "licence": "; ".join(sorted({face.licence for face in shown} - {""})),
        "author": "; ".join(sorted({face.author for face in shown} - {""})),
        "url": "",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _choose_couple(rng: np.random.Generator, casts: Sequence[Cast], label: str) -> list[Portrait]:
    """Two faces of different people, whose expressions make the label, left and right by lot."""
    cast = casts[-1 if rng.random() < IN_COLOUR else 0]
    pairs, chosen = PAIRS[label], list[Portrait]()
    for expression in list(pairs)[rng.choice(len(pairs), p=list(pairs.values()))]:
        met = {face.group for face in chosen}
        people = [faces for group, faces in cast[expression].items() if group not in met]
        weights = np.sqrt([len(faces) for faces in people])  # nobody is in every other picture
        faces = people[rng.choice(len(people), p=weights / weights.sum())]
        chosen.append(faces[rng.integers(len(faces))])
    return chosen if rng.random() < 0.5 else chosen[::-1]


def compose_couple(
    rng: np.random.Generator, couple: Sequence[Portrait], bystanders: Sequence[Portrait]
) -> tuple[Image.Image, list[list[float]]]:
    """One picture of two faces, and where these are in it: boxes [x0, y0, x1, y1] in pixels."""
    wide, high = SHAPES[rng.integers(len(SHAPES))]
    width, height = (round(SIDE * side / max(wide, high)) for side in (wide, high))
    size = min(rng.uniform(0.15, 0.5) * height, 0.36 * width)  # of a face, forehead to chin
    picture = _place(rng, width, height)
    for face in bystanders:
        centre = rng.uniform((0, 0.1 * height), (width, 0.5 * height))
        _paste(rng, picture, face, centre, rng.uniform(0.3, 0.6) * size)
    picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0, 3)))
    apart = rng.uniform(0.9, min(2.2, 0.95 * width / size - 0.8)) * size
    middle = rng.uniform(0.5 * apart + 0.4 * size, width - 0.5 * apart - 0.4 * size)
    level = rng.uniform(0.6 * size, height - 0.7 * size)
    sizes = size * rng.uniform(0.85, 1.15, 2)
    across = middle + np.array([-0.5, 0.5]) * apart
    places = np.column_stack([across, level + rng.uniform(-0.3, 0.3, 2) * size])
    boxes = np.zeros((2, 4))
    for k in np.argsort(places[:, 1]):  # who is lower is in front
        boxes[k] = _paste(rng, picture, couple[k], places[k], sizes[k])
    picture, factor = _photograph(rng, picture)
    edges = np.array(picture.size * 2)
    return picture, np.clip(boxes * factor, 0, edges).round(1).tolist()


def _place(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A drawn place, or patches of light and colour."""
    if rng.random() < 0.5:
        side = max(width, height)
        backdrop = draw_backdrop(str(rng.choice(SETTINGS)), int(rng.integers(2**31)), side)
        return backdrop.crop((0, 0, width, height))
    colour = rng.uniform(20, 200) + rng.uniform(-40, 40, 3)
    return _surface(rng, colour, (width, height), 0.3)


def _surface(
    rng: np.random.Generator, colour: ArrayLike, size: tuple[int, int], contrast: float
) -> Image.Image:
    """Something of a colour, with coarse and fine shades."""
    shades = np.ones((32, 32, 3))
    for cells in (int(rng.integers(2, 6)), int(rng.integers(8, 33))):
        light = rng.normal(0, contrast * rng.uniform(0.2, 1), (cells, cells, 1))
        hues = light + rng.normal(0, contrast / 5, (cells, cells, 3))
        shades += cv2.resize(hues, (32, 32), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(shades * np.asarray(colour), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _paste(
    rng: np.random.Generator, picture: Image.Image, face: Portrait, centre: np.ndarray, size: float
) -> np.ndarray:
    """Put a person into the picture whose face is `size` pixels high; returns the face's box."""
    image = read_picture(face.path).image
    shrink = max(1, int((face.box[3] - face.box[1]) / size))
    pixels = np.asarray(image.reduce(shrink))
    pixels = _colour(rng, pixels, face.colour and rng.random() < 0.7)
    corners = np.array(face.box).reshape(2, 2) / shrink
    middle, half = corners.mean(0), (corners[1] - corners[0]) / 2

    side = round(2.6 * size)  # of the square around the head
    angle, scale = math.radians(rng.normal(0, 10)), size / (2 * half[1])
    aside = rng.uniform(0.75, 1) if rng.random() < 0.3 else 1.0  # as a face that turns away
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = scale * turn @ np.diag([aside * rng.choice([-1, 1]), 1.0])
    affine = np.column_stack([matrix, side / 2 - matrix @ middle])
    oval = half * rng.uniform(1.1, 1.35, 2)
    mask = _oval(pixels.shape[:2], middle - (0, 0.12 * half[1]), oval)
    head, mask = (cv2.warpAffine(layer, affine, (side, side)) for layer in (pixels, mask))

    reach = half * scale * (aside, 1)
    _draw_body(rng, picture, centre, reach, _colours(pixels, corners))
    corner = round(centre[0] - side / 2), round(centre[1] - side / 2)
    picture.paste(Image.fromarray(head), corner, Image.fromarray(mask))
    return np.array([*(centre - reach), *(centre + reach)])


def _colours(pixels: np.ndarray, corners: np.ndarray) -> list[np.ndarray]:
    """Of the hair above a face, and of its skin: (3,) each."""
    (left, top), (right, bottom) = corners.clip(0).astype(int)
    third = (right - left) // 3
    above = pixels[max(0, top - (bottom - top) // 6) : top + 2, left + third : right - third]
    face = pixels[top:bottom, left:right]
    return [np.percentile(above, 25, (0, 1)), np.median(face, (0, 1))]


def _oval(shape: Sequence[int], centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """A mask (H, W) uint8 of an ellipse with a soft edge, which ends within the picture."""
    mask = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(mask).ellipse((*(centre - half), *(centre + half)), 255)
    inside = np.pad(np.ones((shape[0] - 4, shape[1] - 4), np.float32), 2)
    soft = max(1.0, 0.06 * float(half[1]))
    blurred = cv2.GaussianBlur(np.asarray(mask), (0, 0), soft)
    return (blurred * cv2.blur(inside, (5, 5))).astype(np.uint8)


def _colour(rng: np.random.Generator, pixels: np.ndarray, keep: bool) -> np.ndarray:
    """A face in its own colours, or grey tinted as skin under some light: (H, W, 3) uint8."""
    if keep:
        return pixels
    grey = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    grey = np.clip(grey, 0.004, 1) ** math.exp(rng.uniform(-0.5, 0.5))
    middle = 4 * grey * (1 - grey) * rng.uniform(0.3, 1.5)  # shadows and lights have little colour
    tint = np.array([0.14, -0.01, -0.11]) * rng.uniform(0.7, 1.3, 3)
    return (np.clip(grey[..., None] + middle[..., None] * tint, 0, 1) * 255).astype(np.uint8)


def _draw_body(
    rng: np.random.Generator,
    picture: Image.Image,
    centre: np.ndarray,
    reach: np.ndarray,
    colours: Sequence[np.ndarray],
) -> None:
    """Hair, neck and shoulders of a face, in clothes of any colour."""
    (x, y), (wide, high) = centre, reach
    hair, skin = (tuple(colour.astype(int).tolist()) for colour in colours)
    brush = ImageDraw.Draw(picture)
    around, long = wide * rng.uniform(1.1, 1.3), high * rng.choice([0.2, 0.5, 1.6])
    box = x - around, y - high * rng.uniform(1.25, 1.5), x + around, y + long
    brush.rounded_rectangle(box, around, hair)
    brush.rectangle((x - 0.65 * wide, y, x + 0.65 * wide, y + 1.6 * high), skin)

    around, top = high * rng.uniform(1.6, 2.4), y + high * rng.uniform(1.15, 1.4)
    size = round(2 * around), max(round(picture.height - top), 1)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0], size[1] + around), 0.8 * around, 255)
    clothes = _surface(rng, CLOTHES[rng.integers(len(CLOTHES))], size, 0.08)
    picture.paste(clothes, (round(x - around), round(top)), mask)


def _photograph(rng: np.random.Generator, picture: Image.Image) -> tuple[Image.Image, float]:
    """Size, light, lens and grain of the whole picture; returns it and how much it shrank."""
    factor = math.exp(rng.uniform(math.log(0.3), 0))
    width, height = (round(side * factor) for side in picture.size)
    small = picture.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.6) * factor))
    pixels = np.asarray(small, np.float32) / 255
    if rng.random() < 0.15:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, 2)
    pixels = pixels ** math.exp(rng.uniform(-0.4, 0.4)) * rng.uniform(0.92, 1.08, 3)
    if rng.random() < 0.4:  # one side lies in the shade
        angle, sharp = rng.uniform(0, 2 * math.pi), rng.uniform(2, 12)
        across = np.linspace(-1, 1, width) * math.cos(angle)
        down = np.linspace(-1, 1, height)[:, None] * math.sin(angle)
        shade = 1 / (1 + np.exp(-sharp * (across + down + rng.uniform(-0.6, 0.6))))
        pixels = pixels * (1 - rng.uniform(0.1, 0.55) * shade[..., None])
    pixels = pixels + rng.normal(0, rng.uniform(0, 0.025), (height, width, 1))
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8)), factor
