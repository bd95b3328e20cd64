"""What can be clicked in the notebooks. Works with ipywidgets 7.7.1 (Colab) and 8.

The photo panel: choose a picture, read the answer. The strength panel: a slider for augmentation.
"""

import html
import io

import numpy as np
from PIL import Image

try:
    import ipywidgets
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ipywidgets is missing: install the extra that brings it, "
        "`pip install 'deepconnection[widgets]'`."
    ) from error

from dclib.augment import TrainTransform
from dclib.photo import predict_photo
from dclib.pictures import PictureError, read_picture

THUMBNAIL = 320  # pixels


def photo_panel(checkpoint):
    """A widget that asks for photos and shows what `checkpoint` says about each.

    Nothing is written to disk or sent anywhere but to the kernel behind this notebook. A file that
    cannot be used gets a sentence, never a traceback.
    """
    upload = ipywidgets.FileUpload(accept="image/*", multiple=True, description="Choose photos")
    answers = ipywidgets.VBox([])

    def on_upload(_):
        photos = uploaded_files(upload)
        if photos:
            answers.children = [_answer(name, data, checkpoint) for name, data in photos]
            clear_uploads(upload)

    upload.observe(on_upload, names="value")
    hint = ipywidgets.HTML("The photo stays on the machine that runs this notebook.")
    return ipywidgets.VBox([ipywidgets.HBox([upload, hint]), answers])


def uploaded_files(upload):
    """[(name, bytes), ...] of a FileUpload, whatever the version of ipywidgets."""
    if isinstance(upload.value, dict):  # ipywidgets 7
        return [(name, bytes(file["content"])) for name, file in upload.value.items()]
    return [(file["name"], bytes(file["content"])) for file in upload.value]


def clear_uploads(upload):
    """Forget the files, so that the same one can be chosen again."""
    if isinstance(upload.value, dict):
        upload.value.clear()
        upload._counter = 0
    else:
        upload.value = ()


def _answer(name, data, checkpoint):
    """Thumbnail and verdict of one photo, or the reason why there is none."""
    try:
        prediction = predict_photo(data, checkpoint)
        thumbnail = read_picture(data).image
    except PictureError as error:
        return ipywidgets.HTML(f'<p class="dc-error">{html.escape(f"{name}: {error}")}</p>')
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    picture = ipywidgets.Image(value=_png(thumbnail), format="png", width=thumbnail.width)
    return ipywidgets.HBox([picture, ipywidgets.HTML(verdict_html(name, prediction))])


def verdict_html(name, prediction):
    """The answer as HTML, every text escaped."""
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td>"
        f'<td><meter min="0" max="1" value="{prob:.3f}"></meter></td><td>{prob:.1%}</td></tr>'
        for label, prob in prediction.probs.items()
    )
    warnings = "".join(f"<p><b>Note:</b> {html.escape(text)}</p>" for text in prediction.warnings)
    return (
        f'<div class="dc-verdict" style="padding: 0 1em; max-width: 32em; line-height: 1.4">'
        f"<p>{html.escape(name)}: the network says <b>{html.escape(prediction.label)}</b>.</p>"
        f"<table>{rows}</table>{warnings}</div>"
    )


def strength_panel(image, n=6, size=150):
    """A slider for the strength of augmentation above `n` draws of a Pillow image, side by side.

    The draws keep their seeds, so that each is seen growing from the picture itself.
    """
    slider = ipywidgets.FloatSlider(
        value=1, min=0, max=1, step=0.1, description="strength", continuous_update=False
    )
    picture = ipywidgets.Image(format="png", width=n * size)

    def show(_):
        transform = TrainTransform(size, strength=slider.value)
        draws = [transform.undo(transform(image, index=index)).numpy() for index in range(n)]
        strip = np.uint8(np.rint(np.concatenate(draws, 1) * 255))  # (size, n * size, 3)
        picture.value = _png(Image.fromarray(strip))

    slider.observe(show, names="value")
    show(None)
    return ipywidgets.VBox([slider, picture])


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
