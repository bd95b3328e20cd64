"""The page and the report of one prediction."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.photo import predict_photo
from dclib.photo.page import (
    NOBODY,
    about_html,
    face_places,
    lit,
    overview_html,
    photo_html,
    photo_page,
    report_json,
    verdict_html,
    waterfall_html,
)
from dclib.plots import COLOURS


@pytest.fixture(scope="module")
def picture():
    return draw_scene(sample_scene(0, 0)[0], 128)


@pytest.fixture(scope="module")
def prediction(checkpoint, picture):
    return predict_photo(picture, checkpoint)


@pytest.fixture(scope="module")
def dark(checkpoint, picture):
    return predict_photo(picture.point(lambda value: value * 0.1), checkpoint)


def body(page):
    """A page without its styles."""
    return re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_answer_photo_evidence_and_doubts_come_first_and_the_rest_is_folded(prediction):
    page = body(photo_page("<script>us</script>.jpg", prediction))
    assert "<script>" not in page
    open_part, folded = page.split("<details")
    order = ["The network says", "dc-share", "<img", "exact evidence", DRAWINGS_ONLY, NOBODY]
    places = [open_part.index(part) for part in order]
    assert places == sorted(places)
    assert open_part.count("<img") == 2 and folded.count("<img") == 2
    assert not re.search("neuron|log-odds|Grad-CAM|dropout", open_part)
    assert "Grad-CAM for happy" in folded and "margin" in folded
    assert "does not say how often it is right" in folded and "95 %" not in folded


@pytest.mark.parametrize(("label", "other"), [("happy", "unhappy"), ("unhappy", "happy")])
def test_one_bar_in_the_colour_of_the_answer(prediction, label, other):
    answer = replace(prediction, label=label, probs={label: 0.866, other: 0.134})
    page = verdict_html("us.jpg", answer).replace("\xa0", " ")
    assert f'says <b style="color: {COLOURS[label]}">{label}</b>: 87 %, fairly sure.' in page
    (bar,) = re.findall(r'<i style="(.*?)">', page)
    assert bar == f"width: 86.6%; background: {COLOURS[label]}"
    assert f'aria-label="{label} 87 %, {other} 13 %"' in page
    assert COLOURS[other] not in page and "<meter" not in page


def test_what_is_not_assessable_shows_reason_and_photo_and_no_number(checkpoint, dark):
    page = body(photo_page("us.jpg", dark))
    assert page.index("Not assessable") < page.index("too dark") < page.index("What helps")
    assert page.index("What helps") < page.index("<img") and page.count("<img") == 1
    seen = re.sub(r'src="[^"]+"|style="[^"]+"', "", page)
    assert not re.search("the network says|happy|%|margin|evidence|<details", seen)
    report = json.loads(report_json("us.jpg", dark, checkpoint))
    assert report["label"] == "not assessable" and report["reasons"]
    numbers = ("probs", "margin", "margin_sd", "unhappy_under_dropout", "grad_cam")
    assert not set(numbers) & set(report) and "evidence_by_cell" not in report


def test_the_waterfall_adds_up_to_the_margin(prediction):
    text = waterfall_html(prediction.evidence)
    values = [float(v) for v in re.findall(r"<td>([+-]\d+\.\d\d)</td>", text)]
    total = float(re.search(r"<b>([+-]\d+\.\d\d)</b>", text)[1])
    assert sum(values) == pytest.approx(total, abs=0.06)
    assert total == pytest.approx(prediction.margin, abs=0.006)


def test_faces_are_numbered_where_they_are_and_two_are_marked(prediction):
    faces = ((32, 16, 64, 48), (64, 16, 96, 48), (-9, 100, 20, 140))
    page = photo_page("us.jpg", replace(prediction, faces=faces, two=(0, 1)))
    found = re.findall(r'<b class="dc-face ?(.*?)" style="(.*?)">(\d)</b>', page)
    assert [(kind, number) for kind, _, number in found] == [
        *(("dc-taken", "1"), ("dc-taken", "2"), ("", "3"))
    ]
    assert found[0][1] == "left: 25.00%; top: 12.50%; width: 25.00%; height: 25.00%"
    assert face_places(faces, (128, 128))[2].startswith("left: 0.00%; top: 78.12%; width: 15.62%;")


def test_the_photo_is_bright_where_the_network_looked_and_keeps_its_shape(checkpoint, picture):
    config = checkpoint.config | {"frame": "couple", "frame_margin": 0.1}
    wide = picture.resize((256, 128)).crop((0, 0, 256, 100))
    faces = ((20, 20, 50, 50), (60, 20, 90, 50))
    near = Checkpoint(checkpoint.model, config, checkpoint.folder)
    answer = predict_photo(wide, near, faces)
    assert answer.shown.size == (400, 156)
    bright = lit(answer)
    assert bright.shape == (156, 400)
    assert bright[55, 86] and not bright[55, 250:].any()
    assert "faces 1 and 2 taken for the couple" in photo_html(answer)
    whole = predict_photo(wide, checkpoint, faces)
    assert lit(whole).all() and "the network looked at all of it" in photo_html(whole)


def test_the_overview_leads_to_every_answer(prediction, dark):
    table = overview_html([("<b>us.jpg", prediction), ("dark.jpg", dark), ("list.jpg", None)])
    rows = re.findall(r"<tr>(.*?)</tr>", table)
    assert [f'data-answer="{k}"' in row for k, row in enumerate(rows)] == [True] * 3
    assert "&lt;b&gt;us.jpg" in rows[0] and prediction.label in rows[0] and "\xa0%" in rows[0]
    assert "not assessable" in rows[1] and "%" not in re.sub('src="[^"]+"', "", rows[1])
    assert "no answer" in rows[2] and "<img" not in rows[2]


def test_what_is_technical_is_folded(checkpoint):
    page = about_html(checkpoint)
    assert page.startswith("<details") and "resnet18" in page and "torch" in page


def test_the_numbers_add_up_and_come_without_the_photo(checkpoint, prediction):
    report = json.loads(report_json("us.jpg", prediction, checkpoint))
    assert report["label"] == prediction.label
    cells = np.sum(report["evidence_by_cell"])
    const = prediction.evidence.of_margin("const")[0].item()
    assert cells + const == pytest.approx(report["margin"], abs=1e-4)
    (piece,) = report["looked_at"]  # without this nobody knows where a cell is
    assert piece["source"] == [0, 0, *prediction.image.size] and piece["target"] == [0, 0, 64, 64]
    assert report["checkpoint"]["training_data"]["kind"] == "demo drawings"
    assert len(json.dumps(report)) < 30_000
