"""The page and the report of one prediction."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dclib.checkpoint import DRAWINGS_ONLY
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.photo import predict_photo
from dclib.photo.page import framed, photo_page, report_json, waterfall_html


@pytest.fixture(scope="module")
def prediction(checkpoint):
    return predict_photo(draw_scene(sample_scene(0, 0)[0], 128), checkpoint)


def test_the_page_has_answer_maps_and_their_texts(prediction):
    page = photo_page("<script>us</script>.jpg", prediction)
    assert "<script>" not in page
    assert f"the network says <b>{prediction.label}</b>" in page
    assert DRAWINGS_ONLY in page
    pictures = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="([^"]+)">', page)
    assert len(pictures) == 4 and pictures[1].startswith("exact evidence; strongest in row")


def test_what_is_not_assessable_shows_reason_and_photo_and_no_number(checkpoint, prediction):
    dark = predict_photo(prediction.image.point(lambda v: v * 0.1), checkpoint)
    page = photo_page("us.jpg", dark)
    assert page.index("not assessable") < page.index("too dark") < page.index("<img")
    assert not re.search("the network says|happy|%|margin", page.split("</style>")[1])
    report = json.loads(report_json("us.jpg", dark, checkpoint))
    assert report["probs"] == {} and report["margin"] is None and "grad_cam" not in report


def test_the_waterfall_adds_up_to_the_margin(prediction):
    text = waterfall_html(prediction.evidence)
    values = [float(v) for v in re.findall(r"<td>([+-]\d+\.\d\d)</td>", text)]
    total = float(re.search(r"<b>([+-]\d+\.\d\d)</b>", text)[1])
    assert sum(values) == pytest.approx(total, abs=0.06)
    assert total == pytest.approx(prediction.margin, abs=0.006)


def test_faces_are_framed_where_they_are(prediction):
    plain = framed(replace(prediction, faces=()))
    boxed = framed(replace(prediction, faces=((32, 32, 64, 64),)))
    changed = np.argwhere(np.abs(boxed - plain).max(2) > 0)
    assert changed.min(0).tolist() == pytest.approx([84, 84], abs=3)  # 32 of 128 is 84 of 336
    assert changed.max(0).tolist() == pytest.approx([168, 168], abs=3)


def test_the_numbers_add_up_and_come_without_the_photo(checkpoint, prediction):
    report = json.loads(report_json("us.jpg", prediction, checkpoint))
    assert report["label"] == prediction.label
    cells = np.sum(report["evidence_by_cell"])
    const = prediction.evidence.of_margin("const")[0].item()
    assert cells + const == pytest.approx(report["margin"], abs=1e-4)
    assert report["checkpoint"]["training_data"]["kind"] == "demo drawings"
    assert len(json.dumps(report)) < 30_000
