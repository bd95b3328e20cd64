"""The panels without a browser; tests/test_browser.py has them in one."""

import datetime
import io
import types

import numpy as np
import pytest
from PIL import Image

from dclib.checkpoint import load_checkpoint
from dclib.data import CoupleFolder
from dclib.demo import sample_scene
from dclib.drawing import draw_scene
from dclib.photo import DRAWINGS_ONLY, Prediction
from dclib.widgets import (
    clear_uploads,
    photo_panel,
    strength_panel,
    uploaded_files,
    verdict_html,
)


def upload(panel, *files):
    """What the browser does when files are chosen (ipywidgets 8)."""
    stamp = datetime.datetime.now(datetime.UTC)
    panel.children[0].children[0].value = tuple(
        {"name": n, "type": "", "size": len(d), "last_modified": stamp, "content": memoryview(d)}
        for n, d in files
    )


@pytest.fixture
def panel(drawn_checkpoint):
    return photo_panel(load_checkpoint(drawn_checkpoint))


@pytest.fixture
def photo(couples):
    return CoupleFolder(couples, "val").samples[0][0].read_bytes()


def test_verdict_appears_and_the_upload_is_forgotten(panel, photo):
    upload(panel, ("us.jpg", photo))
    (answer,) = panel.children[1].children
    picture, verdict = answer.children
    assert bytes(picture.value).startswith(b"\x89PNG")
    assert "us.jpg: the network says <b>" in verdict.value
    assert DRAWINGS_ONLY in verdict.value
    assert panel.children[0].children[0].value == ()
    upload(panel, ("us.jpg", photo), ("again.jpg", photo))
    assert len(panel.children[1].children) == 2


def test_an_unusable_file_gets_a_sentence(panel, photo):
    upload(panel, ("<b>list</b>.jpg", b"milk, bread"), ("us.jpg", photo))
    error, answer = panel.children[1].children
    assert "&lt;b&gt;list&lt;/b&gt;.jpg" in error.value
    assert "not a picture that can be read" in error.value
    assert "us.jpg" in answer.children[1].value


def test_ipywidgets_7_shape():
    """There `value` is a dict that must be emptied in place, with a counter to reset."""
    content = {"metadata": {"name": "us.jpg", "size": 3}, "content": b"abc"}
    widget = types.SimpleNamespace(value={"us.jpg": content}, _counter=1)
    assert uploaded_files(widget) == [("us.jpg", b"abc")]
    clear_uploads(widget)
    assert (widget.value, widget._counter) == ({}, 0)
    assert uploaded_files(widget) == []


def test_everything_in_the_html_is_escaped():
    prediction = Prediction("<i>", {"<i>": 0.25, "b": 0.75}, 1.0, ("<script>",))
    text = verdict_html("<img>.jpg", prediction)
    for tag in ("<i>", "<script>", "<img>"):
        assert tag not in text
    assert "25.0%" in text


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
