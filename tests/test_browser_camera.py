"""The camera in Chromium, with the moving picture that Chromium offers as one for tests."""

import csv
import io
import re
import shutil
from itertools import pairwise

import pytest
from browser import (
    CAMERA,
    PATIENCE,
    needs_chromium,
    open_and_run,
    open_browser,
    serve_lab,
    show_state,
    wait_until_it_listens,
    write_notebook,
)
from test_browser import decode

CELLS = """\
from dclib.video.live import live_panel
live_panel("checkpoints/demo")
---
from dclib.photo.panel import photo_panel
photo_panel("checkpoints/demo")
---
import time
from pathlib import Path

while BUSY and not Path("go").exists():
    time.sleep(0.1)
"""


SIX = re.compile(r"; ([6-9]|\d\d+) frames were answered")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, drawn_checkpoint):
    folder = tmp_path_factory.mktemp("camera")
    write_notebook(folder / "camera.ipynb", CELLS.replace("BUSY", "False"))
    write_notebook(folder / "busy.ipynb", CELLS.replace("BUSY", "True"))
    shutil.copytree(drawn_checkpoint, folder / "checkpoints" / "demo")
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    with serve_lab(folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser(playwright):
    with open_browser(playwright, *CAMERA) as browser:
        yield browser


KEEP_LINES = """(line) => {
    line.dcLines = [];
    const keep = () => line.dcLines.push(line.textContent);
    new MutationObserver(keep).observe(line, {childList: true, characterData: true, subtree: true});
}"""


def read_line(text):
    """(milliseconds, answered, dropped) of the line below the camera, None if it tells others."""
    told = re.match(r"The answer came (\d+) .*; (\d+) .*, (\d+)", text)
    return told and tuple(map(int, told.groups()))


def frames_of(line):
    """What `read_line` gives, once it does: between two answers the line may say that it waits."""
    for _ in range(PATIENCE // 50):
        if told := read_line(line.inner_text()):
            return told
        line.page.wait_for_timeout(50)
    pytest.fail(f"No answer came: {line.inner_text()}")


@needs_chromium
def test_live_until_stopped_and_then_saved(browser, lab):
    from playwright.sync_api import expect

    with open_and_run(browser, lab.format("camera.ipynb")) as page:
        panel = page.locator(".dc-browser").first
        panel.get_by_role("button", name="Start the camera").wait_for()
        wait_until_it_listens(page, 2)
        panel.get_by_role("button", name="Start the camera").click()
        expect(panel.locator(".dc-age")).to_contain_text(SIX)
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
        saved.wait_for()
        rows = list(csv.DictReader(io.StringIO(decode(saved.get_attribute("href")))))
        assert answered <= len(rows) <= answered + 1
        times = [float(row["time"]) for row in rows]
        assert times[0] == 0 and times == sorted(times)
        assert min(b - a for a, b in pairwise(times)) >= 0.19  # RATE


@needs_chromium
def test_a_busy_kernel_queues_no_frames(browser, lab, folder):
    """What the camera shows while a cell runs is dropped, and the next answer is a fresh one."""
    from playwright.sync_api import expect

    with open_and_run(browser, lab.format("busy.ipynb")) as page:
        panel = page.locator(".dc-browser").first
        panel.get_by_role("button", name="Start the camera").wait_for()
        wait_until_it_listens(page, 2)
        panel.get_by_role("button", name="Start the camera").click()
        line = panel.locator(".dc-age")
        expect(line).to_contain_text(re.compile(r"Waiting for the kernel for ([4-9]|\d\d+) s"))
        line.evaluate(KEEP_LINES)
        (folder / "go").touch()
        expect(line).to_contain_text(re.compile(r"; ([3-9]|\d\d+) frames were answered"))
        first, second, *_ = map(read_line, filter(read_line, line.evaluate("line => line.dcLines")))
        assert (first[1], second[1]) == (1, 2)
        assert first[0] >= 4000 - 500 and second[0] < first[0]
        assert second[2] > second[1]


@needs_chromium
def test_a_photo_with_the_camera(browser, lab):
    from playwright.sync_api import expect

    with open_and_run(browser, lab.format("camera.ipynb")) as page:
        panel = page.locator(".dc-browser").nth(1)
        button = panel.locator(".dc-photo-button")
        button.wait_for()
        wait_until_it_listens(page, 2)
        button.dblclick()  # before there is a picture, another press does nothing
        expect(panel.locator("video")).to_be_visible()
        assert panel.locator("video").evaluate("video => video.videoWidth") > 0
        button.dblclick()
        expect(panel.locator(".dc-verdict")).to_contain_text("camera.jpg")
        expect(panel.locator(".dc-verdict")).not_to_contain_text("is no picture")
        page.wait_for_timeout(600)
        assert panel.locator("video").evaluate("video => video.srcObject") is None


@needs_chromium
def test_no_camera_is_said(playwright, lab):
    from playwright.sync_api import expect

    with (
        open_browser(playwright) as browser,
        open_and_run(browser, lab.format("camera.ipynb")) as page,
    ):
        panel = page.locator(".dc-browser").first
        panel.get_by_role("button", name="Start the camera").wait_for()
        wait_until_it_listens(page, 2)
        panel.get_by_role("button", name="Start the camera").click()
        said = re.compile("No camera was found|not allowed to use the camera")
        expect(panel.locator(".dc-status")).to_contain_text(said)
