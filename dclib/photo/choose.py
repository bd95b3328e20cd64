"""Say which two faces are the couple: press their numbers, or mark a face that was missed."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dclib.framing import too_few
from dclib.photo import Prediction
from dclib.photo.page import caption, face_places, lit_html
from dclib.pictures import Boxes
from dclib.web import html as web
from dclib.web.html import ipywidgets

LEAST = 1.0  # percent of the photo's side that a face must have
MARK = "Drag a box over a face that was missed, from corner to corner, or type where it is."
ENDS = "left, top, right, bottom in %"
TYPED = f"A face is four numbers from 0 to 100: {ENDS} of the photo."
Choose = Callable[[Boxes, tuple[int, ...]], None]


class FacePicker(web.Panel):
    """A photo whose faces are toggle buttons. A box that is dragged over it is one more face.

    `choose(faces, two)` is called after each change, with the one or two that are pressed.
    """

    def __init__(self, prediction: Prediction, choose: Choose) -> None:
        self.size, self.choose = prediction.image.size, choose
        self.caption = ""
        self.faces: list[Sequence[float]] = []
        self.taken: list[int] = []  # the one that was pressed last at the end
        self.buttons: list[ipywidgets.ToggleButton] = []
        self.picture, self.words = ipywidgets.HTML(), ipywidgets.HTML()
        self.stage = ipywidgets.Box([self.picture]).add_class("dc-photo")
        self.mark = ipywidgets.ToggleButton(description="Mark a face")
        self.field = ipywidgets.Text(placeholder=ENDS, continuous_update=False)
        row = ipywidgets.Box([self.mark, self.field]).add_class("dc-row")
        super().__init__([self.stage, self.words, row])
        self.add_class("dc-picker")
        self.mark.observe(self.switch, names="value")
        self.field.observe(self.take_box, names="value")
        for box in prediction.faces:
            self.add(box)
        self.taken = list(prediction.two)
        self.press()
        few = too_few(len(self.faces))
        self.mark.value = bool(few) and prediction.reasons == few
        self.show(prediction)

    def show(self, prediction: Prediction) -> None:
        """Show where the network looked, and what can be done."""
        self.prediction = prediction
        self.picture.value = lit_html(prediction)
        self.caption = caption(prediction)
        self.switch()

    def forget(self) -> None:
        """Show the photo as it is: there is no answer any more."""
        self.show(replace(self.prediction, frame=None))

    def add(self, box: Sequence[float]) -> None:
        """One more face, in pixels."""
        self.faces.append(box)
        button = ipywidgets.ToggleButton(description=str(len(self.faces))).add_class("dc-face")
        for place in face_places([box], self.size)[0].split("; "):
            setattr(button.layout, *place.split(": "))
        button.observe(self.clicked, names="value")
        self.buttons.append(button)
        self.stage.children = (*self.stage.children, button)

    def press(self) -> None:
        """Press the buttons of those that are taken, and no others."""
        for k, button in enumerate(self.buttons):
            button.unobserve(self.clicked, names="value")
            button.value = k in self.taken
            button.tooltip = f"face {k + 1}" + (", taken" if button.value else "")
            button.observe(self.clicked, names="value")

    def clicked(self, change: Mapping) -> None:
        """A third that is pressed takes the place of the one that was pressed before the others."""
        k = self.buttons.index(change["owner"])
        self.taken = [*self.taken, k][-2:] if change["new"] else [t for t in self.taken if t != k]
        self.press()
        self.choose(self.faces, tuple(sorted(self.taken)))

    def take_box(self, _: object = None) -> None:
        """Read the box in the field, which the browser writes there when one is dragged."""
        text = self.field.value
        if not text:
            return
        self.field.value = ""
        ends = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
        if len(ends) != 4 or max(ends) > 100 or min(ends) < 0:
            self.words.value = web.error_html(TYPED)
        elif min(ends[2] - ends[0], ends[3] - ends[1]) < LEAST:
            self.words.value = web.error_html("That box is too small: drag it over the whole face.")
        else:
            self.add([share * side / 100 for share, side in zip(ends, (*self.size, *self.size))])
            self.taken = [*self.taken, len(self.faces) - 1][-2:]
            self.press()
            self.mark.value = len(self.faces) < 2
            self.choose(self.faces, tuple(sorted(self.taken)))

    def switch(self, _: object = None) -> None:
        """Let boxes be drawn while "Mark a face" is pressed, and say what can be done."""
        marking = self.mark.value
        (self.stage.add_class if marking else self.stage.remove_class)("dc-drawing")
        self.field.layout.display = None if marking else "none"
        more = f"{len(self.faces)} faces: press another number for another pair."
        words = MARK if marking else more if len(self.faces) > 2 else ""
        self.words.value = f"<p>{self.caption}</p>" + (f"<p><b>{words}</b></p>" if words else "")
