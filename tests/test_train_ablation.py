import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from statistics import mean, variance

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dclib.data import DRAWN
from dclib.drawn import render_couples
from dclib.evaluate.intervals import estimate
from dclib.train import TrainConfig
from dclib.train import studies as module
from dclib.train.plots import plot_ablation
from dclib.train.studies import ABLATION_FILE, Ablation, ablate, arms_of, train_arm

ARMS = ("resnet34", "spp", "spp+pmt", "spp+pmt, logits-averaged")
CONFIG = TrainConfig.demo(
    image_size=32, epochs=1, batch_size=8, workers=0, cache=False, augment=0, device="cpu"
)


def by_hand(values, groups, confidence=0.95):
    """The formula once more, picture by picture, with the spread in units of a mean group."""
    k, n = len(values), len(groups)
    whole = mean(mean(row) for row in values)
    names = sorted(set(groups))
    size = n / len(names)
    sums = []
    for name in names:
        rows = [i for i in range(n) if groups[i] == name]
        sums.append(sum(mean(row[i] for row in values) - whole for i in rows) / size)
    one_each_way = 2 / size**2 / (len(names) - 1)
    of_groups = (variance(sums, 0.0) + one_each_way) / len(names)
    of_seeds = variance([mean(row) for row in values]) / k if k > 1 else 0.0
    halves = [stats.t.interval(confidence, len(names) - 1, 0, math.sqrt(of_groups))[1]]
    if of_seeds:
        halves.append(stats.t.interval(confidence, k - 1, 0, math.sqrt(of_seeds))[1])
    return whole, (whole - math.hypot(*halves), whole + math.hypot(*halves))


def make_ablation(rights, groups=None, split="test", kind="photographs", dropout_loss="loss"):
    """An `Ablation` of {arm: array (k, n)}."""
    n = len(rights["spp"][0])
    correct = {(arm, seed): row for arm in rights for seed, row in enumerate(rights[arm])}
    return Ablation(correct, groups or list(range(n)), split, kind, {"dropout_loss": dropout_loss})


def draw_arms(shift, k=3, n=300, seed=0):
    """Arms that are as good as one another, but for spp+pmt, which is better by `shift`."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0.8, 1, n)
    shifts = dict(zip(ARMS, (0, 0, shift, 0), strict=True))
    return {
        arm: (difficulty + by + rng.normal(0, 0.3, (k, n)) > 0).astype(int)
        for arm, by in shifts.items()
    }


def test_one_repetition_of_four_pictures_by_hand():
    """Residuals 1/2, -1/2, 1/2, -1/2: SE^2 = (1 + 2) / 16 * 4 / 3 = 1/4, t of 3 is 3.182."""
    found = estimate([[1, 0, 1, 0]], list("abcd"), lowest=-9)
    assert found[:3] == pytest.approx((0.5, 0.5 - 3.1824 / 2, 1.0), abs=1e-4)
    assert found[3:] == (1, 4, 4)
    assert estimate([[1, 0, 1, 0]], list("abcd"), lowest=0.0).low == 0


def test_two_repetitions_by_hand():
    """Means 1 and 0: the seeds give (1/2) / 2 = 1/4; the groups 2 / 16 * 2 / 1 = 1/4."""
    values, groups = [[1] * 4, [0] * 4], [0, 0, 1, 1]
    found = estimate(values, groups, lowest=-99, confidence=0.1)
    assert found.mean == 0.5
    assert found.mean - found.low == pytest.approx(stats.t.ppf(0.55, 1) * math.sqrt(0.5))


@given(
    st.tuples(st.integers(1, 5), st.integers(2, 12)).flatmap(
        lambda shape: st.tuples(
            st.lists(
                st.lists(st.sampled_from([-1, 0, 1]), min_size=shape[1], max_size=shape[1]),
                min_size=shape[0],
                max_size=shape[0],
            ),
            st.lists(st.sampled_from("abcd"), min_size=shape[1], max_size=shape[1]),
        )
    )
)
def test_the_interval_equals_a_second_implementation(drawn):
    values, groups = drawn
    if len(set(groups)) == 1:
        with pytest.raises(ValueError, match="one group"):
            estimate(values, groups)
        return
    expected, (low, high) = by_hand(values, groups, 0.5)
    found = estimate(values, groups, confidence=0.5)
    assert found[:3] == pytest.approx((expected, max(low, -1), min(high, 1)), abs=1e-9)


@pytest.mark.parametrize(("one_way", "is_clear"), [(3, False), (4, False), (6, True), (9, True)])
def test_few_disagreements_are_judged_as_by_the_exact_test(one_way, is_clear):
    """Of 300 pictures, `one_way` speak for one arm and none for the other (McNemar)."""
    assert (stats.binomtest(one_way, one_way).pvalue < 0.05) == is_clear
    found = estimate([[1] * one_way + [0] * (300 - one_way)], range(300))
    assert (found.low > 0) == is_clear


def test_identical_arms_differ_by_exactly_zero():
    right = draw_arms(0)["spp"]
    rows = make_ablation(dict.fromkeys(ARMS, right)).differences()
    assert [row["mean"] for row in rows] == [0] * 4
    assert {row["verdict"] for row in rows} == {"within noise"}
    assert all(row["low"] == -row["high"] < 0 for row in rows)


def test_one_repetition_decides_nothing():
    right = {arm: answers[:1] for arm, answers in draw_arms(3.0).items()}
    rows = make_ablation(right).differences()
    assert any(row["low"] > 0 for row in rows)
    assert {row["verdict"] for row in rows} == {"open with one repetition"}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_difference_is_found_with_its_direction(sign):
    made = make_ablation(draw_arms(sign * 0.8))
    verdicts = {row["name"]: row["verdict"] for row in made.differences()}
    assert verdicts == {
        "spp - resnet34": "within noise",
        "spp+pmt - spp": f"{'spp+pmt' if sign > 0 else 'spp'} is better",
        "spp+pmt - resnet34": f"{'spp+pmt' if sign > 0 else 'resnet34'} is better",
        "loss-averaged - logits-averaged": f"{'loss' if sign > 0 else 'logits'}-averaged is better",
    }
    table = {row["arm"]: row["mean"] for row in made.table()}
    for row in made.differences()[:3]:
        a, b = row["name"].split(" - ")
        assert row["mean"] == pytest.approx(table[a] - table[b])


def test_repetitions_that_disagree_make_the_interval_wider():
    same = np.array([[1] * 60 + [0] * 240] * 3)
    moved = np.array([[1] * ones + [0] * (300 - ones) for ones in (20, 60, 100)])
    steady, shaky = estimate(same, range(300)), estimate(moved, range(300))
    assert steady.mean == pytest.approx(shaky.mean)
    assert shaky.low < 0 < steady.low


@pytest.mark.parametrize("k", [3, 5])
def test_95_percent_intervals_hold_the_truth_in_at_least_93(k):
    """Pictures in pairs; difficulty of a pair and a picture, effects of seed and of both."""
    rng, n, hits, runs = np.random.default_rng(k), 300, 0, 1000
    pairs = np.repeat(np.arange(n // 2), 2)
    own, seeds, both, shift = 0.5, 0.3, 0.5, 0.3
    spread = math.sqrt(1.5 + own**2 + seeds**2 + both**2)
    truth = stats.norm.cdf((0.8 + shift) / spread) - stats.norm.cdf(0.8 / spread)
    for _ in range(runs):
        difficulty = 0.8 + rng.normal(0, 1, n) + rng.normal(0, math.sqrt(0.5), n // 2)[pairs]
        right = [
            difficulty + by + rng.normal(0, own, n // 2)[pairs]
            + rng.normal(0, seeds, (k, 1)) + rng.normal(0, both, (k, n)) > 0
            for by in (0, shift)
        ]  # fmt: skip
        found = estimate(right[1].astype(int) - right[0], pairs)
        hits += found.low <= truth <= found.high
    assert hits >= 0.93 * runs


def test_what_is_printed():
    text = str(make_ablation(draw_arms(0.8), kind=DRAWN, split="val"))
    assert "Accuracy on val (demo drawings), 3 repetitions, n = 300 pictures in 300 groups" in text
    [line] = [line for line in text.splitlines() if line.startswith("spp+pmt - spp:")]
    assert line.endswith("), 3 repetitions, n = 300: spp+pmt is better")
    for said in ("its comparison alone", "val, which also chose the epoch", "Drawn couples"):
        assert said in text
    assert "one repetition" not in text
    text = str(make_ablation(draw_arms(0, k=1)))
    assert "With one repetition, how training varies by chance is not in them." in text
    assert not any(said in text for said in ("chose the epoch", "Drawn", "1 repetitions"))


def test_the_arms_differ_in_nothing_but_their_part():
    arms = arms_of(CONFIG)
    assert tuple(arms) == ARMS
    assert [arm.stage for arm in arms.values()] == ["resnet34", "spp", "spp+pmt", "spp+pmt"]
    assert [arm.dropout_loss for arm in arms.values()] == ["loss"] * 3 + ["logits"]
    assert tuple(arms_of(TrainConfig.paper()))[3] == "spp+pmt, loss-averaged"


@pytest.fixture
def no_training(monkeypatch):
    """Stands in for training; lists what was trained."""
    trained = []

    def stand_in(root, config, split, progress):
        trained.append((config.stage, config.dropout_loss, config.seed))
        return [config.seed % 2] * 6

    monkeypatch.setattr(module, "train_arm", stand_in)
    return trained


def test_every_arm_has_the_same_seeds_and_more_repetitions_keep_the_old(
    couples, tmp_path, no_training
):
    first = ablate(couples, TrainConfig.demo(seed=4), 1, tmp_path)
    assert [seed for _, seed in first.correct] == [4] * 4
    second = ablate(couples, TrainConfig.demo(seed=4), 2, tmp_path)
    assert list(second.correct) == [(arm, seed) for seed in (4, 5) for arm in ARMS]
    kinds = [("resnet34", "loss"), ("spp", "loss"), ("spp+pmt", "loss"), ("spp+pmt", "logits")]
    assert no_training == [(*kind, seed) for seed in (4, 5) for kind in kinds]
    again = ablate(couples, TrainConfig.demo(seed=4), 1, tmp_path)
    assert (again.correct, len(no_training)) == (first.correct, 8)
    assert (first.split, first.kind, len(first.groups)) == ("test", DRAWN, 6)
    assert len(set(first.groups)) == 3  # happy and unhappy twins
    assert first.answers("spp").shape == (1, 6)


def test_other_settings_and_other_data_are_refused(couples, tmp_path, no_training):
    ablate(couples, CONFIG, 1, tmp_path)
    with pytest.raises(ValueError, match=r"has lr = 0.001, not 0.5: use its settings"):
        ablate(couples, replace(CONFIG, lr=0.5), 1, tmp_path)
    saved = json.loads((tmp_path / ABLATION_FILE).read_text())
    saved["settings"]["data"] = "0"
    (tmp_path / ABLATION_FILE).write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="has data = '0', not "):
        ablate(couples, CONFIG, 1, tmp_path)
    assert len(no_training) == 4


@pytest.mark.parametrize("text", ["", '{"runs": [', "[]", "{}", '{"runs": [{"arm": "spp"}]}'])
def test_a_damaged_file_is_refused(couples, tmp_path, no_training, text):
    (tmp_path / ABLATION_FILE).write_text(text)
    with pytest.raises(
        ValueError, match=rf"{ABLATION_FILE} cannot be read .*; delete it to begin again"
    ):
        ablate(couples, CONFIG, 1, tmp_path)


def test_answers_to_other_pictures_are_refused(couples, tmp_path, no_training):
    ablate(couples, CONFIG, 1, tmp_path)
    saved = json.loads((tmp_path / ABLATION_FILE).read_text())
    saved["runs"][2]["correct"].pop()
    (tmp_path / ABLATION_FILE).write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="one 0 or 1 for each picture"):
        ablate(couples, CONFIG, 1, tmp_path)


def test_impossible_comparisons_are_refused_before_any_training(couples, tmp_path, no_training):
    with pytest.raises(ValueError, match="repetitions must be at least 1, not 0"):
        ablate(couples, CONFIG, 0)
    with pytest.raises(ValueError, match=r"dropout_loss must be one of .*, not 'both'"):
        ablate(couples, replace(CONFIG, dropout_loss="both"))
    one_group = render_couples(tmp_path / "drawn", 6, 32, splits={"train": 1, "val": 1, "test": 1})
    with pytest.raises(ValueError, match="All held-out pictures are one group"):
        ablate(one_group, CONFIG)
    assert not no_training


def test_without_test_val_is_held_out_and_pictures_without_a_group_stand_alone(
    couples, tmp_path, no_training
):
    shutil.copytree(couples, tmp_path / "couples")
    shutil.rmtree(tmp_path / "couples" / "test")
    (tmp_path / "couples" / "val" / "metadata.csv").unlink()
    made = ablate(tmp_path / "couples", CONFIG, 1)
    assert (made.split, len(set(made.groups))) == ("val", 6)


SCRIPT = f"""
import sys
from dclib.train.studies import ablate
from dclib.train import TrainConfig
ablate(sys.argv[1], {CONFIG}, 1, sys.argv[2], progress=False)
"""


def test_a_killed_comparison_goes_on_and_ends_with_the_same_answers(
    couples, tmp_path, monkeypatch, capsys
):
    undisturbed = ablate(couples, CONFIG, 1, progress=False)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(couples), str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / ABLATION_FILE).exists():
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    runs = json.loads((tmp_path / ABLATION_FILE).read_text())["runs"]
    assert 1 <= len(runs) < 4
    trained = []
    monkeypatch.setattr(module, "train_arm", lambda *a: trained.append(a) or train_arm(*a))
    continued = ablate(couples, CONFIG, 1, tmp_path, progress=False)
    assert len(trained) == 4 - len(runs)
    assert continued == undisturbed
    assert f"{len(runs)} trainings were done before" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [ABLATION_FILE]


@pytest.mark.parametrize(("kind", "title"), [(DRAWN, "drawn couples"), ("photographs",) * 2])
@pytest.mark.parametrize("k", [1, 3])
def test_the_figure(kind, title, k):
    made = make_ablation(draw_arms(0.8, k), kind=kind)
    fig = plot_ablation(made)
    fig.canvas.draw()
    left, right = fig.axes
    assert title in fig.get_suptitle()
    assert f"k = {k}" in fig.get_suptitle()
    assert all("n = 300" in axis.get_xlabel() for axis in fig.axes)
    for axis, rows in ((left, made.table()), (right, made.differences())):
        spans = [lines.get_segments()[0][:, 0].tolist() for lines in axis.collections]
        assert spans == [pytest.approx([row["low"], row["high"]]) for row in rows]
        means = [line.get_xdata()[0] for line in axis.lines[0:8:2]]
        assert means == pytest.approx([row["mean"] for row in rows])
        assert all(len(line.get_xdata()) == k for line in axis.lines[1:8:2])
        for line, row in zip(axis.lines[1:8:2], rows, strict=True):
            assert np.mean(line.get_xdata()) == pytest.approx(row["mean"])
    plt.close(fig)
