"""Tables of predictions, and of pictures, for the tests of dclib.evaluate."""

import csv

import numpy as np
import pandas as pd

from dclib.data import CLASSES


def make_table(margins, unhappy, groups=None, **columns):
    """Log-odds of "unhappy" (N,) and whether each picture is; every picture its own group."""
    margins, n = np.asarray(margins, float), len(margins)
    ids = [f"test/{i:04d}.jpg" for i in range(n)]
    table = pd.DataFrame({"id": ids, "label": np.where(unhappy, *CLASSES[::-1]), "group": ids})
    if groups is not None:
        table["group"] = [f"g{group}" for group in groups]
    table = table.assign(source="", seed=-1, fold=-1, logit_happy=-margins / 2)
    table = table.assign(logit_unhappy=margins / 2, temperature=1.0, threshold=0.5)
    return table.assign(**columns)


def simulate(n=300, seed=0, separation=2.0, **columns):
    """The table of a calibrated network, each couple once happy and once unhappy."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    margins = separation * (separation * (labels - 0.5) + rng.standard_normal(n))
    return make_table(margins, labels, **{"groups": np.arange(n) // 2} | columns)


def write_metadata(folder, rows):
    """metadata.csv of a split: a dict a row, all with the same keys."""
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def rewrite_metadata(folder, change):
    """Let change(number, row) be each row of a split's metadata.csv."""
    with (folder / "metadata.csv").open(newline="") as file:
        rows = [change(number, row) for number, row in enumerate(csv.DictReader(file))]
    write_metadata(folder, rows)
