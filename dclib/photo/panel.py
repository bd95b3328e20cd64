"""The photo panel: show it a picture, read the answer, hide a region, take a report away."""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.explain.hide import Look
from dclib.explain.panels import HidePanel
from dclib.photo import Prediction, predict_photo
from dclib.photo.page import photo_page, report_json
from dclib.pictures import PictureError, Source
from dclib.web import html as web
from dclib.web.html import ipywidgets

EXAMPLES = {"A drawn couple": 0, "Another one": 1, "A third": 6}  # indices in the demo set
ACCEPT = "image/*,.heic,.heif,.hif,.avif"  # not every browser counts these as images
STOP = ("dc-stop-button", "Close the camera")
WELCOME = (
    "Choose photos, drop them here, or take one. They go to the machine that runs this, nowhere "
    "else, and are gone when the page is closed."
)


def photo_panel(
    checkpoint: Checkpoint | str | Path, photos: Mapping[str, bytes] | None = None
) -> "PhotoPanel":
    """A widget that asks for photos and shows what a network says about each.

    `photos` are {name: bytes} to begin with, as `dclib.colab.upload_photos` returns them. They go
    to the kernel behind this notebook only, and nothing is written to disk.
    """
    return PhotoPanel(checkpoint, photos)


class PhotoPanel(web.Panel):
    """A row of ways in, a line that says what happens, and one answer below another."""

    def __init__(
        self, checkpoint: Checkpoint | str | Path, photos: Mapping[str, bytes] | None = None
    ) -> None:
        self.checkpoint = load_checkpoint(checkpoint)
        self.upload = ipywidgets.FileUpload(accept=ACCEPT, multiple=True)
        self.upload.description = "Choose photos"
        self.clear = ipywidgets.Button(description="Clear")
        self.status, self.answers = ipywidgets.HTML(), ipywidgets.VBox([])
        self.said = 0
        examples = [ipywidgets.Button(description=name) for name in EXAMPLES]
        camera = ipywidgets.HTML(web.camera_html(("dc-photo-button", "Take a photo"), STOP))
        row = ipywidgets.Box([self.upload, camera, *examples, self.clear]).add_class("dc-row")
        sheet = ipywidgets.HTML(f"<style>{web.CSS}</style>{web.start_script()}")
        super().__init__([sheet, row, self.status, self.answers])
        self.add_class("dc-browser")
        self.upload.observe(self.take_uploads, names="value")
        self.clear.on_click(lambda _: self.forget())
        for button in examples:
            button.on_click(self.show_example)
        self.forget()
        if photos:
            self.show(list(photos.items()))

    def take_uploads(self, _: object = None) -> None:
        """Look at what was chosen, and forget the files."""
        photos = web.uploaded_files(self.upload)
        if photos:
            web.clear_uploads(self.upload)
            self.show(photos)

    def show_example(self, button: ipywidgets.Button) -> None:
        """Look at the drawn couple that a button names."""
        scene, _ = sample_scene(2026, EXAMPLES[button.description])
        self.show([(f"{button.description} of the demo set", draw_scene(scene, 512))])

    def show(self, photos: Sequence[tuple[str, Source]]) -> None:
        """Look at (name, picture) of each and put the answers in place of what was there."""
        self.discard(self.answers)
        answers = []
        for number, (name, photo) in enumerate(photos, 1):
            self.say(f"Looking at {name} ({number} of {len(photos)}) …")
            answers.append(self.answer(name, photo))
            self.answers.children = answers
        self.say(f"Done: {len(photos)} picture{'s' if len(photos) > 1 else ''}.")

    def forget(self) -> None:
        """Take the answers away."""
        self.discard(self.answers)
        self.say(WELCOME)

    def discard(self, box: ipywidgets.VBox) -> None:
        """Empty a box on the page, and free the pictures of what was in it."""
        left, box.children = box.children, []
        web.discard(left)
        del left
        gc.collect()  # widgets hold themselves, and their pictures, in circles
        with contextlib.suppress(AttributeError, TypeError):  # only glibc keeps what is freed
            ctypes.CDLL(None).malloc_trim(0)

    def say(self, sentence: str) -> None:
        """Write the line of what happens; even the same words replace it: see browser.js."""
        self.said += 1
        self.status.value = web.status_html(sentence, said=self.said)

    def answer(self, name: str, photo: Source) -> ipywidgets.Widget:
        """Page and buttons of one photo, or the reason why there is none."""
        try:
            prediction = predict_photo(photo, self.checkpoint)
        except PictureError as error:
            return ipywidgets.HTML(web.error_html(f"{name}: {error}"))
        except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
            sentence = f"{name}: the network could not look at it ({error})."
            return ipywidgets.HTML(web.error_html(sentence))
        hide = ipywidgets.Button(description="Hide a region")
        report = ipywidgets.Button(description="Make a report")
        more = ipywidgets.VBox([])
        picture = prediction.image
        hide.on_click(
            lambda _: self.show_more(more, lambda: HidePanel(Look(self.checkpoint, picture)))
        )
        report.on_click(lambda _: self.show_more(more, lambda: self.links(name, prediction)))
        page = ipywidgets.HTML(photo_page(name, prediction))
        row = [hide, report] if prediction.evidence else [report]  # no verdict, nothing to hide
        return ipywidgets.VBox([page, ipywidgets.Box(row).add_class("dc-row"), more])

    def show_more(self, more: ipywidgets.VBox, make: Callable[[], ipywidgets.Widget]) -> None:
        """Put what is made into `more`, and say when that is done."""
        self.say("Working …")
        self.discard(more)
        try:
            more.children = [make()]
        except (ValueError, RuntimeError, MemoryError) as error:  # a size, or too little memory
            more.children = [ipywidgets.HTML(web.error_html(str(error)))]
        self.say("Done.")

    def links(self, name: str, prediction: Prediction) -> ipywidgets.HTML:
        """The report as two files that the browser saves; none is written on the kernel's side."""
        page = f'<!doctype html><meta charset="utf-8">{photo_page(name, prediction)}'
        numbers = report_json(name, prediction, self.checkpoint)
        files = {f"{name}.report.html": page, f"{name}.report.json": numbers}
        links = (web.link(file, text.encode()) for file, text in files.items())
        return ipywidgets.HTML(f"<p>Save: {' · '.join(links)}</p>")
