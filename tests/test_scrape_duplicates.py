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

from dclib import pictures
from dclib.data import read_split
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import LEAST_CONTRAST, is_blank, read_picture
from dclib.scrape import duplicates
from dclib.scrape.duplicates import (
    NEAR,
    Unsuitable,
    components,
    dhash,
    distances,
    duplicate_groups,
    examine,
    fingerprints,
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


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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
        grey = image.convert("L")
        assert phash(grey) == str(imagehash.phash(grey))
        assert dhash(grey) == str(imagehash.dhash(grey))


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
    ("left", "right", "flat"),
    [
        *(("white", "white", True), ("black", "black", True), ("white", "black", False)),
        *(("#808080", "#838383", True), ("#808080", "#909090", False)),
    ],
)
def test_a_picture_of_one_colour_is_blank(left, right, flat):
    image = Image.new("RGB", (300, 200), right)
    image.paste(left, (0, 0, 150, 200))
    assert is_blank(image) == flat


def test_what_is_not_flat_is_known_again_after_strong_compression(drawn):
    """Faded to little above the threshold; what is below may be lost."""
    for image in drawn:
        contrast = np.asarray(image.convert("L").resize((32, 32))).std()
        pixels, factor = np.asarray(image, float), 1.2 * LEAST_CONTRAST / contrast
        faded = Image.fromarray((128 + (pixels - 128) * factor).round().astype(np.uint8))
        assert not is_blank(faded)
        assert near_pairs([fingerprints(faded), fingerprints(jpeg(faded, 30))]) == [(0, 1)]


def test_no_drawn_couple_is_blank(drawn):
    assert not any(map(is_blank, drawn))


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


# ---- What of a downloaded file is kept


SECRET = b"48.137154 Jane Doe"


@pytest.fixture(scope="module")
def couple():
    """A drawn couple, 300 x 240 pixels."""
    return draw_scene(sample_scene(1, 0)[0], 300).crop((0, 30, 300, 270))


def kept(content):
    """The picture that examine() keeps, as it is read again."""
    return decode(examine(content)[1])


def difference(image, other):
    """Mean absolute difference in grey levels."""
    return np.abs(np.asarray(image, float) - np.asarray(other, float)).mean()


def reason(content):
    with pytest.raises(Unsuitable) as error:
        examine(content)
    assert str(error.value).startswith(error.value.reason)
    return error.value.reason


def exif(marks=()):
    tags = Image.Exif()
    tags[0x010E] = SECRET.decode()  # description
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.75)})  # GPS
    tags.update(marks)
    return tags


turn = Image.Transpose
UNDONE_BY = {  # EXIF mark -> what a camera did to a picture that the mark undoes
    **{2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE},
    **{6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270},
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mark", range(1, 9))
def test_pictures_are_kept_upright(kind, mark, couple):
    stored = couple if mark == 1 else couple.transpose(UNDONE_BY[mark])
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    content = encode(stored, kind, exif=exif({0x0112: mark}), **options)
    facts, upright = examine(content)
    assert (facts["width"], facts["height"]) == couple.size
    assert difference(decode(upright), couple) < 3


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
    content = encode(couple.transpose(UNDONE_BY[6]), exif=marks, quality=95)
    assert content.count(b"\x01\x1a\x00\x05") == 1
    assert difference(kept(content.replace(b"\x01\x1a\x00\x05", odd)), couple) < 3


def modes(couple):
    """What the kept picture should look like, and a file in an odd mode."""
    grey, deep = couple.convert("L"), np.asarray(couple.convert("L")).astype(np.uint16) * 257
    alpha = couple.copy()
    alpha.putalpha(Image.new("L", couple.size, 128))
    on_white = Image.blend(Image.new("RGB", couple.size, "white"), couple, 128 / 255)
    palette = couple.quantize(64)
    return {
        "CMYK": (couple, encode(couple.convert("CMYK"), "JPEG", quality=95)),
        "16 bit": (grey.convert("RGB"), encode(Image.fromarray(deep), "PNG")),
        "grey": (grey.convert("RGB"), encode(grey, "JPEG", quality=95)),
        "alpha": (on_white, encode(alpha, "PNG")),
        "palette": (palette.convert("RGB"), encode(palette, "PNG")),
        "palette, transparent": (None, encode(palette, "PNG", transparency=3)),
        "progressive": (couple, encode(couple, "JPEG", progressive=True, quality=95)),
    }


@pytest.mark.parametrize("mode", modes(Image.new("RGB", (2, 2))))
def test_every_mode_becomes_rgb(mode, couple):
    expected, content = modes(couple)[mode]
    image = kept(content)
    assert (image.mode, image.size) == ("RGB", couple.size)
    if expected is not None:
        assert difference(image, expected) < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind, couple):
    frames = [couple, ImageOps.mirror(couple)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert reason(content) == "animated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_half_a_file_is_refused(kind, part, couple):
    content = encode(couple, kind)
    assert reason(content[: int(len(content) * part)]) == "damaged or too large"


def test_too_many_pixels_are_refused_before_they_are_decoded(couple, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 300 * 240 - 1)
    assert reason(encode(couple, "PNG")) == "damaged or too large"
    monkeypatch.setattr(pictures, "MAX_PIXELS", 300 * 240)
    examine(encode(couple, "PNG", icc_profile=b"nonsense"))  # a note is no refusal


def test_size_and_shape_have_limits(couple):
    for size in ((200, 200), (600, 200), (200, 600)):
        assert examine(encode(couple.resize(size)))[0]["width"] == size[0]
    for size in ((199, 400), (400, 199), (1, 1)):
        assert reason(encode(couple.resize(size))) == "too small"
    for size in ((601, 200), (200, 601)):
        assert reason(encode(couple.resize(size))) == "too long"


def test_the_upright_picture_is_measured_not_the_stored_one(couple):
    content = encode(couple.resize((600, 250)), exif=exif({0x0112: 6}))
    facts = examine(content)[0]
    assert (facts["width"], facts["height"]) == (250, 600)


@pytest.mark.parametrize("colour", ["white", "black", "#3060a0"])
def test_one_colour_is_no_picture(colour):
    assert reason(encode(Image.new("RGB", (400, 300), colour), "PNG")) == "nothing in it"


BEGINNINGS = [b"", b"GIF89a", b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"PK\x03\x04"]
BEGINNINGS += [b'{"error": "no"}', b"<!doctype html><p>please log in"]
BEGINNINGS += [b"RIFF\x00\x00\x00\x00WAVE", b"\x00\x00\x00\x20ftypavif"]


@pytest.mark.parametrize("content", BEGINNINGS)
def test_what_a_file_is_shows_in_its_first_bytes(content):
    assert reason(content) == reason(content + bytes(50)) == "not a picture"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_kinds_that_the_web_does_not_use_for_photos_are_refused(kind, couple):
    assert reason(encode(couple, kind)) == "not a picture"


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 "])
@pytest.mark.parametrize("rest", [b"<html><script>alert(1)</script>", bytes(5000)])
def test_a_lie_in_the_first_bytes_is_found(magic, rest):
    assert reason(magic + rest) == "damaged or too large"


def test_a_script_behind_a_picture_is_not_kept(couple):
    script = b"<script>alert(1)</script>"
    stored = examine(encode(couple) + script)[1]
    assert script not in stored
    assert difference(decode(stored), couple) < 5


def test_facts_are_those_of_the_original(couple):
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


def test_the_mean_of_a_colour_is_where_it_belongs():
    image = Image.new("RGB", (400, 300), (200, 100, 0))
    image.paste((100, 100, 100), (0, 0, 200, 300))
    facts = examine(encode(image, "PNG"))[0]
    assert (facts["red"], facts["green"], facts["blue"]) == (150.0, 100.0, 50.0)


def test_the_same_bytes_give_the_same_jpeg(couple):
    content, other = encode(couple, "PNG"), encode(couple, "PNG", compress_level=1)
    assert examine(content) == examine(content)
    assert examine(content)[1] == examine(other)[1]
    assert examine(content)[0]["sha256"] != examine(other)[0]["sha256"]


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"])
)
def test_noise_is_refused_with_a_reason(noise, magic):
    reason(magic + noise)
