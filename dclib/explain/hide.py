"""What the network says without a region: the ground truth for maps.

Cells of the feature map are zeroed, which needs a pass of the head for every region, or the pixels
of the picture covered, which needs one of the backbone too.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.explain.evidence import find_evidence, fold_head
from dclib.framing.cells import cell_edges
from dclib.model import DeepConnection
from dclib.pictures import Boxes, Source, read_picture
from dclib.predict import extract_features, head_logits, target_weights

CHUNK = 64  # feature maps in the head at once
MIN_SIZE, MAX_SIZE = 32, 512  # one cell to 16 x 16


@torch.no_grad()
def hide_cells(model: DeepConnection, feature_map: Tensor, hidden: Tensor) -> Tensor:
    """Logits with cells of feature maps set to zero: (B or 1, C, h, w), (B, h, w) bool -> (B, 2).

    A maximum that was there goes to the runner-up in its bin.
    """
    if hidden.dim() != 3 or hidden.shape[1:] != feature_map.shape[2:]:
        wanted = ("B", *feature_map.shape[2:])
        raise ValueError(f"hidden must be {wanted}, not {tuple(hidden.shape)}.")
    if len(feature_map) not in (1, len(hidden)):
        raise ValueError(f"{len(hidden)} masks do not fit {len(feature_map)} feature maps.")
    maps = feature_map.expand(len(hidden), -1, -1, -1)
    parts = zip(maps.split(CHUNK), hidden.split(CHUNK), strict=True)
    return torch.cat([head_logits(model, part * ~mask[:, None]) for part, mask in parts])


@torch.no_grad()
def leave_one_out(model: DeepConnection, feature_map: Tensor) -> Tensor:
    """How much the margin falls when each cell alone is zeroed: (B, C, h, w) -> (B, h, w)."""
    h, w = feature_map.shape[2:]
    alone = torch.eye(h * w, dtype=torch.bool, device=feature_map.device).view(-1, h, w)
    weights = target_weights(model.classes, ["margin"])[0].to(feature_map.device)  # (2,)
    whole = head_logits(model, feature_map) @ weights  # (B,)
    without = [hide_cells(model, picture[None], alone) @ weights for picture in feature_map]
    return (whole[:, None] - torch.stack(without)).view(-1, h, w)


class Look:
    """A network (or its folder), a picture, and what one has to say about the other.

    Args:
        size: pixels a side of the network's input, 32 to 512; the checkpoint's by default.
        couple: boxes of the two faces in pixels; else those of a drawing are, and in a photograph
            they are looked for.

    Attributes, besides `model` and `size`:
        image: what the network looks at, a square RGB image; `notes`, sentences that belong beside.
        feature_map: (1, C, h, w); `evidence`, what it is made of.
        margin: log-odds for unhappy; `margin_map` (h, w), what each cell adds to it, on the CPU.
        scale: log-odds of the strongest cell, which has full colour; 1 if there is no evidence.

    Raises what `read_picture` and `load_checkpoint` do, and ValueError for other sizes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | str | Path,
        image: Source,
        size: int | None = None,
        couple: Boxes | None = None,
    ) -> None:
        checkpoint = load_checkpoint(checkpoint)
        config, self.model = checkpoint.config, checkpoint.model
        self.transform = checkpoint.transform
        self.size = self.transform.size = _choose_size(size, config["image_size"])
        picture, notes = read_picture(image)
        self.image = self.transform.cut(picture, couple).image
        self.notes = [*([DRAWINGS_ONLY] if checkpoint.knows_only_drawings else []), *notes]
        self.head = fold_head(self.model, config["temperature"])
        self.feature_map = self.features(self.image)
        self.evidence = find_evidence(self.head, self.feature_map)
        self.margin = self.evidence.margin.item()
        self.margin_map = self.evidence.margin_map[0].cpu()
        self.scale = self.margin_map.abs().max().item() or 1.0

    def features(self, image: Image.Image) -> Tensor:
        """The feature map (1, C, h, w) of an RGB image of this size."""
        return extract_features(self.model, self.transform.to_tensor(image)[None])

    def margin_without(self, hidden: Tensor) -> float:
        """Log-odds for unhappy with cells (h, w) zeroed in the feature map."""
        shown = ~hidden.to(self.feature_map.device)
        return find_evidence(self.head, self.feature_map * shown).margin.item()

    def margin_covered(self, hidden: Tensor) -> float:
        """Log-odds for unhappy of the picture with the pixels of cells (h, w) covered."""
        return find_evidence(self.head, self.features(self.covered(hidden))).margin.item()

    def covered(self, hidden: Tensor) -> Image.Image:
        """The image with the pixels of cells (h, w) in the mean colour of its rest."""
        from dclib.evaluate.shortcuts import paint  # pandas and scipy, for which no photo waits

        rows, columns = hidden.nonzero().numpy().T  # (K,) each
        down, across = (cell_edges(n, self.size) for n in hidden.shape)
        ends = (across[columns], down[rows], across[columns + 1], down[rows + 1])
        return Image.fromarray(paint(np.asarray(self.image), np.stack(ends, 1)))


def _choose_size(size: int | None, own: int) -> int:
    """The size that was given, or else the network's `own`."""
    if size is None and not MIN_SIZE <= own <= MAX_SIZE:
        raise ValueError(
            f"This network takes {own} pixels a side, but cells can be shown for {MIN_SIZE} to "
            f"{MAX_SIZE}: call hide_panel or neuron_panel with such a size."
        )
    size = own if size is None else size
    if not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(
            f"size must be a whole number from {MIN_SIZE} to {MAX_SIZE} pixels, not {size!r}."
        )
    return size
