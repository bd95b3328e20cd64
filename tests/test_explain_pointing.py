import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from tables import rewrite_metadata

from dclib.evaluate.intervals import mean_row
from dclib.explain import pointing as module
from dclib.explain.pointing import (
    AGAINST,
    ENERGY,
    FACES,
    POINTING,
    Regions,
    _find_cases,
    draw_priors,
    energy_share,
    find_regions,
    is_flat,
    locate,
    mark_evidence,
    measure_maps,
    pointing_hit,
)
from dclib.explain.sanity import Sample, random_network
from dclib.framing import frame_picture, in_whole
from dclib.framing.faces import Face

MAPS = arrays(float, (3, 4), elements=st.floats(0, 10))
MASKS = arrays(bool, (3, 4))


class Pictures:
    """As much of a `CoupleFolder` as boxes need: pictures of 80 x 40 px."""

    def __init__(self, *rows):
        self.rows, self.ids = rows, [f"happy/{k}.jpg" for k in range(len(rows))]
        self.size = 80, 40

    def __len__(self):
        return len(self.rows)

    def column(self, name):
        return [row.get(name, "") for row in self.rows]

    def picture(self, index):
        return Image.new("RGB", self.size)


def boxes(*found):
    return json.dumps([list(box) for box in found])


def test_the_strongest_cell_decides():
    inside = np.array([[1, 0], [0, 0.25]])
    assert pointing_hit(np.array([[0, 1], [2, 3]]), inside) == 0.25
    assert pointing_hit(np.array([[4, 1], [2, 3]]), inside) == 1
    assert pointing_hit(np.array([[4, 5], [2, 3]]), inside) == 0


def test_ties_count_in_part_and_a_flat_map_misses():
    inside = np.array([[1, 0], [0, 0]])
    assert pointing_hit(np.array([[3.0, 3.0], [0, 3.0]]), inside) == pytest.approx(1 / 3)
    assert pointing_hit(np.array([[3.0, 3.0 + 1e-8], [0, 1]]), inside) == 0.5  # but for rounding
    everywhere = np.ones((2, 2))
    for flat in (0.0, 1.0, 1e-9, 1e9):
        assert pointing_hit(np.full((2, 2), flat), everywhere) == 0
    rounded = np.float32(0.1) * np.ones((2, 2)) + [[0, 1e-8], [0, 0]]
    assert is_flat(rounded) and pointing_hit(rounded, everywhere) == 0


@given(MASKS)
def test_chance_is_what_a_random_cell_hits(mask):
    alone = np.eye(12).reshape(12, 3, 4)
    assert pointing_hit(alone, mask).mean() == pytest.approx(mask.mean())


@given(arrays(float, (5, 3, 4), elements=st.floats(0, 10)), arrays(bool, (5, 3, 4)))
def test_many_maps_are_measured_as_each_alone(maps, masks):
    for function in (pointing_hit, energy_share):
        alone = [float(function(*pair)) for pair in zip(maps, masks, strict=True)]
        assert function(maps, masks) == pytest.approx(alone)


@given(MAPS, MASKS, st.floats(0.1, 10))
def test_energy_inside_and_outside_are_all_of_it_at_any_scale(values, mask, scale):
    inside, outside = energy_share(values, mask), energy_share(values, ~mask)
    assert inside + outside == pytest.approx(float(values.any()))
    assert energy_share(scale * values, mask) == pytest.approx(inside)


def test_values_without_a_meaning_raise():
    mask = np.ones((1, 2), bool)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="no numbers"):
            pointing_hit(np.array([[bad, 1]]), mask)
        with pytest.raises(ValueError):
            pointing_hit(np.array([[-bad, 1]]), mask)
    for bad in (np.nan, -1):
        with pytest.raises(ValueError, match="at least 0"):
            energy_share(np.array([[bad, 1]]), mask)


def test_regions_are_faces_and_those_of_bystanders_that_can_be_seen():
    """Of 3 x 3 cells of 80 px: they end after 0.2 and 0.6 of a side, at 16 and 48 px.

    The picture is the middle half of its square: its rows 0 to 40 are the square's 20 to 60.
    """
    full = {"boxes": boxes((0, 0, 48, 28)), "body_boxes": boxes((0, 28, 48, 40))}
    full["bystander_boxes"] = boxes((16, 0, 80, 28), (20, 30, 40, 38))  # behind a face, a body
    found = find_regions(Pictures(full, {"boxes": full["boxes"]}), 3, 3, 80)
    middle = 28 / 32  # of the rows 16 to 48, those from 20 on
    expected = np.array([[0, 0, 0], [middle, middle, 0], [0, 0, 0]])
    np.testing.assert_allclose(found.faces, [expected] * 2)
    assert found.centres.tolist() == found.faces.astype(bool).tolist()
    others = [[0, 0, 0], [0, 0, middle], [0, 0, 0]]
    np.testing.assert_allclose(found.others, [others, np.zeros((3, 3))])


def test_regions_are_where_the_network_sees_them():
    """A box is painted white on black: the frame shows it where the shares are."""
    for size in ((90, 40), (40, 90), (64, 64)):
        box = (8, 6, 30, 38)
        image = Image.new("RGB", size, "black")
        image.paste("white", box)
        frame = frame_picture(image, (), "whole", 96)
        white = np.asarray(frame.image)[..., 0] > 190  # black, and what lies beyond, are darker
        x0, y0, x1, y1 = (in_whole([box], size) * 96)[0]
        rows, columns = white.any(1).nonzero()[0], white.any(0).nonzero()[0]
        ends = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        assert ends == pytest.approx((x0, y0, x1, y1), abs=1.5)


def test_half_a_cell_is_half_in_the_box_and_its_centre_decides():
    picture = Pictures({"boxes": boxes((0, 0, 50, 40))})
    centres, shares, _ = find_regions(picture, 1, 1, 32)
    assert not centres.item()  # a first cell looks at the edge, where the picture is not
    assert shares.item() == pytest.approx(50 / 80 / 2)
    square = Pictures({"boxes": boxes((2, 0, 80, 80))}, {"boxes": boxes((0, 0, 50, 80))})
    square.size = 80, 80
    centres, shares, _ = find_regions(square, 1, 1, 32)
    assert centres.ravel().tolist() == [False, True]
    assert shares.ravel() == pytest.approx([78 / 80, 50 / 80])


def test_of_more_than_two_faces_two_are_the_couple_told_or_looked_for(monkeypatch):
    points = ((0, 0),) * 5
    found = [(2, 2, 6, 6), (20, 5, 40, 25), (45, 5, 65, 25)]
    faces = tuple(Face(box, 0.9, points) for box in found)
    monkeypatch.setattr("dclib.framing.faces.find_faces", lambda image: faces)
    known = {"boxes": boxes(*found[1:]), "bystander_boxes": boxes(found[0])}
    told = find_regions(Pictures(known), 3, 3, 80)
    for row in ({"boxes": boxes(*found)}, {}):
        for expected, shares in zip(told, find_regions(Pictures(row), 3, 3, 80)):
            assert expected.any()
            np.testing.assert_array_equal(expected, shares)


def measured(values, *regions):
    rows = measure_maps(values, Regions(*regions))
    return {(row["region"], row["measure"]): row for row in rows}


def test_pictures_without_boxes_are_no_hits_and_no_misses():
    values = np.stack([[[3.0, 1.0]]] * 2)
    shares, others = np.array([[[0.5, 0.0]], [[0.0, 0.0]]]), np.array([[[0.0, 1.0]]] * 2)
    found = measured(values, shares > 0.4, shares, others)
    expected = {(FACES, POINTING): (1, 0.5), (FACES, ENERGY): (0.375 / 0.25, 1)}
    expected[AGAINST, ENERGY] = (1.5 - 0.25 / 0.5, 0)
    for key, (value, chance) in expected.items():
        assert found[key]["value"] == pytest.approx([value, np.nan], nan_ok=True)
        assert np.ravel(found[key]["chance"])[0] == chance


@given(arrays(float, (4, 2, 3), elements=st.floats(0, 1)))
def test_a_uniform_map_is_at_chance_in_all_but_pointing(shares):
    found = measured(np.ones((4, 2, 3)), shares > 0.5, shares, shares[::-1])
    seen = shares.any((1, 2))
    for (region, measure), row in found.items():
        value = row["value"][seen if region == FACES else seen & seen[::-1]]
        assert value == pytest.approx(0 if measure == POINTING else row["chance"])
        assert row["flat"].all()


@pytest.fixture(scope="module")
def sample(checkpoint, couples):
    return Sample(checkpoint, couples, "train")


@pytest.fixture(scope="module")
def cases(sample):
    return _find_cases(sample)


@pytest.fixture(scope="module")
def means(cases):
    return module._summarise(cases)


def row_of(table, name, region=FACES, measure=ENERGY):
    (row,) = table[table[["map", "region", "measure"]].eq([name, region, measure]).all(axis=1)].T
    return table.loc[row]


def test_every_map_is_measured_on_every_picture(cases, means):
    assert len(means["map"].unique()) == 11 and cases["id"].nunique() == 24
    assert not cases.duplicated(["map", "region", "measure", "id"]).any()
    faces = means[means["region"] == "faces"]
    assert (faces["n"] == 24).all() and (faces["excluded"] == 0).all()
    assert set(faces["measure"]) == {POINTING, ENERGY}
    assert row_of(means, "uniform")["flat"] == 24
    assert ((faces["low"] <= faces["value"]) & (faces["value"] <= faces["high"])).all()


def test_the_difference_to_bystanders_has_only_pictures_that_have_both(sample, means):
    row = row_of(means, "evidence", AGAINST)
    seen = find_regions(sample.dataset, 2, 2, 64).others.any((1, 2)).sum()
    assert 0 < row["n"] == seen < 24 and row["excluded"] == 24 - seen


def test_means_of_cases_are_means_of_pictures(cases, means):
    part = cases[cases[["map", "region", "measure"]].eq(["centre", FACES, ENERGY]).all(axis=1)]
    row = row_of(means, "centre")
    assert len(part) == 24 and row["value"] == pytest.approx(part["value"].mean())
    assert row["chance"] == pytest.approx(part["chance"].mean())


def test_a_map_of_the_faces_beats_all_that_know_nothing(checkpoint, couples, monkeypatch):
    sample = Sample(checkpoint, couples, "train", size=128)
    faces = find_regions(sample.dataset, 4, 4, 128).faces ** 8
    monkeypatch.setattr(module, "draw_maps", lambda *_: {"evidence": faces, "Grad-CAM": faces})
    monkeypatch.setattr(module, "UNTRAINED", 0)
    cases = _find_cases(sample)
    cases = cases[cases["region"].eq(FACES) & cases["measure"].eq(ENERGY)]
    energy = cases.pivot(index=["id", "group"], columns="map", values="value")
    for prior in ("uniform", "centre", "faces elsewhere", "evidence of another picture"):
        gain = energy["evidence"] - energy[prior]  # paired by picture
        assert mean_row(gain, gain.index.get_level_values("group"))["low"] > 0


def test_pictures_without_boxes_are_excluded_and_counted(
    checkpoint, couples, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "UNTRAINED", 1)
    root = shutil.copytree(couples, tmp_path / "some")
    rewrite_metadata(root / "test", lambda k, row: row | {"boxes": "" if k == 0 else row["boxes"]})
    row = row_of(locate(Sample(checkpoint, root)), "evidence")
    assert (row["n"], row["excluded"]) == (5, 1)
    rewrite_metadata(root / "test", lambda _, row: row | {"boxes": "[]"})
    with pytest.raises(ValueError, match=r"In no picture of .*/test faces are told"):
        locate(Sample(checkpoint, root))


def test_several_random_networks_are_averaged(checkpoint, couples, monkeypatch):
    seeds = []

    def make(model, seed):
        seeds.append(seed)
        return random_network(model, seed)

    monkeypatch.setattr(module, "random_network", make)
    found = _find_cases(Sample(checkpoint, couples))
    assert seeds == [0, 1, 2]
    values = found[found["map"].eq("random weights: evidence") & found["measure"].eq("pointing")]
    assert not (3 * values["value"].dropna() % 1).round(6).any()  # thirds


def test_faces_elsewhere_do_not_know_the_own_couple():
    shares = np.zeros((4, 1, 4))
    shares[np.arange(4), 0, [0, 0, 1, 2]] = 1
    elsewhere = draw_priors(shares, np.array([0, 0, 1, 2]), 128)["faces elsewhere"]
    assert elsewhere[:, 0].tolist() == [[0, 1, 1, 0]] * 2 + [[2, 0, 1, 0], [2, 1, 0, 0]]


def test_the_centred_map_is_highest_in_the_middle_and_symmetric():
    centre = draw_priors(np.zeros((1, 8, 8)), np.zeros(1, int), 256)["centre"][0]
    assert centre.argmax() == 4 * 8 + 4  # cell 4 looks at pixel 128 of 256
    assert centre[1:, 1:] == pytest.approx(centre[:0:-1, :0:-1])


def test_a_planted_mark_draws_the_evidence_into_its_corner(fooled):
    root, checkpoint = fooled
    table = mark_evidence(Sample(checkpoint, root)).set_index(["map", "label"])
    marked, plain = table.loc[("evidence", "unhappy")], table.loc[("evidence", "happy")]
    assert marked["area"] == pytest.approx(1 / 9) and marked["n"] == 24
    assert marked["low"] > 2 * marked["area"] and marked["low"] > plain["high"]
