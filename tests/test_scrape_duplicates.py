import io
import random

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageEnhance, ImageOps

from dclib.data import CLASSES, list_pictures
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import read_picture
from dclib.scrape import duplicates
from dclib.scrape.duplicates import (
    LEAST_CONTRAST,
    NEAR,
    UnionFind,
    dhash,
    distances,
    duplicate_groups,
    fingerprints,
    is_flat,
    near_pairs,
    phash,
)

N = 40  # drawn couples: 20 pairs of one couple, once happy and once unhappy


@pytest.fixture(scope="module")
def drawn():
    return [draw_scene(sample_scene(3, index)[0], 256) for index in range(N)]


@pytest.fixture(scope="module")
def rows(drawn):
    return [fingerprints(image) for image in drawn]


def images(most=48):
    shapes = st.tuples(st.integers(1, most), st.integers(1, most), st.just(3))
    return hnp.arrays(np.uint8, shapes).map(Image.fromarray)


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cut(image, share):
    x, y = (round(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


EDITS = {
    "JPEG 30": lambda image: jpeg(image, 30),
    "half size": lambda image: image.resize((128, 128)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "cut by 2 %": lambda image: cut(image, 0.02),
    "mirrored": ImageOps.mirror,
    "mirrored, JPEG 30": lambda image: jpeg(ImageOps.mirror(image), 30),
}


def assert_like_imagehash(image):
    ours, mirrored = fingerprints(image), ImageOps.mirror(image)
    assert ours["phash"] == str(imagehash.phash(image))
    assert ours["dhash"] == str(imagehash.dhash(image))
    assert ours["phash_mirrored"] == str(imagehash.phash(mirrored))
    assert ours["dhash_mirrored"] == str(imagehash.dhash(mirrored))


@given(images())
def test_hashes_are_those_of_imagehash(image):
    assert_like_imagehash(image)


def test_hashes_of_drawn_couples_are_those_of_imagehash(drawn):
    for image in drawn:
        assert_like_imagehash(image)
        grey = image.convert("L")
        assert phash(grey) == str(imagehash.phash(grey))
        assert dhash(grey) == str(imagehash.dhash(grey))


def test_pixels_are_known_again_whatever_the_file(drawn):
    def pixels(image):
        return fingerprints(image)["pixel_sha256"]

    first = drawn[0]
    buffer = io.BytesIO()
    first.save(buffer, "PNG")
    assert pixels(Image.open(buffer).convert("RGB")) == pixels(first)
    assert pixels(jpeg(first, 95)) != pixels(first)
    wide, high = Image.new("RGB", (20, 10)), Image.new("RGB", (10, 20))  # the same bytes
    assert pixels(wide) != pixels(high)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_found_from_either_side(edit, drawn, rows):
    edited = [fingerprints(EDITS[edit](image)) for image in drawn]
    apart = distances(rows, edited)
    assert np.diag(apart).max() <= NEAR
    assert (apart == distances(edited, rows).T).all()
    for row, other in zip(rows, edited, strict=True):
        assert duplicate_groups([row, other]) == duplicate_groups([other, row]) == [[0, 1]]


def test_different_drawings_are_not_near_not_even_of_one_couple(rows):
    assert near_pairs(rows) == duplicate_groups(rows) == []
    apart = distances(rows, rows)
    assert min(apart[i, i + 1] for i in range(0, N, 2)) > NEAR
    assert (np.diag(apart) == 0).all()


def slow_distance(a, b):
    def differ(name, left, right):
        return bin(int(a[name + left], 16) ^ int(b[name + right], 16)).count("1")

    sides = (("", ""), ("_mirrored", ""), ("", "_mirrored"))
    return min(max(differ("phash", *side), differ("dhash", *side)) for side in sides)


HASHES = ("phash", "dhash", "phash_mirrored", "dhash_mirrored")
HASHED = st.fixed_dictionaries(
    dict.fromkeys(HASHES, st.integers(0, 2**64 - 1).map("{:016x}".format))
)


@given(st.lists(st.one_of(HASHED, st.just({"phash": ""}), st.just({})), max_size=9), st.data())
def test_near_pairs_equal_a_slow_search(some, data):
    limit = data.draw(st.integers(0, 64))
    pairs = [(i, j) for j in range(len(some)) for i in range(j)]
    hashed = [(i, j) for i, j in pairs if some[i].get("phash") and some[j].get("phash")]
    expected = sorted(p for p in hashed if slow_distance(some[p[0]], some[p[1]]) <= limit)
    assert near_pairs(some, limit) == expected


@pytest.mark.parametrize("chunk", [1, 7, 39, 40, 1000])
def test_near_pairs_do_not_depend_on_the_size_of_a_chunk(chunk, rows, monkeypatch):
    expected = near_pairs(rows, 24)
    assert len(expected) > 5
    monkeypatch.setattr(duplicates, "CHUNK", chunk)
    assert near_pairs(rows, 24) == expected == sorted(expected)


def test_the_order_of_pictures_does_not_matter(drawn):
    copies = [edit(image) for image in drawn[:6] for edit in EDITS.values()] + drawn
    known = [fingerprints(image) | {"name": i} for i, image in enumerate(copies)]

    def groups(some):
        return {frozenset(some[i]["name"] for i in group) for group in duplicate_groups(some)}

    expected = groups(known)
    assert sorted(map(len, expected)) == [len(EDITS) + 1] * 6
    for seed in range(5):
        assert groups(random.Random(seed).sample(known, len(known))) == expected


def test_equal_files_and_equal_pixels_are_duplicates_without_hashes():
    files = [{"sha256": "a"}, {"sha256": "b", "pixel_sha256": "p"}, {"sha256": ""}]
    files += [{"sha256": "a"}, {"sha256": "c", "pixel_sha256": "p"}, {"sha256": ""}]
    assert duplicate_groups(files) == [[0, 3], [1, 4]]
    assert duplicate_groups([]) == near_pairs([]) == []


def test_what_a_third_links_belongs_together():
    zeros = dict.fromkeys(HASHES, f"{0:016x}")
    rows = [zeros | {"phash": f"{(1 << bits) - 1:016x}"} for bits in (0, 10, 20, 40)]
    for row in rows:
        row["phash_mirrored"] = "f" * 16
    assert near_pairs(rows) == [(0, 1), (1, 2)]
    assert duplicate_groups(rows) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("colours", "flat"),
    [
        (("white", "white"), True),
        (("black", "black"), True),
        (("#808080", "#838383"), True),
        (("#808080", "#909090"), False),
        (("white", "black"), False),
    ],
)
def test_a_picture_of_one_colour_is_flat(colours, flat):
    image = Image.new("RGB", (300, 200), colours[0])
    image.paste(colours[1], (0, 0, 150, 200))
    assert is_flat(image) == flat


def test_what_is_not_flat_is_known_again_after_strong_compression(drawn):
    """Faded to little above the threshold; what is below may be lost."""
    for image in drawn:
        contrast = np.asarray(image.convert("L").resize((32, 32))).std()
        pixels, factor = np.asarray(image, float), 1.2 * LEAST_CONTRAST / contrast
        faded = Image.fromarray((128 + (pixels - 128) * factor).round().astype(np.uint8))
        assert not is_flat(faded)
        assert near_pairs([fingerprints(faded), fingerprints(jpeg(faded, 30))]) == [(0, 1)]


def test_no_drawn_couple_is_flat(drawn):
    assert not any(map(is_flat, drawn))


@given(
    st.integers(0, 12).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.tuples(*[st.integers(0, max(n - 1, 0))] * 2), max_size=n)
        )
    )
)
def test_union_find_is_the_transitive_closure(case):
    n, pairs = case
    linked = np.eye(n, dtype=bool)
    for i, j in pairs:
        linked[i, j] = linked[j, i] = True
    for _ in range(n):
        linked |= (linked.astype(int) @ linked) > 0
    expected = sorted({tuple(np.flatnonzero(row).tolist()) for row in linked})
    union = UnionFind(n)
    for i, j in pairs:
        union.join(i, j)
    assert [tuple(group) for group in union.groups()] == expected


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=10))
def test_equal_keys_are_joined_and_no_key_is_not(keys):
    union = UnionFind(len(keys))
    union.join_equal(keys)
    together = {key: [i for i, k in enumerate(keys) if k == key] for key in keys if key}
    alone = [[i] for i, key in enumerate(keys) if not key]
    assert union.groups() == sorted([*together.values(), *alone])


def test_no_two_photographs_are_taken_for_one(real_couples):
    photos = [path for path, _ in list_pictures(real_couples / "val", CLASSES)][::2]
    rows = [fingerprints(read_picture(path).image) for path in photos]
    assert len(rows) > 50
    assert near_pairs(rows) == []
