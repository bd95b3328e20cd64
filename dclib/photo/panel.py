"""The photo panel: show it a picture, read the answer, hide a region, take a report away."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.explain.hide import Look
from dclib.explain.panels import HidePanel
from dclib.photo import Prediction, predict_photo
from dclib.photo.choose import FacePicker
from dclib.photo.page import (
    about_html,
    doubts_html,
    evidence_html,
    overview_html,
    photo_page,
    report_json,
    verdict_html,
    why_html,
)
from dclib.pictures import Boxes, PictureError, Source
from dclib.web import html as web
from dclib.web.html import ipywidgets
from dclib.web.photos import Answerer, PhotoPanel, Say, discard

HEAD = (  # of a report
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
)
ONE_MORE = "One face is chosen: choose the other, by its number or with “Mark a face”."
NONE_CHOSEN = "No face is chosen: choose two, by their numbers or with “Mark a face”."


def photo_panel(
    checkpoint: Checkpoint | str | Path | None = None, photos: Mapping[str, bytes] | None = None
) -> PhotoPanel:
    """A widget that asks for photos and shows what a network says about each.

    `checkpoint`: the network inside the package by default. `photos` are {name: bytes} to begin
    with, as `dclib.colab.upload_photos` returns them. They go to the kernel behind this notebook
    only, and nothing is written to disk.
    """
    network: Future[Answerer] = Future()
    network.set_result(Network(checkpoint))
    return PhotoPanel(network, photos)


class Network:
    """A network that answers in a `PhotoPanel`; the one inside the package by default."""

    def __init__(self, checkpoint: Checkpoint | str | Path | None = None) -> None:
        self.checkpoint = load_checkpoint(checkpoint)
        self.about = about_html(self.checkpoint)

    def answer(self, name: str, photo: Source, say: Say) -> "Answer":
        """What it says about one photo."""
        return Answer(name, photo, self.checkpoint, say)

    def overview(self, answers: "Sequence[Answer]") -> str:
        """A table of several answers."""
        return overview_html([(answer.name, answer.prediction) for answer in answers])


class Answer(web.Panel):
    """What the network says of one photo, its faces to choose from, and what more there is.

    `prediction` is None where the photo cannot be looked at. `changed` is called when the reader
    has chosen other faces.
    """

    def __init__(self, name: str, photo: Source, checkpoint: Checkpoint, say: Say) -> None:
        self.name, self.photo, self.checkpoint, self.say = name, photo, checkpoint, say
        self.changed: Callable[[], None] = lambda: None
        self.prediction: Prediction | None = None
        self.verdict, self.evidence, self.rest = (ipywidgets.HTML() for _ in range(3))
        self.picker: FacePicker | None = None
        self.figures = ipywidgets.Box([self.evidence]).add_class("dc-figures")
        self.hide = ipywidgets.Button(description="Hide a region")
        self.report = ipywidgets.Button(description="Make a report")
        self.more = ipywidgets.VBox([])
        self.hide.on_click(lambda _: self.show_more(self.hide_panel))
        self.report.on_click(lambda _: self.show_more(self.links))
        row = ipywidgets.Box([self.hide, self.report]).add_class("dc-row")
        super().__init__([self.verdict, self.figures, self.rest, row, self.more])
        self.add_class("dc-panel").add_class("dc-one-photo")
        self.look()

    def look(self, faces: Boxes | None = None, two: tuple[int, int] | None = None) -> None:
        """Ask the network, about these faces if they are given, and show what it says."""
        try:
            prediction = predict_photo(self.photo, self.checkpoint, faces, two)
        except PictureError as error:
            self.fail(str(error))
        except (RuntimeError, MemoryError) as error:  # of torch: too little memory, mostly
            self.fail(f"the network could not look at it ({error}).")
        else:
            self.prediction = prediction
            if not self.picker:
                self.picker = FacePicker(prediction, self.choose)
                self.figures.children = [self.picker, self.evidence]
            self.write(verdict_html(self.name, prediction))
            self.picker.show(prediction)
            self.evidence.value = evidence_html(prediction)
            self.rest.value = doubts_html(prediction) + why_html(prediction)
            self.report.layout.display = None
            if prediction.evidence:
                self.hide.layout.display = None

    def fail(self, sentence: str) -> None:
        """Say why there is no answer."""
        self.withdraw(web.error_html(f"{self.name}: {sentence}"))

    def withdraw(self, sentence: str) -> None:
        """A sentence in place of an answer, also where the answer was shown or told."""
        self.prediction = None
        self.write(sentence)
        if self.picker:
            self.picker.forget()

    def write(self, verdict: str) -> None:
        """A verdict, and nothing below it yet."""
        self.verdict.value, self.evidence.value, self.rest.value = verdict, "", ""
        self.hide.layout.display = self.report.layout.display = "none"
        discard(self.more)

    def choose(self, faces: Boxes, two: tuple[int, ...]) -> None:
        """The reader says where the faces are, or which: ask anew once there are two."""
        if len(two) != 2:
            self.withdraw(f"<p>{ONE_MORE if two else NONE_CHOSEN}</p>")
            self.changed()
            return
        self.say(f"Looking at {self.name} …")
        self.look(faces, (two[0], two[1]))
        self.changed()
        done = f"Done: faces {two[0] + 1} and {two[1] + 1} of {self.name}."
        self.say(done if self.prediction else f"No answer for {self.name}.")

    def show_more(self, make: Callable[[Prediction], ipywidgets.Widget]) -> None:
        """Put what is made into `more`, and say when that is done."""
        if not self.prediction:
            return
        self.say("Working …")
        discard(self.more)
        try:
            self.more.children = [make(self.prediction)]
        except (ValueError, RuntimeError, MemoryError) as error:  # a size, or too little memory
            self.more.children = [ipywidgets.HTML(web.error_html(str(error)))]
        self.say("Done.")

    def hide_panel(self, prediction: Prediction) -> HidePanel:
        """Cells to hide, of what the network looked at."""
        couple = [prediction.faces[k] for k in prediction.two]
        return HidePanel(Look(self.checkpoint, prediction.image, couple=couple))

    def links(self, prediction: Prediction) -> ipywidgets.HTML:
        """The report as two files that the browser saves; none is written on the kernel's side."""
        page = f"{HEAD}{photo_page(self.name, prediction)}"
        numbers = report_json(self.name, prediction, self.checkpoint)
        files = {f"{self.name}.report.html": page, f"{self.name}.report.json": numbers}
        links = (web.link(file, text.encode()) for file, text in files.items())
        return ipywidgets.HTML(f"<p>Save: {' · '.join(links)}</p>")
