"""The panels without a browser; tests/test_browser.py has them in one."""

import base64
import datetime
import io
import re
import threading
import types
import weakref
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageOps

from dclib.augment.panel import strength_panel
from dclib.checkpoint import DRAWINGS_ONLY
from dclib.data.loading import CoupleFolder
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.explain.panels import HidePanel, hide_panel, neuron_panel
from dclib.photo import panel as photo_widget
from dclib.photo.panel import Network, photo_panel
from dclib.pictures.mark import mark_drawn
from dclib.video.live import live_panel
from dclib.web.html import clear_uploads, ipywidgets, uploaded_files
from dclib.web.photos import WAKING, WELCOME, PhotoPanel, in_background


def upload(panel, *files):
    """What the browser does when files are chosen (ipywidgets 8, or 7 as in Colab)."""
    if isinstance(panel.upload.value, dict):
        panel.upload.metadata = [{"name": n, "size": len(d)} for n, d in files]
        panel.upload.data = [d for _, d in files]
        panel.upload._counter += len(files)
        return
    stamp = datetime.datetime.now(datetime.UTC)
    panel.upload.value = tuple(
        {"name": n, "type": "", "size": len(d), "last_modified": stamp, "content": memoryview(d)}
        for n, d in files
    )


@pytest.fixture
def panel(checkpoint):
    return photo_panel(checkpoint)


@pytest.fixture
def photo(couples):
    return CoupleFolder(couples, "val").samples[0][0].read_bytes()


def buttons(panel):
    """All buttons in a widget, by their text."""
    found = {}
    for child in getattr(panel, "children", ()):
        found |= {child.description: child} if isinstance(child, ipywidgets.Button) else {}
        found |= buttons(child)
    return found


def test_without_a_verdict_there_is_nothing_to_hide(panel, pair):
    panel.show([("a photograph", pair)])
    answer = panel.answers.children[0]
    assert answer.hide.layout.display == "none" and answer.report.layout.display is None
    assert not (answer.evidence.value or "<details" in answer.rest.value)


def test_verdict_appears_and_the_upload_is_forgotten(panel, photo):
    upload(panel, ("us.jpg", photo))
    (answer,) = panel.answers.children
    assert "us.jpg" in answer.verdict.value and "The network says <b" in answer.verdict.value
    assert DRAWINGS_ONLY in answer.rest.value
    assert answer.evidence.value.count("<img") == 1 and answer.rest.value.count("<img") == 2
    assert not panel.upload.value
    assert "Done: 1 picture." in panel.status.value
    upload(panel, ("us.jpg", photo), ("again.jpg", photo))
    assert len(panel.answers.children) == 2


def test_the_panel_is_there_before_the_network_and_photos_wait_for_it(checkpoint, photo):
    there, said = threading.Event(), []

    def load():
        there.wait(30)
        return Network(checkpoint)

    panel = PhotoPanel(in_background(load))
    assert WELCOME in panel.status.value and panel.about.value == ""
    panel.status.observe(lambda change: said.append(change["new"]), names="value")
    panel.status.observe(lambda _: there.set(), names="value")
    upload(panel, ("us.jpg", photo))
    assert WAKING in said[0] and "Looking at us.jpg" in said[1]
    assert "The network says <b" in panel.answers.children[0].verdict.value
    assert "About the network" in panel.about.value


def test_a_network_that_cannot_be_had_gets_a_sentence(photo, tmp_path):
    panel = PhotoPanel(in_background(lambda: Network(tmp_path / "none")))
    upload(panel, ("us.jpg", photo))
    assert "is no checkpoint: there is no such folder" in panel.status.value
    assert "is no checkpoint" in panel.about.value and not panel.answers.children
    panel.clear.click()
    assert WELCOME in panel.status.value


def test_each_photo_is_looked_at_once_and_its_bytes_are_forgotten(panel, photo, monkeypatch):
    network = panel.network.result()
    look = Mock(side_effect=network.answer)
    monkeypatch.setattr(network, "answer", look)
    for number in (1, 2, 3):
        upload(panel, ("us.jpg", photo))
        assert look.call_count == number
    assert not panel.upload.value and not getattr(panel.upload, "data", [])


def test_several_photos_have_an_overview_and_all_but_the_first_are_folded(panel, photo):
    upload(panel, ("us.jpg", photo))
    assert panel.overview.value == ""
    upload(panel, ("us.jpg", photo), ("list.jpg", b"milk, bread"), ("again.jpg", photo))
    assert panel.overview.value.count("data-answer=") == 3
    assert "no answer" in panel.overview.value
    folded = ["dc-folded" in answer._dom_classes for answer in panel.answers.children]
    assert folded == [False, True, True]
    panel.clear.click()
    assert panel.overview.value == ""


def test_an_unusable_file_gets_a_sentence(panel, photo):
    upload(panel, ("<b>list</b>.jpg", b"milk, bread"), ("us.jpg", photo))
    error, answer = panel.answers.children
    assert "&lt;b&gt;list&lt;/b&gt;.jpg" in error.verdict.value
    assert "not a picture that can be read" in error.verdict.value
    assert error.hide.layout.display == error.report.layout.display == "none"
    assert "us.jpg" in answer.verdict.value


def test_a_network_that_fails_gets_a_sentence(panel, photo, monkeypatch):
    fail = Mock(side_effect=RuntimeError("out of memory"))
    monkeypatch.setattr(photo_widget, "predict_photo", fail)
    upload(panel, ("us.jpg", photo))
    assert "could not look at it (out of memory)" in panel.answers.children[0].verdict.value


def test_a_button_that_fails_gets_a_sentence(panel, photo, monkeypatch):
    upload(panel, ("us.jpg", photo))
    monkeypatch.setitem(panel.network.result().checkpoint.config, "image_size", 768)
    buttons(panel)["Hide a region"].click()
    more = panel.answers.children[0].more
    assert "This network takes 768 pixels a side" in more.children[0].value
    assert "Done." in panel.status.value


def test_examples_reports_and_clearing(panel):
    buttons(panel)["Another one"].click()
    answer = panel.answers.children[0]
    assert "Another one of the demo set" in answer.verdict.value
    buttons(panel)["Make a report"].click()
    links = answer.more.children[0].value
    files = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', links))
    name = "Another one of the demo set.report"
    assert list(files) == [f"{name}.html", f"{name}.json"]
    report = base64.b64decode(files[f"{name}.html"]).decode()
    assert report.startswith("<!doctype html>") and report.count("<figure>") == 4
    assert "width=device-width" in report  # a phone shows it in its own width
    buttons(panel)["Hide a region"].click()
    assert isinstance(answer.more.children[0], HidePanel)
    panel.clear.click()
    assert panel.answers.children == () and WELCOME in panel.status.value


# ------------------------------------------------------------------ which two faces


@pytest.fixture
def three():
    """A drawing that says it has three faces."""
    image = draw_scene(sample_scene(0, 0)[0], 200)
    mark_drawn(image, [(0.1, 0.4, 0.3, 0.6), (0.4, 0.4, 0.6, 0.6), (0.75, 0.8, 0.85, 0.9)])
    return image


def pressed(picker):
    return [k for k, button in enumerate(picker.buttons) if button.value]


def test_another_pair_is_asked_about(panel, three):
    """By pressing a third face, or by releasing one and pressing another."""
    panel.show([("us.jpg", three), ("other.jpg", three)])
    answer = panel.answers.children[0]
    picker, before = answer.picker, answer.prediction
    assert "no answer" not in panel.overview.value
    assert len(picker.buttons) == 3 and pressed(picker) == list(before.two) == [0, 1]
    assert picker.buttons[0].layout.left == "10.00%" and "taken" in picker.buttons[0].tooltip
    assert "press another number" in picker.words.value
    picker.buttons[2].value = True  # what a click does
    assert answer.prediction.two == (1, 2) and pressed(picker) == [1, 2]
    assert answer.prediction.faces == before.faces
    assert "Done: faces 2 and 3 of us.jpg" in panel.status.value
    picker.buttons[1].value = False
    assert "One face is chosen" in answer.verdict.value
    assert not answer.evidence.value and answer.hide.layout.display == "none"
    assert "no answer" in panel.overview.value and "looked" not in picker.words.value
    picker.buttons[2].value = False
    assert "No face is chosen" in answer.verdict.value
    picker.buttons[2].value = True
    picker.buttons[0].value = True
    assert answer.prediction.two == (0, 2) and "The network says" in answer.verdict.value
    assert "no answer" not in panel.overview.value and "network looked" in picker.words.value
    answer.hide.click()
    assert isinstance(answer.more.children[0], HidePanel)


def test_a_face_that_was_missed_is_marked(photo_checkpoint, pair):
    """Both faces, one by one, in a photograph in which none is found."""
    panel = photo_panel(photo_checkpoint)
    panel.show([("us.jpg", ImageOps.flip(pair))])
    answer = panel.answers.children[0]
    picker = answer.picker
    assert "No face was found" in answer.verdict.value and picker.buttons == []
    assert picker.mark.value and "dc-drawing" in picker.stage._dom_classes
    picker.field.value = "10 30 10.1 80"  # what browser.js does when a box is dragged
    assert "too small" in picker.words.value
    picker.field.value = "10 30 40 80"
    assert "too small" not in picker.words.value
    assert "One face is chosen" in answer.verdict.value and picker.field.value == ""
    picker.field.value = "60 30 90 80"
    assert answer.prediction.faces == ((80, 153.6, 320, 409.6), (480, 153.6, 720, 409.6))
    assert answer.prediction.two == (0, 1) and answer.prediction.probs
    assert not picker.mark.value and "dc-drawing" not in picker.stage._dom_classes


def test_two_that_were_found_can_be_overruled(panel, three):
    panel.show([("us.jpg", three), ("other.jpg", three)])
    answer = panel.answers.children[0]
    picker = answer.picker
    picker.mark.value = True
    picker.field.value = "10, 10, 20, 20"
    assert answer.prediction.two == (1, 3) and len(picker.buttons) == 4
    assert answer.prediction.faces[3] == (20, 20, 40, 40)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("left", "four numbers from 0 to 100"),
        ("10 10 20", "four numbers from 0 to 100"),
        ("10 10 20 120", "four numbers from 0 to 100"),
        ("10 10 10.5 40", "too small"),
        ("40 10 20 40", "too small"),
    ],
)
def test_a_box_that_is_none_gets_a_sentence(panel, three, typed, sentence):
    panel.show([("us.jpg", three)])
    answer = panel.answers.children[0]
    picker, before = answer.picker, answer.prediction
    picker.field.value = typed
    assert sentence in picker.words.value and picker.field.value == ""
    assert answer.prediction is before and len(picker.buttons) == 3


def test_a_network_that_fails_on_another_pair_gets_a_sentence(panel, three, monkeypatch):
    panel.show([("us.jpg", three)])
    answer = panel.answers.children[0]
    fail = Mock(side_effect=RuntimeError("out of memory"))
    monkeypatch.setattr(photo_widget, "predict_photo", fail)
    answer.picker.buttons[2].value = True
    assert "could not look at it (out of memory)" in answer.verdict.value
    assert not answer.evidence.value and "looked" not in answer.picker.words.value
    assert "No answer for us.jpg" in panel.status.value and answer.prediction is None


def test_begins_with_the_photos_of_colabs_dialog(drawn_checkpoint, photo):
    panel = photo_panel(drawn_checkpoint, {"us.jpg": photo, "list.jpg": b"milk"})
    assert len(panel.answers.children) == 2


@pytest.fixture
def widgets():
    """All widgets that are kept somewhere, as ipywidgets 8 or 7 lists them."""
    listed = getattr(ipywidgets.widgets.widget, "_instances", None)
    return ipywidgets.Widget.widgets if listed is None else listed


def leave_pictures_behind(panel, photo):
    """Look at one twice, open everything there is, and return the picture that was judged."""
    upload(panel, ("us.jpg", photo), ("again.jpg", photo))
    buttons(panel)["Make a report"].click()
    buttons(panel)["Hide a region"].click()
    buttons(panel)["Hide a region"].click()
    return weakref.ref(panel.answers.children[1].more.children[0].look)


def test_what_leaves_the_page_leaves_the_memory(checkpoint, photo, widgets):
    others, panel = set(widgets), photo_panel(checkpoint)
    before = set(widgets)
    looks = [leave_pictures_behind(panel, photo)]
    upload(panel, ("list.jpg", b"milk"))  # in place of what was there
    assert looks[0]() is None and len(set(widgets) - before) <= 25  # one answer, nearly empty
    looks.append(leave_pictures_behind(panel, photo))
    panel.clear.click()
    assert looks[1]() is None and set(widgets) == before
    panel.close()
    assert set(widgets) == others


@pytest.mark.parametrize("make", [hide_panel, neuron_panel, live_panel, strength_panel])
def test_a_panel_that_is_closed_is_gone(make, checkpoint, widgets):
    before = set(widgets)
    image = draw_scene(sample_scene(0, 0)[0], 64)
    arguments = {live_panel: (checkpoint,), strength_panel: (image, 2, 32)}
    panel = make(*arguments.get(make, (checkpoint, image)))
    assert len(set(widgets) - before) > 5
    panel.close()
    assert set(widgets) == before


def test_every_status_is_new_to_the_browser(panel):
    """browser.js takes a line that stays for an upload that was lost."""
    before = panel.status.value
    panel.say(WELCOME)
    assert panel.status.value != before


def test_ipywidgets_7_shape():
    """There `value` is a dict that must be emptied in place, with a counter to reset.

    The dict has room for one file of a name.
    """
    two = {"metadata": [{"name": "image.jpg"}] * 2, "data": [memoryview(b"abc"), b"de"]}
    value = {"image.jpg": {"content": b"de"}}
    widget = types.SimpleNamespace(value=value, _counter=2, **two)
    assert uploaded_files(widget) == [("image.jpg", b"abc"), ("image.jpg", b"de")]
    clear_uploads(widget)
    assert (widget.value, widget._counter) == ({}, 0)
    assert uploaded_files(widget) == []


def test_the_slider_changes_the_pictures():
    image = draw_scene(sample_scene(0, 0)[0], 64)
    slider, picture = strength_panel(image, n=4, size=64).children

    def draws():
        strip = np.asarray(Image.open(io.BytesIO(picture.value))).astype(float)
        assert strip.shape == (64, 4 * 64, 3)
        return np.split(strip, 4, axis=1)

    full = draws()
    slider.value = 0
    for draw in draws():
        original = np.asarray(image).astype(float)
        assert min(np.abs(draw - o).mean() for o in (original, original[:, ::-1])) < 1
    slider.value = 1
    assert all(np.array_equal(a, b) for a, b in zip(draws(), full, strict=True))
