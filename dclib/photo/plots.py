"""The answer to one photo, drawn."""

import textwrap

from PIL import Image

from dclib.files import extra
from dclib.photo import Prediction
from dclib.plots import COLOURS, finish

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure


def plot_prediction(image: Image.Image, prediction: Prediction) -> Figure:
    """A photo beside the probability of each class, or the reasons why there is none."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(1, 1.2))
    left.imshow(image)
    left.set_axis_off()
    if not prediction.probs:
        right.set_axis_off()
        sentences = ("Not assessable.", *prediction.reasons)
        right.text(0, 0.5, "\n".join(textwrap.fill(s, 50) for s in sentences), va="center")
        return finish(fig)
    names, probs = list(prediction.probs), list(prediction.probs.values())
    right.barh(names, probs, color=[COLOURS[name] for name in names])
    for row, prob in enumerate(probs):
        inside = prob > 0.8
        place = {"ha": "right", "color": "white"} if inside else {"ha": "left"}
        right.text(prob + (-0.02 if inside else 0.02), row, f"{prob:.1%}", va="center", **place)
    right.set(xlim=(0, 1), xlabel="probability, as the network sees it")
    return finish(fig)
