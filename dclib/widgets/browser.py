"""The few lines that must run in the browser: dropped files, uploads that get lost, the camera.

ipywidgets of any version writes the value of an HTML widget into the page as it is. Scripts in it
are not run by any browser, but the handler of a picture that fails to load is: in JupyterLab,
Voila, Colab and the classic notebook alike.
"""

import html
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".js").read_text()


def start_script() -> str:
    """HTML that starts browser.js for the panel (of class "dc-browser") it is in."""
    return f'<img hidden alt="" src="data:," onerror="{html.escape(SCRIPT)}">'


def status_html(*sentences: str, error: bool = False, **data: str | int) -> str:
    """A line that screen readers announce; also the sign for browser.js that something arrived.

    `data` become data- attributes, as they are; only the sentences are escaped.
    """
    kind = ' class="dc-error"' if error else ""
    said = "".join(f"<p{kind}>{html.escape(sentence)}</p>" for sentence in sentences)
    marks = "".join(f' data-{name}="{value}"' for name, value in data.items())
    return f'<div class="dc-status" role="status" aria-live="polite"{marks}>{said}</div>'


def camera_html(*buttons: tuple[str, str]) -> str:
    """The camera's picture and its buttons: (class, text) of each."""
    row = "".join(
        f'<button type="button" class="jupyter-button {kind}">{html.escape(text)}</button>'
        for kind, text in buttons
    )
    return f'<video class="dc-video" muted playsinline aria-label="camera"></video>{row}'
