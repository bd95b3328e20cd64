"""Where is the network worse? Accuracy in slices of the pictures, each against all the others.

A tag is a property of pictures (light, skin, number of bystanders), a slice the pictures with one
value of it. What makes a slice hard is not known from this: tags go together with other things.
"""

from pathlib import Path

import numpy as np
from scipy.stats import t as student

from dclib.evaluate.calibration import LEAST
from dclib.evaluate.intervals import TAILS, holm
from dclib.evaluate.metrics import Scored, proportion_interval
from dclib.evaluate.predictions import by_seed, check_predictions
from dclib.evaluate.probe import measure_pictures
from dclib.files import extra

with extra("evaluate"):
    import pandas as pd

MOST = 12  # values of a tag; a column of more numbers is cut into thirds
NO_TAGS = ("file_name", "label", "group")
COLUMNS = ["tag", "value", "n", "groups", "accuracy", "low", "high", "gap", "gap_low", "gap_high"]
COLUMNS += ["p", "p_holm", "verdict"]
NOTES = (
    "A gap is the accuracy in the slice less that of the other pictures with a known value.",
    "p is corrected for all tests of this table (Holm); each interval is for its slice alone.",
    "No difference seen does not mean none: any gap within the interval is possible.",
)


def read_tags(root: str | Path, split: str) -> pd.DataFrame:
    """Every column of metadata.csv that can be a slice; bytes, brightness, megapixels and aspect.

    A DataFrame by id with a categorical column a tag. Columns x_left and x_right become one tag x
    ("f + m", whoever stands left), and, where "none" is one of their values, a tag "x count" of
    those that have something. More than `MOST` numbers become thirds; what has one value, too many
    texts, or carries the label is left out.
    """
    rows = measure_pictures(root, [split])
    if not rows:
        raise ValueError(f"No picture in {root}/{split} can be read.")
    raw = _with_looks(pd.DataFrame(rows).set_index("id"))
    raw = raw.drop(columns=[name for name in raw if name in NO_TAGS or name.startswith("cue_")])
    tags = {name: _to_tag(values) for name, values in _join_pairs(raw).items()}
    return pd.DataFrame({n: tag for n, tag in tags.items() if tag is not None}, index=raw.index)


def _with_looks(raw: pd.DataFrame) -> pd.DataFrame:
    """What the file itself tells, unless metadata.csv has a column of that name; all as text."""
    width, height = raw["width"].astype(float), raw["height"].astype(float)
    looks = {
        "brightness": raw[["red", "green", "blue"]].mean(axis=1) / 255,
        "megapixels": width * height / 1e6,
        "aspect": width / height,
    }
    looks = {name: values for name, values in looks.items() if name not in raw}
    raw = raw.drop(columns=["width", "height", "red", "green", "blue"]).assign(**looks)
    return raw.astype(object).where(raw.notna(), "").astype(str)


def _join_pairs(raw: pd.DataFrame) -> dict[str, pd.Series]:
    """All columns, x_left and x_right as one column x whose values do not depend on the side."""
    columns = dict(raw.items())
    for name in raw:
        stem = name.removesuffix("_left")
        if stem == name or f"{stem}_right" not in columns:
            continue
        pairs = list(zip(columns.pop(name), columns.pop(f"{stem}_right"), strict=True))
        texts = [" + ".join(sorted(pair)) if all(pair) else "" for pair in pairs]
        columns[stem] = pd.Series(texts, raw.index)
        if any("none" in pair for pair in pairs):
            texts = [f"{2 - p.count('none')} of 2" if all(p) else "" for p in pairs]
            columns[f"{stem} count"] = pd.Series(texts, raw.index)
    return columns


def _to_tag(values: pd.Series) -> pd.Series | None:
    """A column of text as ordered categories; None if it is no tag."""
    known = values[values != ""]
    distinct = set(known)
    if len(distinct) < 2 or known.str.match(r"\[.*\]$").all():  # lists, such as boxes
        return None
    numbers = pd.to_numeric(known, errors="coerce")
    numeric = bool(np.isfinite(numbers).all())
    order = sorted(distinct, key=float if numeric else str)
    if len(distinct) > MOST:
        known, order = _thirds(numbers) if numeric else (known, [])
        if len(order) < 2:  # texts, or nearly all pictures have one value
            return None
    return known.astype(pd.CategoricalDtype(order, ordered=True)).reindex(values.index)


def _thirds(numbers: pd.Series) -> tuple[pd.Series, list[str]]:
    """Names of the third that each number is in, and their order; equal numbers stay together."""
    edges = np.unique(np.quantile(numbers, (1 / 3, 2 / 3)))
    edges = edges[edges > numbers.min()]
    ends = [f"{edge:,.0f}" if abs(edge) >= 1000 else f"{edge:.3g}" for edge in edges]
    order = [f"low (< {ends[0]})", f"high ({ends[-1]} or more)"] if ends else ["all"]
    if len(ends) == 2:
        order.insert(1, f"middle ({ends[0]} to {ends[1]})")
    places = np.searchsorted(edges, numbers, side="right")
    return pd.Series([order[place] for place in places], numbers.index), order


def slice_table(table: pd.DataFrame, tags: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in every slice, and how far it is from that of the other pictures.

    Args:
        table: of predictions; of several seeds each picture counts with its mean over them.
        tags: a DataFrame by id, one column a tag, as `read_tags` gives; empty where unknown.

    A DataFrame with `COLUMNS`. `gap` is the accuracy inside less that of the other pictures whose
    value is known (see `measure_gap`). `p_holm` is corrected for all tests of the table (Holm
    1979); slices that part the pictures in the same way, as both of a tag with two values do, are
    one test. The verdict is "worse" or "better" (p_holm below 0.05), "no difference seen", or "too
    few" with less than `LEAST` pictures, or two groups, inside or outside.
    """
    parts = by_seed(check_predictions(table))
    tags = _tags_of(parts[0]["id"], tags)
    right = np.mean([Scored(part).right for part in parts], axis=0)  # (N,)
    groups = np.unique(parts[0]["group"], return_inverse=True)[1]
    rows = []
    for tag, values in tags.items():
        known = values.notna().to_numpy() & (values != "").to_numpy()
        for value in values[known].cat.remove_unused_categories().cat.categories:
            inside = (values == value).to_numpy()
            _, low, high = proportion_interval([Scored(p[inside]) for p in parts], "accuracy")
            row = {"tag": tag, "value": value, "n": inside.sum(), "accuracy": right[inside].mean()}
            row |= {"groups": len(np.unique(groups[inside])), "low": low, "high": high}
            row |= measure_gap(right[known], inside[known], groups[known])
            rows.append(row | {"test": min(inside.tobytes(), (known & ~inside).tobytes())})
    if not rows:
        raise ValueError("No tag has a value for these pictures; there is nothing to slice by.")
    return _judge(pd.DataFrame(rows))[COLUMNS]


def _tags_of(ids: pd.Series, tags: pd.DataFrame) -> pd.DataFrame:
    """The tags of these pictures, as categories, in this order."""
    unknown = ~ids.isin(tags.index)
    if unknown.all():
        raise ValueError(
            f"None of the {len(ids)} pictures of the table ({ids.iloc[0]}, ...) has tags; read "
            "them from the folder that the table is of."
        )
    if unknown.any():
        print(f"Left out of all slices: {unknown.sum()} of {len(ids)} pictures without tags.")
    return tags.reindex(ids.to_numpy()).astype({name: "category" for name in tags})


def measure_gap(right: np.ndarray, inside: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Mean of `right` (N,) inside less outside: a dict of gap, gap_low, gap_high (95 %) and p.

    A right and a wrong answer are added on both sides (Agresti and Caffo 2000, The American
    Statistician 54, 280), else a slice that is all right would have no width. The variance sums
    what each picture adds over its group, which may lie on both sides, and is at least that of
    independent answers. Student's t, with the groups of the side that has fewer, less one. NaN if
    a side has fewer than `LEAST` pictures or two groups.
    """
    nan, g = np.nan, min(len(np.unique(groups[side])) for side in (inside, ~inside))
    gap = right[inside].mean() - right[~inside].mean() if g else nan
    if min(inside.sum(), (~inside).sum()) < LEAST or g < 2:
        return {"gap": gap, "gap_low": nan, "gap_high": nan, "p": nan}
    right = np.concatenate([right, [1, 0, 1, 0]])
    inside = np.concatenate([inside, [True, True, False, False]])
    groups = np.concatenate([groups, groups.max() + 1 + np.arange(4)])
    parts, middle, least_variance = np.zeros(len(right)), 0.0, 0.0
    for side, sign in ((inside, 1), (~inside, -1)):
        share, n = right[side].mean(), side.sum()
        parts[side] = sign * (right[side] - share) / n
        least_variance += share * (1 - share) / n
        middle += sign * share
    k = len(np.unique(groups))
    variance = np.square(np.bincount(groups, parts)).sum() * k / (k - 1)
    error = np.sqrt(max(variance, least_variance))
    reach = student.ppf(TAILS[1], g - 1) * error
    p = 2 * student.sf(abs(middle) / error, g - 1)
    return {"gap": gap, "gap_low": middle - reach, "gap_high": middle + reach, "p": p}


def _judge(rows: pd.DataFrame) -> pd.DataFrame:
    """With p_holm and verdict; rows of one `test` count once."""
    tests = rows.dropna(subset="p").drop_duplicates("test").set_index("test")["p"]
    corrected = pd.Series(holm(tests.to_numpy()), tests.index, dtype=float)
    rows["p_holm"] = rows["test"].map(corrected)
    seen = np.where(rows["gap"] < 0, "worse", "better")
    verdicts = np.where(rows["p_holm"] < 0.05, seen, "no difference seen")
    rows["verdict"] = np.where(rows["p"].isna(), "too few", verdicts)
    return rows


def format_slices(frame: pd.DataFrame) -> str:
    """Lines of text: tag, value, n, accuracy and gap with intervals, p after Holm, verdict."""
    tags, values = (max(map(len, [name, *frame[name]])) for name in ("tag", "value"))
    head = f"{'tag':{tags}}  {'value':{values}}     n  accuracy (95 % interval)"
    lines = [f"{head}   gap (95 % interval)         p, Holm  verdict"]
    for row in frame.itertuples():
        line = f"{row.tag:{tags}}  {row.value:{values}}  {row.n:4}  {row.accuracy:.3f} "
        line += f"({row.low:.3f} to {row.high:.3f})   "
        p = "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:7.3f}"
        gap = f"{row.gap:+.3f} ({row.gap_low:+.3f} to {row.gap_high:+.3f})  {p}"
        lines.append(line + ("-" if np.isnan(row.p) else gap).ljust(35) + f"  {row.verdict}")
    return "\n".join([*lines, "", *NOTES])
