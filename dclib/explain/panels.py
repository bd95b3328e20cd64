"""Looking inside by hand: hide a region, choose a neuron or a region. ipywidgets 7.7.1 and 8.

Both panels show the picture as the network sees it, a square, and every cell of the feature map can
be chosen with the pointer or the keyboard.
"""

import html
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclib.cells import cell_edges, spread
from dclib.checkpoint import Checkpoint
from dclib.explain.evidence import Evidence
from dclib.explain.hide import Look, leave_one_out
from dclib.files import extra
from dclib.pictures import Source
from dclib.plots import HAPPY, UNHAPPY, overlay
from dclib.predict import sigmoid
from dclib.web.html import (
    CSS,
    SIDE,
    Cell,
    data_uri,
    describe_pull,
    ipywidgets,
    legend,
    notes_html,
    page,
    place,
    strongest,
    tint,
    to_image,
)

with extra("widgets"):
    from IPython.display import HTML, display

FEATURES, PIXELS = "zero its features", "cover its pixels"  # how a cell is hidden
SHOWN = 8  # neurons of a cell
OWN_KEYS = 'data-lm-suppress-shortcuts="true"'  # JupyterLab would take the arrow keys away


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

    Arguments are those of `hide_panel`. See `dclib.explain.panels.neuron_page`; it needs no kernel.
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
        self.how = ipywidgets.RadioButtons(options=[FEATURES, PIXELS], description="Hide a cell:")
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
            self.answer.value = answer_html(self.look, hidden, self.how.value)
            self.picture.value = picture_html(self.look, hidden, self.how.value)
        except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
            self.answer.value = _refusal(f"This failed: {error}")

    def _ipython_display_(self, **_: object) -> None:
        """A page for where no widget can be shown, then the widget, which hides the page.

        Called by ipywidgets 7 and 8. An exported notebook has no widgets without the internet.
        """
        display(HTML(f'<div class="{self.without}">{hide_page(self.look)}</div>'))
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        plain = {"text/plain": "A panel to hide regions of a picture."}
        display(plain | {"application/vnd.jupyter.widget-view+json": view}, raw=True)


def _tracks(h: int, w: int, size: int) -> ipywidgets.Layout:
    return ipywidgets.Layout(
        grid_template_rows=tracks(h, size), grid_template_columns=tracks(w, size)
    )


def _refusal(sentence: str) -> str:
    return f'<p class="dc-error">{html.escape(sentence)}</p>'


def picture_html(look: Look, hidden: Tensor, how: str) -> str:
    """The picture as an <img>: evidence in colour, cells `hidden` (h, w) grey or covered."""
    covering = how == PIXELS
    image = look.covered(hidden) if covering else look.image
    values = look.margin_map.masked_fill(hidden, 0)
    pixels = overlay(image.resize((SIDE, SIDE)), values, look.scale, look.size)
    grey = spread(hidden.numpy(), (SIDE, SIDE), look.size) & (not covering)
    pixels = np.where(grey[..., None], 0.5, pixels)
    alt = f"the picture with {count(hidden)} hidden"
    return f'<img alt="{alt}" src="{data_uri(to_image(pixels), "JPEG")}">'


def answer_html(look: Look, hidden: Tensor, how: str) -> str:
    """The answer before and after, and what the evidence map books for cells `hidden` (h, w)."""
    whole, below = ("whole picture", look.margin), f"<p>{legend(look.scale)}</p>"
    below += notes_html(look.notes)
    if not hidden.any():
        return f"{_answers([whole])}<p>Choose cells of the picture to hide them.</p>{below}"
    margin = look.margin_covered(hidden) if how == PIXELS else look.margin_without(hidden)
    moves = {
        "move measured": margin - look.margin,
        "move by evidence": 0 - look.margin_map[hidden].sum().item(),
    }
    answers = _answers([whole, (f"without {count(hidden)}", margin)])
    return answers + _moves(moves, look.margin_map) + why(look, how) + below


def hide_page(look: Look) -> str:
    """What each cell alone does, as HTML that needs no kernel."""
    falls = leave_one_out(look.model, look.feature_map)[0].cpu() / look.temperature  # (h, w)
    told = [
        _answers([("whole picture", look.margin), ("without this cell", look.margin - fall)])
        + _moves({"move measured": -fall, "move by evidence": 0 - added}, look.margin_map)
        for fall, added in zip(falls.flatten().tolist(), look.margin_map.flatten().tolist())
    ]
    text = "Without a kernel: choose a cell to see what zeroing the features of it alone does."
    return cell_page(look.image, look.margin_map, told, look.size, text, look.notes)


def count(hidden: Tensor) -> str:
    """How many cells are hidden, in words."""
    n = int(hidden.sum())
    return "1 cell" if n == 1 else f"{n or 'no'} cells"


def why(look: Look, how: str) -> str:
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


def neuron_page(
    image: Image.Image, evidence: Evidence, size: int, notes: Iterable[str] = ()
) -> str:
    """Choose a neuron, see its region; choose a region, see its neurons: a page as a string.

    Args:
        image: an RGB Pillow image.
        evidence: of this picture alone, a batch of one, temperature included.
        size: pixels a side of the network's input.
        notes: sentences that belong beside it.

    Maps are in log-odds through the neuron, on one scale for all of them; those of the neurons that
    are on sum to the margin map. A neuron that is off adds nothing and has no colour.
    """
    name = f"dc{uuid.uuid4().hex[:8]}"  # two panels of a notebook must not share radio buttons
    maps = evidence.through_neurons[0].cpu()  # (100, h, w)
    pull = evidence.of_margin("contributions")[0].cpu()
    scale = maps.abs().max().item() or 1.0
    order = pull.abs().argsort(descending=True, stable=True).tolist()
    scales = scale, pull.abs().max().item() or 1.0, size
    on = (evidence.z[0] > 0).cpu()
    neurons = "".join(
        _neuron(name, k, maps[k], pull[k].item(), bool(on[k]), scales, k == order[0]) for k in order
    )
    counted = f"{on.sum()} of {len(on)} neurons are on, strongest first; dashed ones are off. "
    told = [_cell_neurons(name, evidence, maps, at) for at in np.ndindex(*maps.shape[1:])]
    right = (
        f'<div class="dc-right"><p>{counted}{legend(scale)}</p><div class="dc-neurons dc-group" '
        f'role="radiogroup" aria-label="neurons">{neurons}</div></div>'
    )
    return page(_left(name, image, evidence.margin_map[0], told, size) + right, notes)


def cell_page(
    image: Image.Image,
    margin_map: Tensor,
    told: Iterable[str],
    size: int,
    text: str = "",
    notes: Iterable[str] = (),
) -> str:
    """Choose a cell of the picture, read what belongs to it: a page as a string.

    Colours are the margin map (h, w). `told` has HTML for each cell, row-major; `size` is that of
    the network's input, `text` a sentence beside the picture, `notes` those below it.
    """
    scale = margin_map.abs().max().item() or 1.0
    colours = f'<img class="dc-map" alt="" src="{data_uri(tint(margin_map, scale, size))}">'
    name = f"dc{uuid.uuid4().hex[:8]}"
    right = f'<div class="dc-right"><p>{html.escape(text)}</p><p>{legend(scale)}</p></div>'
    return page(_left(name, image, margin_map, told, size) + colours + right, notes)


def _left(name: str, image: Image.Image, margin_map: Tensor, told: Iterable[str], size: int) -> str:
    """The greyed picture, its cells, and what is told of the one that was chosen."""
    h, w = margin_map.shape
    grey = overlay(image.resize((SIDE, SIDE)), torch.zeros(1, 1), 1, size)
    first = strongest(margin_map)
    cells = "".join(
        _cell(f"{name}-cell", at, added, text, at == first)
        for at, added, text in zip(np.ndindex(h, w), margin_map.flatten().tolist(), told)
    )
    return (
        f'<img class="dc-base" alt="the picture, as the square that the network sees" '
        f'src="{data_uri(to_image(grey), "JPEG")}"><div class="dc-left"><div class="dc-cells '
        f'dc-group" role="radiogroup" aria-label="cells of the picture" '
        f'style="grid-template: {tracks(h, size)} / {tracks(w, size)}">{cells}</div></div>'
    )


def tracks(n: int, size: int) -> str:
    """Widths of n cells along a side, for a CSS grid.

    >>> tracks(3, 80)
    'minmax(0, 200fr) minmax(0, 400fr) minmax(0, 400fr)'
    """
    return " ".join(f"minmax(0, {1000 * part:.0f}fr)" for part in np.diff(cell_edges(n, size)))


def _cell(name: str, at: Cell, added: float, told: str, checked: bool) -> str:
    """A cell's button, and what is told of it."""
    label = f"{place(at)}: {describe_pull(added)}"
    part = f'<div class="dc-part dc-cell-text"><p>The cell in {label}.</p>{told}</div>'
    return _item(name, f"{at[0]}-{at[1]}", label, "", part, checked)


def _cell_neurons(name: str, evidence: Evidence, maps: Tensor, at: Cell) -> str:
    """The neurons that are on and that this cell switches on most."""
    gains = evidence.neuron_maps[0, :, at[0], at[1]].cpu().masked_fill(evidence.z[0].cpu() <= 0, 0)
    found = [k for k in gains.argsort(descending=True)[:SHOWN].tolist() if gains[k] > 0]
    if not found:
        return "<p>It switches on no neuron.</p>"
    rows = "".join(
        f'<tr><td><label for="{name}-neuron-{k}">neuron {k}</label></td><td>{gains[k]:+.2f}</td>'
        f"<td>{describe_pull(maps[k, at[0], at[1]].item())}</td></tr>"
        for k in found
    )
    head = "<tr><th>switches on</th><th>adds to input</th><th>log-odds</th></tr>"
    return f"<table>{head}{rows}</table>"


def _neuron(
    name: str,
    k: int,
    values: Tensor,
    added: float,
    on: bool,
    scales: tuple[float, float, int],
    checked: bool,
) -> str:
    """A neuron's button, its map (h, w) and what it adds.

    `scales`: the values of full colour, of the map and of the button, and the input's size.
    """
    scale, full, size = scales
    told = f"Neuron {k} is on and adds {describe_pull(added)}" if on else f"Neuron {k} is off"
    where = f" Its strongest cell is in {place(strongest(values))}." if on else " It adds nothing."
    text = f'<p class="dc-neuron-text"><b>{told}.</b>{where}</p>'
    image = data_uri(tint(values, scale, size))
    part = f'<div class="dc-part"><img class="dc-map" alt="its regions" src="{image}">{text}</div>'
    shade = int(200 * abs(added) / full)
    look = f"background: {UNHAPPY if added > 0 else HAPPY}{shade:02x}" if on else ""
    return _item(
        f"{name}-neuron", str(k), told, look, part, checked, str(k), "" if on else "dc-off"
    )


def _item(
    group: str,
    key: str,
    label: str,
    look: str,
    part: str,
    checked: bool,
    shown: str = "",
    kind: str = "",
) -> str:
    """A radio button, its visible label, and the part of the page that it shows."""
    state = " checked" if checked else ""
    return (
        f'<span class="dc-item {kind}"><input type="radio" {OWN_KEYS} name="{group}" '
        f'id="{group}-{key}" aria-label="{label}"{state}><label for="{group}-{key}" '
        f'title="{label}" style="{look}">{shown}</label>{part}</span>'
    )
