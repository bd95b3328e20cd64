import hashlib
import io
import random

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageEnhance, ImageOps, PngImagePlugin

from dclib.data import read_split
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import LEAST_CONTRAST, encode, is_blank, read_picture
from dclib.scrape import duplicates
from dclib.scrape.duplicates import (
    NEAR,
    components,
    distances,
    duplicate_groups,
    examine,
    fingerprints,
    near_pairs,
)
from dclib.scrape.sources import FetchError

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


def decode(content):
    return Image.open(io.BytesIO(content))


def jpeg(image, quality):
    return decode(encode(image, quality=quality)).convert("RGB")


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
    ours = fingerprints(image)
    for end, side in (("", image), ("_mirrored", ImageOps.mirror(image))):
        assert ours[f"phash{end}"] == str(imagehash.phash(side))
        assert ours[f"dhash{end}"] == str(imagehash.dhash(side))


@given(images())
def test_hashes_are_those_of_imagehash(image):
    assert_like_imagehash(image)


def test_hashes_of_drawn_couples_are_those_of_imagehash(drawn):
    for image in drawn:
        assert_like_imagehash(image)


def test_pixels_are_known_again_whatever_the_file(drawn):
    def pixels(image):
        return fingerprints(image)["pixel_sha256"]

    first = drawn[0]
    assert pixels(decode(encode(first, "PNG"))) == pixels(first)
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


def test_equal_files_and_equal_pixels_are_duplicates_and_what_a_third_links():
    files = [{"sha256": "a"}, {"sha256": "b", "pixel_sha256": "p"}, {"sha256": ""}]
    files += [{"sha256": "a"}, {"sha256": "c", "pixel_sha256": "p"}, {"sha256": ""}]
    assert duplicate_groups(files) == [[0, 3], [1, 4]]
    assert duplicate_groups([]) == near_pairs([]) == []
    zeros = dict.fromkeys(HASHES, f"{0:016x}")
    rows = [zeros | {"phash": f"{(1 << bits) - 1:016x}"} for bits in (0, 10, 20, 40)]
    for row in rows:
        row["phash_mirrored"] = "f" * 16
    assert near_pairs(rows) == [(0, 1), (1, 2)]
    assert duplicate_groups(rows) == [[0, 1, 2]]


def test_a_picture_of_one_colour_is_blank_and_no_drawn_couple_is(drawn):
    colours = {("white", "white"): True, ("black", "black"): True, ("white", "black"): False}
    colours |= {("#808080", "#838383"): True, ("#808080", "#909090"): False}
    for (left, right), flat in colours.items():
        image = Image.new("RGB", (300, 200), right)
        image.paste(left, (0, 0, 150, 200))
        assert is_blank(image) == flat
    assert not any(map(is_blank, drawn))


def test_what_is_not_flat_is_known_again_after_strong_compression(drawn):
    """Faded to little above the threshold; what is below may be lost."""
    for image in drawn:
        contrast = np.asarray(image.convert("L").resize((32, 32))).std()
        pixels, factor = np.asarray(image, float), 1.2 * LEAST_CONTRAST / contrast
        faded = Image.fromarray((128 + (pixels - 128) * factor).round().astype(np.uint8))
        assert not is_blank(faded)
        assert near_pairs([fingerprints(faded), fingerprints(jpeg(faded, 30))]) == [(0, 1)]


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
    )
)
def test_components_are_the_transitive_closure(case):
    n, pairs = case
    linked = np.eye(n, dtype=bool)
    for i, j in pairs:
        linked[i, j] = linked[j, i] = True
    for _ in range(n):
        linked |= (linked.astype(int) @ linked) > 0
    expected = sorted({tuple(np.flatnonzero(row).tolist()) for row in linked})
    assert [tuple(group) for group in components(n, pairs)] == expected
    assert components(0, []) == []


def test_no_two_photographs_are_taken_for_one(real_couples):
    photos = [path for path, _ in read_split(real_couples / "val").pictures][::2]
    rows = [fingerprints(read_picture(path).image) for path in photos]
    assert len(rows) > 50
    assert near_pairs(rows) == []


# ---- What of a downloaded file is kept; kinds, modes and damage: test_pictures.py, hostile.py


SECRET = b"48.137154 Jane Doe"


@pytest.fixture(scope="module")
def couple():
    """A drawn couple, 300 x 240 pixels."""
    return draw_scene(sample_scene(1, 0)[0], 300).crop((0, 30, 300, 270))


def reason(content):
    with pytest.raises(FetchError) as error:
        examine(content)
    assert error.value.stage == "quality"
    return error.value.reason


def exif(marks=()):
    tags = Image.Exif()
    tags[0x010E] = SECRET.decode()  # description
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.75)})  # GPS
    tags.update(marks)
    return tags


def test_no_metadata_is_kept(couple):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_text("exif", SECRET.decode())
    extras = {"exif": exif(), "xmp": SECRET, "icc_profile": profile, "dpi": (300, 300)}
    for content in (
        encode(couple, "JPEG", comment=SECRET, **extras),
        encode(couple, "PNG", pnginfo=text, exif=exif(), icc_profile=profile),
        encode(couple, "WEBP", exif=exif(), xmp=SECRET, icc_profile=profile),
    ):
        assert SECRET in content
        stored = examine(content)[1]
        assert b"Jane" not in stored and b"Exif" not in stored
        again = decode(stored)
        assert set(again.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert not again.getexif()
        assert again.format == "JPEG"


@pytest.mark.parametrize("odd", [b"\x01\x1a\x00\x02", b"\x01\x1a\x00\x07", b"\x01\x01\x00\x05"])
def test_marks_that_make_no_sense_spoil_no_picture(odd, couple):
    """Found by changing bytes at random: marks of wrong types, which Pillow cannot write again."""
    marks = exif({0x0112: 6, 0x011A: 72.5})  # 0x011A: resolution, type 5
    turned = couple.transpose(Image.Transpose.ROTATE_90)
    content = encode(turned, exif=marks, quality=95)
    assert content.count(b"\x01\x1a\x00\x05") == 1
    stored = examine(content.replace(b"\x01\x1a\x00\x05", odd))[1]
    assert np.abs(np.asarray(decode(stored), float) - np.asarray(couple, float)).mean() < 3


def test_size_and_shape_have_limits_and_the_upright_picture_is_measured(couple):
    for size in ((200, 200), (600, 200), (200, 600)):
        assert examine(encode(couple.resize(size)))[0]["width"] == size[0]
    for size in ((199, 400), (400, 199), (1, 1)):
        assert reason(encode(couple.resize(size))) == "too small"
    for size in ((601, 200), (200, 601)):
        assert reason(encode(couple.resize(size))) == "too long"
    examine(encode(couple, "PNG", icc_profile=b"nonsense"))  # a note is no refusal
    content = encode(couple.resize((600, 250)), exif=exif({0x0112: 6}))
    facts = examine(content)[0]
    assert (facts["width"], facts["height"]) == (250, 600)


def test_facts_are_those_of_the_original_and_the_same_bytes_give_the_same_jpeg(couple):
    large = couple.resize((1500, 1200))
    content = encode(large, "PNG")
    facts, stored = examine(content)
    assert (facts["width"], facts["height"], facts["bytes"]) == (1500, 1200, len(content))
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    means = [facts[name] for name in ("red", "green", "blue")]
    assert means == pytest.approx(np.asarray(large).mean((0, 1)).tolist(), abs=0.5)
    image = decode(stored)
    assert image.size == (1024, 819)
    assert distances([facts], [fingerprints(image.convert("RGB"))]) <= 2
    content, other = encode(couple, "PNG"), encode(couple, "PNG", compress_level=1)
    assert examine(content) == examine(content)
    assert examine(content)[1] == examine(other)[1]
    assert examine(content)[0]["sha256"] != examine(other)[0]["sha256"]


def test_the_mean_of_a_colour_is_where_it_belongs():
    image = Image.new("RGB", (400, 300), (200, 100, 0))
    image.paste((100, 100, 100), (0, 0, 200, 300))
    facts = examine(encode(image, "PNG"))[0]
    assert (facts["red"], facts["green"], facts["blue"]) == (150.0, 100.0, 50.0)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"])
)
def test_noise_is_refused_with_a_reason(noise, magic):
    reason(magic + noise)
