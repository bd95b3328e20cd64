"""48 variants: named, none like another, each still recognisable."""

import functools
import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dclib.augment.variants import augmentation_grid
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene

MARGIN = 2  # grey levels of 255 between any two variants, mean over the picture
ALIKE = 0.4  # least correlation with the picture, after alignment
SIDE = 96  # pixels at which pictures are aligned


def drawn(index, size=256):
    return np.asarray(draw_scene(sample_scene(4, index)[0], size))


def texture(seed, height, width, channels):
    """Random blobs with some grain: a picture of nothing, with detail of every size."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, channels))
    for cells in (4, 16, 64):
        noise = rng.random((cells, cells, channels)).astype(np.float32)
        total += cv2.resize(noise, (width, height)).reshape(total.shape)
    return np.uint8(255 * (total - total.min()) / np.ptp(total)).squeeze()


PICTURES = {
    "drawn": drawn(0),
    "drawn, another": drawn(7),
    "texture": texture(0, 200, 320, 3),
    "grey texture": texture(1, 320, 220, 1),
}


@functools.cache
def variants_of(name):
    return augmentation_grid(PICTURES[name])


@pytest.fixture
def photographs(real_couples):
    paths = sorted(real_couples.glob("train/*/*.jpg"))
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths[:: len(paths) // 3]][:3]


def smallest_distance(pictures):
    levels = {name: picture.astype(np.int16) for name, picture in pictures.items()}
    pairs = itertools.combinations(levels.items(), 2)
    return min((np.abs(a - b).mean(), m, n) for (m, a), (n, b) in pairs)


def details(picture):
    """A grey picture without the shades that are wider than a face, and without grain."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.GaussianBlur(grey, (0, 0), 1.5) - cv2.GaussianBlur(grey, (0, 0), 12)


# Where alignment begins: turned by degrees, zoomed, moved by shares of the side.
STARTS = [(0, 1, 0, 0), (-15, 1, 0, 0), (20, 1, 0, 0), (0, 0.75, 0, 0), (0, 1.4, 0, 0)]
STARTS += [(0, 1, -0.18, 0), (0, 1.3, 0.1, 0.15), (10, 1.1, 0, 0)]


def likeness(variant, picture):
    """The largest correlation of both that an affine map reaches (Evangelidis & Psarakis 2008).

    Details a fifth as strong as the picture's are too faint to be seen, and count as nothing.
    """
    best, seen = -1.0, details(variant)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 25, 1e-3)
    if seen.std() < 0.2 * details(picture).std():
        return best
    for original in (details(picture), details(picture[:, ::-1])):
        for angle, zoom, x, y in STARTS:
            start = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, zoom)
            start[:, 2] += (x * SIDE, y * SIDE)
            start = cv2.invertAffineTransform(start).astype(np.float32)
            args = (start, cv2.MOTION_AFFINE, criteria, None, 5)
            try:
                found, warp = cv2.findTransformECC(seen, original, *args)
            except cv2.error:  # it found nothing to align
                continue
            if 0.4 < abs(np.linalg.det(warp[:, :2])) < 2.5:  # not a corner blown up
                best = max(best, found)
    return best


def test_48_names():
    grid = variants_of("drawn")
    assert len(grid) == 48
    assert max(map(len, grid)) <= 22  # what fits above a picture


@pytest.mark.parametrize("name", PICTURES)
def test_no_two_are_alike(name):
    grid, picture = variants_of(name), Image.fromarray(PICTURES[name])
    small = np.asarray(picture.convert("RGB").resize(grid["rain"].shape[1::-1]))
    distance, *names = smallest_distance(grid | {"the picture": small})
    assert distance > MARGIN, names


def test_no_two_are_alike_on_photographs(photographs):
    for photo in photographs:
        distance, *names = smallest_distance(augmentation_grid(photo))
        assert distance > MARGIN, names


@pytest.mark.parametrize("name", ["drawn", "drawn, another"])
def test_every_variant_is_still_the_picture(name):
    other = drawn(20)
    for variant, pixels in variants_of(name).items():
        own = likeness(pixels, PICTURES[name])
        assert own > ALIKE, variant
        assert own > likeness(pixels, other) + 0.1, variant


def test_every_variant_is_still_the_photograph(photographs):
    for variant, pixels in augmentation_grid(photographs[0]).items():
        assert likeness(pixels, photographs[0]) > ALIKE, variant


def test_what_is_lost_would_be_noticed():
    """The measure above on pictures that nobody would recognise."""
    picture = PICTURES["drawn"]
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    blurred = cv2.GaussianBlur(picture, (0, 0), 40)
    for lost in (np.zeros_like(picture), np.full_like(picture, 255), noise, 255 - picture, blurred):
        assert likeness(lost, picture) < ALIKE
    assert likeness(picture, picture) > 0.99


def test_seed():
    first, again, other = (augmentation_grid(drawn(0), seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for name in ("rain", "snow", "cut-outs", "film grain"):
        assert not np.array_equal(first[name], other[name])
    assert np.array_equal(first["sepia"], other["sepia"])


@pytest.mark.parametrize("n", [1, 5, 47])
def test_fewer(n):
    grid = augmentation_grid(PICTURES["drawn"], n)
    assert list(grid) == list(variants_of("drawn"))[:n]


@pytest.mark.parametrize("n", [0, -1, 49])
def test_as_many_as_there_are(n):
    with pytest.raises(ValueError, match=f"n is {n}, but there are 1 to 48 variants"):
        augmentation_grid(drawn(0), n)


@settings(max_examples=8)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["RGB", "L", "RGBA", "1"]))
def test_any_size_and_mode(width, height, mode):
    grid = augmentation_grid(Image.effect_noise((width, height), 60).convert(mode))
    for pixels in grid.values():
        assert pixels.dtype == np.uint8
        assert pixels.shape == grid["mirror image"].shape
    assert max(pixels.shape) == 256
    assert min(pixels.shape[:2]) >= 64
