"""Looking inside by hand: hide a region, choose a neuron or a region. ipywidgets 7.7.1 and 8.

Both panels show the picture as the network sees it, a square, with a button on every cell of the
feature map: click it, or reach it with Tab and press Enter.
"""

import html
from functools import partial

import ipywidgets
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_erosion

from dclib.augment import EvalTransform
from dclib.evidence import find_evidence, fold_head
from dclib.gradcam import extract_features
from dclib.occlusion import cover_pixels, hide_cells
from dclib.pictures import PictureError, read_picture
from dclib.plots_explain import overlay
from dclib.widgets import picture_png

SIDE = 336  # pixels of a picture on the page
FEATURES, PIXELS = "zero its features", "cover its pixels"
WHY = {  # why the evidence of a cell is not the effect of hiding it
    FEATURES: "another cell steps in where a maximum is gone, and neurons switch on or off",
    PIXELS: "a cell has seen far more than its own pixels, so that all cells change a little",
}
SHOWN = 8  # neurons of a cell


def hide_panel(checkpoint, image, size=None):
    """A widget that hides cells of a picture and says how the answer moves.

    Args:
        checkpoint: a loaded `Checkpoint`.
        image: a Pillow image, or anything that `dclib.pictures.read_picture` takes.
        size: pixels a side of the network's input; the checkpoint's by default.

    Colours are the exact evidence of each cell; hidden cells are grey. A picture that cannot be
    read gets a sentence.
    """
    return _panel(HidePanel, checkpoint, image, size)


def neuron_panel(checkpoint, image, size=None):
    """A widget that shows the region of a neuron, and the neurons of a region.

    Arguments are those of `hide_panel`. Colours are what each cell adds to the margin through the
    chosen neuron, on one scale for all neurons. Where no kernel answers, as on a printed page,
    `dclib.plots_neurons.plot_region_maps` shows the strongest neurons side by side.
    """
    return _panel(NeuronPanel, checkpoint, image, size)


def _panel(kind, checkpoint, image, size):
    try:
        return kind(checkpoint, read_picture(image).image, size).box
    except PictureError as error:
        return ipywidgets.HTML(f'<p class="dc-error">{html.escape(str(error))}</p>')


class CellPicture:
    """A picture of SIDE x SIDE pixels with a button on each of its h x w cells."""

    def __init__(self, h, w, alt, on_click):
        side = f"{SIDE}px"
        self.picture = ipywidgets.Image(format="png", width=SIDE, height=SIDE)
        self.picture.layout = ipywidgets.Layout(width=side, height=side, margin="0")
        self.buttons = []
        for row, column in np.ndindex(h, w):
            place = f"{alt}: row {row + 1}, column {column + 1}"
            bare = ipywidgets.Layout(width="auto", height="auto", margin="0", padding="0")
            button = ipywidgets.Button(tooltip=place, layout=bare)
            button.style.button_color = "transparent"
            button.on_click(partial(self._clicked, on_click, (row, column)))
            self.buttons.append(button)
        over = ipywidgets.Layout(width=side, height=side, margin=f"-{side} 0 0 0")
        over.grid_template_columns, over.grid_template_rows = (
            f"repeat({w}, 1fr)",
            f"repeat({h}, 1fr)",
        )
        grid = ipywidgets.GridBox(self.buttons, layout=over)
        frame = ipywidgets.Layout(width=side, overflow="hidden", flex="0 0 auto")
        self.box = ipywidgets.VBox([self.picture, grid], layout=frame)

    def _clicked(self, on_click, cell, _):
        on_click(cell)

    def show(self, pixels):
        """Pixels (H, W, 3), 0 to 1."""
        self.picture.value = picture_png(Image.fromarray(np.uint8(np.rint(pixels * 255))))


class Panel:
    """What both panels share: the picture, its features and its evidence."""

    def __init__(self, checkpoint, image, size):
        config = checkpoint.config
        self.model, self.temperature = checkpoint.model, config["temperature"]
        size = size or config["image_size"]
        self.transform = EvalTransform(size, config["mean"], config["std"])
        self.image = image.resize((SIDE, SIDE))
        self.feature_map = self.features(image)  # (1, C, h, w)
        self.head = fold_head(self.model, self.temperature)
        self.evidence = find_evidence(self.head, self.feature_map)
        self.h, self.w = self.feature_map.shape[2:]
        self.text = ipywidgets.HTML()
        self.cells = CellPicture(self.h, self.w, "cell", self.click)
        wide = ipywidgets.Layout(max_width="30em", padding="0 1em")
        controls = ipywidgets.VBox([*self.controls(), self.text], layout=wide)
        wrap = ipywidgets.Layout(display="flex", flex_flow="row wrap")
        self.box = ipywidgets.Box([self.cells.box, controls], layout=wrap)
        self.draw()

    def features(self, image):
        device = next(self.model.parameters()).device
        return extract_features(self.model, self.transform(image)[None].to(device))

    def spread(self, mask):
        """A mask of cells at the size of the picture: (h, w) -> (SIDE, SIDE)."""
        rows, columns = (np.arange(SIDE) * n // SIDE for n in mask.shape)
        return np.asarray(mask)[rows][:, columns]


class HidePanel(Panel):
    """State: `hidden` (h, w) bool, and how cells are hidden."""

    def controls(self):
        self.hidden = torch.zeros(self.h, self.w, dtype=torch.bool)
        self.how = ipywidgets.RadioButtons(options=[FEATURES, PIXELS], description="hide a cell:")
        self.how.observe(lambda _: self.draw(), names="value")
        fit = ipywidgets.Layout(width="auto")
        strongest = ipywidgets.Button(description="hide the strongest cell", layout=fit)
        strongest.on_click(lambda _: self.hide_strongest())
        clear = ipywidgets.Button(description="show all again")
        clear.on_click(lambda _: self.clear())
        return self.how, ipywidgets.HBox([strongest, clear])

    def click(self, cell):
        self.hidden[cell] ^= True
        self.draw()

    def hide_strongest(self):
        """Of those that are still shown, by the size of its evidence."""
        strength = self.evidence.margin_map[0].abs().cpu().masked_fill(self.hidden, -1)
        self.hidden.view(-1)[strength.argmax()] = True
        self.draw()

    def clear(self):
        self.hidden.zero_()
        self.draw()

    def margin_without(self):
        """Log-odds for unhappy without the hidden cells."""
        if self.how.value == PIXELS:
            return find_evidence(self.head, self.features(self.covered())).margin.item()
        hidden = self.hidden[None].to(self.feature_map.device)
        logits = hide_cells(self.model, self.feature_map, hidden)[0] / self.temperature
        names = self.model.classes
        return (logits[names.index("unhappy")] - logits[names.index("happy")]).item()

    def covered(self):
        cells = self.hidden.nonzero().numpy()  # (K, 2)
        corners = np.concatenate([cells[:, ::-1], cells[:, ::-1] + 1], 1)
        return cover_pixels(self.image, corners / (self.w, self.h, self.w, self.h))

    def draw(self):
        values, hidden = self.evidence.margin_map[0].cpu(), self.spread(self.hidden)[..., None]
        pixels = overlay(self.image, values, values.abs().max().item() or 1.0)
        self.cells.show(np.where(hidden, 0.5, pixels))
        self.text.value = self.explain()

    def explain(self):
        before, n = self.evidence.margin.item(), int(self.hidden.sum())
        told = f"<p>The whole picture: {describe_margin(before)}.</p>"
        if not n:
            return told + "<p>Click cells of the picture to hide them.</p>"
        now = self.margin_without()
        booked = -self.evidence.margin_map[0].cpu()[self.hidden].sum().item()
        cells = "one cell" if n == 1 else f"{n} cells"
        return (
            f"{told}<p>Without {cells}: <b>{describe_margin(now)}</b>, "
            f"moved by {now - before:+.2f}.</p><p>The evidence map books {booked:+.2f} for that. "
            f"The two differ, as {WHY[self.how.value]}.</p>"
        )


class NeuronPanel(Panel):
    """State: the neuron and the cell that were chosen."""

    def controls(self):
        self.pull = self.evidence.of_margin("contributions")[0].cpu()  # (100,)
        on = self.evidence.z[0].cpu() > 0
        weights = torch.where(on, self.pull / self.evidence.z[0].cpu(), 0)
        regions = self.evidence.neuron_maps[0].cpu()
        self.regions, self.maps = regions, weights[:, None, None] * regions  # (100, h, w)
        order = self.pull.abs().argsort(descending=True, stable=True).tolist()
        names = [(f"{n}: {describe_pull(self.pull[n].item(), on[n])}", n) for n in order]
        self.neuron = ipywidgets.Dropdown(options=names, description="neuron:")
        self.neuron.observe(lambda _: self.draw(), names="value")
        self.cell = None
        return (self.neuron,)

    def click(self, cell):
        self.cell = None if cell == self.cell else cell
        self.draw()

    def draw(self):
        scale = self.maps.abs().max().item() or 1.0
        pixels = overlay(self.image, self.maps[self.neuron.value], scale)
        if self.cell:
            chosen = np.zeros((self.h, self.w), bool)
            chosen[self.cell] = True
            inside = self.spread(chosen)
            pixels = np.where(
                (inside & ~binary_erosion(inside, iterations=3))[..., None], 0, pixels
            )
        self.cells.show(pixels)
        self.text.value = self.explain()

    def explain(self):
        n = self.neuron.value
        told = (
            f"<p>Neuron {n}: {describe_pull(self.pull[n].item(), self.evidence.z[0, n] > 0)}; full "
            f"colour is {self.maps.abs().max().item():.2f} log-odds in a cell.</p>"
        )
        if not self.cell:
            return told + "<p>Click a cell of the picture to see which neurons it switches on.</p>"
        gains = self.regions[:, self.cell[0], self.cell[1]]
        rows = "".join(
            f"<tr><td>{k}</td><td>{gains[k]:+.2f}</td>"
            f"<td>{self.maps[k, self.cell[0], self.cell[1]]:+.2f}</td></tr>"
            for k in gains.argsort(descending=True)[:SHOWN].tolist()
        )
        head = "<tr><th>neuron</th><th>input from here</th><th>log-odds from here</th></tr>"
        place = f"row {self.cell[0] + 1}, column {self.cell[1] + 1}"
        return f"{told}<p>The cell in {place} switches on most:</p><table>{head}{rows}</table>"


def describe_margin(margin):
    """Log-odds and the probability that they mean.

    >>> describe_margin(2.0)
    'unhappy 88.1 % (margin +2.00)'
    """
    prob = torch.tensor(abs(margin), dtype=torch.float64).sigmoid().item()
    return f"{'unhappy' if margin > 0 else 'happy'} {prob * 100:.1f} % (margin {margin:+.2f})"


def describe_pull(pull, on):
    """What a neuron does to the margin of this picture.

    >>> describe_pull(-0.5, True)
    '0.50 for happy'
    """
    if not on:
        return "off, adds nothing"
    return f"{abs(pull):.2f} for {'unhappy' if pull > 0 else 'happy'}"
