"""Pages on which regions and neurons are chosen without a kernel: HTML and CSS, no script.

Every cell of the picture and every neuron is a radio button that owns the part of the page that it
shows. It is shown while the button is chosen, or the pointer is over it; Tab and the arrow keys
choose too. So a page works in Colab, in JupyterLab, and in a notebook that was exported.
"""

import base64
import html
import io
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclib.evidence import Evidence
from dclib.explain.cells import cell_edges
from dclib.plots import HAPPY, UNHAPPY
from dclib.plots.explain import overlay, shade

SIDE = 336  # pixels of a picture on the page
SHOWN = 8  # neurons of a cell
OWN_KEYS = 'data-lm-suppress-shortcuts="true"'  # JupyterLab would take the arrow keys away
CSS = Path(__file__).with_suffix(".css").read_text()

Cell = tuple[int, ...]  # row and column, from 0


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


def page(body: str, notes: Iterable[str] = ()) -> str:
    """A page around its body, with the sentences below it, which are escaped."""
    below = notes_html(notes)
    return (
        f'<div class="dc-panel"><style>{CSS}</style><div class="dc-page">{body}</div>{below}</div>'
    )


def notes_html(notes: Iterable[str]) -> str:
    """Sentences as paragraphs of small print, escaped."""
    return "".join(f'<p class="dc-note">{html.escape(note)}</p>' for note in notes)


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


def legend(scale: float) -> str:
    """What the colours over a picture mean, as HTML."""
    unhappy, happy = (f'<span style="color: {c}">&#9632;</span>' for c in (UNHAPPY, HAPPY))
    return (
        f"{unhappy} is for unhappy, {happy} for happy; full colour is {scale:.2g} log-odds a cell."
    )


def strongest(values: Tensor) -> Cell:
    """The cell of a map (h, w) that is furthest from 0.

    >>> strongest(torch.tensor([[1.0, -3.0], [2.0, 0.0]]))
    (0, 1)
    """
    return divmod(int(values.abs().argmax()), values.shape[1])


def place(at: Cell) -> str:
    """Where a cell is, as people count.

    >>> place((0, 1))
    'row 1, column 2'
    """
    return f"row {at[0] + 1}, column {at[1] + 1}"


def describe_pull(added: float) -> str:
    """Log-odds in words.

    >>> describe_pull(-0.5)
    '0.50 for happy'
    >>> describe_pull(0.00021)
    'under 0.001'
    """
    if abs(added) < 0.001:
        return "under 0.001"
    digits = 2 if abs(added) >= 0.1 else 3
    return f"{abs(added):.{digits}f} for {'unhappy' if added > 0 else 'happy'}"


def tint(values: Tensor, scale: float, size: int) -> Image.Image:
    """The colours that `overlay` puts over a greyed picture, alone: (h, w) -> RGBA Pillow image."""
    return to_image(np.concatenate(shade(values, scale, (SIDE, SIDE), size), 2))


def to_image(pixels: np.ndarray) -> Image.Image:
    """Values (H, W, 3 or 4) of 0 to 1 as an RGB or RGBA Pillow image."""
    return Image.fromarray(np.uint8(np.rint(pixels * 255)))


def data_uri(image: Image.Image, kind: str = "PNG") -> str:
    """A Pillow image as the address of itself; `kind` is PNG or JPEG."""
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
