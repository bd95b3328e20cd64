"""What all panels share: pieces of HTML, names of cells, uploads of ipywidgets 7 and 8."""

import base64
import html
import mimetypes
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dclib.files import extra
from dclib.pictures import encode
from dclib.plots import HAPPY, UNHAPPY

if TYPE_CHECKING:  # a panel is there before torch is
    from torch import Tensor

with extra("widgets"):
    import ipywidgets as ipywidgets  # panels take it from here: one place says what is missing

SIDE = 336  # pixels of a picture on the page
CSS = Path(__file__).with_name("web.css").read_text()
SCRIPT = Path(__file__).with_name("browser.js").read_text()
KEYS = (  # JupyterLab takes arrows and letters from whatever in a notebook has the focus
    "window.dcKeys ??= document.addEventListener('focusin', ({target}) => "
    "target.closest('.dc-cells, .dc-browser') && "
    "target.setAttribute('data-lm-suppress-shortcuts', 'true')) ?? true"
)
Cell = tuple[int, ...]  # row and column, from 0


class Panel(ipywidgets.VBox):
    """A box that takes along what is in it when it is closed."""

    def close(self) -> None:
        discard([self])


def discard(widgets: Iterable[ipywidgets.Widget]) -> None:
    """Close widgets that leave the page, and all that is in them: else they are kept for ever."""
    for widget in widgets:
        discard(getattr(widget, "children", ()))
        for part in ("layout", "style"):
            if hasattr(widget, part):
                getattr(widget, part).close()
        ipywidgets.Widget.close(widget)


def notes_html(notes: Iterable[str]) -> str:
    """Sentences as paragraphs of small print, escaped."""
    return "".join(f'<p class="dc-note">{html.escape(note)}</p>' for note in notes)


def error_html(sentence: str) -> str:
    """A sentence that says what is wrong, escaped."""
    return f'<p class="dc-error">{html.escape(sentence)}</p>'


def legend(scale: float) -> str:
    """What the colours over a picture mean, as HTML."""
    unhappy, happy = (f'<span style="color: {c}">&#9632;</span>' for c in (UNHAPPY, HAPPY))
    full = f"full colour is {scale:.2g} log-odds a cell"
    return f"{unhappy} is for unhappy, {happy} for happy; {full}."


def strongest_cell(values: "Tensor") -> Cell:
    """The cell of a map (h, w) that is furthest from 0.

    >>> import torch
    >>> strongest_cell(torch.tensor([[1.0, -3.0], [2.0, 0.0]]))
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


def to_image(pixels: np.ndarray) -> Image.Image:
    """Values (H, W, 3) of 0 to 1 as an RGB Pillow image."""
    return Image.fromarray(np.uint8(np.rint(pixels * 255)))


def data_uri(image: Image.Image, kind: str = "PNG") -> str:
    """A Pillow image as the address of itself; `kind` is PNG or JPEG."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encode(image, kind)).decode()}"


def start_script(script: str = SCRIPT) -> str:
    """HTML that starts browser.js for the panel (of class "dc-browser") it is in, or `KEYS`."""
    return f'<img hidden alt="" src="data:," onerror="{html.escape(script)}">'


def status_html(*sentences: str, error: bool = False, **data: str | int) -> str:
    """A line that screen readers announce; also the sign for browser.js that something arrived.

    `data` become data- attributes, as they are; only the sentences are escaped.
    """
    said = "".join(error_html(s) if error else f"<p>{html.escape(s)}</p>" for s in sentences)
    marks = "".join(f' data-{name}="{value}"' for name, value in data.items())
    return f'<div class="dc-status" role="status" aria-live="polite"{marks}>{said}</div>'


def camera_html(*buttons: tuple[str, str]) -> str:
    """The camera's picture and its buttons: (class, text) of each."""
    row = "".join(
        f'<button type="button" class="jupyter-button {kind}">{html.escape(text)}</button>'
        for kind, text in buttons
    )
    return f'<video class="dc-video" muted playsinline aria-label="camera"></video>{row}'


def link(name: str, data: bytes) -> str:
    """A link, as HTML, that saves bytes under a name: they are in the page itself."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    name = html.escape(name)
    return f'<a class="dc-save" download="{name}" href="{address}">{name}</a>'


def uploaded_files(upload: ipywidgets.FileUpload) -> list[tuple[str, bytes]]:
    """(name, content) of each file in it."""
    if isinstance(upload.value, dict):  # ipywidgets 7; it has one entry for all files of a name
        files = zip(upload.metadata, upload.data, strict=True)
        return [(file["name"], bytes(content)) for file, content in files]
    return [(file["name"], bytes(file["content"])) for file in upload.value]


def clear_uploads(upload: ipywidgets.FileUpload) -> None:
    """Forget the files, so that the same one can be chosen again."""
    if isinstance(upload.value, dict):
        upload.value.clear()
        upload.metadata, upload.data = [], []  # else the counter fills the value from them again
        upload._counter = 0
    else:
        upload.value = ()
