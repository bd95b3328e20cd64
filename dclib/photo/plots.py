"""Figures of the notebooks: here what several share, in a file for each what it has alone.

All but `save_figure` save nothing.
"""

from typing import TYPE_CHECKING

from PIL import Image

from dclib.files import extra
from dclib.plots import COLOURS, finish

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from dclib.photo import Prediction


def plot_prediction(image: Image.Image, prediction: "Prediction") -> Figure:
    """A photo beside the probability of each class."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(1, 1.2))
    left.imshow(image)
    left.set_axis_off()
    names, probs = list(prediction.probs), list(prediction.probs.values())
    right.barh(names, probs, color=[COLOURS[name] for name in names])
    for row, prob in enumerate(probs):
        inside = prob > 0.8
        place = {"ha": "right", "color": "white"} if inside else {"ha": "left"}
        right.text(prob + (-0.02 if inside else 0.02), row, f"{prob:.1%}", va="center", **place)
    right.set(xlim=(0, 1), xlabel="probability, as the network sees it")
    return finish(fig)
