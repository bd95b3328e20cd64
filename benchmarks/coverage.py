"""How often 95 % intervals hold the true value, and how long they take: results/coverage.json.

    python benchmarks/coverage.py [--sets 1000] [--draws 400]

Data sets are drawn from a model whose metrics are known (from 400,000 pictures of it). A picture's
log-odds are normal about plus or minus a distance, which gives the accuracy and honest
probabilities; `slope` makes them too sure or not sure enough, `lean` adds to all of them. Half of
the pictures are unhappy in every data set. A share of the variance is common to a group: it leans
to a class (`shift`) or is easy or hard (`hard`). One process, one thread.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from machine import machine, versions
from scipy.stats import norm
from sklearn import metrics as sk

from dclib.evaluate.metrics import METRICS, Scored, bootstrap, compare, measure, score_seeds

RESULTS = Path(__file__).parent / "results" / "coverage.json"
PACKAGES = ["numpy", "pandas", "scipy", "scikit-learn"]
MANY, COMMON, LIKE = 400_000, 0.4, 0.7  # pictures for the truth, share of a group, of two networks
SINGLE, PAIRS, SERIES = {"n": 200}, {"n": 300, "group": 2}, {"n": 250, "group": 4}
SETTINGS = {
    "200 pictures": SINGLE,
    "200 pictures, accuracy 0.6": SINGLE | {"accuracy": 0.6},
    "200 pictures, accuracy 0.95": SINGLE | {"accuracy": 0.95},
    "200 pictures, leaning to unhappy": SINGLE | {"lean": 0.5},
    "200 pictures, not sure enough": SINGLE | {"slope": 0.5},
    "200 pictures, too sure": SINGLE | {"slope": 2.0},
    "200 pictures, accuracy 0.95, too sure": SINGLE | {"slope": 2.0, "accuracy": 0.95},
    "150 pairs, leaning": PAIRS | {"common": "shift"},
    "150 pairs, some hard": PAIRS | {"common": "hard"},
    "50 pairs, some hard": PAIRS | {"n": 100, "common": "hard"},
    "50 pairs, some hard, accuracy 0.95": PAIRS | {"n": 100, "common": "hard", "accuracy": 0.95},
    "100 series of 1 to 4 pictures, some hard": SERIES | {"common": "hard"},
}
DIFFERENCES = {  # and the accuracy of the second network
    "200 pictures": (SINGLE, 0.7),
    "200 pictures, accuracy 0.95": (SINGLE | {"accuracy": 0.95}, 0.95),
    "150 pairs, some hard": (PAIRS | {"common": "hard"}, 0.8),
    "50 pairs, leaning": (PAIRS | {"n": 100, "common": "shift"}, 0.8),
}


def draw_tables(rng, accuracies, n, group=1, common=None, slope=1.0, lean=0.0):
    """Tables of as many networks as `accuracies`, which answer alike to the same drawn pictures.

    Groups of two hold both classes; of four, one class and one to four pictures.
    """
    groups = np.arange(n) // group
    unhappy = np.arange(n) % 2 == 1
    if group == 4:
        sizes = rng.permuted(np.arange(n * 2 // 5) // 2 % 4 + 1)
        groups = np.repeat(np.arange(len(sizes)), sizes)
        unhappy = groups % 2 == 1
    sign, shared = np.where(unhappy, 1, -1), rng.standard_normal(groups.max() + 1)[groups]
    part = COMMON if common else 0.0
    shared = np.sqrt(part) * shared * (sign if common == "hard" else 1)
    both, tables = rng.standard_normal(len(groups)), []
    for accuracy in accuracies:
        own = np.sqrt(LIKE) * both + np.sqrt(1 - LIKE) * rng.standard_normal(len(groups))
        distance = norm.ppf(accuracy)
        scores = sign * distance + shared + np.sqrt(1 - part) * own + lean
        tables.append(make_table(unhappy, groups, slope * 2 * distance * scores))
    return tables


def make_table(unhappy, groups, margins):
    """A table of predictions from log-odds (N,)."""
    table = {"id": [f"{index:06d}" for index in range(len(groups))]}
    table |= {"label": np.where(unhappy, "unhappy", "happy"), "group": groups.astype(str)}
    table |= {"source": "", "seed": -1, "fold": -1, "logit_happy": -margins / 2}
    table |= {"logit_unhappy": margins / 2, "temperature": 1.0, "threshold": 0.5}
    return pd.DataFrame(table)


def truth(accuracies, setting):
    """{metric: value} of each network, from very many pictures."""
    rng = np.random.default_rng(0)
    tables = draw_tables(rng, accuracies, **setting | {"n": MANY})
    return [pd.Series({k: v[0] for k, v in Scored(table).metrics().items()}) for table in tables]


def covered(found, true):
    """Whether each interval holds the true value, and on which side of it the others lie."""
    above, below = found["low"] > true, found["high"] < true
    return pd.DataFrame({"covered": ~above & ~below, "above": above, "below": below}).astype(float)


def simulate(setting, sets, draws, stream, accuracy=None):
    """{metric: true value, coverage, above, below, median width} of `measure`.

    With the `accuracy` of a second network: of the differences from it by `compare`. `stream` is
    the number of the random numbers.
    """
    setting = dict(setting)
    accuracies = [setting.pop("accuracy", 0.8), *([accuracy] if accuracy else [])]
    true, *others = truth(accuracies, setting)
    names = [m for m in METRICS if not others or m != "ECE"]
    true, rows, widths = (true - others[0] if others else true)[names], [], []
    for index in range(sets):
        tables = draw_tables(np.random.default_rng([stream, index]), accuracies, **setting)
        found = (compare if others else measure)(*tables, draws=draws, seed=index).loc[names]
        rows.append(covered(found, true))
        widths.append(found["high"] - found["low"])
    shares, width = sum(rows) / sets, pd.concat(widths, axis=1).median(axis=1)
    result = shares.assign(true=true, width=width).round(4)
    return result[["true", "covered", "above", "below", "width"]].to_dict("index")


def plain_metrics(label, answer, probs):
    """All metrics by scikit-learn, and the ECE in NumPy."""
    values = [f(label, answer) for f in (sk.accuracy_score, sk.balanced_accuracy_score)]
    values += [sk.matthews_corrcoef(label, answer)]
    for f in (sk.recall_score, sk.precision_score, sk.f1_score):
        values += [f(label, answer, pos_label=pos) for pos in (False, True)]
    values += [sk.roc_auc_score(label, probs), sk.average_precision_score(label, probs)]
    values += [sk.log_loss(label, probs), sk.brier_score_loss(label, probs)]
    bins = np.searchsorted(np.quantile(probs, np.arange(0.1, 1, 0.1)), probs, side="right")
    return [*values, np.abs(np.bincount(bins, probs - label)).sum() / len(label)]


def time_bootstrap(n=1000, draws=2000, plain_draws=50):
    """Seconds of `draws` draws of all metrics of n pictures, against a loop of scikit-learn.

    The loop runs for `plain_draws` draws only and is scaled.
    """
    (table,) = draw_tables(np.random.default_rng(0), [0.8], n)
    sets, rng = score_seeds(table), np.random.default_rng(0)
    first = sets[0]
    start = time.perf_counter()
    bootstrap(sets, draws)
    ours, start = time.perf_counter() - start, time.perf_counter()
    for _ in range(plain_draws):
        of = [rng.choice(np.flatnonzero(first.labels == c), n // 2) for c in (False, True)]
        drawn = np.concatenate(of)
        plain_metrics(first.labels[drawn], first.answers[drawn], first.probs[drawn])
    plain = (time.perf_counter() - start) * draws / plain_draws
    result = {"pictures": n, "draws": draws, "seconds": round(ours, 3)}
    result |= {"scikit_learn_seconds": round(plain, 1), "scaled_from_draws": plain_draws}
    return result | {"ratio": round(plain / ours, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="data sets of each setting")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap draws of each data set")
    parser.add_argument("--only", default="", help="settings with this in their names")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    start = time.perf_counter()
    report = {"machine": machine(), "versions": versions(PACKAGES), "nominal": 0.95}
    report |= {"threads": os.environ.get("OMP_NUM_THREADS"), "data_sets": args.sets}
    report |= {"draws": args.draws, "speed": time_bootstrap()}
    print(report["speed"])
    plans = {("metrics", name): (setting,) for name, setting in SETTINGS.items()}
    plans |= {("differences", name): plan for name, plan in DIFFERENCES.items()}
    for stream, ((kind, name), (setting, *accuracy)) in enumerate(plans.items()):
        if args.only not in name:
            continue
        found = simulate(setting, args.sets, args.draws, stream, *accuracy)
        told = {"setting": setting | ({"other": accuracy[0]} if accuracy else {})}
        report.setdefault(kind, {})[name] = told | {"found": found}
        print(f"\n{kind}, {name} ({time.perf_counter() - start:.0f} s)")
        for metric, row in found.items():
            mark = "" if 0.93 <= row["covered"] <= 0.97 else "  <--"
            print(f"{metric:18} {row['true']:7.4f}  {row['covered']:.3f}", end="")
            print(f" ({row['above']:.3f} above, {row['below']:.3f} below){mark}", flush=True)
    report["seconds"] = round(time.perf_counter() - start)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
