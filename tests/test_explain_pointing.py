import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dclib.explain.pointing import (
    AGAINST,
    MEASURES,
    OTHERS,
    energy_share,
    find_regions,
    is_flat,
    measure_maps,
    pointing_hit,
)

MAPS = arrays(float, (3, 4), elements=st.floats(0, 10))
MASKS = arrays(bool, (3, 4))


class Pictures:
    """As much of a `CoupleFolder` as boxes need: pictures of 80 x 40 px."""

    def __init__(self, *rows):
        self.rows, self.ids = rows, [f"happy/{k}.jpg" for k in range(len(rows))]

    def column(self, name):
        return [row.get(name, "") for row in self.rows]

    def picture(self, index):
        return Image.new("RGB", (80, 40))


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


@given(MASKS)
def test_energy_of_a_uniform_map_is_the_area(mask):
    assert energy_share(np.full((3, 4), 0.7), mask) == pytest.approx(mask.mean())


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


def test_regions_are_faces_couple_and_bystanders_that_can_be_seen():
    full = {"boxes": boxes((0, 0, 40, 20)), "body_boxes": boxes((0, 20, 40, 40))}
    full["bystander_boxes"] = boxes((20, 0, 60, 20))  # left half behind the couple
    found = find_regions(Pictures(full, {"boxes": full["boxes"]}), [0, 1], 2, 4)
    centres, shares = found["faces"]
    assert shares.tolist() == [[[1, 1, 0, 0], [0, 0, 0, 0]]] * 2
    assert centres.tolist() == shares.astype(bool).tolist()
    assert found["couple"][1].tolist() == [[[1, 1, 0, 0]] * 2, [[0] * 4] * 2]
    assert found[OTHERS][1].tolist() == [[[0, 0, 1, 0], [0] * 4], [[0] * 4] * 2]


def test_half_a_cell_is_half_in_the_box_and_its_centre_decides():
    centres, shares = find_regions(Pictures({"boxes": boxes((0, 0, 50, 40))}), [0], 1, 1)["faces"]
    assert centres.item() and shares.item() == pytest.approx(50 / 80)
    centres, _ = find_regions(Pictures({"boxes": boxes((0, 0, 38, 40))}), [0], 1, 1)["faces"]
    assert not centres.item()


def test_a_cell_may_be_placed_where_its_view_is():
    """Of three cells that are 0.4 apart the middle one sees 0.4, and is drawn at 0.5."""
    there = Pictures({"boxes": boxes((30, 14, 34, 18))})  # about 0.4 of both sides
    stretched, _ = find_regions(there, [0], 3, 3)["faces"]
    placed, _ = find_regions(there, [0], 3, 3, size=80)["faces"]
    assert not stretched.any()
    assert placed[0].tolist() == [[False] * 3, [False, True, False], [False] * 3]


def measured(values, centres, shares, others):
    regions = {"faces": (centres, shares), OTHERS: (others > 0.5, others)}
    return {(row["region"], row["measure"]): row for row in measure_maps(values, regions)}


def test_pictures_without_boxes_are_no_hits_and_no_misses():
    values = np.stack([[[3.0, 1.0]]] * 2)
    shares, others = np.array([[[0.5, 0.0]], [[0.0, 0.0]]]), np.array([[[0.0, 1.0]]] * 2)
    found = measured(values, shares > 0.4, shares, others)
    expected = {"pointing": (1, 0.5), "strongest cell": (0.5, 0.25), "energy": (0.375, 0.25)}
    expected["energy / area"] = (1.5, 1)
    for measure in MEASURES:
        row = found["faces", measure]
        value, chance = expected[measure]
        assert row["value"] == pytest.approx([value, np.nan], nan_ok=True)
        assert np.ravel(row["chance"])[0] == chance
    row = found[AGAINST, "energy / area"]
    assert row["value"] == pytest.approx([1.5 - 0.5, np.nan], nan_ok=True)


@given(arrays(float, (4, 2, 3), elements=st.floats(0, 1)))
def test_a_uniform_map_is_at_chance_in_all_but_pointing(shares):
    found = measured(np.ones((4, 2, 3)), shares > 0.5, shares, shares[::-1])
    there = shares.any((1, 2))
    for (region, measure), row in found.items():
        value = row["value"][there] if region == "faces" else row["value"][there & there[::-1]]
        if measure in ("pointing", "strongest cell"):
            assert (value == 0).all() and row["flat"].all()
        else:
            chance = np.broadcast_to(row["chance"], 4)[there if region == "faces" else 0]
            assert value == pytest.approx(chance if region == "faces" else value)
