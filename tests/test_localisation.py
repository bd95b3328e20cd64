import copy
import csv
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from dclib.checkpoint import load_checkpoint
from dclib.evaluate import wilson_interval
from dclib.evidence import find_evidence
from dclib.explain import localisation as module
from dclib.explain.localisation import (
    draw_maps,
    draw_priors,
    find_cases,
    locate,
    mean_row,
    other_groups,
    random_network,
    summarise,
    versus,
)
from dclib.explain.pointing import AGAINST, MEASURES
from dclib.gradcam import grad_cam


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)


@pytest.fixture(scope="module")
def cases(checkpoint, couples):
    return find_cases(checkpoint, couples, "train")


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
    table = summarise(cases)
    assert len(table["map"].unique()) == 11 and cases["id"].nunique() == 24
    assert not cases.duplicated(["map", "region", "measure", "id"]).any()
    faces = table[table["region"] == "faces"]
    assert (faces["n"] == 24).all() and (faces["excluded"] == 0).all()
    assert set(faces["measure"]) == set(MEASURES)
    assert ((faces["low"] <= faces["value"]) & (faces["value"] <= faces["high"])).all()


def test_the_uniform_map_misses_and_is_at_chance(cases):
    table = summarise(cases)
    assert of(table, "uniform", measure="pointing")["value"] == 0
    assert of(table, "uniform")["value"] == pytest.approx(1)
    row = of(table, "uniform", measure="energy")
    assert row["value"] == pytest.approx(row["chance"]) and row["flat"] == row["n"]


def test_the_difference_to_bystanders_has_only_pictures_that_have_both(cases):
    row = of(summarise(cases), "evidence", AGAINST)
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
    found = find_cases(checkpoint, couples, "train", size=128)
    for prior in ("uniform", "centre", "faces elsewhere", "evidence of another picture"):
        gains = versus(found, "evidence", prior)
        assert of(gains, "evidence", measure="energy")["low"] > 0


def test_a_difference_is_paired_and_zero_to_itself(cases):
    table = versus(cases, "evidence", "evidence")
    assert (table["value"] == 0).all()
    gains, means = versus(cases, "Grad-CAM", "centre"), summarise(cases)
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
    strides, find_regions = [], module.find_regions

    def record(dataset, chosen, h, w, stride):
        strides.append(stride)
        return find_regions(dataset, chosen, h, w, stride)

    monkeypatch.setattr(module, "find_regions", record)
    for place in ({}, {"place": "stretched"}):
        find_cases(checkpoint, couples, **place)
    assert strides == [32 / checkpoint.config["image_size"], None]


def test_several_random_networks_are_averaged(checkpoint, couples, monkeypatch):
    seeds = []

    def make(model, seed):
        seeds.append(seed)
        return random_network(model, seed)

    monkeypatch.setattr(module, "random_network", make)
    found = find_cases(checkpoint, couples, seed=5)
    assert seeds == [5, 6, 7]
    values = found[found["map"].eq("random weights: evidence") & found["measure"].eq("pointing")]
    assert not (3 * values["value"].dropna() % 1).round(6).any()  # thirds


def test_random_networks_differ_and_leave_the_random_numbers_alone(checkpoint):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    nets = [random_network(checkpoint.model, seed) for seed in (0, 0, 1)]
    assert (torch.get_rng_state() == before).all()
    first, again, other = (net.head.lin1.weight for net in nets)
    assert (first == again).all() and (first != other).any()
    assert not nets[0].training


@pytest.mark.parametrize("sign", [1, -1])
def test_maps_are_those_of_the_answer(checkpoint, sign):
    """Of a network, and of one that always answers the opposite."""
    model = copy.deepcopy(checkpoint.model)
    model.head.lin2.weight.data *= sign
    features = torch.rand(3, 512, 2, 2, generator=torch.Generator().manual_seed(0))
    maps, evidence = draw_maps(model, features), find_evidence(model, features)
    assert all(values.shape == (3, 2, 2) and (values >= 0).all() for values in maps.values())
    assert maps["feature norm"] == pytest.approx(features.norm(dim=1).numpy(), rel=1e-5)
    towards = evidence.margin.sign()[:, None, None] * evidence.margin_map
    assert maps["evidence for the answer"] == pytest.approx(towards.clamp(min=0).numpy())
    cams = grad_cam(model, features)
    for k, margin in enumerate(evidence.margin):
        answer = cams["unhappy" if margin > 0 else "happy"][k]
        assert maps["Grad-CAM"][k] == pytest.approx(answer.clamp(min=0).numpy())


def test_faces_elsewhere_do_not_know_the_own_couple():
    shares = np.zeros((4, 1, 4))
    shares[np.arange(4), 0, [0, 0, 1, 2]] = 1
    elsewhere = draw_priors(shares, np.array([0, 0, 1, 2]))["faces elsewhere"]
    assert elsewhere[:, 0].tolist() == [[0, 1, 1, 0]] * 2 + [[2, 0, 1, 0], [2, 1, 0, 0]]


def test_the_centred_map_is_highest_in_the_middle_and_symmetric():
    centre = draw_priors(np.zeros((1, 3, 5)), np.zeros(1, int))["centre"][0]
    assert centre.argmax() == 7 and centre == pytest.approx(centre[::-1, ::-1])


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_another_picture_is_of_another_couple(sizes, random):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(groups)
    others = other_groups(groups)
    assert sorted(others) == list(range(len(groups)))
    if 2 * max(sizes) <= sum(sizes):
        assert (groups[others] != groups).all()


def test_a_mean_of_single_pictures_has_students_interval():
    values = np.random.default_rng(0).normal(size=30)
    row, known = mean_row(values, range(30)), ttest_1samp(values, 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((known.low, known.high))
    assert row["value"] == pytest.approx(values.mean()) and row["n"] == 30


def test_copies_of_a_picture_in_its_group_make_no_interval_narrower():
    values = np.random.default_rng(1).normal(size=20)
    once, twice = mean_row(values, range(20)), mean_row(np.repeat(values, 2), np.arange(40) // 2)
    assert (once["low"], once["high"]) == pytest.approx((twice["low"], twice["high"]))
    assert np.isnan(mean_row(values, np.zeros(20))["low"])


def test_a_share_has_wilsons_interval_within_0_and_1():
    hits = np.arange(400) < 396
    row, known = mean_row(hits, range(400), proportion=True), wilson_interval(396, 400)
    assert (row["low"], row["high"]) == pytest.approx(known, abs=1e-3) and row["high"] < 1
    row = mean_row(np.ones(20), np.arange(20) // 2, proportion=True)
    assert (row["low"], row["high"]) == wilson_interval(10, 10)


def test_means_of_cases_are_means_of_pictures(cases):
    part = cases[cases[["map", "region", "measure"]].eq(["centre", "faces", "energy"]).all(axis=1)]
    assert isinstance(part, pd.DataFrame) and len(part) == 24
    row = of(summarise(cases), "centre", measure="energy")
    assert row["value"] == pytest.approx(part["value"].mean())
    assert row["chance"] == pytest.approx(part["chance"].mean())
