"""Files in and out of a page, whatever the version of ipywidgets: 7.7.1 (Colab) or 8."""

import base64
import html
import mimetypes

from dclib.extras import extra

with extra("widgets"):
    import ipywidgets

__all__ = ["clear_uploads", "ipywidgets", "link", "uploaded_files"]


def link(name: str, data: bytes) -> str:
    """A link, as HTML, that saves bytes under a name: they are in the page itself."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    name = html.escape(name)
    return f'<a class="dc-save" download="{name}" href="{address}">{name}</a>'


def uploaded_files(upload: ipywidgets.FileUpload) -> list[tuple[str, bytes]]:
    """(name, content) of each file in it."""
    if isinstance(upload.value, dict):  # ipywidgets 7
        return [(name, bytes(file["content"])) for name, file in upload.value.items()]
    return [(file["name"], bytes(file["content"])) for file in upload.value]


def clear_uploads(upload: ipywidgets.FileUpload) -> None:
    """Forget the files, so that the same one can be chosen again."""
    if isinstance(upload.value, dict):
        upload.value.clear()
        upload._counter = 0
    else:
        upload.value = ()
