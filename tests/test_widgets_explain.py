import io

import numpy as np
import pytest
import torch
from PIL import Image

from dclib.checkpoint import load_checkpoint
from dclib.demo import sample_scene
from dclib.drawing import draw_scene
from dclib.evidence import find_evidence, fold_head
from dclib.gradcam import extract_features
from dclib.occlusion import cover_pixels, hide_cells
from dclib.widgets_explain import (
    FEATURES,
    PIXELS,
    SIDE,
    HidePanel,
    NeuronPanel,
    describe_margin,
    hide_panel,
    neuron_panel,
)


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    return load_checkpoint(drawn_checkpoint)  # 64 px: 2 x 2 cells


@pytest.fixture(scope="module")
def couple():
    return draw_scene(sample_scene(0, 1)[0], 256)


def explain(checkpoint, image):
    images = checkpoint.transform(image)[None]
    feature_map = extract_features(checkpoint.model, images)
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    return feature_map, find_evidence(head, feature_map)


def pixels_of(panel):
    return np.array(Image.open(io.BytesIO(panel.cells.picture.value)))


def click(panel, row, column):
    panel.cells.buttons[row * panel.w + column].click()


def test_hidden_features_move_the_margin_as_the_head_says(checkpoint, couple):
    panel = HidePanel(checkpoint, couple, None)
    feature_map, evidence = explain(checkpoint, couple)
    assert describe_margin(evidence.margin.item()) in panel.text.value
    click(panel, 0, 1)
    hidden = torch.tensor([[[False, True], [False, False]]])
    logits = hide_cells(checkpoint.model, feature_map, hidden)[0]
    margin = (logits[1] - logits[0]).item() / checkpoint.config["temperature"]
    assert panel.margin_without() == pytest.approx(margin, abs=1e-5)
    assert f"Without one cell: <b>{describe_margin(margin)}</b>" in panel.text.value
    assert f"books {-evidence.margin_map[0, 0, 1]:+.2f}" in panel.text.value


def test_covered_pixels_are_looked_at_anew(checkpoint, couple):
    panel = HidePanel(checkpoint, couple, None)
    panel.how.value = PIXELS
    click(panel, 1, 0)
    covered = cover_pixels(couple.resize((SIDE, SIDE)), [(0, 0.5, 0.5, 1)])
    _, evidence = explain(checkpoint, covered)
    assert panel.margin_without() == pytest.approx(evidence.margin.item(), abs=1e-4)
    panel.how.value = FEATURES
    assert panel.margin_without() != pytest.approx(evidence.margin.item(), abs=1e-4)


def test_a_hidden_cell_is_grey_and_comes_back(checkpoint, couple):
    panel = HidePanel(checkpoint, couple, None)
    before = pixels_of(panel)
    click(panel, 1, 1)
    half = SIDE // 2
    assert (pixels_of(panel)[half:, half:] == 128).all()
    assert (pixels_of(panel)[:half] == before[:half]).all()
    click(panel, 1, 1)
    assert (pixels_of(panel) == before).all()


def test_the_strongest_cells_go_first_and_all_come_back(checkpoint, couple):
    panel = HidePanel(checkpoint, couple, None)
    strength = panel.evidence.margin_map[0].abs().flatten()
    for n, cell in enumerate(strength.argsort(descending=True).tolist(), 1):
        panel.hide_strongest()
        assert panel.hidden.flatten()[cell] and panel.hidden.sum() == n
    before = panel.text.value
    panel.clear()
    assert not panel.hidden.any() and panel.text.value != before


def test_a_neuron_shows_its_region_and_what_it_does(checkpoint, couple):
    panel = NeuronPanel(checkpoint, couple, None)
    _, evidence = explain(checkpoint, couple)
    pull = evidence.of_margin("contributions")[0]
    values = [value for _, value in panel.neuron.options]
    assert pull[values].abs().tolist() == sorted(pull.abs().tolist(), reverse=True)
    before = pixels_of(panel)
    panel.neuron.value = values[3]
    assert f"Neuron {values[3]}: {abs(pull[values[3]]):.2f} for" in panel.text.value
    assert (pixels_of(panel) != before).any()
    torch.testing.assert_close(panel.maps.sum(0), evidence.margin_map[0], atol=1e-5, rtol=1e-4)


def test_an_off_neuron_has_no_colour(checkpoint, couple):
    panel = NeuronPanel(checkpoint, couple, None)
    off = (panel.evidence.z[0] <= 0).nonzero()[0].item()
    panel.neuron.value = off
    assert f"Neuron {off}: off, adds nothing" in panel.text.value
    assert not panel.maps[off].any()


def test_a_region_tells_the_neurons_that_it_switches_on(checkpoint, couple):
    panel = NeuronPanel(checkpoint, couple, None)
    click(panel, 0, 1)
    strongest = panel.evidence.neuron_maps[0, :, 0, 1].argmax().item()
    gain = panel.evidence.neuron_maps[0, strongest, 0, 1].item()
    first_row = panel.text.value.split("</tr>")[1]
    assert first_row.startswith(f"<tr><td>{strongest}</td><td>{gain:+.2f}</td>")
    assert "row 1, column 2" in panel.text.value
    click(panel, 0, 1)
    assert "<table>" not in panel.text.value


@pytest.mark.parametrize("make", [hide_panel, neuron_panel])
def test_any_grid_and_every_cell_can_be_named(checkpoint, couple, make):
    box = make(checkpoint, couple, size=200)  # 7 x 7 cells
    picture, grid = box.children[0].children
    assert [button.tooltip for button in grid.children][-1] == "cell: row 7, column 7"
    assert len(grid.children) == 49 and picture.width == str(SIDE)


@pytest.mark.parametrize("make", [hide_panel, neuron_panel])
def test_what_is_no_picture_gets_a_sentence(checkpoint, make):
    assert "not a picture that can be read" in make(checkpoint, b"<b>milk</b>").value


def test_margins_in_words():
    assert describe_margin(0.0) == "happy 50.0 % (margin +0.00)"
    assert describe_margin(-3.0) == "happy 95.3 % (margin -3.00)"
