"""The panels without a browser; tests/test_browser.py has them in one."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from conftest import lively_network, make_checkpoint
from PIL import Image

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.data import CLASSES, fingerprint
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.evaluate.shortcuts import paint
from dclib.explain import hide as hiding
from dclib.explain import panels
from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.hide import Look, hide_cells
from dclib.explain.panels import FEATURES, PIXELS, STILL, hide_panel, neuron_panel
from dclib.plots import overlay
from dclib.predict import extract_features
from dclib.web.html import SIDE, describe_pull, place

TEMPERATURE = 1.7

EDGE = SIDE // 4  # between the first cell and the second, at 64 px


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    """A network with much to say, trained on drawings, at 64 px: 2 x 2 cells."""
    loaded = load_checkpoint(drawn_checkpoint)
    config = loaded.config | {"temperature": TEMPERATURE}
    return Checkpoint(lively_network(levels=(4, 2, 1)), config, loaded.folder)


@pytest.fixture(scope="module")
def couple():
    return draw_scene(sample_scene(0, 1)[0], 256)


@pytest.fixture
def panel(checkpoint, couple):
    return hide_panel(checkpoint, couple)


@pytest.fixture(scope="module")
def neurons(checkpoint, couple):
    return neuron_panel(checkpoint, couple)


def explain(checkpoint, image):
    feature_map = extract_features(checkpoint.model, checkpoint.transform(image)[None])
    return feature_map, find_evidence(fold_head(checkpoint.model, TEMPERATURE), feature_map)


def picture_of(panel):
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', panel.picture.value)
    return np.array(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def numbers(html):
    """{first column: the numbers of its row} of the tables in a piece of HTML."""
    rows = re.findall(r"<tr><td>(.*?)</td>(.*?)</tr>", html)
    return {name: re.findall(r"<td>([-+.\d%]+)</td>", cells) for name, cells in rows}


def row(margin):
    prob = 1 / (1 + np.exp(-margin))
    return [f"{margin:+.2f}", f"{1 - prob:.1%}", f"{prob:.1%}"]


def test_hidden_features_move_the_margin_as_the_head_says(checkpoint, couple, panel):
    feature_map, evidence = explain(checkpoint, couple)
    before = evidence.margin.item()
    assert numbers(panel.answer.value)["whole picture"] == row(before)
    panel.cells[1].value = True  # what a click does
    hidden = torch.tensor([[[False, True], [False, False]]])
    logits = hide_cells(checkpoint.model, feature_map, hidden)[0] / TEMPERATURE
    after = (logits[1] - logits[0]).item()
    shown = numbers(panel.answer.value)
    assert shown["without 1 cell"] == row(after)
    assert shown["move measured"] == [f"{after - before:+.2f}"]
    assert shown["move by evidence"] == [f"{-evidence.margin_map[0, 0, 1].item():+.2f}"]
    assert shown["move measured"] != shown["move by evidence"]
    assert "a maximum that is gone leaves its runner-up" in panel.answer.value


def test_covered_pixels_are_looked_at_anew(checkpoint, couple, panel):
    panel.how.value = PIXELS
    panel.cells[1].value = panel.cells[3].value = True  # the right half, top and bottom
    covered = Image.fromarray(paint(np.array(couple), np.array([(0.25, 0, 1, 1)])))
    _, evidence = explain(checkpoint, covered)
    assert numbers(panel.answer.value)["without 2 cells"] == row(evidence.margin.item())
    colour = np.array(covered)[0, -1]
    assert np.abs(picture_of(panel)[: EDGE - 20, EDGE + 12 :] - colour.mean()).max() < 40
    panel.how.value = FEATURES
    assert numbers(panel.answer.value)["without 2 cells"] != row(evidence.margin.item())


def test_a_hidden_cell_is_grey_and_comes_back(panel):
    before = picture_of(panel)
    panel.cells[3].value = True
    assert np.abs(picture_of(panel)[EDGE + 12 :, EDGE + 12 :] - 128).max() <= 2
    assert np.abs(picture_of(panel)[: EDGE - 20] - before[: EDGE - 20]).max() <= 2
    panel.cells[3].value = False
    assert (picture_of(panel) == before).all()


def test_the_strongest_cells_go_first_and_all_come_back(panel):
    strength = panel.look.margin_map.abs().flatten()
    whole = panel.answer.value
    for n, cell in enumerate(strength.argsort(descending=True).tolist(), 1):
        panel.strongest.click()
        assert panel.cells[cell].value and panel.pressed.sum() == n
    panel.strongest.click()  # none is left: nothing happens
    assert panel.pressed.all()
    panel.clear.click()
    assert not panel.pressed.any() and panel.answer.value == whole


def test_many_cells_at_once_are_one_answer(panel, monkeypatch):
    asked, draw = [], panel.draw

    def count():
        asked.append(panel.pressed)
        return draw()

    monkeypatch.setattr(panel, "draw", count)
    panel.press(torch.ones(2, 2, dtype=torch.bool))
    assert len(asked) == 1 and asked[0].all()
    panel.cells[0].value = False  # and the buttons still answer
    assert len(asked) == 2


def test_every_cell_is_named_for_who_cannot_see_it(panel):
    assert [cell.tooltip.split(":")[0] for cell in panel.cells][2] == "row 2, column 1"
    panel.cells[2].value = True
    assert panel.cells[2].tooltip.endswith(", hidden")
    assert not panel.cells[1].tooltip.endswith(", hidden")
    assert 'alt="the picture with 1 cell hidden"' in panel.picture.value


@pytest.mark.parametrize("make", [hide_panel, neuron_panel])
def test_a_still_picture_is_shown_that_the_widget_hides(checkpoint, couple, make, monkeypatch):
    """What both versions of ipywidgets call; where no widget is shown, the picture remains."""
    shown, panel = [], make(checkpoint, couple)
    monkeypatch.setattr(panels, "display", lambda data, **_: shown.append(data))
    panel._ipython_display_()
    still, widget = shown
    assert panel.picture.value in still.data and panel.answer.value in still.data
    assert STILL in still.data and "http" not in still.data and "<script" not in still.data
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.model_id
    name = re.match(r'<div class="(\w+)">', still.data)[1]
    assert f".{name} {{display: none}}</style>" in panel.children[0].value


@pytest.mark.parametrize(("size", "side"), [(None, 2), (80, 3), (200, 7), (512, 16)])
def test_any_grid_up_to_16_cells_a_side(checkpoint, couple, size, side):
    panel = hide_panel(checkpoint, couple, size)
    assert len(panel.cells) == side * side
    panel.cells[-1].value = True
    assert panel.pressed[side - 1, side - 1] and panel.pressed.sum() == 1
    assert picture_of(panel).shape == (SIDE, SIDE, 3)


def test_every_neuron_has_its_map_and_its_number(checkpoint, couple, neurons):
    _, evidence = explain(checkpoint, couple)
    pull, z = evidence.of_margin("contributions")[0], evidence.z[0]
    listed = [k for _, k in neurons.neuron.options]
    on = int((z > 0).sum())
    assert sorted(listed) == list(range(100)) and 20 < on < 80
    assert listed[:on] == [k for k in pull.abs().argsort(descending=True).tolist() if z[k] > 0]
    assert f"{on} of 100 neurons are on" in neurons.answer.value
    maps = (pull / z)[:, None, None] * evidence.neuron_maps[0]
    scale = max(maps[k].abs().max() for k in listed[:on]).item()
    square = neurons.look.image.resize((SIDE, SIDE))
    for k in (*listed[:5], listed[-1]):
        neurons.neuron.value = k
        values = maps[k] if z[k] > 0 else torch.zeros(2, 2)  # a neuron that is off has no colour
        expected = overlay(square, values, scale, 64) * 255
        assert np.abs(picture_of(neurons) - expected).mean() < 3  # JPEG
        said = f"Neuron {k} is on and adds {describe_pull(pull[k].item())}."
        assert (said if z[k] > 0 else f"Neuron {k} is off.") in neurons.answer.value
        names = [f"{place(at)}: {describe_pull(values[at].item())}" for at in np.ndindex(2, 2)]
        assert [cell.tooltip.removesuffix(", chosen") for cell in neurons.cells] == names


def test_one_cell_is_chosen_and_lists_the_neurons_that_it_switches_on(checkpoint, couple, neurons):
    _, evidence = explain(checkpoint, couple)
    assert neurons.pressed.flatten().tolist().index(True) == evidence.margin_map.abs().argmax()
    for index, (r, c) in [*enumerate(np.ndindex(2, 2)), (3, (1, 1))]:  # the last is pressed twice
        neurons.cells[index].value = not neurons.cells[index].value
        assert [cell.value for cell in neurons.cells] == [k == index for k in range(4)]
        gains = evidence.neuron_maps[0, :, r, c].masked_fill(evidence.z[0] <= 0, 0)
        order = [k for k in gains.argsort(descending=True)[:8].tolist() if gains[k] > 0]
        rows = numbers(neurons.answer.value)
        assert rows == {f"neuron {k}": [f"{gains[k]:+.2f}"] for k in order}
        added = describe_pull(evidence.margin_map[0, r, c].item())
        assert f"The cell in row {r + 1}, column {c + 1}: {added}." in neurons.answer.value


def test_a_checkpoint_of_drawings_says_so(couple, panel, neurons, tmp_path):
    assert DRAWINGS_ONLY in panel.answer.value and DRAWINGS_ONLY in neurons.answer.value
    photos = {"name": "photos", "kind": "photographs", "n": {}, "sha256": "0" * 64}
    other = make_checkpoint(tmp_path / "photos", photos)
    assert DRAWINGS_ONLY not in neuron_panel(other, couple).answer.value


@pytest.mark.parametrize("make", [hide_panel, neuron_panel])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": b"<b>milk</b>"}, "not a picture that can be read"),
        ({"image": "no/such.jpg"}, "There is no picture at no/such.jpg."),
        ({"checkpoint": "no/such"}, "no/such is no checkpoint"),
        ({"size": 4096}, "size must be a whole number from 32 to 512 pixels, not 4096."),
        ({"size": "big"}, "not &#x27;big&#x27;."),
    ],
)
def test_what_cannot_be_used_gets_a_sentence(checkpoint, couple, make, changes, sentence):
    shown = make(**({"checkpoint": checkpoint, "image": couple} | changes))
    assert sentence in shown.data and "<b>" not in shown.data


@pytest.mark.parametrize("make", [hide_panel, neuron_panel])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_too_little_memory_gets_a_sentence(checkpoint, couple, make, error, monkeypatch):
    def fail(*_):
        raise error("out of <memory>")

    monkeypatch.setattr(hiding, "extract_features", fail)
    sentence = "The network could not look at this picture (out of &lt;memory&gt;)."
    assert sentence in make(checkpoint, couple).data


def test_a_network_of_more_cells_than_can_be_shown_asks_for_a_size(couples, couple, tmp_path):
    large = make_checkpoint(tmp_path / "large", fingerprint(couples), image_size=768)
    shown = hide_panel(large, couple).data
    assert "This network takes 768 pixels a side, but cells can be shown for 32 to 512" in shown
    assert len(hide_panel(large, couple, size=96).cells) == 9


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_what_fails_later_gets_a_sentence_too(panel, error, monkeypatch):
    def fail(hidden):
        raise error("out of <memory>")

    monkeypatch.setattr(panel.look, "margin_covered", fail)
    panel.cells[0].value = True
    panel.how.value = PIXELS
    assert "This failed: out of &lt;memory&gt;" in panel.answer.value
    panel.how.value = FEATURES
    assert "without 1 cell" in panel.answer.value


def test_the_margin_does_not_depend_on_the_order_of_the_classes(checkpoint, couple):
    network = lively_network(levels=(4, 2, 1), classes=CLASSES[::-1])
    turned = Look(Checkpoint(network, checkpoint.config, checkpoint.folder), couple)
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert turned.margin_without(nothing) == pytest.approx(turned.margin, abs=1e-4)


def test_a_network_without_a_pyramid_has_no_runner_up(checkpoint, couple):
    network = lively_network(stage="plain")
    panel = hide_panel(Checkpoint(network, checkpoint.config, checkpoint.folder), couple)
    panel.cells[0].value = True
    assert "runner-up" not in panel.answer.value
    assert "neurons switch on or off" in panel.answer.value
