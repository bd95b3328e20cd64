"""What do the parts of the network do? Its stages and both kinds of dropout averaging, compared.

Every arm is trained with the same seeds on the same pictures, and compared pairwise on the same
held-out pictures. Two things vary by chance then: the training, from seed to seed, and which
pictures were held out. The intervals hold both (see `estimate`).
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dclib.config import TrainConfig
from dclib.data import DRAWN, CoupleFolder, fingerprint, make_loader, splits_of
from dclib.evaluate import predict_logits
from dclib.files import save_json
from dclib.intervals import estimate
from dclib.model import STAGES
from dclib.train import build_model, fit, load_splits
from dclib.training.distributed import join_processes
from dclib.training.resume import check_same_run

FILE = "ablation.json"
OTHER = {"logits": "loss", "loss": "logits"}  # of `dropout_loss`
Runs = dict[tuple[str, int], list[int]]  # by arm and seed: 1 for each picture that was right


@dataclass(frozen=True)
class Ablation:
    """Who was right about which picture, and what follows from it.

    `correct[arm, seed]` holds one 0 or 1 for each picture of `split`, `groups` the group of each.
    `kind` is that of the data (see `dclib.data.fingerprint`), `settings` those of spp+pmt.
    """

    correct: Runs
    groups: list[str]
    split: str
    kind: str
    settings: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        """Names of the arms, as `arms_of` orders them."""
        return list(dict.fromkeys(arm for arm, _ in self.correct))

    def answers(self, arm: str) -> np.ndarray:
        """(k, n) float: 1 where the arm was right, else 0, by repetition and picture."""
        seeds = sorted(seed for name, seed in self.correct if name == arm)
        return np.array([self.correct[arm, seed] for seed in seeds], dtype=float)

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """{name of a difference: (arm, the arm that is subtracted)}."""
        stages = [("spp", "resnet34"), ("spp+pmt", "spp"), ("spp+pmt", "resnet34")]
        other = OTHER[self.settings["dropout_loss"]]
        averaged = {OTHER[other]: "spp+pmt", other: f"spp+pmt, {other}-averaged"}
        pairs = {f"{a} - {b}": (a, b) for a, b in stages}
        return pairs | {"loss-averaged - logits-averaged": (averaged["loss"], averaged["logits"])}

    def table(self) -> list[dict[str, Any]]:
        """Accuracy of each arm, mean over its repetitions: dicts of arm and an `Estimate`."""
        return [
            {"arm": arm, **estimate(self.answers(arm), self.groups, lowest=0.0)._asdict()}
            for arm in self.arms
        ]

    def differences(self) -> list[dict[str, Any]]:
        """Differences of accuracy, paired by picture and seed: dicts of name, `Estimate`, verdict.

        Each interval is for its comparison alone.
        """
        rows = []
        for name, (a, b) in self.pairs.items():
            found = estimate(self.answers(a) - self.answers(b), self.groups)
            verdict = "within noise"
            if found.low > 0 or found.high < 0:
                verdict = f"{name.split(' - ')[found.mean < 0]} is better"
            if found.k == 1:  # how much two trainings differ by chance cannot be seen
                verdict = "open with one repetition"
            rows.append({"name": name, **found._asdict(), "verdict": verdict})
        return rows

    @property
    def caution(self) -> list[str]:
        """Sentences on what these numbers do not say."""
        said = ["Each interval is for its comparison alone, not for all of them together."]
        if len(self.correct) == len(self.arms):
            said.append("With one repetition, how training varies by chance is not in them.")
        if self.split == "val":
            said.append(
                "There is no test split: val, which also chose the epoch, stands in for it."
            )
        if self.kind == DRAWN:
            said.append("Drawn couples: the order on photographs may be another.")
        return said

    def __str__(self) -> str:
        k, n = self.answers("spp").shape
        groups = len(set(self.groups))
        times, width = f"{k} repetition{'s' * (k > 1)}", max(map(len, self.arms))
        where = f"{self.split} ({self.kind}), {times}, n = {n} pictures in {groups} groups"
        lines = [f"Accuracy on {where}", f"{'arm':{width}}  accuracy  95 % interval"]
        for row in self.table():
            lines.append("{arm:{0}}  {mean:8.3f}  {low:.3f} to {high:.3f}".format(width, **row))
        lines += ["", "Differences, paired by picture and seed (95 % interval)"]
        told = "{name}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {0}, n = {n}: {verdict}"
        lines += [told.format(times, **row) for row in self.differences()]
        return "\n".join([*lines, "", *self.caution])


def arms_of(config: TrainConfig) -> dict[str, TrainConfig]:
    """{arm: its config}: the three stages, and spp+pmt with the other kind of dropout.

    Raises ValueError for an unknown dropout_loss.
    """
    if config.dropout_loss not in OTHER:
        raise ValueError(f"dropout_loss must be one of {(*OTHER,)}, not {config.dropout_loss!r}.")
    arms = {stage: replace(config, stage=stage) for stage in STAGES}
    other = OTHER[config.dropout_loss]
    return arms | {f"spp+pmt, {other}-averaged": replace(arms["spp+pmt"], dropout_loss=other)}


def ablate(
    root: str | Path,
    config: TrainConfig,
    repetitions: int = 3,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Ablation:
    """Train four arms with the seeds config.seed, config.seed + 1, ... and compare them.

    Held out is test, or val where there is no test. Every finished training is saved at once in
    `folder`/ablation.json, and the next call goes on from there. Raises ValueError if that file is
    of other settings or data, or cannot be read, or if an interval would be impossible (no
    repetition, a single group); and what `fit` raises.
    """
    if repetitions < 1:
        raise ValueError(f"repetitions must be at least 1, not {repetitions}.")
    arms = arms_of(config)
    data, split = fingerprint(root), "test" if "test" in splits_of(root) else "val"
    groups = CoupleFolder(root, split).groups
    estimate(np.zeros((1, len(groups))), groups)  # says now what cannot be compared later
    settings = json.loads(json.dumps(asdict(config)))  # as they are read again
    del settings["stage"]
    settings |= {"data": data["sha256"], "n": len(groups)}
    told = {"settings": settings, "data": data, "split": split}
    saved, correct = load_runs(folder, told), {}
    first = join_processes(config.device)[0].first
    for seed in range(config.seed, config.seed + repetitions):
        for arm, changed in arms.items():
            if (arm, seed) not in saved:
                saved[arm, seed] = train_arm(root, replace(changed, seed=seed), split, progress)
                if folder is not None and first:
                    save_runs(folder, told, saved)
            right = correct[arm, seed] = saved[arm, seed]
            done = f"{len(correct)} of {len(arms) * repetitions}"
            print(f"{done}: {arm}, seed {seed}: {sum(right)} of {len(right)} in {split} right")
    return Ablation(correct, groups, split, data["kind"], settings)


def train_arm(root: str | Path, config: TrainConfig, split: str, progress: bool) -> list[int]:
    """Train one network; returns a 0 or 1 for each picture of `split`."""
    splits, model = load_splits(root, config), build_model(config)
    fit(model, splits["train"], splits["val"], config, progress=progress)
    logits, labels = predict_logits(model, make_loader(splits[split], 32))
    return (logits.argmax(1) == labels).int().tolist()


def save_runs(folder: str | Path, told: dict[str, Any], runs: Runs) -> None:
    """Write ablation.json whole or not at all."""
    rows = [{"arm": arm, "seed": seed, "correct": right} for (arm, seed), right in runs.items()]
    save_json(Path(folder) / FILE, told | {"runs": rows})


def load_runs(folder: str | Path | None, told: dict[str, Any]) -> Runs:
    """All trainings that are saved; empty if there are none.

    Raises ValueError for a file that cannot be read, and for one of another run than `told`.
    """
    if folder is None or not (Path(folder) / FILE).exists():
        return {}
    path = Path(folder) / FILE
    try:
        saved = json.loads(path.read_text())
        runs = {(run["arm"], run["seed"]): run["correct"] for run in saved.pop("runs")}
        before = dict(saved["settings"])
        if any(len(right) != before["n"] or set(right) - {0, 1} for right in runs.values()):
            raise ValueError("a training in it does not have one 0 or 1 for each picture")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to begin again.") from error
    check_same_run(folder, before, told["settings"])
    print(f"Going on with the comparison in {folder}: {len(runs)} trainings were done before.")
    return runs
