"""The app in Chromium: Voila with the photo panel, on a screen and on a telephone."""

from pathlib import Path

import pytest
from browser import (
    kernels,
    needs_chromium,
    new_page,
    open_browser,
    serve_app,
    show_state,
    wait_until_it_listens,
    wait_until_no_kernel,
)
from PIL import Image
from test_browser import choose, copy_with, use_panel

APP = Path(__file__).parents[1] / "notebooks" / "app" / "photo.ipynb"
WIDTHS = "() => [document.documentElement.scrollWidth, innerWidth]"


@needs_chromium
def test_the_same_as_an_app_that_forgets(playwright, tmp_path, drawn_checkpoint):
    """Voila: the same panel, dropped files, a phone's width; nothing is left when it is closed."""
    from playwright.sync_api import expect

    copy_with(APP, tmp_path, "Network()", f"Network('{drawn_checkpoint}')")
    (tmp_path / "mine").mkdir()
    with serve_app(tmp_path / APP.name) as url:
        with open_browser(playwright) as browser:
            with new_page(browser, viewport={"width": 1000, "height": 1400}) as page:
                page.goto(url)
                use_panel(page, expect, tmp_path / "mine")
                drop(page, (tmp_path / "mine" / "us.jpg").read_bytes())
                expect(page.locator(".dc-verdict").last).to_contain_text("dropped.jpg")
                show_state(page, "07_app.png")
                before = sorted(p.name for p in tmp_path.iterdir())
                assert len(kernels()) == 1
                page.close(run_before_unload=True)
                wait_until_no_kernel()
            with new_page(browser) as page:  # and where the browser dies and says nothing
                page.goto(url)
                page.locator(".dc-browser .widget-upload").wait_for()
                assert len(kernels()) == 1
                browser.close()
        wait_until_no_kernel()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not list(tmp_path.glob("*.jpg")) and not list(tmp_path.glob("*report*"))


@needs_chromium
def test_the_app_on_a_phone(playwright, tmp_path, photo_checkpoint, pair):
    """Upload first; a face is marked by touch; several photos have an overview."""
    from playwright.sync_api import expect

    copy_with(APP, tmp_path, "Network()", f"Network('{photo_checkpoint}')")
    (tmp_path / "mine").mkdir()
    half, pair_file = tmp_path / "mine" / "half.jpg", tmp_path / "mine" / "pair.jpg"
    grey = Image.new("RGB", pair.size, "grey")
    grey.paste(pair.crop((0, 0, 400, 512)), (0, 0))
    grey.save(half)
    pair.save(pair_file)
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with (
        serve_app(tmp_path / APP.name) as url,
        open_browser(playwright) as browser,
        new_page(browser, **phone) as page,
    ):
        page.goto(url)
        button = page.locator(".widget-upload")
        button.wait_for()
        wait_until_it_listens(page, 1)
        assert button.bounding_box()["y"] < 400  # on the upper half of the first screen
        assert page.get_by_text("torch").is_hidden()
        choose(page, button, half)
        expect(page.locator(".dc-verdict")).to_contain_text("Only one face was found")
        assert (
            page.locator(".dc-figures img").count() == 1 and not page.locator(".dc-share").count()
        )
        drag_by_touch(page, page.locator(".dc-photo"), (0.6, 0.1), (0.8, 0.5))
        expect(page.locator(".dc-says")).to_contain_text("The network says")
        expect(page.locator("button.dc-face.mod-active")).to_have_text(["1", "2"])
        x, y, width, height = share_of(page, "button.dc-face >> nth=1", ".dc-photo")
        assert (x, y, width, height) == pytest.approx((0.6, 0.1, 0.2, 0.4), abs=0.02)
        page.get_by_text("Why?").click()
        show_state(page, "07_phone.png")
        assert len(set(page.evaluate(WIDTHS))) == 1  # nothing is wider than the screen
        choose(page, button, pair_file, half)
        expect(page.locator(".dc-overview tr")).to_have_count(2)
        says = page.locator(".dc-one-photo .dc-says")
        expect(says.nth(1)).to_be_hidden()
        page.locator(".dc-link").nth(1).click()
        expect(says.nth(1)).to_have_text("Not assessable.")
        show_state(page, "07_phone_overview.png")
        assert len(set(page.evaluate(WIDTHS))) == 1


def drag_by_touch(page, part, start, end):
    """A finger from one place to another, in shares of a part of the page."""
    part.scroll_into_view_if_needed()
    box, touch = part.bounding_box(), page.context.new_cdp_session(page)
    for kind, places in (("Start", [start]), ("Move", [end]), ("End", [])):
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in places
        ]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


def share_of(page, inner, outer):
    """Where a part of the page is in another: left, top, width, height as shares of its sides."""
    small, large = (page.locator(part).bounding_box() for part in (inner, outer))
    width, height = large["width"], large["height"]
    left, top = small["x"] - large["x"], small["y"] - large["y"]
    return left / width, top / height, small["width"] / width, small["height"] / height


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
