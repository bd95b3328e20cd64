"""Looking inside by hand: hide a region, choose a neuron or a region. ipywidgets 7.7.1 and 8.

Both panels show the picture as the network sees it, a square, and every cell of the feature map can
be chosen with the pointer or the keyboard.
"""

import html
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclib.augment import EvalTransform
from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.evidence import find_evidence, fold_head
from dclib.explain.cells import cell_edges, spread
from dclib.explain.occlusion import cover_pixels, hide_cells, leave_one_out
from dclib.extras import extra
from dclib.gradcam import extract_features
from dclib.pages import regions
from dclib.pages.regions import SIDE, describe_pull, place
from dclib.photo import DRAWINGS_ONLY, sigmoid
from dclib.pictures import Source, read_picture
from dclib.plots import HAPPY, UNHAPPY
from dclib.plots.explain import overlay
from dclib.widgets.uploads import ipywidgets

with extra("widgets"):
    from IPython.display import HTML, display

FEATURES, PIXELS = "zero its features", "cover its pixels"
MIN_SIZE, MAX_SIZE = 32, 512  # one cell to 16 x 16


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
    return HTML(regions.neuron_page(look.image, look.evidence, look.size, look.notes))


def _look(checkpoint: Checkpoint | str | Path, image: Source, size: int | None) -> "Look | HTML":
    """A look, or the sentence why there is none."""
    try:
        return Look(checkpoint, image, size)
    except (ValueError, FileNotFoundError) as error:  # pictures, checkpoints and sizes among them
        return HTML(f'<p class="dc-error">{html.escape(str(error))}</p>')


class Look:
    """A network, a picture, and what one has to say about the other.

    Raises PictureError, CheckpointError, FileNotFoundError, or ValueError for a size that is no
    whole number from 32 to 512.
    """

    def __init__(
        self, checkpoint: Checkpoint | str | Path, image: Source, size: int | None = None
    ) -> None:
        checkpoint = load_checkpoint(checkpoint)
        config = checkpoint.config
        size = config["image_size"] if size is None else size
        if not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE:
            raise ValueError(f"size must be a whole number from 32 to 512 pixels, not {size!r}.")
        self.model, self.temperature = checkpoint.model, config["temperature"]
        self.size = size
        self.transform = EvalTransform(size, config["mean"], config["std"])
        self.image, notes = read_picture(image)
        self.notes = [*([DRAWINGS_ONLY] if checkpoint.knows_only_drawings else []), *notes]
        self.head = fold_head(self.model, self.temperature)
        self.feature_map = self.features(self.image)  # (1, C, h, w)
        self.evidence = find_evidence(self.head, self.feature_map)
        self.margin = self.evidence.margin.item()
        self.margin_map = self.evidence.margin_map[0].cpu()  # (h, w)

    def features(self, image: Image.Image) -> Tensor:
        """The feature map (1, C, h, w) of an RGB image."""
        return extract_features(self.model, self.transform(image)[None])

    def margin_without(self, hidden: Tensor) -> float:
        """Log-odds for unhappy with cells (h, w) zeroed in the feature map."""
        logits = hide_cells(self.model, self.feature_map, hidden[None].to(self.feature_map.device))
        happy, unhappy = (self.model.classes.index(name) for name in ("happy", "unhappy"))
        return (logits[0, unhappy] - logits[0, happy]).item() / self.temperature

    def margin_covered(self, hidden: Tensor) -> float:
        """Log-odds for unhappy of the picture with the pixels of cells (h, w) covered."""
        return find_evidence(self.head, self.features(self.covered(hidden))).margin.item()

    def covered(self, hidden: Tensor) -> Image.Image:
        """The picture with the pixels of cells (h, w) covered."""
        rows, columns = hidden.nonzero().numpy().T  # (K,) each
        down, across = (cell_edges(n, self.size) for n in hidden.shape)
        ends = (across[columns], down[rows], across[columns + 1], down[rows + 1])
        return cover_pixels(self.image, np.stack(ends, 1))


class HidePanel(ipywidgets.Box):
    """Toggle buttons over a picture; `hidden` (h, w) is what they say."""

    def __init__(self, look: Look) -> None:
        self.look = look
        h, w = look.margin_map.shape
        bare = {"layout": ipywidgets.Layout(), "style": ipywidgets.ToggleButton().style}
        self.cells = [ipywidgets.ToggleButton(**bare) for _ in range(h * w)]  # 256 at most
        self.how = ipywidgets.RadioButtons(options=[FEATURES, PIXELS], description="Hide a cell:")
        self.strongest = ipywidgets.Button(description="Hide the strongest cell")
        self.clear = ipywidgets.Button(description="Clear")
        self.scale = look.margin_map.abs().max().item() or 1.0  # of full colour
        notes = [f'<p class="dc-note">{html.escape(note)}</p>' for note in look.notes]
        self.below = f"<p>{regions.legend(self.scale)}</p>{''.join(notes)}"
        self.picture, self.answer = ipywidgets.HTML(), ipywidgets.HTML()
        self.without = f"dc{uuid.uuid4().hex[:8]}"  # class of the page for where this is not shown
        sheet = ipywidgets.HTML(f"<style>{regions.CSS} .{self.without} {{display: none}}</style>")
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
            self.answer.value = self.tell(hidden) + self.below
            self.picture.value = self.draw(hidden)
        except RuntimeError as error:  # of torch: too little memory, mostly
            self.answer.value = f'<p class="dc-error">{html.escape(f"This failed: {error}")}</p>'

    def draw(self, hidden: Tensor) -> str:
        """The picture as an <img>: evidence in colour, what is hidden grey or covered."""
        covering = self.how.value == PIXELS
        image = self.look.covered(hidden) if covering else self.look.image
        values = self.look.margin_map.masked_fill(hidden, 0)
        pixels = overlay(image.resize((SIDE, SIDE)), values, self.scale, self.look.size)
        grey = spread(hidden.numpy(), (SIDE, SIDE), self.look.size) & (not covering)
        pixels = np.where(grey[..., None], 0.5, pixels)
        alt = f"the picture with {count(hidden)} hidden"
        return f'<img alt="{alt}" src="{regions.data_uri(regions.to_image(pixels), "JPEG")}">'

    def tell(self, hidden: Tensor) -> str:
        """The answer before and after, and what the evidence map books for these cells."""
        look, how = self.look, self.how.value
        whole = ("whole picture", look.margin)
        if not hidden.any():
            return _answers([whole]) + "<p>Choose cells of the picture to hide them.</p>"
        margin = look.margin_covered(hidden) if how == PIXELS else look.margin_without(hidden)
        moves = {
            "move measured": margin - look.margin,
            "move by evidence": 0 - look.margin_map[hidden].sum().item(),
        }
        answers = _answers([whole, (f"without {count(hidden)}", margin)])
        return answers + _moves(moves, look.margin_map) + why(how, look)

    def _ipython_display_(self, **_: object) -> None:
        """A page for where no widget can be shown, then the widget, which hides the page.

        Called by ipywidgets 7 and 8. An exported notebook has no widgets without the internet.
        """
        display(HTML(f'<div class="{self.without}">{self.page()}</div>'))
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        plain = {"text/plain": "A panel to hide regions of a picture."}
        display(plain | {"application/vnd.jupyter.widget-view+json": view}, raw=True)

    def page(self) -> str:
        """What each cell alone does, as HTML that needs no kernel."""
        look = self.look
        falls = leave_one_out(look.model, look.feature_map)[0].cpu() / look.temperature  # (h, w)
        told = [
            _answers([("whole picture", look.margin), ("without this cell", look.margin - fall)])
            + _moves({"move measured": -fall, "move by evidence": 0 - added}, look.margin_map)
            for fall, added in zip(falls.flatten().tolist(), look.margin_map.flatten().tolist())
        ]
        text = "Without a kernel: choose a cell to see what zeroing the features of it alone does."
        return regions.cell_page(look.image, look.margin_map, told, look.size, text, look.notes)


def _tracks(h: int, w: int, size: int) -> ipywidgets.Layout:
    return ipywidgets.Layout(
        grid_template_rows=regions.tracks(h, size), grid_template_columns=regions.tracks(w, size)
    )


def count(hidden: Tensor) -> str:
    """How many cells are hidden, in words."""
    n = int(hidden.sum())
    return "1 cell" if n == 1 else f"{n or 'no'} cells"


def why(how: str, look: Look) -> str:
    """Why the margin did not move by what the evidence map says, as HTML."""
    if how == PIXELS:
        return (
            "<p>The two differ because covered pixels also change the cells around them, and a "
            "flat patch is something to see too.</p>"
        )
    gone = "a maximum that is gone leaves its runner-up, and "
    if look.model.stage == "resnet34":  # a mean has no maximum
        gone = ""
    return f"<p>The two differ because {gone}neurons switch on or off.</p>"


def _answers(rows: Sequence[tuple[str, float]]) -> str:
    """Margins and the probabilities that they mean, as a table."""
    body = "".join(
        f"<tr><td>{name}</td><td>{margin:+.2f}</td><td>{sigmoid(-margin):.1%}</td>"
        f"<td>{sigmoid(margin):.1%}</td></tr>"
        for name, margin in rows
    )
    return f"<table><tr><th></th><th>log-odds</th><th>happy</th><th>unhappy</th></tr>{body}</table>"


def _moves(moves: Mapping[str, float], margin_map: Tensor) -> str:
    """Log-odds as numbers and bars; a full bar is all evidence of one sign in the picture."""
    full = max(margin_map.clamp(min=0).sum().item(), -margin_map.clamp(max=0).sum().item()) or 1.0
    rows = ""
    for name, move in moves.items():
        width = min(abs(move) / full, 1) * 50
        start, colour = (50, UNHAPPY) if move > 0 else (50 - width, HAPPY)
        bar = f'<i style="left: {start:.1f}%; width: {width:.1f}%; background: {colour}"></i>'
        bar = f'<span class="dc-bar">{bar}</span>'
        rows += f"<tr><td>{name}</td><td>{move:+.2f}</td><td>{bar}</td></tr>"
    return f"<table>{rows}</table>"
