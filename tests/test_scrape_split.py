import random
from collections import Counter
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dclib.data import CLASSES, SPLITS
from dclib.scrape.split import BRIDGE, SHARES, assign, check_leaks, group_rows, leak_report

HASHES = ("phash", "dhash", "phash_mirrored", "dhash_mirrored")


def hashes(rng):
    return {name: f"{rng.getrandbits(64):016x}" for name in HASHES}


def nearly(row, rng, bits=4):
    """Hashes of a copy of a picture, compressed anew."""
    flip = sum(1 << place for place in rng.sample(range(64), bits))
    return {name: f"{int(row[name], 16) ^ flip:016x}" for name in HASHES}


def picture(i, rng=None, **more):
    """A picture that has nothing to do with any other, unless `more` says so."""
    rng = rng or random.Random(i)
    row = {"file": f"{i}.jpg", "sha256": f"{rng.getrandbits(256):064x}"}
    return row | hashes(rng) | {"label": CLASSES[i % 2], "split": ""} | more


def pictures(n, seed=0, alone=0.6, start=0):
    """Pictures of which some share an author, series, page, the pixels, or nearly so."""
    rng, rows = random.Random(seed), []
    for i in range(start, start + n):
        row = picture(i, rng, author=rng.choice(["", "unknown", "Anonymous", f"Ms {i}"]))
        if rng.random() > alone:
            row[rng.choice(("author", "series", "page"))] = f"no. {rng.randrange(n)}"
        if rows and rng.random() < 0.1:
            row |= nearly(rng.choice(rows), rng)
        if rows and rng.random() < 0.1:
            row["pixel_sha256"] = rng.choice(rows).setdefault("pixel_sha256", f"p{i}")
        rows.append(row)
    return rows


def divide(rows, seed=0):
    return [row | place for row, place in zip(rows, assign(rows, seed), strict=True)]


def places(rows):
    return {row["file"]: (row["group"], row["split"], row["reason"]) for row in rows}


collections = st.builds(
    pictures, st.integers(60, 120), st.integers(0, 2**32), st.floats(0.5, 1), st.just(0)
)


def try_divide(rows):
    try:
        return divide(rows)
    except ValueError:  # too few independent pictures
        assume(False)


@given(collections)
def test_what_belongs_together_is_in_one_group_and_no_group_is_in_two_splits(rows):
    rows = try_divide(rows)
    assert {row["split"] for row in rows} == set(SPLITS)
    for column in ("group", "series", "page", "pixel_sha256", "author"):
        told = [row for row in rows if row.get(column) not in (None, "", "unknown", "Anonymous")]
        for value in {row[column] for row in told}:
            assert len({row["split"] for row in told if row[column] == value}) == 1
            assert len({row["group"] for row in told if row[column] == value}) == 1
    check_leaks(rows)
    assert len({row["group"] for row in rows}) == len(group_rows(rows))


@given(collections, st.integers(0, 2**32))
def test_what_was_placed_stays_when_the_set_grows(rows, seed):
    before = try_divide(rows)
    more = pictures(60, seed, start=len(rows))
    after = divide([*before, *more], seed=seed)
    for old, new in zip(before, after, strict=False):
        assert (new["split"], new["reason"]) == (old["split"], "")
    check_leaks(after)
    for row in after:
        assert (row["split"] == "") == (row["reason"] == BRIDGE) == (row["group"] == "")


@given(collections, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, rng):
    def shuffled(rows):
        return rng.sample(rows, len(rows))

    first = try_divide(rows)
    assert places(divide(shuffled(rows))) == places(first)
    grown = [*first, *pictures(40, 7, start=len(rows))]
    assert places(divide(shuffled(grown))) == places(divide(grown))


@pytest.mark.parametrize("nobody", ["", None, "unknown", " Unknown  Author ", "ANONYMOUS", "n/a"])
def test_authors_nobody_knows_do_not_join(nobody):
    rows = [picture(i, author=nobody) for i in range(3)] + [picture(3)]
    assert group_rows(rows) == [[0], [1], [2], [3]]


def test_names_are_the_same_whatever_their_spaces_and_case():
    names = ["Zoë  Doe", "zoe\u0308 doe ", "ZOË DOE", "Zoë Do"]
    for column in ("author", "series", "group", "page"):
        rows = [picture(i, **{column: name}) for i, name in enumerate(names)]
        assert group_rows(rows) == [[0, 1, 2], [3]]
    # an author who has the name of a series is not in it
    assert len(group_rows([picture(0, author="x"), picture(1, series="x")])) == 2


def test_pictures_without_hashes_and_checksums_can_be_divided():
    rows = divide([{"file": f"a_long_name_{i}.jpg", "label": CLASSES[i % 2]} for i in range(60)])
    assert len({row["group"] for row in rows}) == 60
    assert "closest" not in leak_report(rows)


def test_the_shares_are_met_where_groups_are_small():
    """Within one group's pictures for each class and split."""
    rows = [picture(i, author=f"Ms {i // 3}") for i in range(600)]
    counts = Counter((row["split"], row["label"]) for row in divide(rows))
    for split, share in SHARES.items():
        for label in CLASSES:
            assert counts[split, label] == pytest.approx(300 * share, abs=3)


@given(
    st.lists(st.integers(1, 8), min_size=3, max_size=8),
    st.lists(st.integers(1, 8), min_size=3, max_size=8),
    st.integers(0, 3),
)
def test_every_split_has_every_class_wherever_there_are_groups_enough(happy, unhappy, seed):
    rows = []
    for label, sizes in zip(CLASSES, (happy, unhappy), strict=True):
        for i, size in enumerate(sizes):
            more = {"author": f"{label} {i}", "label": label}
            rows += [picture(len(rows) + k, **more) for k in range(size)]
    rows = divide(rows, seed=seed)
    assert {(row["split"], row["label"]) for row in rows} == {*product(SPLITS, CLASSES)}
    # and when the set grows by a class of which there is hardly any in what was placed
    again = [row | {"split": row["split"] if row["label"] == "happy" else ""} for row in rows]
    assert {row["split"] for row in divide(again) if row["label"] == "unhappy"} == {*SPLITS}


@pytest.mark.parametrize("many", [{"author": "Ms Giant"}, {"split": "train"}])
def test_a_giant_group_goes_to_train_and_growth_brings_the_shares_back(many):
    rows = divide([picture(i, **(many if i < 100 else {})) for i in range(300)])
    assert {row["split"] for row in rows[:100]} == {"train"}
    counts = Counter(row["split"] for row in rows)
    assert [counts[split] for split in SPLITS] == pytest.approx([210, 45, 45], abs=2)


def test_one_seed_gives_one_split_and_another_seed_another():
    rows = pictures(100)
    assert places(divide(rows, seed=1)) == places(divide(rows, seed=1))
    assert places(divide(rows, seed=1)) != places(divide(rows, seed=2))


def grown(*more):
    """A divided set, an author of train, one of val, and `more` (functions of both) new rows."""
    rows = divide([picture(i, author=f"Ms {i}") for i in range(60)])
    train, val = (next(r for r in rows if r["split"] == split) for split in ("train", "val"))
    new = [picture(100 + i) | make(train, val) for i, make in enumerate(more)]
    return rows, divide([*rows, *new])


def test_new_pictures_that_link_two_splits_are_left_out_and_nothing_else():
    rows, after = grown(
        lambda train, val: nearly(train, random.Random(1)) | {"author": val["author"]},
        lambda train, val: {"author": train["author"]},
        lambda train, val: {"author": "Ms New"},
    )
    bridge, beside, new = after[60:]
    for row in (bridge, beside):
        assert (row["group"], row["split"], row["reason"]) == ("", "", BRIDGE)
    assert new["split"]
    assert places(after[:60]) == places(rows)
    text = leak_report(after, left_out=2)
    assert "2 pictures left out: they would link two splits." in text


def test_a_chain_of_new_pictures_between_two_splits_is_left_out_whole():
    _, after = grown(
        lambda train, val: {"author": train["author"], "series": "x"},
        lambda train, val: {"series": "x", "page": "y"},
        lambda train, val: {"page": "y", "author": val["author"]},
    )
    assert [row["reason"] for row in after[60:]] == [BRIDGE] * 3
    check_leaks(after)


def test_a_bridge_is_left_out_again_until_it_links_no_more():
    _, after = grown(
        lambda train, val: {"author": train["author"], "page": "x"},
        lambda train, val: {"author": val["author"], "page": "x"},
    )
    assert places(divide(after)) == places(after)
    next(row for row in after if row["reason"])["page"] = ""
    assert all(row["split"] for row in divide(after))


def test_pictures_placed_before_that_turn_out_to_be_linked_are_refused_not_moved():
    rows = divide([picture(i) for i in range(60)])
    chosen = [next(row for row in rows if row["split"] == split) for split in ("train", "val")]
    for row in chosen:
        row["author"] = "Ms Late"
    with pytest.raises(ValueError, match=r"train and val share a group.*into an empty folder"):
        assign(rows)


def leak(**same):
    return lambda left, right: (left.update(same), right.update(same))


def near_duplicate(left, right):
    right |= nearly(left, random.Random(0), bits=10)


def mirrored_duplicate(left, right):
    copy = nearly(left, random.Random(0))
    right |= {"phash": copy["phash_mirrored"], "dhash": copy["dhash_mirrored"]}


JOINING = ("author", "series", "group", "page", "sha256", "pixel_sha256")
LEAKS = [leak(**{name: "x"}) for name in JOINING]


@pytest.mark.parametrize("spoil", [*LEAKS, near_duplicate, mirrored_duplicate])
@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test"), ("val", "test")])
def test_every_leak_is_found(spoil, splits):
    rows = divide([picture(i, author=f"Ms {i}") for i in range(40)])
    check_leaks(rows)
    left, right = (next(row for row in rows if row["split"] == split) for split in splits)
    spoil(left, right)
    with pytest.raises(ValueError, match=f"{min(splits)} and {max(splits)} share a group") as error:
        check_leaks(rows)
    for row in (left, right):
        assert f"{row['file']} ({row['split']})" in str(error.value)
    with pytest.raises(ValueError, match="share a group"):
        leak_report(rows)
    right["split"] = ""  # a picture in no split leaks nothing
    check_leaks(rows)


@pytest.mark.parametrize(
    ("labels", "author", "missing"),
    [
        (["happy"] * 30, "", "train would have no unhappy"),
        (["happy"] * 30 + ["unhappy"] * 2, "", "(val|test) would have no unhappy"),
        ([*CLASSES] * 25, "Ms Only", "val would have no happy"),
        ([], "", "train would have no happy"),
    ],
)
def test_a_split_without_a_class_is_an_error(labels, author, missing):
    rows = [picture(i, label=label, author=author) for i, label in enumerate(labels)]
    sentence = f"{missing} picture.*independent of each other. Gather more"
    with pytest.raises(ValueError, match=sentence):
        assign(rows)


def test_the_report_counts_and_names_the_closest_pair():
    rng = random.Random(0)
    rows = divide([picture(i, rng) for i in range(100)])
    train, test = (next(r for r in rows if r["split"] == split) for split in ("train", "test"))
    test |= nearly(train, rng, bits=11)
    lines = leak_report(rows).splitlines()
    assert lines[0].startswith("train: 70 pictures (35 happy, 35 unhappy)")
    assert [line.split(":")[0] for line in lines[:3]] == list(SPLITS)
    assert "100 groups, the largest has 1 of 100 pictures." in lines
    assert (
        f"The closest two pictures in different splits ({train['file']}, {test['file']}) differ in "
        "11 of 64 bits."
    ) in lines
    assert lines[-1] == "No picture, author, series or page is in two splits."


def test_the_report_counts_authors_who_are_known():
    names = ["Ms A", "ms  a", "Mr B", "unknown", "", None]
    rows = [picture(i, author=name, split="train") for i, name in enumerate(names)]
    rows += [picture(i, split="val") for i in (6, 7)]
    lines = leak_report(rows).splitlines()
    assert lines[0] == "train: 6 pictures (3 happy, 3 unhappy) by 2 known authors"
    assert lines[1] == "val: 2 pictures (1 happy, 1 unhappy)"
    assert "Of 3 pictures the author, the series or the page is known." in lines
