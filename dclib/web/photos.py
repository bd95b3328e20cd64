"""A panel that asks for photos. Who answers may still be waking up: torch takes seconds to load."""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import Source
from dclib.web import html as web
from dclib.web.html import ipywidgets

EXAMPLES = {"A drawn couple": 0, "Another one": 1, "A third": 6}  # indices in the demo set
ACCEPT = "image/*,.heic,.heif,.hif,.avif"  # not every browser counts these as images
STOP = ("dc-stop-button", "Close the camera")
TITLE = "<h3>Show the network a photo of two people</h3>"
WELCOME = (
    "Choose photos, drop them here, or take one. They go to the machine that runs this, nowhere "
    "else, and are gone when the page is closed."
)
WAKING = "Waking the network up …"
T = TypeVar("T")
Say = Callable[[str], None]


class Answerer(Protocol):
    """What says something about photos, such as `dclib.photo.panel.Network`."""

    about: str  # HTML: which network this is

    def answer(self, name: str, photo: Source, say: Say) -> ipywidgets.Widget:
        """A widget about one photo. It calls its `changed`, which is set later, if it changes."""

    def overview(self, answers: Sequence[Any]) -> str:
        """HTML about several of these widgets."""


def in_background(make: Callable[[], T]) -> "Future[T]":
    """What `make` returns, in the making: it runs in a thread from now on."""
    thread = ThreadPoolExecutor(1)
    future = thread.submit(make)
    thread.shutdown(wait=False)
    return future


class PhotoPanel(web.Panel):
    """Ways in, a line that says what happens, an overview of several photos, and the answers.

    `network`: who answers, perhaps still in the making; photos that come before wait for it.
    `photos` are {name: bytes} to begin with.
    """

    def __init__(
        self, network: "Future[Answerer]", photos: Mapping[str, bytes] | None = None
    ) -> None:
        self.network = network
        self.upload = ipywidgets.FileUpload(accept=ACCEPT, multiple=True)
        self.upload.description = "Choose photos"
        self.clear = ipywidgets.Button(description="Clear")
        self.status, self.overview, self.about = (ipywidgets.HTML() for _ in range(3))
        self.answers = ipywidgets.VBox([])
        self.said = 0
        examples = [ipywidgets.Button(description=name) for name in EXAMPLES]
        script = web.start_script(f"{web.KEYS};{web.SCRIPT}")
        title = ipywidgets.HTML(f"<style>{web.CSS}</style>{script}{TITLE}")
        camera = ipywidgets.HTML(web.camera_html(("dc-photo-button", "Take a photo"), STOP))
        ways = ipywidgets.Box([self.upload, camera]).add_class("dc-row").add_class("dc-ways")
        others = ipywidgets.Box([*examples, self.clear]).add_class("dc-row")
        parts = [title, ways, self.status, others, self.overview, self.answers, self.about]
        super().__init__(parts)
        self.add_class("dc-browser")
        self.upload.observe(self.take_uploads, names="value")
        self.clear.on_click(lambda _: self.forget())
        for button in examples:
            button.on_click(self.show_example)
        self.forget()
        network.add_done_callback(self.introduce)
        if photos:
            self.show(list(photos.items()))

    def introduce(self, network: "Future[Answerer]") -> None:
        """Say which network this is, once it is there; or why there is none."""
        error = network.exception()
        self.about.value = web.error_html(str(error)) if error else network.result().about

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
        self.overview.value = ""
        discard(self.answers)
        if not self.network.done():
            self.say(WAKING)
        if error := self.network.exception():  # waits for it
            self.say(str(error))
            return
        network, answers = self.network.result(), []
        for number, (name, photo) in enumerate(photos, 1):
            self.say(f"Looking at {name} ({number} of {len(photos)}) …")
            answers.append(network.answer(name, photo, self.say))
            if number > 1:
                answers[-1].add_class("dc-folded")
            answers[-1].changed = self.list_answers
            self.answers.children = answers
        self.list_answers()
        self.clear.layout.display = None
        self.say(f"Done: {len(photos)} picture{'s' if len(photos) > 1 else ''}.")

    def list_answers(self) -> None:
        """Write the overview, if there is more than one answer."""
        answers = self.answers.children
        several = self.network.result().overview(answers) if len(answers) > 1 else ""
        self.overview.value = several

    def forget(self) -> None:
        """Take the answers away."""
        self.overview.value = ""
        discard(self.answers)
        self.clear.layout.display = "none"
        self.say(WELCOME)

    def say(self, sentence: str) -> None:
        """Write the line of what happens; even the same words replace it: see browser.js."""
        self.said += 1
        self.status.value = web.status_html(sentence, said=self.said)


def discard(box: ipywidgets.VBox) -> None:
    """Empty a box on the page, and free the pictures of what was in it."""
    if not box.children:
        return
    left, box.children = box.children, []
    web.discard(left)
    del left
    gc.collect()  # widgets hold themselves, and their pictures, in circles
    with contextlib.suppress(AttributeError, TypeError):  # only glibc keeps what is freed
        ctypes.CDLL(None).malloc_trim(0)
