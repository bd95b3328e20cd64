"""The camera, live: an answer a frame and a timeline that grows; no frame is kept.

The browser sends a frame when the answer to the one before has come back (browser.js). So nothing
queues, and an answer is never older than the network takes, plus the way there and back.
"""

import math
from pathlib import Path

from PIL import Image

from dclib import assess
from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.colab import in_colab
from dclib.evidence import find_evidence, fold_head
from dclib.gradcam import extract_features
from dclib.live import LiveTimeline, is_cut
from dclib.pages.live import answer_html, label_sentence, numbers_sentence
from dclib.pages.regions import CSS
from dclib.photo import limits
from dclib.pictures import Boxes, PictureError, read_picture
from dclib.widgets.browser import camera_html, start_script, status_html
from dclib.widgets.uploads import clear_uploads, ipywidgets, link, uploaded_files

RATE = 5  # frames a second at most
FACES_EVERY = 1.0  # seconds; they cost more than the network
START, STOP = ("dc-film-button", "Start the camera"), ("dc-stop-button", "Stop")
WELCOME = (
    "Frames go to the machine that runs this, nowhere else, and are forgotten at once. The answers "
    "are kept while this panel is; save them if you want them."
)
COLAB = (
    "In Colab that machine is Google's, and this panel has not been tried there: if no answer "
    "comes, use the notebook on your own computer."
)


def live_panel(checkpoint: Checkpoint | str | Path) -> "LivePanel":
    """A widget that shows what a network says about the camera's picture, up to 5 times a second.

    `checkpoint` is a loaded `Checkpoint`, or the path of its folder. No frame is kept or sent
    anywhere but to the kernel behind this notebook; the answers are saved when asked for, by the
    browser. The camera closes on Stop, and with the page.
    """
    return LivePanel(checkpoint)


class LivePanel(ipywidgets.VBox):
    """Buttons, the camera's picture, how old the answer is, and the answer with its timeline."""

    def __init__(self, checkpoint: Checkpoint | str | Path) -> None:
        self.checkpoint = load_checkpoint(checkpoint)
        self.head = fold_head(self.checkpoint.model, self.checkpoint.config["temperature"])
        self.upload = ipywidgets.FileUpload(accept="image/jpeg")
        self.upload.layout.display = "none"
        self.save = ipywidgets.Button(description="Save the answers")
        self.clear = ipywidgets.Button(description="Clear")
        self.status, self.answer, self.saved = (ipywidgets.HTML() for _ in range(3))
        line = f'<p class="dc-age" data-rate="{RATE}"></p>'
        camera = ipywidgets.HTML(camera_html(START, STOP) + line)
        row = ipywidgets.Box([self.upload, self.save, self.clear, self.saved]).add_class("dc-row")
        sheet = ipywidgets.HTML(f"<style>{CSS}</style>{start_script()}")
        super().__init__([sheet, camera, self.status, self.answer, row])
        self.add_class("dc-browser")
        self.upload.observe(self.take_frame, names="value")
        self.save.on_click(lambda _: self.offer())
        self.clear.on_click(lambda _: self.forget())
        self.answered = 0  # milliseconds: the name of the last frame
        self.forget()

    def forget(self) -> None:
        """As if no frame had come yet."""
        config = self.checkpoint.config
        self.timeline = LiveTimeline(config["threshold"], self.checkpoint.abstain)
        self.began: float | None = None  # the browser's clock at the first frame
        self.before: Image.Image | None = None  # the last frame
        self.faces: Boxes | None = None
        self.looked = -math.inf  # when they were looked for
        drawn = self.checkpoint.knows_only_drawings
        self.notes: tuple[str, ...] = (DRAWINGS_ONLY,) if drawn else ()
        self.saved.value = ""
        self.show()

    def take_frame(self, _: object = None) -> None:
        """Answer a frame; whatever happens, the browser gets an answer, since it waits for one."""
        frames = uploaded_files(self.upload)
        if not frames:
            return
        clear_uploads(self.upload)
        name, data = frames[0]
        try:
            self.answered = int(Path(name).stem)
            self.look(read_picture(data).image, self.answered / 1000)
            self.show()
        except PictureError as error:
            self.show(str(error))
        except Exception as error:
            self.show(f"The network could not look at this frame ({error}).")

    def look(self, image: Image.Image, clock: float) -> None:
        """Add a frame of a time, in seconds of the browser's clock, to the timeline."""
        self.began = clock if self.began is None else self.began
        states = self.timeline.states
        time = max(clock - self.began, states[-1].time if states else 0.0)  # clocks are put back
        cut = self.before is not None and is_cut(image, self.before)
        self.before = image
        due = cut or time - self.looked >= FACES_EVERY
        if due and not self.checkpoint.knows_only_drawings:
            self.faces, self.looked = assess.find_faces(image), time
        images = self.checkpoint.transform(image)[None]  # (3, S, S) -> (1, 3, S, S)
        evidence = find_evidence(self.head, extract_features(self.checkpoint.model, images))
        reason = " ".join(assess.why_not(image, self.faces))
        margin, sd = evidence.margin.item(), evidence.margin_sd.item()
        self.timeline.add(time, margin, sd, reason, cut)
        self.notes = limits(self.checkpoint, image)

    def show(self, problem: str = "") -> None:
        """Write the answer; what is said aloud is only said when it changes."""
        state = self.timeline.states[-1] if self.timeline.states else None
        words = numbers_sentence(state) if state else ""
        if problem:
            said = status_html(problem, error=True)
        elif state:
            said = status_html(label_sentence(state), label=state.label)
        else:
            said = status_html(WELCOME, *([COLAB] if in_colab() else []))
        if said != self.status.value:
            self.status.value = said
        self.answer.value = answer_html(words, self.timeline, self.notes, self.answered)

    def offer(self) -> None:
        """The answers so far as a file that the browser saves."""
        self.saved.value = link("live.csv", self.timeline.to_csv().encode())
