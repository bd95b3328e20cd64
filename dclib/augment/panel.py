"""A slider for the strength of augmentation."""

import numpy as np
from PIL import Image

from dclib.augment import TrainTransform
from dclib.pictures import encode
from dclib.web.html import Panel, ipywidgets, to_image


def strength_panel(image: Image.Image, n: int = 6, size: int = 150) -> Panel:
    """A slider for the strength of augmentation above `n` draws of an RGB image, side by side.

    Each is `size` pixels a side and keeps its seed, so that it is seen growing from the picture.
    """
    slider = ipywidgets.FloatSlider(
        value=1, min=0, max=1, step=0.1, description="strength", continuous_update=False
    )
    picture = ipywidgets.Image(format="png", width=n * size)

    def show(_: object) -> None:
        transform = TrainTransform(size, strength=slider.value)
        draws = [transform.undo(transform(image, index=index)).numpy() for index in range(n)]
        picture.value = encode(to_image(np.concatenate(draws, 1)), "PNG")  # (size, n * size, 3)

    slider.observe(show, names="value")
    show(None)
    return Panel([slider, picture])
