"""Hiding a region as HTML: the picture, the answer before and after, and why the two differ."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from dclib.explain.cells import spread
from dclib.explain.hiding import Look
from dclib.explain.occlusion import leave_one_out
from dclib.pages.regions import SIDE, cell_page, data_uri, legend, notes_html, to_image
from dclib.photo import sigmoid
from dclib.plots import HAPPY, UNHAPPY
from dclib.plots.explain import overlay

FEATURES, PIXELS = "zero its features", "cover its pixels"  # how a cell is hidden


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
