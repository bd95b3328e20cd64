"""Looking through a collection: all pictures by label, press those that must go, one button."""

from functools import partial
from pathlib import Path
from sqlite3 import DatabaseError

from dclib.data import CLASSES
from dclib.files import extra
from dclib.pictures import encode, read_picture
from dclib.scrape.dataset import forget
from dclib.scrape.manifest import Manifest
from dclib.web import html as web
from dclib.web.html import ipywidgets

with extra("widgets"):
    from IPython.display import HTML

AT_ONCE, SIDE = 24, 150  # pictures on the page, pixels of each


def review_panel(folder: str | Path, destination: str | Path | None = None) -> "ReviewPanel | HTML":
    """A widget with every picture that a collection keeps, to press those that must go.

    One button then forgets them, as `forget` does: from `destination` too, the data set made of
    the collection, if it is there. What cannot be shown gets a sentence, never a traceback.
    """
    try:
        return ReviewPanel(Path(folder), destination)
    except (OSError, ValueError, RuntimeError) as error:
        return HTML(web.error_html(str(error)))


class ReviewPanel(web.Panel):
    """Pages of pictures of one label; what is pressed stays pressed on other pages."""

    def __init__(self, folder: Path, destination: str | Path | None) -> None:
        self.folder, self.destination = folder, destination
        self.pressed: set[str] = set()  # names of files
        self.start = 0
        self.label = ipywidgets.ToggleButtons(options=CLASSES)
        self.back = ipywidgets.Button(description="Back", tooltip="the pictures before these")
        self.on = ipywidgets.Button(description="Next", tooltip="the pictures after these")
        self.remove = ipywidgets.Button(button_style="danger", layout={"width": "auto"})
        self.status = ipywidgets.HTML()
        self.pictures = [ipywidgets.Image(format="jpeg") for _ in range(AT_ONCE)]
        self.buttons = [ipywidgets.ToggleButton(description="stays") for _ in range(AT_ONCE)]
        tiles = []
        for place, (picture, button) in enumerate(zip(self.pictures, self.buttons)):
            picture.layout.width = button.layout.width = f"{SIDE}px"
            button.observe(partial(self.press, place), names="value")
            tiles.append(ipywidgets.VBox([picture, button], layout={"margin": "4px"}))
        self.tiles = ipywidgets.Box(tiles, layout={"flex_flow": "row wrap"})
        row = ipywidgets.HBox([self.label, self.back, self.on, self.remove])
        row.layout.flex_flow = "row wrap"
        super().__init__([row, self.status, self.tiles])
        self.read()
        self.label.observe(lambda _: self.turn_to(0), names="value")
        self.back.on_click(lambda _: self.turn_to(self.start - AT_ONCE))
        self.on.on_click(lambda _: self.turn_to(self.start + AT_ONCE))
        self.remove.on_click(self.take_out)
        self.turn_to(0)

    def read(self) -> None:
        """What the collection keeps now."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no collection at {self.folder}: gather one first.")
        with Manifest(self.folder) as manifest:
            rows = manifest.rows("stage = 'kept'")
        self.pressed &= {row["file"] for row in rows}
        self.files = {c: [row["file"] for row in rows if row["label"] == c] for c in CLASSES}

    def turn_to(self, start: int) -> None:
        """Show the pictures of the label from this one on."""
        files = self.files[self.label.value]
        self.start = start = max(0, min(start, (len(files) - 1) // AT_ONCE * AT_ONCE))
        shown = files[start : start + AT_ONCE]
        for place, tile in enumerate(self.tiles.children):
            tile.layout.display = None if place < len(shown) else "none"
        for picture, button, name in zip(self.pictures, self.buttons, shown):
            picture.value = self.thumbnail(name)
            button.tooltip = name
            button.value = name in self.pressed
        self.back.disabled, self.on.disabled = start == 0, start + AT_ONCE >= len(files)
        self.tell()

    def thumbnail(self, name: str) -> bytes:
        """A small square JPEG; an empty one of a picture that is gone."""
        try:
            image = read_picture(self.folder / "pool" / name).image
        except (OSError, ValueError):
            return b""
        image.thumbnail((2 * SIDE, 2 * SIDE))
        return encode(image, quality=80)

    def press(self, place: int, change: dict) -> None:
        """Somebody pressed a picture's button, or released it, or the page was turned."""
        files = self.files[self.label.value]
        if self.start + place < len(files):
            name = files[self.start + place]
            (self.pressed.add if change["new"] else self.pressed.discard)(name)
        self.buttons[place].description = "goes" if change["new"] else "stays"
        self.count()

    def count(self) -> None:
        """Say on the button how many go."""
        self.remove.description = f"Take out {len(self.pressed)} for ever"
        self.remove.disabled = not self.pressed

    def tell(self, *more: str, error: bool = False) -> None:
        """Say where we are, after what there is to say besides."""
        files = self.files[self.label.value]
        last = min(self.start + AT_ONCE, len(files))
        where = f"{self.label.value}: {self.start + 1} to {last} of {len(files)}"
        where = where if files else f"There is no picture that is {self.label.value}."
        self.status.value = web.status_html(*more, where, error=error)
        self.count()

    def take_out(self, _: object = None) -> None:
        """Forget all that is pressed; a failure gets a sentence and keeps what is pressed."""
        try:
            gone = forget(self.folder, sorted(self.pressed), self.destination)
            self.pressed.clear()
            self.read()
        except (OSError, ValueError, RuntimeError, DatabaseError) as error:
            self.tell(str(error), error=True)
            return
        self.turn_to(self.start)
        self.tell(f"{gone} went, copies included; they will not come back.")
