import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch.nn.functional as F
from matplotlib.figure import Figure

from dclib.data.loading import CoupleFolder
from dclib.train.loop import History
from dclib.train.plots import LivePlot, draw_progress, plot_history, plot_pace, show_answers


@pytest.fixture
def history():
    steps = [{"epoch": i // 3, "lr": 0.1 / (i + 1), "loss": 1 / (i + 1)} for i in range(6)]
    row = {"val_loss": 0.5, "train_accuracy": 0.6, "val_accuracy": 0.7}
    row |= {"seconds": 10.0, "val_seconds": 2.0, "waiting": 0.25}
    return History([row | {"epoch": 0}, row | {"epoch": 1, "val_loss": 0.4}], steps)


def test_progress_shows_every_step_and_epoch(history):
    fig = Figure()
    draw_progress(fig, History())  # before the first epoch; it is gone afterwards
    draw_progress(fig, history)
    left, right = fig.axes
    batches, val = left.lines
    assert batches.get_ydata().tolist() == [row["loss"] for row in history.steps]
    assert val.get_xdata().tolist() == [3, 6]  # after the last step of each epoch
    assert val.get_ydata().tolist() == [0.5, 0.4]
    assert right.lines[1].get_ydata().tolist() == [0.7, 0.7]


def test_the_history_marks_the_epoch_that_was_kept(history):
    for row in history.epochs:
        row |= {"train_loss": 0.6}
    history.best_epoch = 1
    loss, accuracy = plot_history(history).axes
    train, val, kept = loss.lines
    assert (train.get_ydata().tolist(), val.get_ydata().tolist()) == ([0.6, 0.6], [0.5, 0.4])
    assert train.get_xdata().tolist() == [1, 2]  # people count from 1
    assert kept.get_xdata()[0] == accuracy.lines[2].get_xdata()[0] == 2


def test_answers_are_those_of_the_logits_and_wrong_ones_are_marked(couples):
    val = CoupleFolder(couples, "val")
    logits = F.one_hot(val.labels, 2) * 2.0
    logits[0] = -logits[0]
    axes = show_answers(val, logits).axes
    titles = [axis.get_title() for axis in axes]
    right = [val.classes[label] for label in val.labels]
    other = val.classes[1 - val.labels[0]]
    assert titles == [f"{other} (wrong)", *right[1:]]
    shown = [axis.images[0].get_array() for axis in axes]
    np.testing.assert_array_equal(shown[3], np.asarray(val.picture(3)))


def test_pace_divides_the_seconds(history):
    left, right = plot_pace(history).axes
    assert left.lines[0].get_ydata().tolist() == [row["lr"] for row in history.steps]
    heights = [[bar.get_height() for bar in bars] for bars in right.containers]
    assert heights == [[6.0, 6.0], [2.0, 2.0], [2.0, 2.0]]  # at work, waiting, validating


def test_the_live_plot_redraws_one_output(history, monkeypatch):
    shown, open_before = [], matplotlib.pyplot.get_fignums()

    class Handle:
        def update(self, image):
            shown.append(("again", image.data[:4]))

    def display(image, display_id):
        assert display_id is True
        shown.append(("first", image.data[:4]))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    live = LivePlot()
    for _ in range(3):
        live(history)
    assert shown == [(when, b"\x89PNG") for when in ("first", "again", "again")]
    assert matplotlib.pyplot.get_fignums() == open_before


def test_a_notebook_keeps_no_figure_of_the_live_plot():
    """Its backend holds each figure of pyplot until the cell ends, closed or not."""
    code = """
import matplotlib
matplotlib.use("module://matplotlib_inline.backend_inline")
matplotlib.interactive(True)  # as in a notebook
from matplotlib_inline.backend_inline import show
from dclib.train.plots import LivePlot
from dclib.train.loop import History

live = LivePlot()
for _ in range(3):
    live(History())
print("kept", len(show._to_draw))
matplotlib.pyplot.close(matplotlib.pyplot.figure())
print("kept", len(show._to_draw))  # what this test is about
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.findall("kept (.)", done.stdout) == ["0", "1"]
