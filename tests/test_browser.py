"""The widgets as a person meets them: JupyterLab and Voila in Chromium, everything is clicked."""

import base64
import shutil
from pathlib import Path

import pillow_heif
import pytest
from browser import (
    kernels,
    needs_chromium,
    new_page,
    open_and_run,
    open_browser,
    serve_app,
    serve_lab,
    show_state,
    wait_until_it_listens,
    wait_until_no_kernel,
    write_notebook,
)
from PIL import Image

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "07_your_couple_photo.ipynb"

SLIDER = """\
from dclib.drawn.scenes import sample_scene
from dclib.drawn.drawing import draw_scene
from dclib.augment.panel import strength_panel

strength_panel(draw_scene(sample_scene(0, 0)[0], 150))
"""

PANELS = """\
from dclib.drawn.scenes import sample_scene
from dclib.drawn.drawing import draw_scene
from dclib.explain.panels import hide_panel, neuron_panel
---
hide_panel("checkpoints/demo", draw_scene(sample_scene(0, 0)[0], 150), size=128)
---
neuron_panel("checkpoints/demo", draw_scene(sample_scene(0, 0)[0], 150), size=128)
"""


PIXELS = """async (image) => {
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""
BOXES = """() => [".dc-grid", ":has(> .dc-grid) img"].map(
    (part) => JSON.stringify(document.querySelector(part).getBoundingClientRect()))"""


@pytest.fixture
def lab(tmp_path, drawn_checkpoint):
    """A JupyterLab on loopback over a folder with notebooks and a checkpoint; yields its URL."""
    shutil.copy(NOTEBOOK, tmp_path)
    write_notebook(tmp_path / "slider.ipynb", SLIDER)
    write_notebook(tmp_path / "panels.ipynb", PANELS)
    shutil.copytree(drawn_checkpoint, tmp_path / "checkpoints" / "demo")
    with serve_lab(tmp_path) as url:
        yield url


def choose(page, button, path):
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(path)


def make_files(folder):
    """A drawn couple, the same as HEIC, a text called a picture, and over 10 MiB of noise."""
    draw_scene(sample_scene(1, 0)[0], 1024).save(folder / "us.jpg")
    pillow_heif.from_pillow(draw_scene(sample_scene(1, 0)[0], 1024)).save(folder / "us.heic")
    (folder / "list.jpg").write_text("milk, bread")
    Image.effect_noise((2600, 2600), 90).convert("RGB").save(folder / "holiday photo.png")
    assert (folder / "holiday photo.png").stat().st_size > 10 * 2**20


def use_panel(page, expect, folder):
    """Everything a person does with the photo panel; the same in JupyterLab and Voila."""
    make_files(folder)
    panel = page.locator(".dc-browser")
    button = panel.locator(".widget-upload")
    button.wait_for()
    wait_until_it_listens(panel.page, 1)
    for file in ("us.jpg", "list.jpg", "holiday photo.png", "us.heic"):
        choose(page, button, folder / file)
        shown = panel.locator(".dc-error" if file == "list.jpg" else ".dc-verdict")
        expect(shown.filter(has_text=file)).to_be_visible()
        if file == "list.jpg":
            expect(shown).to_contain_text("not a picture that can be read")
            continue
        expect(shown).to_contain_text("only ever seen drawn couples")
        assert panel.locator("figure img").count() == (4 if file == "us.jpg" else 1)
        if file == "us.jpg":  # whose file says that it is drawn
            expect(shown).to_contain_text("The network gives")
            expect(panel.locator(".dc-waterfall")).to_contain_text("margin")
    expect(panel.locator(".dc-status")).to_contain_text("Done: 1 picture")
    panel.get_by_role("button", name="A drawn couple").click()
    expect(panel.locator(".dc-verdict")).to_contain_text("A drawn couple of the demo set")
    panel.get_by_role("button", name="Make a report").click()
    with page.expect_download() as download:
        panel.locator(".dc-save").first.click()
    download.value.save_as(folder / "report.html")
    assert "only ever seen drawn couples" in (folder / "report.html").read_text()
    assert "evidence_by_cell" in decode(panel.locator(".dc-save").last.get_attribute("href"))
    panel.get_by_role("button", name="Hide a region").click()
    cells = panel.locator(".dc-grid button")
    cells.nth(1).click()
    expect(panel.locator(".dc-controls")).to_contain_text("without 1 cell")


def decode(address):
    return base64.b64decode(address.split(",", 1)[1]).decode()


@needs_chromium
def test_upload_a_photo_and_read_the_verdict(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format(NOTEBOOK.name))
        use_panel(page, expect, tmp_path)
        page.locator(".dc-browser").scroll_into_view_if_needed()
        show_state(page, "07.png")
        page.get_by_role("button", name="Clear").first.click()
        expect(page.locator(".dc-browser .dc-verdict")).to_have_count(0)
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
        browser.close()


@needs_chromium
def test_the_same_as_an_app_that_forgets(tmp_path, drawn_checkpoint):
    """Voila: the same panel, dropped files, a phone's width; nothing is left when it is closed."""
    from playwright.sync_api import expect, sync_playwright

    shutil.copy(NOTEBOOK, tmp_path)
    shutil.copytree(drawn_checkpoint, tmp_path / "checkpoints" / "demo")
    (tmp_path / "mine").mkdir()
    with serve_app(tmp_path / NOTEBOOK.name) as url, sync_playwright() as playwright:
        browser = open_browser(playwright)
        page = new_page(browser, viewport={"width": 1000, "height": 1400})
        page.goto(url)
        use_panel(page, expect, tmp_path / "mine")
        drop(page, (tmp_path / "mine" / "us.jpg").read_bytes())
        expect(page.locator(".dc-verdict").last).to_contain_text("dropped.jpg")
        show_state(page, "07_app.png")
        page.set_viewport_size({"width": 390, "height": 800})
        page.locator(".dc-verdict").last.scroll_into_view_if_needed()
        show_state(page, "07_phone.png")
        assert page.locator(".dc-figures").last.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
        before = sorted(p.name for p in tmp_path.iterdir())
        assert len(kernels()) == 1
        page.close(run_before_unload=True)
        wait_until_no_kernel()
        page = new_page(browser)  # and where the browser dies and says nothing
        page.goto(url)
        page.locator(".dc-browser .widget-upload").wait_for()
        assert len(kernels()) == 1
        browser.close()
        wait_until_no_kernel()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not list(tmp_path.glob("*.jpg")) and not list(tmp_path.glob("*report*"))


def drop(page, content):
    """What the browser does when a file is dropped on the panel."""
    page.locator(".dc-browser").evaluate(
        """(panel, bytes) => {
            const transfer = new DataTransfer();
            const file = new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"});
            transfer.items.add(file);
            panel.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
        }""",
        list(content),
    )


@needs_chromium
def test_an_upload_that_gets_lost_is_said(lab, tmp_path):
    """More than the limit of the connection: the kernel never hears of it."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format(NOTEBOOK.name))
        panel = page.locator(".dc-browser")
        panel.locator(".widget-upload").wait_for()
        wait_until_it_listens(page, 1)
        page.evaluate("window.WebSocket.prototype.send = () => {}")  # as if it were too large
        draw_scene(sample_scene(1, 0)[0], 64).save(tmp_path / "lost.jpg")
        choose(page, panel.locator(".widget-upload"), tmp_path / "lost.jpg")
        expect(panel.locator(".dc-status")).to_contain_text("Sending lost.jpg")
        expect(panel.locator(".dc-status")).to_contain_text("has not arrived")
        browser.close()


@needs_chromium
def test_the_slider_of_strength_changes_the_pictures(lab):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("slider.ipynb"))
        strip, handle = page.locator("img.widget-image, .jupyter-widgets img"), ".noUi-handle"
        strip.wait_for()
        seen = [strip.evaluate(PIXELS)]
        for key in ("Home", "End"):  # strength 0, then 1 again
            before = strip.get_attribute("src")
            page.locator(handle).focus()
            page.keyboard.press(key)
            page.wait_for_function(
                "before => document.querySelector('img.widget-image, .jupyter-widgets img').src"
                " != before",
                arg=before,
            )
            seen.append(strip.evaluate(PIXELS))
        show_state(page, "02.png")
        assert seen[0] != seen[1]
        assert seen[0] == seen[2]
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
        browser.close()


@needs_chromium
def test_hide_a_region_and_choose_a_neuron(lab):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser, page = open_and_run(playwright, lab.format("panels.ipynb"))
        panels = page.locator(".dc-cells:has(button)")
        expect(panels).to_have_count(2)
        hiding, neurons = panels.all()
        picture, answer = hiding.locator(".dc-stage img"), hiding.locator("table").first
        cells = hiding.locator(".dc-grid button")
        expect(cells).to_have_count(16)  # 128 px
        expect(page.get_by_text("a still picture").locator("visible=true")).to_have_count(0)
        grid, stage = page.evaluate(BOXES)
        assert grid == stage
        whole, seen = answer.inner_text(), picture.get_attribute("src")
        cells.nth(5).click()
        expect(answer).to_contain_text("without 1 cell")
        expect(picture).not_to_have_attribute("src", seen)
        cells.nth(6).focus()
        page.keyboard.press("Space")
        expect(answer).to_contain_text("without 2 cells")
        hidden = answer.inner_text()
        hiding.get_by_text("cover its pixels").click()
        expect(answer).not_to_have_text(hidden, use_inner_text=True)
        show_state(page, "05.png")
        hiding.get_by_role("button", name="Clear").click()
        expect(answer).to_have_text(whole, use_inner_text=True)
        choose_neurons(page, neurons, expect)
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
        browser.close()


def choose_neurons(page, panel, expect):
    """By pointer and by keyboard: a neuron of the list, and cells of the picture."""
    neuron, cells = panel.locator("select"), panel.locator(".dc-grid button")
    answer, picture = (
        panel.locator(".dc-controls .widget-html-content"),
        panel.locator(".dc-stage img"),
    )
    names = neuron.locator("option").all_inner_texts()
    expect(answer).to_contain_text(f"Neuron {names[0].split(':')[0]} is on")
    seen = picture.get_attribute("src")
    neuron.select_option(names[3])
    expect(answer).to_contain_text(f"Neuron {names[3].split(':')[0]} is on")
    expect(picture).not_to_have_attribute("src", seen)
    neuron.focus()
    page.keyboard.press("ArrowDown")  # JupyterLab must not take it
    expect(answer).to_contain_text(f"Neuron {names[4].split(':')[0]} is on")
    cells.nth(15).click()
    expect(answer).to_contain_text("The cell in row 4, column 4")
    cells.nth(2).focus()
    page.keyboard.press("Space")
    expect(answer).to_contain_text("The cell in row 1, column 3")
    expect(panel.locator(".dc-grid button.mod-active")).to_have_count(1)
    panel.scroll_into_view_if_needed()
    show_state(page, "06.png")
