"""Pages that need no kernel: everything that can be chosen is in them, and equals the evidence."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from conftest import lively_network
from PIL import Image

from dclib.explain.evidence import find_evidence
from dclib.explain.panels import cell_page, neuron_page
from dclib.plots import overlay
from dclib.web.html import SIDE, describe_pull, tint

SIZE = 128  # of the input, as if it were 96 x 128


@pytest.fixture(scope="module")
def evidence():
    torch.manual_seed(1)
    return find_evidence(lively_network(levels=(4, 2, 1)), torch.rand(1, 512, 3, 4))


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))


@pytest.fixture(scope="module")
def page(picture, evidence):
    return neuron_page(picture, evidence, SIZE, ("Only <drawings>.",))


def items(page, group):
    """{key: the HTML of a radio button and its part} of a group, in the order of the page."""
    parts = re.split(r'<span class="dc-item', page)[1:]
    named = [(re.search(rf'id="\w+-{group}-([\d-]+)"', part), part) for part in parts]
    return {found[1]: part for found, part in named if found}


def image_of(part):
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', part)
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))  # (h, w, 4)


def test_every_neuron_has_its_map_and_its_number(page, evidence):
    neurons = items(page, "neuron")
    pull, z = evidence.of_margin("contributions")[0], evidence.z[0]
    assert sorted(map(int, neurons)) == list(range(100))
    on = [int(k) for k, part in neurons.items() if "dc-off" not in part]
    assert on == [k for k in pull.abs().argsort(descending=True).tolist() if z[k] > 0]
    assert 20 < len(on) < 80
    scale = max((pull[k] / z[k] * evidence.neuron_maps[0, k]).abs().max() for k in on)
    for k in on:
        assert f"Neuron {k} is on and adds {describe_pull(pull[k].item())}." in neurons[str(k)]
        values = pull[k] / z[k] * evidence.neuron_maps[0, k]
        assert np.array_equal(image_of(neurons[str(k)]), np.array(tint(values, scale.item(), SIZE)))


def test_a_neuron_that_is_off_has_no_colour(page, evidence):
    off = (evidence.z[0] <= 0).nonzero().flatten().tolist()
    for k in off:
        part = items(page, "neuron")[str(k)]
        assert f"Neuron {k} is off.</b> It adds nothing." in part
        assert not image_of(part)[..., 3].any()


def test_every_cell_lists_the_neurons_that_it_switches_on(page, evidence):
    cells = items(page, "cell")
    assert list(cells) == [f"{r}-{c}" for r in range(3) for c in range(4)]
    for r, c in np.ndindex(3, 4):
        gains = evidence.neuron_maps[0, :, r, c].masked_fill(evidence.z[0] <= 0, 0)
        order = [k for k in gains.argsort(descending=True)[:8].tolist() if gains[k] > 0]
        part = cells[f"{r}-{c}"]
        listed = re.findall(r"<tr><td><label for=.\w+-neuron-(\d+).>.*?<td>([+\d.]+)</td>", part)
        assert listed == [(str(k), f"{gains[k]:+.2f}") for k in order]
        assert f"The cell in row {r + 1}, column {c + 1}: " in part
        assert describe_pull(evidence.margin_map[0, r, c].item()) in part


def test_the_strongest_are_chosen_at_first(page, evidence):
    neuron = evidence.of_margin("contributions")[0].abs().argmax().item()
    cell = divmod(evidence.margin_map[0].abs().argmax().item(), 4)
    chosen = [k for group in ("neuron", "cell") for k in items(page, group).items()]
    assert [key for key, part in chosen if " checked" in part] == [
        str(neuron),
        f"{cell[0]}-{cell[1]}",
    ]


def test_two_pages_share_no_radio_button(page, picture, evidence):
    other = neuron_page(picture, evidence, SIZE)
    names = [set(re.findall(r'(?:name|id)="(\w+-[\w-]+)"', text)) for text in (page, other)]
    assert len(names[0]) == 100 + 12 + 2
    assert not names[0] & names[1]


def test_every_label_belongs_to_a_button_and_has_words(page):
    ids = set(re.findall(r' id="([^"]+)"', page))
    assert set(re.findall(r'<label for="([^"]+)"', page)) == ids
    assert all(re.findall(r'aria-label="([^"]*)"', page))
    assert page.count("<img") == page.count(' alt="')


def test_sentences_are_escaped_and_nothing_is_loaded(page):
    assert "Only &lt;drawings&gt;." in page
    assert "http" not in page and "<script" not in page


def test_a_tint_over_the_greyed_picture_is_the_overlay(picture):
    values = torch.randn(3, 4)
    values[0, 0] = 0
    grey = overlay(picture.resize((SIDE, SIDE)), torch.zeros(1, 1), 1, SIZE)
    colours = tint(values, 1.5, SIZE)
    rgba = np.asarray(colours, float) / 255
    seen = grey * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]
    assert np.abs(seen - overlay(picture.resize((SIDE, SIDE)), values, 1.5, SIZE)).max() < 0.005


def test_cells_can_carry_any_text(picture):
    page = cell_page(picture, torch.tensor([[0.5, -2.0]]), ["<p>left</p>", "<p>right</p>"], SIZE)
    left, right = items(page, "cell").values()
    assert "row 1, column 1: 0.50 for unhappy" in left and "<p>left</p>" in left
    assert "row 1, column 2: 2.00 for happy" in right and " checked" in right


def test_without_evidence_there_is_no_colour(picture, evidence):
    page = cell_page(picture, torch.zeros(2, 2), [""] * 4, SIZE)
    assert not image_of(page)[..., 3].any()
