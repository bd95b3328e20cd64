"""The widgets as a person meets them: JupyterLab in Chromium, and everything is clicked."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from dclib.demo import sample_scene
from dclib.drawing import draw_scene

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "07_your_couple_photo.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--disable-quic"]

SLIDER = """\
from dclib.demo import sample_scene
from dclib.drawing import draw_scene
from dclib.widgets import strength_panel

strength_panel(draw_scene(sample_scene(0, 0)[0], 150))
"""

PANELS = """\
from dclib.demo import sample_scene
from dclib.drawing import draw_scene
from dclib.widgets_explain import hide_panel, neuron_panel
---
hide_panel("checkpoints/demo", draw_scene(sample_scene(0, 0)[0], 150), size=128)
---
neuron_panel("checkpoints/demo", draw_scene(sample_scene(0, 0)[0], 150), size=128)
"""


@pytest.fixture
def lab(tmp_path, drawn_checkpoint):
    """A JupyterLab on loopback over a folder with notebooks and a checkpoint; yields its URL."""
    shutil.copy(NOTEBOOK, tmp_path)
    write_notebook(tmp_path / "slider.ipynb", SLIDER)
    write_notebook(tmp_path / "panels.ipynb", PANELS)
    shutil.copytree(drawn_checkpoint, tmp_path / "checkpoints" / "demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.root_dir": tmp_path,
        "ServerApp.tornado_settings": '{"websocket_max_message_size": 104857600}',
        "IdentityProvider.token": "test",
        "LabApp.news_url": "None",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(f"{url}/api?token=test", server, tmp_path / "lab.log")
        yield f"{url}/lab/tree/{{}}?token=test"
    finally:
        server.terminate()
        server.wait(30)


def write_notebook(path, text):
    """A notebook of code cells, with a line of dashes between them."""
    cells = [nbformat.v4.new_code_cell(part) for part in text.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def wait_until_up(url, server, log):
    for _ in range(120):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"JupyterLab did not start: {log.read_text()}")


def open_and_run(playwright, url):
    """A browser and its page, on which all cells of a notebook have been started."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.goto(url)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)  # the kernel is up
    page.locator("#jp-MainMenu").get_by_text("Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    return browser, page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_upload_a_photo_and_read_the_verdict(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    big = tmp_path / "holiday photo.png"  # above the 10 MiB that JupyterLab drops by default
    photo = draw_scene(sample_scene(1, 0)[0], 1024)
    Image.effect_noise((2600, 2600), 90).convert("RGB").save(big)
    assert big.stat().st_size > 10 * 2**20
    photo.save(tmp_path / "us.jpg")
    (tmp_path / "list.jpg").write_text("milk, bread")
    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format(NOTEBOOK.name))
        button = page.locator(".widget-upload")
        button.wait_for(timeout=120_000)
        for file in ("us.jpg", "list.jpg", big.name):
            with page.expect_file_chooser() as chooser:
                button.click()
            chooser.value.set_files(tmp_path / file)
            shown = page.locator(".dc-error" if file == "list.jpg" else ".dc-verdict")
            expect(shown.filter(has_text=file)).to_be_visible(timeout=60_000)
            text = shown.inner_text()
            if file == "list.jpg":
                assert "not a picture that can be read" in text
            else:
                assert f"{file}: the network says" in text
                assert "only ever seen drawn couples" in text
                assert page.locator(".widget-image, .jupyter-widgets img").count() >= 1
        if folder := os.environ.get("SCREENSHOTS"):
            button.scroll_into_view_if_needed()
            page.screenshot(path=Path(folder) / "07.png")
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_slider_of_strength_changes_the_pictures(lab):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("slider.ipynb"))
        strip, handle = page.locator("img.widget-image, .jupyter-widgets img"), ".noUi-handle"
        strip.wait_for(timeout=120_000)
        seen = [strip.screenshot()]
        for key in ("Home", "End"):  # strength 0, then 1 again
            before = strip.get_attribute("src")
            page.locator(handle).focus()
            page.keyboard.press(key)
            page.wait_for_function(
                "before => document.querySelector('img.widget-image, .jupyter-widgets img').src"
                " != before",
                arg=before,
                timeout=30_000,
            )
            page.wait_for_timeout(500)
            seen.append(strip.screenshot())
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "02.png")
        assert seen[0] != seen[1]
        assert seen[0] == seen[2]
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
        browser.close()


def show_state(page, name):
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_hide_a_region_and_choose_a_neuron(lab):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("panels.ipynb"))
        picture, answer = page.locator(".dc-stage img"), page.locator(".dc-controls table").first
        page.locator(".dc-neurons").wait_for(timeout=120_000)
        assert page.get_by_text("without this cell").locator("visible=true").count() == 0
        cells = page.locator(".dc-grid button")
        assert cells.count() == 16  # 128 px
        assert page.locator(".dc-grid").bounding_box() == picture.bounding_box()
        whole, seen = answer.inner_text(), picture.get_attribute("src")
        cells.nth(5).click()
        expect(answer).to_contain_text("without 1 cell")
        expect(picture).not_to_have_attribute("src", seen)
        cells.nth(6).focus()
        page.keyboard.press("Space")
        expect(answer).to_contain_text("without 2 cells")
        hidden = answer.inner_text()
        page.get_by_text("cover its pixels").click()
        expect(answer).not_to_have_text(hidden, use_inner_text=True)
        show_state(page, "05.png")
        page.get_by_role("button", name="Clear").click()
        expect(answer).to_have_text(whole, use_inner_text=True)
        choose_neurons(page, expect)
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
        browser.close()


def choose_neurons(page, expect):
    """Of the page without a kernel: by pointer, by keyboard, from a region's list."""
    neurons, shown = page.locator(".dc-neurons label"), page.locator(".dc-neuron-text:visible")
    region = page.locator(".dc-right .dc-map:visible")
    first, seen = shown.inner_text(), region.get_attribute("src")
    neurons.nth(3).hover()
    expect(shown).to_contain_text(f"Neuron {neurons.nth(3).inner_text()} ")
    assert region.get_attribute("src") != seen
    page.mouse.move(5, 5)
    expect(shown).to_have_text(first, use_inner_text=True)
    neurons.nth(2).click()
    page.keyboard.press("ArrowRight")  # JupyterLab must not take it
    expect(shown).to_contain_text(f"Neuron {neurons.nth(3).inner_text()} ")
    page.locator(".dc-cells > .dc-item > label:visible").nth(15).click()
    listed = page.locator(".dc-cell-text:visible")
    expect(listed).to_contain_text("row 4, column 4")
    neuron = listed.locator("label").last
    neuron.click()
    expect(shown).to_contain_text(f"{neuron.inner_text().capitalize()} is on")
    show_state(page, "06.png")
