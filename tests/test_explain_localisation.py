import csv
import shutil

import numpy as np
import pandas as pd
import pytest

from dclib.checkpoint import load_checkpoint
from dclib.explain import pointing as module
from dclib.explain.pointing import (
    AGAINST,
    MEASURES,
    _find_cases,
    _summarise,
    draw_priors,
    locate,
    versus,
)
from dclib.explain.sanity import draw_maps, random_network


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)


@pytest.fixture(scope="module")
def cases(checkpoint, couples):
    return _find_cases(checkpoint, couples, "train")


def rewrite(root, split, change):
    """Change the rows of a metadata.csv."""
    path = root / split / "metadata.csv"
    with path.open(newline="") as file:
        rows = [change(k, row) for k, row in enumerate(csv.DictReader(file))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def of(table, name, region="faces", measure="energy / area"):
    (row,) = table[table[["map", "region", "measure"]].eq([name, region, measure]).all(axis=1)].T
    return table.loc[row]


def test_every_map_is_measured_on_every_picture(cases):
    table = _summarise(cases)
    assert len(table["map"].unique()) == 11 and cases["id"].nunique() == 24
    assert not cases.duplicated(["map", "region", "measure", "id"]).any()
    faces = table[table["region"] == "faces"]
    assert (faces["n"] == 24).all() and (faces["excluded"] == 0).all()
    assert set(faces["measure"]) == set(MEASURES)
    assert ((faces["low"] <= faces["value"]) & (faces["value"] <= faces["high"])).all()


def test_the_uniform_map_misses_and_is_at_chance(cases):
    table = _summarise(cases)
    assert of(table, "uniform", measure="pointing")["value"] == 0
    assert of(table, "uniform")["value"] == pytest.approx(1)
    row = of(table, "uniform", measure="energy")
    assert row["value"] == pytest.approx(row["chance"]) and row["flat"] == row["n"]


def test_the_difference_to_bystanders_has_only_pictures_that_have_both(cases):
    row = of(_summarise(cases), "evidence", AGAINST)
    seen = cases[cases["region"].eq("bystanders' faces") & cases["map"].eq("uniform")]
    seen = seen[seen["measure"] == "energy"]["value"].notna().sum()
    assert 0 < row["n"] == seen < 24 and row["excluded"] == 24 - seen


def test_a_map_of_the_faces_beats_all_that_know_nothing(checkpoint, couples, monkeypatch):
    cells = {}

    def keep_regions(*args):
        found = find_regions(*args)
        cells["faces"] = found["faces"][1]
        return found

    def draw_faces(model, features):
        return draw_maps(model, features) | {"evidence": cells["faces"] ** 8}

    find_regions = module.find_regions
    monkeypatch.setattr(module, "find_regions", keep_regions)
    monkeypatch.setattr(module, "draw_maps", draw_faces)
    found = _find_cases(checkpoint, couples, "train", size=128)
    for prior in ("uniform", "centre", "faces elsewhere", "evidence of another picture"):
        gains = versus(found, "evidence", prior)
        assert of(gains, "evidence", measure="energy")["low"] > 0


def test_a_difference_is_paired_and_zero_to_itself(cases):
    table = versus(cases, "evidence", "evidence")
    assert (table["value"] == 0).all()
    gains, means = versus(cases, "Grad-CAM", "centre"), _summarise(cases)
    expected = of(means, "Grad-CAM")["value"] - of(means, "centre")["value"]
    assert of(gains, "Grad-CAM")["value"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="no maps 'evidence' and 'luck'"):
        versus(cases, "evidence", "luck")


def test_pictures_without_boxes_are_excluded_and_counted(checkpoint, couples, tmp_path):
    root = shutil.copytree(couples, tmp_path / "some")
    rewrite(root, "test", lambda k, row: row | {"boxes": "" if k == 0 else row["boxes"]})
    row = of(locate(checkpoint, root), "evidence")
    assert (row["n"], row["excluded"]) == (5, 1)
    rewrite(root, "test", lambda k, row: row | {"boxes": "[]"})
    with pytest.raises(ValueError, match=r"No picture of .*/test has face boxes"):
        locate(checkpoint, root)
    with pytest.raises(ValueError, match="place must be one of"):
        locate(checkpoint, root, place="centre")


def test_cells_are_where_they_look_unless_stretched(checkpoint, couples, monkeypatch):
    sizes, find_regions = [], module.find_regions

    def record(dataset, chosen, h, w, size):
        sizes.append(size)
        return find_regions(dataset, chosen, h, w, size)

    monkeypatch.setattr(module, "find_regions", record)
    for place in ({}, {"place": "stretched"}):
        _find_cases(checkpoint, couples, **place)
    assert sizes == [checkpoint.config["image_size"], None]


def test_several_random_networks_are_averaged(checkpoint, couples, monkeypatch):
    seeds = []

    def make(model, seed):
        seeds.append(seed)
        return random_network(model, seed)

    monkeypatch.setattr(module, "random_network", make)
    found = _find_cases(checkpoint, couples, seed=5)
    assert seeds == [5, 6, 7]
    values = found[found["map"].eq("random weights: evidence") & found["measure"].eq("pointing")]
    assert not (3 * values["value"].dropna() % 1).round(6).any()  # thirds


def test_faces_elsewhere_do_not_know_the_own_couple():
    shares = np.zeros((4, 1, 4))
    shares[np.arange(4), 0, [0, 0, 1, 2]] = 1
    elsewhere = draw_priors(shares, np.array([0, 0, 1, 2]), None)["faces elsewhere"]
    assert elsewhere[:, 0].tolist() == [[0, 1, 1, 0]] * 2 + [[2, 0, 1, 0], [2, 1, 0, 0]]


def test_the_centred_map_is_highest_in_the_middle_and_symmetric():
    centre = draw_priors(np.zeros((1, 3, 5)), np.zeros(1, int), None)["centre"][0]
    assert centre.argmax() == 7 and centre == pytest.approx(centre[::-1, ::-1])
    centre = draw_priors(np.zeros((1, 8, 8)), np.zeros(1, int), 256)["centre"][0]
    assert centre.argmax() == 4 * 8 + 4  # cell 4 looks at pixel 128 of 256


def test_means_of_cases_are_means_of_pictures(cases):
    part = cases[cases[["map", "region", "measure"]].eq(["centre", "faces", "energy"]).all(axis=1)]
    assert isinstance(part, pd.DataFrame) and len(part) == 24
    row = of(_summarise(cases), "centre", measure="energy")
    assert row["value"] == pytest.approx(part["value"].mean())
    assert row["chance"] == pytest.approx(part["chance"].mean())
