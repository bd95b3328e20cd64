import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import rewrite_metadata

from dclib.data import CLASSES, read_split
from dclib.drawn import render_couples
from dclib.evaluate.probe import measure_pictures, probe


def random_rows(n=100, seed=0):
    """Metadata that know nothing of the label."""
    rng, rows = np.random.default_rng(seed), []
    limits = dict.fromkeys(("width", "height"), (300, 1000))
    limits |= dict.fromkeys(("red", "green", "blue"), (0, 255))
    for _ in range(n):
        row = {name: rng.uniform(*limit) for name, limit in limits.items()}
        row |= {"bytes": row["width"] * row["height"] * rng.uniform(0.1, 0.5)}
        row |= {"source": ("openverse", "commons")[rng.integers(2)]}
        rows.append(row | {"label": CLASSES[rng.integers(2)]})
    return rows


@pytest.fixture(scope="module", params=[None, "brightness"])
def planted(request, tmp_path_factory):
    """(shortcut, data set of 160 drawn couples with it)."""
    root = tmp_path_factory.mktemp("planted") / "data"
    return request.param, render_couples(root, n=160, seed=1, size=64, shortcut=request.param)


def test_a_planted_brightness_is_found_and_named_and_nothing_where_there_is_none(planted):
    shortcut, root = planted
    found = probe(measure_pictures(root))
    assert (found.n, found.groups) == (160, 80)
    assert found.warns == (shortcut == "brightness")
    text = str(found)
    assert "of 80 happy and 80 unhappy pictures" in text and "n = 160 in 80 groups" in text
    assert f"AUROC {found.auroc:.2f} (95 % interval {found.low:.2f} to {found.high:.2f};" in text
    if shortcut:
        assert text.startswith("metadata: WARNING.")
        assert "gather both classes in the same way" in text
        named = named_in(found)
        assert "brightness" in named and named <= {"brightness", "red", "green", "blue"}
        assert found.columns["brightness"] < 0.3  # unhappy, the second class, is darker
    else:
        assert text.startswith("metadata: no warning.")
        assert text.endswith("There may be other shortcuts.")


def named_in(check):
    """The columns that a probe names."""
    return set(str(check).split("most of all ")[1].split(")")[0].split(", "))


def happy_differ(rows, change):
    return [row | (change(row) if row["label"] == "happy" else {}) for row in rows]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda row: {"width": row["width"] * 2, "height": row["height"] * 2}, {"width", "height"}),
        (lambda row: {"bytes": row["bytes"] * 4}, {"bytes", "bytes a pixel"}),
        (lambda row: {"width": row["height"] * 3}, {"aspect"}),
        (lambda row: {"blue": 250.0}, {"blue"}),
    ],
)
def test_a_gap_in_one_column_is_found_and_named(change, named):
    found = probe(happy_differ(random_rows(), change))
    assert found.warns
    assert named <= named_in(found)


def test_a_source_that_gives_its_label_away_is_found_and_one_seed_gives_one_answer():
    found = probe(happy_differ(random_rows(), lambda row: {"source": "weddings"}))
    assert found.warns and found.auroc > 0.9
    assert "source weddings" in str(found)
    assert found.columns["source weddings"] == 0.0
    unknown = probe(happy_differ(random_rows(), lambda row: {"source": ""}))
    assert "source unknown" in str(unknown)
    assert probe(random_rows(), 4) == probe(random_rows(), 4) != probe(random_rows(), 5)


def test_random_labels_are_told_to_be_guesses():
    """Of 100 such intervals 85 held 0.5, not 95: each is conditional on its scores."""
    found = [probe(random_rows(seed=seed), seed) for seed in range(20)]
    assert sum(p.low <= 0.5 <= p.high for p in found) >= 13
    assert sum(p.warns for p in found) <= 2
    assert abs(np.mean([p.auroc for p in found]) - 0.5) < 0.05
    assert all(0 <= p.low <= p.auroc <= p.high <= 1 for p in found)


def test_the_auroc_is_that_of_scores_on_pictures_left_out():
    """The same by scikit-learn alone, on columns written down again."""
    rows = [row | {"group": f"g{i // 2}"} for i, row in enumerate(random_rows(120))]
    for row in rows:
        row.pop("source")
    names = ("width", "height", "bytes", "red", "green", "blue")
    width, height, size, *colours = np.array([[row[name] for name in names] for row in rows]).T
    columns = [np.log(width), np.log(height), np.log(size), *colours, width / height]
    columns += [np.log(size / (width * height)), np.mean(colours, 0)]
    columns = np.stack(columns, axis=1)
    labels = np.array([row["label"] == "unhappy" for row in rows])
    groups, scores = np.arange(120) // 2, np.zeros(120)
    folds = StratifiedGroupKFold(5)
    # groups are numbered by their names in probe(): g0, g1, g10, ..., and then shuffled
    order = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    order = np.random.default_rng(3).permutation(60)[order]
    for train, test in folds.split(columns, labels, order):
        assert not set(groups[train]) & set(groups[test])
        model = make_pipeline(StandardScaler(), LogisticRegression())
        scores[test] = model.fit(columns[train], labels[train]).decision_function(columns[test])
    found = probe(rows, seed=3)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)
    assert found.columns["width"] == pytest.approx(roc_auc_score(labels, width))


def test_copies_make_no_interval_narrower():
    """Every picture four times: told as groups, the interval is that of the originals."""
    rows = happy_differ(random_rows(60), lambda row: {"red": row["red"] * 0.8 + 50})
    alone = probe([row | {"group": f"g{i}"} for i, row in enumerate(rows)])
    grouped = probe([row | {"group": f"g{i}"} for i, row in enumerate(rows)] * 4)
    naive = probe(rows * 4)
    assert (grouped.groups, naive.groups) == (60, 240)
    assert grouped.high - grouped.low > 1.5 * (naive.high - naive.low)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.3)
    assert naive.auroc > grouped.auroc  # copies of what it was tested on


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda i: {"label": "happy"}, "unhappy"),
        (lambda i: {"label": CLASSES[i >= 36]}, "unhappy"),
        (lambda i: {"group": f"g{i % 4}"}, "happy"),  # many pictures of few groups
    ],
)
def test_a_class_with_too_few_pictures_is_an_error(change, name):
    rows = [row | change(i) for i, row in enumerate(random_rows(40))]
    with pytest.raises(ValueError, match=f"needs 5 independent {name} pictures or more"):
        probe(rows)


@pytest.fixture
def folder(couples, tmp_path):
    return shutil.copytree(couples, tmp_path / "data")


def test_pictures_are_measured_from_all_splits(folder):
    rows = measure_pictures(folder)
    assert len(rows) == 36 and "no group" not in str(probe(rows))
    path = folder / "train" / "happy" / "00000.jpg"
    first = rows[0]
    assert (first["width"], first["height"], first["bytes"]) == (64, 64, path.stat().st_size)
    means = np.asarray(Image.open(path)).reshape(-1, 3).mean(0)
    assert [first[name] for name in ("red", "green", "blue")] == pytest.approx(means.tolist())
    assert (first["source"], first["group"]) == ("demo drawings", "drawn-0-00000")


def test_the_size_of_the_original_counts_where_it_is_told(folder):
    told = {"width": "4000", "height": "3000", "bytes": "123456"}
    rewrite_metadata(folder / "train", lambda _, row: row | told)
    rewrite_metadata(folder / "val", lambda _, row: row | dict.fromkeys(told, ""))
    rows = measure_pictures(folder)
    sizes = [(row["width"], row["height"]) for row in rows]
    assert sizes == [("4000", "3000")] * 24 + [(64, 64)] * 12
    assert {row["bytes"] for row in rows[:24]} == {"123456"}
    probe(rows)


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("width", "640px", "above 0"),
        ("height", "0", "above 0"),
        ("bytes", "nan", "above 0"),
        ("width", "inf", "above 0"),
        ("red", "-inf", "finite"),
        ("blue", "bright", "finite"),
    ],
)
def test_a_number_that_is_none_is_refused_by_file_and_column(folder, column, value, wanted):
    path = folder / "val" / "metadata.csv"
    rewrite_metadata(path.parent, lambda _, row: row | {column: value})
    with pytest.raises(ValueError) as error:
        measure_pictures(folder)
    first = min(read_split(folder / "val").rows)
    assert str(error.value) == (
        f"{path} has {column} {value!r} for {first}; write a number that is {wanted}, or leave the "
        "cell empty."
    )


def test_a_folder_without_metadata_can_be_probed(folder):
    for path in folder.glob("*/metadata.csv"):
        path.unlink()
    found = probe(measure_pictures(folder))
    assert found.groups == found.alone == 36
    assert "36 pictures have no group and count as one each; if some belong" in str(found)
    assert "source unknown" in found.columns


def test_what_cannot_be_read_is_left_out_and_said(folder, capsys):
    (folder / "val" / "unhappy" / "text.jpg").write_text("not a picture")
    assert len(measure_pictures(folder)) == 36
    assert "Left out of val: text.jpg is not a picture that can be read" in capsys.readouterr().out


def test_of_photographs_nothing_gives_the_label_away(real_couples):
    """Composed alike for both classes; 1,000 of them."""
    assert not probe(measure_pictures(real_couples)).warns
