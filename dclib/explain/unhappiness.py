"""Do some neurons stand for unhappiness in its own right, or only for happiness that is missing?

The authors of DeepConnection report neurons of both kinds. With BatchNorm folded the margin is an
exact sum over neurons (see dclib.explain.neurons), and so is its mean difference D between the
classes:

    D = sum_n pull_n (mean of relu(z_n) on unhappy pictures - the same on happy ones)

unhappiness         pull > 0: adds to the margin, if it fires more on unhappy pictures
missing happiness   pull < 0: adds to the margin, if it fires less on unhappy pictures

The kind is the sign of a weight, fixed by training; everything else is measured on pictures that
were not trained on. A share of D above 0 is little: any network with neurons of both signs has it.
In its own right means that the unhappiness neurons tell the classes apart when the others are held
still, and that without them the others are worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from dclib.data import CLASSES, strata
from dclib.evaluate.intervals import NOTHING, difference_interval, draw_times, freedom, holm
from dclib.evaluate.metrics import DRAWS, compare, measure, tell_value
from dclib.evaluate.predictions import LOGITS
from dclib.explain.neurons import States
from dclib.files import extra

with extra("evaluate"):
    import pandas as pd

KINDS = ("unhappiness", "missing happiness")
ALPHA = 0.05
Interval = tuple[float, float, float]  # a value, and the low and high end of its interval
ENDS = ["value", "low", "high"]  # the same as columns of `measure` and `compare`


@dataclass(frozen=True)
class OwnRight:
    """How the classes are told apart; intervals are 95 % ones for other groups of pictures."""

    # A row a kind of `KINDS`: neurons that are ever on, share of the separation D and AUROC of the
    # kind alone, each with _low and _high; significant and against, the neurons whose part of D is
    # above or below 0 after Holm's correction over all that vary.
    kinds: pd.DataFrame
    neurons: pd.DataFrame  # a row a neuron: kind, part of D with low and high, p_holm
    separation: Interval  # D
    whole: Interval  # the AUROC of all neurons
    gain: Interval  # AUROC of all less that of missing happiness alone, paired
    about: str  # how many pictures of which split

    @property
    def verdict(self) -> str:
        """What of the claim holds: one sentence."""
        own = self.kinds.loc[KINDS[0]]
        if not self.separation[1] > 0:
            return "The network does not tell these classes apart: there is nothing to divide."
        if not (own["share_low"] > 0 and own["auroc_low"] > 0.5):
            return "That the unhappiness neurons carry nothing is not rejected."
        if not self.gain[1] > 0:
            return (
                "The unhappiness neurons tell the classes apart by themselves, but that they add "
                "to what the others say is not shown."
            )
        return (
            "The unhappiness neurons tell the classes apart by themselves, and say something that "
            "the others do not."
        )

    def __str__(self) -> str:
        lines = [f"{self.about}; separation {_tell(self.separation, '.2f')} log-odds"]
        for name, row in self.kinds.iterrows():
            share, area = (row[[k, f"{k}_low", f"{k}_high"]] for k in ("share", "auroc"))
            line = f"{name}: {row['neurons']:.0f} neurons ({row['significant']:.0f} significant, "
            line += f"{row['against']:.0f} against it), share {_tell(share, '.2f')}"
            lines.append(f"{line}, alone AUROC {_tell(area)}")
        lines.append(f"all neurons: AUROC {_tell(self.whole)}")
        lines.append(
            "H0, the unhappiness neurons carry nothing: share <= 0, AUROC alone <= 0.5, no gain in "
            f"AUROC over missing happiness alone. Gain: {_tell(self.gain)}"
        )
        return "\n".join([*lines, self.verdict])


def own_right(states: States, draws: int = DRAWS, seed: int = 0) -> OwnRight:
    """The separation of the classes by kind of neuron, and what each kind tells alone.

    Alone means that the sum of the other kind is held at its mean over all pictures. Shares and
    parts have Student's t with a group bootstrap (`difference_interval`), AUROCs the intervals of
    `measure`.
    """
    groups_of = _strata(states)
    times = draw_times(groups_of, draws, np.random.default_rng(seed))[:, states.group_numbers]
    drawn = _separations(states, times)  # (D, 100)
    parts = _separations(states, np.ones_like(times[:1]))[0]  # (100,)
    sizes = len(groups_of), freedom(groups_of)  # groups, degrees of freedom
    separation = (parts.sum(), *difference_interval(parts.sum(), drawn.sum(1), *sizes))
    neurons = _judge_neurons(parts, drawn, *sizes)
    neurons["kind"] = np.where(states.pull > 0, *KINDS)
    rows, tables = {}, {}
    for kind in KINDS:
        members = (neurons["kind"] == kind).to_numpy()
        rest = states.contributions[:, ~members].sum(1).mean()
        own = states.contributions[:, members].sum(1)
        tables[kind] = _table(states, states.const + rest + own)
        share = _share(parts, drawn, members, *sizes) if separation[1] > 0 else (np.nan, *NOTHING)
        area = measure(tables[kind], draws, seed).loc["AUROC", ENDS]
        ever = members & (states.z > 0).any(0)
        sure = neurons.loc[members & (neurons["p_holm"] < ALPHA), "part"]
        counts = {"significant": (sure > 0).sum(), "against": (sure < 0).sum()}
        rows[kind] = {"neurons": ever.sum()} | counts | _named("share", share)
        rows[kind] |= _named("auroc", area)
    everything = _table(states, states.margins)
    whole = tuple(measure(everything, draws, seed).loc["AUROC", ENDS])
    gain = tuple(compare(everything, tables[KINDS[1]], draws, seed).loc["AUROC", ENDS])
    kinds = pd.DataFrame.from_dict(rows, orient="index")
    return OwnRight(kinds, neurons, separation, whole, gain, str(states))


def _strata(states: States) -> np.ndarray:
    """The stratum of each group; ValueError for pictures from which nothing can be learned."""
    if states.split == "train":
        raise ValueError(
            "These pictures were trained on: neurons fit them by construction. Take val or test."
        )
    groups_of = strata(states.group_numbers, states.labels)
    if states.labels.all() or not states.labels.any() or freedom(groups_of) < 1:
        raise ValueError("Both classes are needed, and more than one group of each kind.")
    return groups_of


def _separations(states: States, times: np.ndarray) -> np.ndarray:
    """Mean contribution on unhappy pictures less that on happy ones: (D, N) weights -> (D, 100)."""
    sides = [times * side for side in (states.labels, ~states.labels)]
    unhappy, happy = (w @ states.contributions / w.sum(1, keepdims=True) for w in sides)
    return unhappy - happy


def _judge_neurons(parts: np.ndarray, drawn: np.ndarray, n_groups: int, free: int) -> pd.DataFrame:
    """Each neuron's part of the separation with interval and two-sided p after Holm."""
    ends = [difference_interval(*pair, n_groups, free) for pair in zip(parts, drawn.T, strict=True)]
    neurons = pd.DataFrame(ends, columns=["low", "high"]).assign(part=parts, p_holm=np.nan)
    vary = neurons["low"].notna()
    error = (neurons["high"] - neurons["low"]) / 2 / student.ppf(0.975, free)
    p = 2 * student.sf(np.abs(parts[vary]) / error[vary], free)
    neurons.loc[vary, "p_holm"] = holm(p)
    return neurons.rename_axis("neuron")


def _share(
    parts: np.ndarray, drawn: np.ndarray, members: np.ndarray, n_groups: int, free: int
) -> Interval:
    """The share of the separation from some neurons, and its ends: itself if it never varies."""
    value = parts[members].sum() / parts.sum()
    shares = drawn[:, members].sum(1) / drawn.sum(1)
    low, high = difference_interval(value, shares, n_groups, free)
    return (value, low, high) if np.isfinite(low) else (value, value, value)


def _table(states: States, margins: np.ndarray) -> pd.DataFrame:
    """A table of predictions (see `dclib.evaluate.predictions`) of margins (N,)."""
    columns = {"id": states.ids, "label": np.where(states.labels, *CLASSES[::-1])}
    columns |= {"group": states.groups, "source": states.sources}
    columns |= dict(zip(LOGITS, (-margins / 2, margins / 2), strict=True))
    table = pd.DataFrame(columns)
    return table.assign(seed=-1, fold=-1, temperature=1.0, threshold=states.threshold)


def _named(name: str, ends: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _tell(ends: Sequence[float], form: str = ".3f") -> str:
    return tell_value(dict(zip(ENDS, ends, strict=True)), form)
