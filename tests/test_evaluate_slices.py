import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tables
from PIL import Image
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from dclib.data import CLASSES
from dclib.evaluate.intervals import holm
from dclib.evaluate.metrics import measure
from dclib.evaluate.slices import format_slices, measure_gap, read_tags, slice_table


def make_table(right, groups=None, seed=-1):
    """Predictions that are right where `right` (N,) says so; every second picture is happy."""
    unhappy = np.arange(len(right)) % 2 == 1
    margins = np.where(np.asarray(right, bool) == unhappy, 2.0, -2.0)
    return tables.make_table(margins, unhappy, groups, seed=seed)


def tags_of(table, **columns):
    return pd.DataFrame(columns, index=table["id"].unique())


def test_a_gap_by_hand():
    """30 of 40 against 54 of 60: with a right and a wrong one more, 31 of 42 and 55 of 62."""
    right = np.repeat([1.0, 0.0, 1.0, 0.0], [30, 10, 54, 6])
    found = measure_gap(right, np.arange(100) < 40, np.arange(100))
    error = (104 / 103 * (31 / 42 * 11 / 42 / 42 + 55 / 62 * 7 / 62 / 62)) ** 0.5
    assert error == pytest.approx(0.079237, abs=1e-6)
    reach = 2.022691 * error  # Student's t of 39 degrees of freedom
    assert found["gap"] == pytest.approx(-0.15)
    assert found["gap_low"] == pytest.approx(-0.149002 - reach, abs=1e-5)
    assert found["gap_high"] == pytest.approx(-0.149002 + reach, abs=1e-5)
    assert found["p"] == pytest.approx(2 * student.sf(0.149002 / error, 39), abs=1e-5)


def draw(rng, n_groups=60, size=4, agree=0.7, share=0.8):
    """Answers that agree within groups, and the groups."""
    groups = np.repeat(np.arange(n_groups), size)
    shared = (rng.random(n_groups) < share)[groups]
    agrees = rng.random(len(groups)) < agree
    return np.where(agrees, shared, rng.random(len(groups)) < share), groups


def test_the_variance_is_that_of_a_regression_with_clusters():
    rng = np.random.default_rng(0)
    right, groups = draw(rng)
    inside = (rng.random(60) < 0.4)[groups] ^ (rng.random(240) < 0.1)  # many groups, some torn
    found = measure_gap(right.astype(float), inside, groups)
    right, inside = np.r_[right, 1, 0, 1, 0], np.r_[inside, 1, 1, 0, 0]
    fit = sm.OLS(right.astype(float), sm.add_constant(inside.astype(float))).fit()
    clusters = {"groups": np.r_[groups, 60:64], "use_correction": False}
    robust = fit.get_robustcov_results("cluster", **clusters)
    middle, reach = (found["gap_high"] + s * found["gap_low"] for s in (1, -1))
    assert middle / 2 == pytest.approx(robust.params[1])
    g = min(len(set(groups[inside[:-4] == side])) for side in (0, 1))
    error = robust.bse[1] * (64 / 63) ** 0.5
    assert error > fit.bse[1]  # else the floor would hide the clusters
    assert reach / 2 == pytest.approx(student.ppf(0.975, g - 1) * error)


def test_groups_on_both_sides_do_not_narrow_below_independent_answers():
    right = np.tile([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], 20)  # pairs agree, one on either side
    inside, pairs = np.arange(120) % 2 == 0, np.arange(120) // 2
    paired, alone = (measure_gap(right, inside, g) for g in (pairs, np.arange(120)))
    assert paired["gap_high"] == pytest.approx(alone["gap_high"], rel=0.02)


@pytest.mark.parametrize("by_group", [True, False])
def test_without_any_gap_one_table_in_twenty_at_most_shows_one(by_group):
    """1,000 data sets of 300 pictures in pairs that agree, 16 slices of 5 tags, 80 % right."""
    rng, held, false = np.random.default_rng(1), [], 0
    shares = ([1 / 3] * 3, [0.2, 0.3, 0.5], [0.85, 0.15], [0.5, 0.5], [0.25] * 4)
    for _ in range(1000):
        right, groups = draw(rng, 150, 2, agree=0.5)
        p = []
        for share in shares:
            values = rng.choice(len(share), 300, p=share)
            values = values[groups] if by_group else values
            for value in range(len(share) if len(share) > 2 else 1):
                found = measure_gap(right.astype(float), values == value, groups)
                if found["p"] == found["p"]:
                    p.append(found["p"])
                    held.append(found["gap_low"] <= 0 <= found["gap_high"])
        false += (holm(np.array(p)) < 0.05).any()
    assert 0.93 <= np.mean(held) <= 0.97
    assert false <= 50


def test_intervals_hold_a_gap_that_is_there():
    rng, held = np.random.default_rng(2), []
    for _ in range(1000):
        inside = rng.random(200) < 0.2
        right = rng.random(200) < np.where(inside, 0.6, 0.9)
        found = measure_gap(right.astype(float), inside, np.arange(200))
        held.append(found["gap_low"] <= -0.3 <= found["gap_high"])
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.fixture(scope="module")
def planted():
    """400 pictures; of 100 dim ones half are right, of all others nine in ten."""
    rng = np.random.default_rng(3)
    dim = np.arange(400) % 4 == 0
    table = make_table(rng.random(400) < np.where(dim, 0.5, 0.9))
    return table, tags_of(
        table,
        light=np.where(dim, "dim", rng.choice(["day", "warm"], 400)),
        skin=rng.choice(["deep", "light", "medium"], 400),
        odd=np.where(np.arange(400) < 29, "rare", ""),
    )


@pytest.fixture(scope="module")
def frame(planted):
    return slice_table(*planted).set_index(["tag", "value"])


def test_a_planted_gap_is_found_and_nothing_else(frame):
    assert frame.loc[("light", "dim"), "verdict"] == "worse"
    assert frame.loc[("light", "dim"), "p_holm"] < 0.001
    assert set(frame.loc["skin", "verdict"]) == {"no difference seen"}
    assert frame.loc[("light", "dim"), "gap_high"] < -0.2
    better = frame.loc[[("light", "day"), ("light", "warm")], "gap"]
    assert (better > 0).all()  # the rest of each holds the dim ones


def test_the_accuracy_of_a_slice_is_that_of_its_own_table(planted, frame):
    table, tags = planted
    dim = (tags["light"] == "dim").to_numpy()
    expected = measure(table[dim], draws=10).loc["accuracy"]
    row = frame.loc[("light", "dim")]
    assert (row["n"], row["groups"]) == (100, 100)
    found = row[["accuracy", "low", "high"]].tolist()
    assert found == pytest.approx(expected[["value", "low", "high"]].tolist())


def test_a_slice_with_too_few_pictures_stays_in_the_table_untested(planted, frame):
    rare = frame.loc[("odd", "rare")]
    assert (rare["n"], rare["verdict"]) == (29, "too few")
    assert rare[["gap", "gap_low", "p", "p_holm"]].isna().all()  # nothing to compare it with


def test_pictures_of_one_group_are_not_compared():
    table = make_table(np.arange(80) % 3 > 0, groups=np.repeat([0, 1, 2], [40, 20, 20]))
    frame = slice_table(table, tags_of(table, place=np.repeat(["here", "there"], 40)))
    assert frame["verdict"].tolist() == ["too few", "too few"]


def test_slices_that_part_the_pictures_alike_are_one_test():
    rng = np.random.default_rng(5)
    table = make_table(rng.random(200) < 0.7)
    two = rng.choice(["no", "yes"], 200)
    frame = slice_table(table, tags_of(table, a=two, b=np.where(two == "no", "0", "1")))
    assert len(frame) == 4 and frame["p_holm"].tolist() == pytest.approx(frame["p"].tolist())
    three = rng.choice(["x", "y", "z"], 200)
    frame = slice_table(table, tags_of(table, a=two, b=three))
    p = frame["p"].to_numpy()[1:]
    assert frame["p_holm"].to_numpy()[1:] == pytest.approx(multipletests(p, method="holm")[1])


def test_of_several_seeds_a_picture_counts_once_with_its_mean():
    rng = np.random.default_rng(6)
    answers = rng.random((3, 120)) < 0.8
    tables = [make_table(right, seed=seed) for seed, right in enumerate(answers)]
    frame = slice_table(pd.concat(tables), tags_of(tables[0], half=["a", "b"] * 60))
    halves = answers.mean(0)[::2].mean(), answers.mean(0)[1::2].mean()
    assert frame["accuracy"].tolist() == pytest.approx(halves)
    assert frame["n"].tolist() == [60, 60]
    assert frame["gap"].tolist() == pytest.approx([halves[0] - halves[1], halves[1] - halves[0]])


def test_pictures_without_tags_are_counted_and_a_foreign_folder_is_refused(planted, capsys):
    table, tags = planted
    frame = slice_table(table, tags.iloc[10:])
    assert "10 of 400 pictures without tags" in capsys.readouterr().out
    assert frame[frame["tag"] == "skin"]["n"].sum() == 390
    with pytest.raises(ValueError, match="None of the 400 pictures"):
        slice_table(table, tags.rename(index="elsewhere/{}".format))


@pytest.mark.parametrize("tags", [{}, {"light": None}])
def test_tags_without_a_value_are_refused(tags):
    table = make_table(np.ones(4))
    with pytest.raises(ValueError, match="No tag has a value for these pictures"):
        slice_table(table, pd.DataFrame(tags, index=table["id"]))


def test_the_text_names_every_slice_and_what_it_does_not_say(planted):
    frame = slice_table(*planted)
    text = format_slices(frame)
    assert len(text.splitlines()) == 1 + len(frame) + 4
    [dim] = [line for line in text.splitlines() if " dim " in line]
    assert "< 0.001" in dim and dim.endswith("worse")
    assert f"({frame['gap_low'][1]:+.3f} to {frame['gap_high'][1]:+.3f})" in text
    [rare] = [line for line in text.splitlines() if " rare " in line]
    assert rare.endswith("too few") and "nan" not in text
    assert "does not mean none" in text


def write_pictures(root, rows, size=(24, 16), split="test"):
    """A split with one picture a row of metadata; the k-th has the colour 4 k."""
    for k, row in enumerate(rows):
        path = root / split / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = size(k) if callable(size) else size
        Image.new("RGB", shape, (4 * k,) * 3).save(path)
    tables.write_metadata(root / split, rows)
    return root


def make_rows(n=30, **columns):
    rows = [{"file_name": f"{CLASSES[k % 2]}/{k:02d}.png"} for k in range(n)]
    for name, value in columns.items():
        for k, row in enumerate(rows):
            row[name] = value(k)
    return rows


def test_pairs_do_not_depend_on_the_side(tmp_path):
    sides = ("f", "m", "m", "f")
    rows = make_rows(
        presentation_left=lambda k: sides[k % 4],
        presentation_right=lambda k: sides[k % 4 - 1] if k else "",
        cover_left=lambda k: ("none", "scarf")[k % 2],
        cover_right=lambda k: ("none", "cap", "none")[k % 3],
    )
    tags = read_tags(write_pictures(tmp_path, rows), "test")
    tags = tags.sort_index(key=lambda ids: ids.str[-6:])
    assert tags["presentation"].tolist()[1:5] == ["f + m", "m + m", "f + m", "f + f"]
    assert pd.isna(tags["presentation"].iloc[0])
    cover = ["none + none", "cap + scarf", "none + none", "none + scarf"]
    assert tags["cover"].tolist()[:4] == cover
    assert tags["cover count"].tolist()[:4] == ["0 of 2", "2 of 2", "0 of 2", "1 of 2"]
    assert not [name for name in tags if name.endswith(("_left", "_right"))]


def test_many_numbers_become_thirds_and_few_stay_as_they_are(tmp_path):
    rows = make_rows(age=lambda k: 20 + k, faces=lambda k: (2, 10, 1)[k % 3])
    tags = read_tags(write_pictures(tmp_path, rows, lambda k: (24 + k, 16)), "test")
    thirds = ["low (< 29.7)", "middle (29.7 to 39.3)", "high (39.3 or more)"]
    assert tags["age"].cat.categories.tolist() == thirds
    assert tags["age"].value_counts().tolist() == [10, 10, 10]
    assert tags.loc["test/happy/00.png", "age"] == thirds[0]
    assert tags["faces"].cat.categories.tolist() == ["1", "2", "10"]
    for name in ("brightness", "aspect", "megapixels"):  # all grow with k
        assert tags[name].value_counts().tolist() == [10, 10, 10]
        assert tags.loc["test/unhappy/29.png", name].startswith("high")


def test_equal_numbers_stay_in_one_third(tmp_path):
    rows = make_rows(60, pay=lambda k: 7 if k < 24 else 1000 * k, debt=lambda k: 7 if k < 45 else k)
    tags = read_tags(write_pictures(tmp_path, rows), "test")
    counts = {"low (< 39,333)": 40, "high (39,333 or more)": 20}
    assert tags["pay"].value_counts().to_dict() == counts
    assert "debt" not in tags  # nearly all pictures have one value


def test_metadata_comes_before_what_the_file_tells(tmp_path):
    rows = make_rows(brightness=lambda k: ("day", "dim")[k % 2], width=lambda k: 100 * (1 + k % 2))
    tags = read_tags(write_pictures(tmp_path, rows), "test")  # 24 x 16 pixels
    assert set(tags["brightness"]) == {"day", "dim"}
    assert tags["aspect"].cat.categories.tolist() == ["6.25", "12.5"]


def test_columns_that_are_no_tags_are_left_out(tmp_path):
    rows = make_rows(
        label=lambda k: CLASSES[k % 2],
        group=lambda k: f"couple {k // 2}",
        source=lambda k: "album",
        url=lambda k: f"https://example.org/{k}",
        boxes=lambda k: "[[1, 2, 3, 4]]" if k % 2 else "[]",
        cue_mouth_left=lambda k: k % 2,
        cue_mouth_right=lambda k: k % 2,
    )
    tags = read_tags(write_pictures(tmp_path, rows), "test")
    assert set(tags) - {"bytes"} == {"brightness"}  # files so small may all be alike


def test_only_the_split_asked_for_is_read_and_refused_without_pictures(tmp_path):
    write_pictures(tmp_path, make_rows(place=lambda k: k % 3))
    write_pictures(tmp_path, make_rows(place=lambda k: k % 2), split="train")
    tags = read_tags(tmp_path, "test")
    assert len(tags) == 30 and set(tags["place"]) == {"0", "1", "2"}
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*val"):
        read_tags(tmp_path, "val")
    for path in tmp_path.glob("test/*/*.png"):
        path.write_text("none")
    with pytest.raises(ValueError, match="can be read"):
        read_tags(tmp_path, "test")


def test_drawn_couples_have_the_tags_of_what_must_not_matter(couples):
    tags = read_tags(couples, "train")
    assert len(tags) == 24 and tags.index.str.startswith("train/").all()
    assert {"light", "setting", "scale", "bystanders", "presentation", "skin"} <= set(tags)
    assert {"cover", "cover count", "brightness"} <= set(tags)
    assert not [name for name in tags if name.startswith("cue_") or "box" in name]
    assert not {"sha256", "boxes", "label"} & set(tags)
    table = make_table(np.arange(24) % 3 > 0).assign(id=tags.index)
    assert set(slice_table(table, tags)["verdict"]) == {"too few"}
