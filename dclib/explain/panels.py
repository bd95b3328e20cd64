"""Looking inside by hand: hide a region, choose a neuron or a region. ipywidgets 7.7.1 and 8.

Both panels show the picture as the network sees it, a square, and every cell of the feature map can
be chosen with the pointer or the keyboard.
"""

import html
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dclib.checkpoint import Checkpoint
from dclib.explain.hiding import Look
from dclib.extras import extra
from dclib.pages import hide
from dclib.pages.regions import CSS, describe_pull, neuron_page, place, tracks
from dclib.pictures import Source
from dclib.widgets.uploads import ipywidgets

with extra("widgets"):
    from IPython.display import HTML, display


def hide_panel(
    checkpoint: Checkpoint | str | Path, image: Source, size: int | None = None
) -> "HidePanel | HTML":
    """A widget that hides cells of a picture and says how the answer moves.

    Args:
        checkpoint: a loaded `Checkpoint`, or the path of its folder.
        image: anything that `dclib.pictures.read_picture` takes.
        size: pixels a side of the network's input, 32 to 512; the checkpoint's by default.

    Colours are the exact evidence of each cell. Where no widget can be shown, a page says what each
    cell alone does. What cannot be used gets a sentence, never a traceback.
    """
    look = _look(checkpoint, image, size)
    return HidePanel(look) if isinstance(look, Look) else look


def neuron_panel(
    checkpoint: Checkpoint | str | Path, image: Source, size: int | None = None
) -> HTML:
    """A page that shows the region of a neuron, and the neurons of a region.

    Arguments are those of `hide_panel`. See `dclib.pages.regions.neuron_page`; it needs no kernel.
    """

    look = _look(checkpoint, image, size)
    if isinstance(look, HTML):
        return look
    return HTML(neuron_page(look.image, look.evidence, look.size, look.notes))


def _look(checkpoint: Checkpoint | str | Path, image: Source, size: int | None) -> Look | HTML:
    """A look, or the sentence why there is none."""
    try:
        return Look(checkpoint, image, size)
    except (ValueError, FileNotFoundError) as error:  # pictures, checkpoints and sizes among them
        return HTML(_refusal(str(error)))
    except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
        return HTML(_refusal(f"The network could not look at this picture ({error})."))


class HidePanel(ipywidgets.Box):
    """Toggle buttons over a picture; `hidden` (h, w) is what they say."""

    def __init__(self, look: Look) -> None:
        self.look = look
        h, w = look.margin_map.shape
        bare = {"layout": ipywidgets.Layout(), "style": ipywidgets.ToggleButton().style}
        self.cells = [ipywidgets.ToggleButton(**bare) for _ in range(h * w)]  # 256 at most
        self.how = ipywidgets.RadioButtons(
            options=[hide.FEATURES, hide.PIXELS], description="Hide a cell:"
        )
        self.strongest = ipywidgets.Button(description="Hide the strongest cell")
        self.clear = ipywidgets.Button(description="Clear")
        self.picture, self.answer = ipywidgets.HTML(), ipywidgets.HTML()
        self.without = f"dc{uuid.uuid4().hex[:8]}"  # class of the page for where this is not shown
        sheet = ipywidgets.HTML(f"<style>{CSS} .{self.without} {{display: none}}</style>")
        sheet.layout.display = "none"
        grid = ipywidgets.GridBox(self.cells, layout=_tracks(h, w, look.size)).add_class("dc-grid")
        stage = ipywidgets.Box([self.picture, grid]).add_class("dc-stage")
        row = ipywidgets.Box([self.strongest, self.clear]).add_class("dc-row")
        controls = ipywidgets.VBox([self.how, row, self.answer]).add_class("dc-controls")
        super().__init__([sheet, stage, controls])
        self.add_class("dc-panel").add_class("dc-hide")
        for cell in self.cells:
            cell.observe(self.show, names="value")
        self.how.observe(self.show, names="value")
        self.strongest.on_click(self.hide_strongest)
        self.clear.on_click(lambda _: self.choose(torch.zeros(h, w, dtype=torch.bool)))
        self.show()

    @property
    def hidden(self) -> Tensor:
        """Which cells are hidden: (h, w) bool."""
        return torch.tensor([cell.value for cell in self.cells]).view(self.look.margin_map.shape)

    def choose(self, hidden: Tensor) -> None:
        """Press the buttons of these cells (h, w) and no others; the panel is drawn once."""
        for cell, value in zip(self.cells, hidden.flatten().tolist(), strict=True):
            cell.unobserve(self.show, names="value")
            cell.value = value
            cell.observe(self.show, names="value")
        self.show()

    def hide_strongest(self, _: object = None) -> None:
        """Of the cells that are still shown, by the size of their evidence."""
        hidden = self.hidden
        strength = self.look.margin_map.abs().masked_fill(hidden, -1)
        hidden.view(-1)[strength.argmax()] = True
        self.choose(hidden)

    def show(self, _: object = None) -> None:
        """Write names, answer and picture for what is hidden now; a failure gets a sentence."""
        hidden = self.hidden
        for cell, at, added in zip(
            self.cells, np.ndindex(*hidden.shape), self.look.margin_map.flatten().tolist()
        ):
            state = ", hidden" if cell.value else ""
            cell.tooltip = f"{place(at)}: {describe_pull(added)}{state}"
        try:
            self.answer.value = hide.answer_html(self.look, hidden, self.how.value)
            self.picture.value = hide.picture_html(self.look, hidden, self.how.value)
        except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
            self.answer.value = _refusal(f"This failed: {error}")

    def _ipython_display_(self, **_: object) -> None:
        """A page for where no widget can be shown, then the widget, which hides the page.

        Called by ipywidgets 7 and 8. An exported notebook has no widgets without the internet.
        """
        display(HTML(f'<div class="{self.without}">{hide.hide_page(self.look)}</div>'))
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        plain = {"text/plain": "A panel to hide regions of a picture."}
        display(plain | {"application/vnd.jupyter.widget-view+json": view}, raw=True)


def _tracks(h: int, w: int, size: int) -> ipywidgets.Layout:
    return ipywidgets.Layout(
        grid_template_rows=tracks(h, size), grid_template_columns=tracks(w, size)
    )


def _refusal(sentence: str) -> str:
    return f'<p class="dc-error">{html.escape(sentence)}</p>'
