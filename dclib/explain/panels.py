"""Looking inside by hand: hide cells, or choose a neuron and a cell. For ipywidgets 7.7.1 and 8.

Both panels show what the network looks at. Every cell of the feature map is a
button over it, for pointer and keyboard. Where no kernel runs, a still picture is left.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dclib.checkpoint import Checkpoint
from dclib.explain.hide import Look
from dclib.files import extra
from dclib.framing.cells import cell_edges, spread
from dclib.pictures import Source
from dclib.plots import HAPPY, UNHAPPY, overlay
from dclib.predict import sigmoid
from dclib.web import html as web
from dclib.web.html import ipywidgets

with extra("widgets"):
    from IPython.display import HTML, display

FEATURES, PIXELS = "zero its features", "cover its pixels"  # how a cell is hidden
SHOWN = 8  # neurons of a cell
COVERED = (
    "covered pixels also change the cells around them, and a flat patch is something to see too"
)
STILL = "This is a still picture: cells can be chosen while the notebook runs."
# Values (h, w) of the cells, answer as HTML, name and pixels (H, W, 3) of the picture.
View = tuple[Tensor, str, str, np.ndarray]


def hide_panel(
    checkpoint: Checkpoint | str | Path, image: Source, size: int | None = None
) -> "HidePanel | HTML":
    """A widget that hides cells of a picture and says how the answer moves.

    `size`: pixels a side of the network's input, 32 to 512; the checkpoint's by default. Colours
    are the exact evidence of each cell. What cannot be used gets a sentence, never a traceback.
    """
    look = _look(checkpoint, image, size)
    return HidePanel(look) if isinstance(look, Look) else look


def neuron_panel(
    checkpoint: Checkpoint | str | Path, image: Source, size: int | None = None
) -> "NeuronPanel | HTML":
    """A widget that shows the regions of a neuron, and the neurons of a region.

    Arguments as of `hide_panel`. Colours are log-odds through the chosen neuron, on one scale for
    all; the maps of the neurons that are on sum to the evidence.
    """
    look = _look(checkpoint, image, size)
    return NeuronPanel(look) if isinstance(look, Look) else look


def _look(checkpoint: Checkpoint | str | Path, image: Source, size: int | None) -> Look | HTML:
    """A look, or the sentence why there is none."""
    try:
        return Look(checkpoint, image, size)
    except (ValueError, FileNotFoundError) as error:  # pictures, checkpoints and sizes among them
        return HTML(web.error_html(str(error)))
    except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
        return HTML(web.error_html(f"The network could not look at this picture ({error})."))


class CellPanel(web.Panel):
    """A picture whose cells are toggle buttons, with controls and an answer beside it."""

    draw: Callable[[], View]  # what each kind of panel shows now
    state = ""  # what is said of a cell whose button is pressed

    def __init__(self, look: Look, controls: Sequence[ipywidgets.Widget], pressed: Tensor) -> None:
        self.look, (h, w) = look, pressed.shape
        first = ipywidgets.ToggleButton()
        bare = {"layout": first.layout, "style": first.style}
        self.cells = [first, *(ipywidgets.ToggleButton(**bare) for _ in range(h * w - 1))]  # 256
        for cell in self.cells:
            cell.observe(self.clicked, names="value")
        self.picture, self.answer = ipywidgets.HTML(), ipywidgets.HTML()
        self.without = f"dc{uuid.uuid4().hex[:8]}"  # class of what stands where this is not shown
        style = f"<style>{web.CSS} .{self.without} {{display: none}}</style>"
        sheet = ipywidgets.HTML(style + web.start_script(web.KEYS))
        sheet.layout.display = "none"
        rows, columns = (np.diff(cell_edges(n, look.size)) for n in (h, w))
        sides = {"grid_template_rows": _tracks(rows), "grid_template_columns": _tracks(columns)}
        grid = ipywidgets.GridBox(self.cells, layout=sides).add_class("dc-grid")
        stage = ipywidgets.Box([self.picture, grid]).add_class("dc-stage")
        beside = ipywidgets.VBox([*controls, self.answer]).add_class("dc-controls")
        super().__init__([sheet, stage, beside])
        self.add_class("dc-panel").add_class("dc-cells")
        self.press(pressed)

    @property
    def pressed(self) -> Tensor:
        """Which buttons are pressed: (h, w) bool."""
        return torch.tensor([cell.value for cell in self.cells]).view(self.look.margin_map.shape)

    def press(self, pressed: Tensor) -> None:
        """Press the buttons of these cells (h, w) and no others; the panel is drawn once."""
        for cell, value in zip(self.cells, pressed.flatten().tolist(), strict=True):
            cell.unobserve(self.clicked, names="value")
            cell.value = value
            cell.observe(self.clicked, names="value")
        self.show()

    def clicked(self, change: Mapping) -> None:
        """Somebody has pressed or released a button, the owner of this `change`."""
        self.show()

    def show(self, _: object = None) -> None:
        """Write names, answer and picture anew; a failure gets a sentence."""
        try:
            values, answer, title, pixels = self.draw()
        except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
            self.answer.value = web.error_html(f"This failed: {error}")
            return
        for cell, at in zip(self.cells, np.ndindex(*values.shape), strict=True):
            name = f"{web.place(at)}: {web.describe_pull(values[at].item())}"
            cell.tooltip = name + (self.state if cell.value else "")
        self.answer.value = answer + web.notes_html(self.look.notes)
        source = web.data_uri(web.to_image(pixels), "JPEG")
        self.picture.value = f'<img alt="{title}" src="{source}">'

    def _ipython_display_(self, **_: object) -> None:
        """A still picture, and the widget, which hides it. Called by ipywidgets 7 and 8."""
        still = f'<div class="dc-stage">{self.picture.value}</div>'
        still += f'<div class="dc-controls">{self.answer.value}{web.notes_html([STILL])}</div>'
        still = f'<style>{web.CSS}</style><div class="dc-panel dc-cells">{still}</div>'
        display(HTML(f'<div class="{self.without}">{still}</div>'))
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        plain = {"text/plain": "A panel to choose cells of a picture."}
        display(plain | {"application/vnd.jupyter.widget-view+json": view}, raw=True)


class HidePanel(CellPanel):
    """A cell whose button is pressed is hidden."""

    state = ", hidden"

    def __init__(self, look: Look) -> None:
        self.how = ipywidgets.RadioButtons(options=[FEATURES, PIXELS], description="Hide a cell:")
        self.strongest = ipywidgets.Button(description="Hide the strongest cell")
        self.clear = ipywidgets.Button(description="Clear")
        self.how.observe(self.show, names="value")
        self.strongest.on_click(self.hide_strongest)
        nothing = torch.zeros_like(look.margin_map, dtype=torch.bool)
        self.clear.on_click(lambda _: self.press(nothing))
        row = ipywidgets.Box([self.strongest, self.clear]).add_class("dc-row")
        super().__init__(look, [self.how, row], nothing)

    def hide_strongest(self, _: object = None) -> None:
        """Of the cells that are still shown, by the size of their evidence."""
        hidden = self.pressed
        hidden.view(-1)[self.look.margin_map.abs().masked_fill(hidden, -1).argmax()] = True
        self.press(hidden)

    def draw(self) -> View:
        look, hidden, covering = self.look, self.pressed, self.how.value == PIXELS
        image = look.covered(hidden) if covering else look.image
        values = look.margin_map.masked_fill(hidden, 0)
        image = image.resize((web.SIDE, web.SIDE))
        pixels = overlay(image, values, look.scale, look.size)
        grey = spread(hidden.numpy(), image.size[::-1], look.size) & (not covering)
        pixels = np.where(grey[..., None], 0.5, pixels)
        title = f"the picture with {_count(hidden)} hidden"
        return look.margin_map, self._answer(hidden, covering), title, pixels

    def _answer(self, hidden: Tensor, covering: bool) -> str:
        """The answer before and after, and what the evidence map books for the hidden cells."""
        look, below = self.look, f"<p>{web.legend(self.look.scale)}</p>"
        answers = {"whole picture": look.margin}
        if not hidden.any():
            ask = "<p>Choose cells of the picture to hide them.</p>"
            return _answers(answers) + ask + below
        margin = look.margin_covered(hidden) if covering else look.margin_without(hidden)
        answers[f"without {_count(hidden)}"] = margin
        evidence = look.margin_map[hidden].sum().item()
        moves = {"move measured": margin - look.margin, "move by evidence": 0 - evidence}
        why = "neurons switch on or off"
        if look.model.stage != "plain":  # a mean has no maximum
            why = f"a maximum that is gone leaves its runner-up, and {why}"
        why = COVERED if covering else why
        moved = _moves(moves, look.margin_map)
        return f"{_answers(answers)}{moved}<p>The two differ because {why}.</p>{below}"


class NeuronPanel(CellPanel):
    """The map of a neuron that is chosen in a list, and the neurons of the cell that is pressed."""

    state = ", chosen"

    def __init__(self, look: Look) -> None:
        self.maps = look.evidence.through_neurons[0].cpu()  # (100, h, w), in log-odds
        self.gains = look.evidence.neuron_maps[0].cpu()  # (100, h, w), of the neurons' inputs
        self.pull = look.evidence.of_margin("contributions")[0].cpu()  # (100,)
        self.on = (look.evidence.z[0] > 0).cpu()
        self.scale = self.maps.abs().max().item() or 1.0
        order = self.pull.abs().argsort(descending=True, stable=True).tolist()
        options = [(f"{k}: {self.pull[k]:+.2f}" if self.on[k] else f"{k}: off", k) for k in order]
        self.neuron = ipywidgets.Dropdown(options=options, description="Neuron:")
        self.neuron.observe(self.show, names="value")
        first = torch.zeros_like(look.margin_map, dtype=torch.bool)
        first[web.strongest_cell(look.margin_map)] = True
        super().__init__(look, [self.neuron], first)
        self.add_class("dc-one")

    def clicked(self, change: Mapping) -> None:
        """One cell is pressed at any time."""
        chosen = torch.tensor([cell is change["owner"] for cell in self.cells])
        self.press(chosen.view(self.pressed.shape))

    def draw(self) -> View:
        k, look = self.neuron.value, self.look
        image = look.image.resize((web.SIDE, web.SIDE))
        pixels = overlay(image, self.maps[k], self.scale, look.size)
        neuron = f"<b>Neuron {k} is off.</b> It adds nothing."
        if self.on[k]:
            neuron = f"<b>Neuron {k} is on and adds {web.describe_pull(self.pull[k].item())}.</b> "
            neuron += f"Its strongest cell is in {web.place(web.strongest_cell(self.maps[k]))}."
        counted = f"{self.on.sum()} of {len(self.on)} neurons are on, strongest first in the list."
        below = f"<p>{counted}</p><p>{web.legend(self.scale)}</p>"
        return self.maps[k], f"<p>{neuron}</p>{self._cell()}{below}", f"neuron {k}", pixels

    def _cell(self) -> str:
        """What the pressed cell adds, and the neurons that are on and that it drives most."""
        at = web.strongest_cell(self.pressed.int())
        gains = torch.where(self.on, self.gains[:, at[0], at[1]], 0)
        added = web.describe_pull(self.look.margin_map[at].item())
        rows = [
            [f"neuron {k}", f"{gains[k]:+.2f}", web.describe_pull(self.maps[k][at].item())]
            for k in gains.argsort(descending=True)[:SHOWN].tolist()
            if gains[k] > 0
        ]
        table = _table(("switches on", "adds to input", "log-odds"), rows)
        drives = table if rows else "<p>It switches on no neuron.</p>"
        return f"<p>The cell in {web.place(at)}: {added}.</p>{drives}"


def _tracks(shares: np.ndarray) -> str:
    """Widths of cells along a side, for a CSS grid."""
    return " ".join(f"minmax(0, {1000 * share:.0f}fr)" for share in shares)


def _count(hidden: Tensor) -> str:
    """How many cells are hidden, in words."""
    n = int(hidden.sum())
    return "1 cell" if n == 1 else f"{n or 'no'} cells"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["".join(f"<th>{text}</th>" for text in head)]
    lines += ["".join(f"<td>{text}</td>" for text in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines if line)}</table>"


def _answers(margins: Mapping[str, float]) -> str:
    """Margins and the probabilities that they mean, as a table."""
    rows = [(k, f"{m:+.2f}", f"{sigmoid(-m):.1%}", f"{sigmoid(m):.1%}") for k, m in margins.items()]
    return _table(("", "log-odds", "happy", "unhappy"), rows)


def _moves(moves: Mapping[str, float], margin_map: Tensor) -> str:
    """Log-odds as numbers and bars; a full bar is all evidence of one sign in the picture."""
    full = max(margin_map.clamp(min=0).sum().item(), -margin_map.clamp(max=0).sum().item()) or 1.0
    rows = []
    for name, move in moves.items():
        width = min(abs(move) / full, 1) * 50
        start, colour = (50, UNHAPPY) if move > 0 else (50 - width, HAPPY)
        bar = f'<i style="left: {start:.1f}%; width: {width:.1f}%; background: {colour}"></i>'
        rows.append((name, f"{move:+.2f}", f'<span class="dc-bar">{bar}</span>'))
    return _table((), rows)
