"""The widgets as a person meets them: JupyterLab in Chromium, everything is clicked."""

import base64
import shutil
from pathlib import Path

import pillow_heif
import pytest
from browser import (
    needs_chromium,
    open_and_run,
    open_browser,
    serve_lab,
    show_state,
    wait_until_it_listens,
    write_notebook,
)
from PIL import Image, ImageColor

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures.mark import mark_drawn
from dclib.plots import COLOURS

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


@pytest.fixture(scope="module")
def lab(tmp_path_factory, drawn_checkpoint):
    """A JupyterLab on loopback over a folder with notebooks and a checkpoint; yields its URL."""
    folder = tmp_path_factory.mktemp("lab")
    copy_with(NOTEBOOK, folder, 'CHECKPOINT = \\"\\"', 'CHECKPOINT = \\"checkpoints/demo\\"')
    write_notebook(folder / "slider.ipynb", SLIDER)
    write_notebook(folder / "panels.ipynb", PANELS)
    shutil.copytree(drawn_checkpoint, folder / "checkpoints" / "demo")
    with serve_lab(folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser(playwright):
    with open_browser(playwright) as browser:
        yield browser


def copy_with(notebook, folder, before, after):
    """A copy of a notebook with one text in place of another."""
    text = notebook.read_text()
    assert text.count(before) == 1
    (folder / notebook.name).write_text(text.replace(before, after))


def choose(page, button, *paths):
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(paths)


def make_files(folder):
    """A drawn couple, the same as HEIC, a text called a picture, and over 10 MiB of noise."""
    draw_scene(sample_scene(1, 0)[0], 1024).save(folder / "us.jpg")
    three = draw_scene(sample_scene(1, 0)[0], 512)
    mark_drawn(three, [(0.1, 0.3, 0.3, 0.5), (0.4, 0.3, 0.6, 0.5), (0.75, 0.75, 0.85, 0.85)])
    three.save(folder / "three.jpg")
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
        shown = panel.locator(".dc-one-photo").filter(has_text=file)
        expect(shown).to_be_visible()
        if file == "list.jpg":
            expect(shown).to_contain_text("not a picture that can be read")
            continue
        expect(shown).to_contain_text("only ever seen drawn couples")
        drawn = file == "us.jpg"  # whose file says so
        expect(panel.locator(".dc-figures img")).to_have_count(4 if drawn else 1)
        if drawn:
            read_the_answer(panel, expect)
    expect(panel.locator(".dc-status")).to_contain_text("Done: 1 picture")
    panel.get_by_role("button", name="A drawn couple").click()
    expect(panel.locator(".dc-verdict")).to_contain_text("A drawn couple of the demo set")
    choose_faces(page, expect, folder)
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


def read_the_answer(panel, expect):
    """The sentence and a bar in its colour; the sums of neurons are folded."""
    says, bar = panel.locator(".dc-says"), panel.locator(".dc-share i")
    expect(says).to_contain_text("The network says")
    label = says.locator("b")
    colour = "e => getComputedStyle(e).{}"
    assert to_rgb(COLOURS[label.inner_text()]) == label.evaluate(colour.format("color"))
    assert bar.evaluate(colour.format("backgroundColor")) == label.evaluate(colour.format("color"))
    expect(panel.locator(".dc-waterfall")).to_be_hidden()
    panel.get_by_text("Why?").click()
    expect(panel.locator(".dc-waterfall")).to_contain_text("margin")


def to_rgb(colour):
    """A colour as browsers write it."""
    return f"rgb({', '.join(str(part) for part in ImageColor.getrgb(colour))})"


def choose_faces(page, expect, folder):
    """Another pair of three, by pointer and by keyboard."""
    panel = page.locator(".dc-browser")
    choose(page, panel.locator(".widget-upload"), folder / "three.jpg")
    expect(panel.locator(".dc-verdict")).to_contain_text("three.jpg")
    faces, taken = panel.locator("button.dc-face"), panel.locator("button.dc-face.mod-active")
    expect(faces).to_have_count(3)
    expect(taken).to_have_text(["1", "2"])
    faces.nth(2).click()
    expect(panel.locator(".dc-status")).to_contain_text("Done: faces 2 and 3 of three.jpg")
    expect(taken).to_have_text(["2", "3"])
    faces.nth(0).focus()
    page.keyboard.press("Space")
    expect(panel.locator(".dc-status")).to_contain_text("Done: faces 1 and 3 of three.jpg")
    expect(taken).to_have_text(["1", "3"])


def decode(address):
    return base64.b64decode(address.split(",", 1)[1]).decode()


@needs_chromium
def test_upload_a_photo_and_read_the_verdict(browser, lab, tmp_path):
    from playwright.sync_api import expect

    with open_and_run(browser, lab.format(NOTEBOOK.name)) as page:
        use_panel(page, expect, tmp_path)
        page.locator(".dc-browser").scroll_into_view_if_needed()
        show_state(page, "07.png")
        page.get_by_role("button", name="Clear").first.click()
        expect(page.locator(".dc-browser .dc-verdict")).to_have_count(0)
        assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0


@needs_chromium
def test_an_upload_that_gets_lost_is_said(browser, lab, tmp_path):
    """More than the limit of the connection: the kernel never hears of it."""
    from playwright.sync_api import expect

    with open_and_run(browser, lab.format(NOTEBOOK.name)) as page:
        panel = page.locator(".dc-browser")
        panel.locator(".widget-upload").wait_for()
        wait_until_it_listens(page, 1)
        page.evaluate("window.WebSocket.prototype.send = () => {}")  # as if it were too large
        draw_scene(sample_scene(1, 0)[0], 64).save(tmp_path / "lost.jpg")
        choose(page, panel.locator(".widget-upload"), tmp_path / "lost.jpg")
        expect(panel.locator(".dc-status")).to_contain_text("Sending lost.jpg")
        expect(panel.locator(".dc-status")).to_contain_text("has not arrived")


@needs_chromium
def test_the_slider_of_strength_changes_the_pictures(browser, lab):
    with open_and_run(browser, lab.format("slider.ipynb")) as page:
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


@needs_chromium
def test_hide_a_region_and_choose_a_neuron(browser, lab):
    from playwright.sync_api import expect

    with open_and_run(browser, lab.format("panels.ipynb")) as page:
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
