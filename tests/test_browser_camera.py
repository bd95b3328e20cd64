"""The camera in Chromium, with the moving picture that Chromium offers as one for tests."""

import csv
import io
import re
import shutil
from itertools import pairwise

import pytest
from browser import CAMERA, needs_chromium, open_and_run, serve_lab, show_state, write_notebook
from test_browser import decode

CELLS = """\
from dclib.widgets.live import live_panel
live_panel("checkpoints/demo")
---
from dclib.widgets.photo import photo_panel
photo_panel("checkpoints/demo")
---
import time
time.sleep(WAIT)
"""


@pytest.fixture
def lab(tmp_path, drawn_checkpoint):
    write_notebook(tmp_path / "camera.ipynb", CELLS.replace("WAIT", "0"))
    write_notebook(tmp_path / "busy.ipynb", CELLS.replace("WAIT", "15"))
    shutil.copytree(drawn_checkpoint, tmp_path / "checkpoints" / "demo")
    with serve_lab(tmp_path) as url:
        yield url


def frames_of(line):
    """(milliseconds, answered, dropped) of the line below the camera."""
    text = line.inner_text()
    return tuple(map(int, re.match(r"The answer came (\d+) .*; (\d+) .*, (\d+)", text).groups()))


@needs_chromium
def test_live_until_stopped_and_then_saved(lab):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("camera.ipynb"), *CAMERA)
        panel = page.locator(".dc-browser").first
        panel.get_by_role("button", name="Start the camera").click(timeout=180_000)
        expect(panel.locator(".dc-age")).to_contain_text("6 frames were answered", timeout=60_000)
        expect(panel.locator(".dc-status")).to_contain_text("The network says")
        expect(panel.locator(".dc-answer")).to_contain_text("only ever seen drawn couples")
        assert panel.locator(".dc-curve circle").count() > 3
        show_state(page, "08_live.png")
        panel.get_by_role("button", name="Stop").click()
        assert panel.locator("video").evaluate("video => video.srcObject") is None
        page.wait_for_timeout(1500)  # the last answer
        answered = frames_of(panel.locator(".dc-age"))[1]
        panel.get_by_role("button", name="Save the answers").click()
        saved = panel.locator(".dc-save")
        saved.wait_for(timeout=30_000)
        rows = list(csv.DictReader(io.StringIO(decode(saved.get_attribute("href")))))
        assert answered <= len(rows) <= answered + 1
        times = [float(row["time"]) for row in rows]
        assert times[0] == 0 and times == sorted(times)
        assert min(b - a for a, b in pairwise(times)) >= 0.19  # RATE
        browser.close()


@needs_chromium
def test_a_busy_kernel_queues_no_frames(lab):
    """What the camera shows while a cell runs is dropped, and the next answer is a fresh one."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("busy.ipynb"), *CAMERA)
        panel = page.locator(".dc-browser").first
        panel.get_by_role("button", name="Start the camera").click(timeout=180_000)
        line = panel.locator(".dc-age")
        expect(line).to_contain_text("Waiting for the kernel for", timeout=30_000)
        expect(line).to_contain_text("frames were answered", timeout=60_000)
        page.wait_for_timeout(2000)
        age, answered, dropped = frames_of(line)
        assert age < 7500 and dropped > answered
        browser.close()


@needs_chromium
def test_a_photo_with_the_camera(lab):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("camera.ipynb"), *CAMERA)
        panel = page.locator(".dc-browser").nth(1)
        button = panel.locator(".dc-photo-button")
        button.click(timeout=180_000)
        expect(panel.locator("video")).to_be_visible(timeout=30_000)
        page.wait_for_timeout(1000)
        button.click()
        expect(panel.locator(".dc-verdict")).to_contain_text("camera.jpg", timeout=60_000)
        assert panel.locator("video").evaluate("video => video.srcObject") is None
        browser.close()


@needs_chromium
def test_no_camera_is_said(lab):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("camera.ipynb"))
        panel = page.locator(".dc-browser").first
        panel.get_by_role("button", name="Start the camera").click(timeout=180_000)
        said = re.compile("No camera was found|not allowed to use the camera")
        expect(panel.locator(".dc-status")).to_contain_text(said, timeout=30_000)
        browser.close()
