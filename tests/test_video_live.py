"""The live panel without a browser; tests/test_browser_camera.py has it in one."""

import base64
import csv
import io
import math
import re
from unittest.mock import Mock
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from test_photo_panel import upload

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.data.loading import EvalTransform
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.framing.faces import Face
from dclib.photo import predict_photo
from dclib.predict import Z95
from dclib.video import live as module
from dclib.video.live import LiveTimeline, live_panel, numbers_sentence, timeline_svg


def jpeg(image=None, number=0):
    """An image as bytes, else that of a drawn couple."""
    buffer = io.BytesIO()
    (image or draw_scene(sample_scene(5, number)[0], 240)).save(buffer, "JPEG")
    return buffer.getvalue()


def states_of(panel, numbers):
    """After one frame at each time in milliseconds, each of a drawn couple of a number."""
    for clock, number in numbers:
        upload(panel, (f"{clock}.jpg", jpeg(number=number)))
    return panel.timeline.states


FRAMES = st.lists(
    st.tuples(st.floats(0.01, 2.5), st.floats(-5, 5), st.floats(0, 2)), min_size=1, max_size=40
)


@given(FRAMES, st.floats(0.5, 5))
def test_line_and_band_are_those_of_the_formula(frames, tau):
    timeline, now, seen = LiveTimeline(tau=tau), 0.0, []
    for step, margin, sd in frames:
        now += step
        seen.append((now, margin, sd))
        state = timeline.add(now, margin, sd)
    recent = [frame for frame in seen if now - frame[0] < 8 * tau]
    weights = [math.exp((time - now) / tau) for time, _, _ in recent]
    total, squares = math.fsum(weights), math.fsum(w * w for w in weights)
    mean = math.fsum(w * m for w, (_, m, _) in zip(weights, recent, strict=True)) / total
    n, sd2, s2 = total**2 / squares, 0.0, 0.0
    for w, (_, margin, sd) in zip(weights, recent, strict=True):
        sd2 += w * sd**2 / total
        s2 += w * (margin - mean) ** 2 / total
    s2 *= n / (n - 1) if n > 1 + 1e-6 else 0  # the unbiased one for weights
    reach = Z95 * math.sqrt(sd2 + s2 / n)
    assert state.smooth == pytest.approx(mean, abs=1e-9)
    assert (state.low, state.high) == pytest.approx((mean - reach, mean + reach), abs=1e-6)
    if abs(mean) > 1e-9:  # nearer to the threshold than it was computed, both are right
        assert state.label == ("unhappy" if mean >= 0 else "happy")


def test_a_cut_or_a_pause_starts_anew():
    timeline = LiveTimeline()
    timeline.add(0.0, -3)
    assert timeline.add(0.2, 3).smooth == pytest.approx(0.15, abs=0.01)
    assert timeline.add(0.4, 3, cut=True).smooth == 3
    assert timeline.add(0.4 + module.PAUSE + 0.1, -2).smooth == -2
    assert [state.shot for state in timeline.states] == [0, 0, 1, 2]
    with pytest.raises(ValueError, match="came after one of 3"):
        timeline.add(1.0, 0)


def test_too_dark_for_half_of_the_time_is_not_assessable():
    timeline = LiveTimeline(tau=2)
    for k in range(10):
        timeline.add(k / 5, -2)
    labels = [timeline.add(2 + k / 5, 5, reason="Dark.").label for k in range(10)]
    assert labels[0] == "happy" and labels[-1] == NOT_ASSESSABLE
    last = timeline.states[-1]
    assert math.isnan(last.smooth) and last.reason == "Dark." == numbers_sentence(last)


def test_not_sure_enough_says_so():
    timeline = LiveTimeline(abstain=0.8)
    unsure = timeline.add(0.0, 0.5)
    assert unsure.label == NOT_ASSESSABLE and "not sure enough" in unsure.reason
    sure = timeline.add(0.2, 5.0)
    assert sure.label == "unhappy" and "It gives unhappy" in numbers_sentence(sure)


def test_the_sentence_is_about_the_likelier_label():
    happy = LiveTimeline().add(0.0, -math.log(9), 0.5)
    assert numbers_sentence(happy).startswith("It gives happy 90.0 % (95 % band 77.2 % to 96.0 %)")


def test_answers_as_a_table():
    timeline = LiveTimeline()
    timeline.add(0.0, 1.5, 0.1)
    timeline.add(0.25, 1, reason="Dark, and no light.", cut=True)
    rows = list(csv.DictReader(io.StringIO(timeline.to_csv())))
    assert [row["time"] for row in rows] == ["0.0", "0.25"]
    assert (rows[0]["smooth"], rows[1]["smooth"]) == ("1.5", "")
    assert rows[1]["reason"] == "Dark, and no light."


def test_the_curve_is_short_however_long_it_runs():
    timeline = LiveTimeline()
    for k in range(3000):
        timeline.add(k / 5, math.sin(k / 50), 0.3, "Dark." if k % 500 > 450 else "", k % 700 == 0)
    svg = timeline_svg(timeline.states)
    root = ElementTree.fromstring(svg)
    assert "600 seconds" in root.attrib["aria-label"]
    assert 200 < len(root.findall(".//circle")) <= 300 and len(svg) < 60_000
    assert root.findall("rect[@fill='#888']")
    ElementTree.fromstring(timeline_svg([]))


@pytest.mark.parametrize(
    ("states", "circles"), [(1, 1), (2, 2), (3, 3), (300, 300), (301, 151), (601, 201)]
)
def test_every_state_is_drawn_once_and_the_last_one_always(states, circles):
    timeline = LiveTimeline()
    for k in range(states):
        timeline.add(k / 5, 0.1)
    drawn = ElementTree.fromstring(timeline_svg(timeline.states)).findall(".//circle")
    places = [float(circle.attrib["cx"]) for circle in drawn]
    assert len(places) == len(set(places)) == circles
    share = (states - 1) / 5 / max(module.LEAST, (states - 1) / 5)
    assert places[-1] == round(module.LEFT + (module.WIDTH - module.LEFT) * share, 1)


@pytest.fixture
def panel(checkpoint):
    return live_panel(checkpoint)


def test_every_frame_is_answered_and_forgotten(panel):
    for k, clock in enumerate((1_700_000_000_000, 1_700_000_000_400, 1_700_000_000_800)):
        states_of(panel, [(clock, 0)])
        assert f'data-answered="{clock}"' in panel.answer.value
        assert len(panel.timeline.states) == k + 1
        assert not panel.upload.value
    assert [state.time for state in panel.timeline.states] == pytest.approx([0, 0.4, 0.8])
    assert DRAWINGS_ONLY in panel.answer.value
    assert "The network says" in panel.status.value
    panel.save.click()
    data = re.search(r'base64,([^"]+)"', panel.saved.value)[1]
    assert len(base64.b64decode(data).decode().splitlines()) == 4
    panel.clear.click()
    assert panel.timeline.states == [] and panel.saved.value == ""


def test_same_margin_as_for_a_photo(panel):
    data = jpeg(number=3)
    upload(panel, ("1000.jpg", data))
    expected = predict_photo(data, panel.checkpoint)
    state = panel.timeline.states[-1]
    assert state.margin == pytest.approx(expected.margin)
    assert state.high - state.low == pytest.approx(2 * Z95 * expected.margin_sd)


def test_a_frame_that_cannot_be_used_is_answered_too(panel, monkeypatch):
    upload(panel, ("1000.jpg", b"no picture"))
    assert "not a picture" in panel.status.value and 'data-answered="1000"' in panel.answer.value

    fail = Mock(side_effect=RuntimeError("out of memory"))
    monkeypatch.setattr(module, "extract_features", fail)
    upload(panel, ("2000.jpg", jpeg()))
    assert "(out of memory)" in panel.status.value and 'data-answered="2000"' in panel.answer.value
    upload(panel, ("holiday.jpg", jpeg()))  # browser.js names a frame by its time
    assert "could not look at this frame" in panel.status.value and "holiday" in panel.status.value
    assert panel.timeline.states == []


def test_a_clock_that_is_put_back_changes_nothing(panel):
    states = states_of(panel, [(5000, 0), (6000, 0), (4000, 0)])
    assert [state.time for state in states] == [0, 1, 1]


def test_another_scene_is_another_shot(panel):
    states = states_of(panel, [(0, 0), (200, 0), (400, 20), (600, 20)])
    assert [state.shot for state in states] == [0, 0, 1, 1]


def test_a_dark_frame_gets_no_label(panel):
    upload(panel, ("1000.jpg", jpeg(Image.new("RGB", (240, 240)))))
    assert panel.timeline.states[-1].label == NOT_ASSESSABLE
    assert "too dark" in panel.answer.value


def test_faces_are_looked_for_once_a_second(panel, monkeypatch):
    looks = []
    monkeypatch.setattr(type(panel.checkpoint), "knows_only_drawings", False)
    monkeypatch.setattr(module, "find_faces", lambda image: looks.append(1) or ())
    states = states_of(panel, [(clock, 0) for clock in range(0, 2100, 200)])
    assert len(looks) == 3
    assert states[-1].label == NOT_ASSESSABLE
    assert "No face was found" in panel.answer.value


@pytest.fixture
def looked_at(panel, monkeypatch):
    """The panel with a network that looks at faces: those to find, and those that are looked at."""
    network, found, chosen, cut = panel.checkpoint, [], [], EvalTransform.cut
    looks = {"frame": "faces", "frame_margin": 0.1}
    panel.checkpoint = Checkpoint(network.model, network.config | looks, network.folder)
    monkeypatch.setattr(Checkpoint, "knows_only_drawings", False)
    monkeypatch.setattr(
        module, "find_faces", lambda image: [Face(box, 0.9, ()) for box in found.pop(0)]
    )
    monkeypatch.setattr(EvalTransform, "cut", lambda *args: chosen.append(args[2]) or cut(*args))
    return found, chosen


TWO, GIANT = [(60, 60, 110, 110), (130, 60, 180, 110)], (50, 20, 200, 170)


def test_the_camera_stays_with_its_couple(panel, looked_at):
    """A larger face comes in with the second frame; after four seconds two are chosen anew."""
    found, chosen = looked_at
    found += [TWO, [GIANT, *TWO], [GIANT, TWO[0]], [GIANT, TWO[0]]]
    states = states_of(panel, [(0, 0), (250, 0), (500, 0), (4500, 0)])
    assert chosen[:2] == [TWO, TWO] and GIANT in chosen[2] and len(chosen) == 3
    assert [math.isnan(state.margin) for state in states] == [False, False, True, False]
    assert [frame[3] for frame in panel.timeline.recent] == [""]


def test_after_a_cut_the_camera_has_another_couple(panel, looked_at):
    found, chosen = looked_at
    found += [TWO, [GIANT, *TWO]]
    states_of(panel, [(0, 0)])
    elsewhere = ImageOps.invert(draw_scene(sample_scene(5, 0)[0], 240))
    upload(panel, ("250.jpg", jpeg(elsewhere)))
    assert panel.timeline.states[-1].shot == 1
    assert chosen[0] == TWO and GIANT in chosen[1]
