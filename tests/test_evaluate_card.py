import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import make_checkpoint
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table

from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.data import DRAWN
from dclib.evaluate import card as model_card
from dclib.evaluate.metrics import METRICS, compare, measure
from dclib.model import INSIDE

PHOTOS = {"kind": "photographs", "name": "mine", "n": {"train": 9, "val": 4}, "sha256": "5" * 64}
DRAWINGS = PHOTOS | {"kind": DRAWN, "name": "demo"}
OTHER = PHOTOS | {"name": "theirs", "sha256": "6" * 64}
CONFIG = {"stage": "spp+pmt", "backbone": "resnet18", "levels": [4, 2, 1], "start_weights": None}
CONFIG |= {"classes": ["happy", "unhappy"], "image_size": 80, "frame": "whole"}
CONFIG |= {"versions": {"deepconnection": "0.1.0", "torch": "2.11.0"}, "weights_sha256": "ab" * 32}
CONFIG |= {"threshold": 0.5, "temperature": 1.0}
NUMBERS = ("n", "groups", "accuracy", "low", "high", "gap", "gap_low", "gap_high", "p", "p_holm")
UNSEEN = "no difference seen"
SLICES = pd.DataFrame(
    [
        ("light", "day", 80, 70, 0.9, 0.85, 0.95, 0.02, -0.04, 0.09, 0.3, 1.0),
        ("light", "dim", 60, 55, 0.86, 0.8, 0.9, -0.05, -0.13, 0.03, 0.2, 1.0),
        ("cover|left", "sun\nglasses", 60, 55, 0.7, 0.6, 0.8, -0.2, -0.3, -0.1, 1e-4, 0.004),
        ("scale", "close", 90, 80, 0.95, 0.9, 0.98, 0.1, 0.05, 0.15, 0.001, 0.01),
        ("scale", "far", 10, 10, 0.9, 0.6, 0.99, *[np.nan] * 5),
    ],
    columns=["tag", "value", *NUMBERS],
).assign(verdict=[UNSEEN, UNSEEN, "worse", "better", "too few"])


def make_predictions(n=40, split="test", rng=0, **columns):
    """n pictures in n / 2 groups whose answers are mostly right."""
    unhappy = np.arange(n) % 2 == 1
    margins = np.where(unhappy, 1, -1) * np.random.default_rng(rng).normal(1, 1, n)
    table = make_table(margins, unhappy, np.arange(n) // 2, **columns)
    return table.assign(id=table["id"].str.replace("test", split))


@pytest.fixture
def checkpoint(tmp_path):
    return make_told(tmp_path)


def make_told(folder, training=PHOTOS, **config):
    """A checkpoint as far as a card reads it."""
    return Checkpoint(None, CONFIG | {"training_data": training} | config, folder)


def write_card(checkpoint, table, slices=None, others=None, data=PHOTOS):
    return model_card.write_card(checkpoint, table, slices, others, data=data)


def results_of(path):
    """The front matter's numbers, as YAML alone reads them."""
    [results] = yaml.safe_load(path.read_text().split("---\n")[1])["model-index"][0]["results"]
    return results


def text_of(path):
    """The body of a card on one line."""
    return " ".join(ModelCard.load(path).text.split())


def test_front_matter_holds_every_metric_as_measured(checkpoint):
    table = make_predictions()
    path = write_card(checkpoint, table)
    assert path == checkpoint.folder / "README.md"
    results = results_of(path)
    told = {"name": "mine", "split": "test", "revision": PHOTOS["sha256"]}
    assert results["dataset"].items() >= told.items()
    found = {metric["name"]: metric for metric in results["metrics"]}
    assert tuple(found) == METRICS
    for name, row in measure(table).iterrows():
        metric, args = found[name], found[name]["args"]
        assert metric["value"] == round(row.value, 6)
        assert (args["n"], args["groups"], args["seeds"]) == (row.n, 20, 1)
        ends = (args["interval"]["low"], args["interval"]["high"])
        assert ends == (round(row.low, 6), round(row.high, 6))
        assert (args["interval"]["confidence"], args["interval"]["method"]) == (0.95, row.method)


def test_the_library_reads_the_card_back(checkpoint):
    card = ModelCard.load(write_card(checkpoint, make_predictions()))
    assert card.data.model_name == checkpoint.folder.name
    kinds = {result.metric_name: result.metric_type for result in card.data.eval_results}
    told = {"recall unhappy": "recall", "F1 happy": "f1", "AUROC": "roc_auc"}
    assert kinds.items() >= (told | {"average precision": "average_precision"}).items()


def test_the_table_is_what_was_measured(checkpoint):
    table = make_predictions()
    lines = write_card(checkpoint, table).read_text().splitlines()
    for name, row in measure(table).iterrows():
        interval = f"{row.low:.3f} to {row.high:.3f}"
        assert f"| {name} | {row.value:.3f} | {interval} | {row.n} |" in lines


def test_drawings_are_called_drawings_from_the_first_line_on(tmp_path):
    table = make_predictions(source=DRAWN)
    path = write_card(make_told(tmp_path, DRAWINGS), table, data=DRAWINGS)
    card = ModelCard.load(path)
    assert card.text.strip().splitlines()[0] == "# This network knows only drawn couples"
    assert "The numbers below are of drawn couples." in text_of(path)
    assert "drawings-only" in card.data.tags
    assert {r.metric_args["pictures"] for r in card.data.eval_results} == {"drawn couples"}


@pytest.mark.parametrize(
    ("sources", "kind"),
    [
        (["", ""], "photographs"),
        ([DRAWN, f"{DRAWN}, warm prints"], "drawn couples"),
        (["", DRAWN], "photographs and drawn couples"),
    ],
)
def test_a_network_of_photographs_says_what_it_was_measured_on(checkpoint, sources, kind):
    path = write_card(checkpoint, make_predictions(source=sources * 20), data=OTHER)
    assert f"The numbers below are of {kind}." in text_of(path)
    words = {"drawn", "drawings", "drawings-only"} & set(path.read_text().lower().split())
    assert words == (set() if kind == "photographs" else {"drawn"})


@pytest.mark.parametrize(
    ("split", "data", "told"),
    [
        ("test", PHOTOS, None),
        ("val", PHOTOS, "these pictures chose the epoch, and the temperature if it is not 1."),
        ("train", PHOTOS, "the network was trained on these pictures."),
        ("train", OTHER, None),
    ],
)
def test_numbers_that_are_too_good_are_called_so(checkpoint, split, data, told):
    text = text_of(write_card(checkpoint, make_predictions(split=split), data=data))
    assert ("**Too good to rely on:" in text) == (told is not None)
    assert (told or "") in text


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (PHOTOS, "answers to test of the data set that it was trained on;"),
        (OTHER, "answers to test of another data set than that, by fingerprint (`theirs`,"),
    ],
)
def test_which_pictures_were_measured(checkpoint, data, told):
    assert told in text_of(write_card(checkpoint, make_predictions(), data=data))


def test_out_of_fold_numbers_are_not_of_this_network(checkpoint):
    with pytest.raises(ValueError, match="answers of networks that left pictures out"):
        write_card(checkpoint, make_predictions(seed=0, fold=np.arange(40) // 2 % 5))


def test_the_network_inside_the_package_keeps_its_own_card(tmp_path):
    inside, before = make_told(INSIDE), (INSIDE / "README.md").read_bytes()
    with pytest.raises(ValueError, match="keeps its card: name another folder"):
        write_card(inside, make_predictions())
    path = model_card.write_card(inside, make_predictions(), data=PHOTOS, folder=tmp_path / "new")
    assert path == tmp_path / "new" / "README.md" and path.exists()
    assert (INSIDE / "README.md").read_bytes() == before


def test_slices_name_who_falls_behind_and_what_stays_open(checkpoint):
    text = text_of(write_card(checkpoint, make_predictions(), slices=SLICES))
    behind = "0.700 (0.600 to 0.800) | 60 | -0.200 (-0.300 to -0.100) | 0.004 |"
    ahead = "0.950 (0.900 to 0.980) | 90 | +0.100 (+0.050 to +0.150) | 0.01 |"
    assert f"| `cover/left` = `sun glasses` | {behind} | `scale` = `close` | {ahead} No gap" in text
    assert (
        "No gap seen in 2 slices by `light`; their intervals still allow one of -0.130 (`light` = "
        "`dim`, n = 60). Slices with too few pictures to tell: 1."
    ) in text


def test_slices_without_a_difference(checkpoint):
    text = text_of(write_card(checkpoint, make_predictions(), slices=SLICES[:2]))
    assert "No slice differs clearly from all others. No gap seen in 2 slices by `light`;" in text
    assert "too few" not in text


def test_others_stand_beside_with_a_paired_difference(checkpoint):
    table, other = make_predictions(), make_predictions(rng=1)
    wrong = make_predictions()
    wrong["logit_unhappy"] *= -1
    others = {"spp": other, "a|b": wrong}
    lines = write_card(checkpoint, table, others=others).read_text().splitlines()
    noise, clear = (line for line in lines if line.startswith(("| `spp` |", "| `a/b` |")))
    found, row = measure(other).loc["AUROC"], compare(table, other).loc["accuracy"]
    assert f"| {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) |" in noise
    assert f"| {row.value:+.3f} ({row.low:+.3f} to {row.high:+.3f}): within noise |" in noise
    assert clear.endswith(": clear |")


def test_a_difference_that_does_not_vary_is_neither_clear_nor_noise(checkpoint):
    table = make_predictions()
    table["logit_happy"], table["logit_unhappy"] = 0.0, np.resize([-1.0, 1.0], len(table))
    table["label"] = np.where(table["logit_unhappy"] > 0, "unhappy", "happy")
    card = write_card(checkpoint, table, others={"majority": table.assign(logit_unhappy=-1.0)})
    assert "| +0.500: no interval |" in card.read_text()


def test_calibration_is_told_with_its_effect(tmp_path):
    checkpoint = make_told(tmp_path, temperature=2.0)
    table = make_predictions(temperature=2.0)
    text = text_of(write_card(checkpoint, table))
    assert 'temperature 2 (fitted on val); the answer is "unhappy" from 0.5 on' in text
    for name, row in measure(table, calibrated=False).loc[["log-loss", "ECE"]].iterrows():
        after = measure(table).loc[name]
        assert f"{name} {after.value:.3f} ({after.low:.3f} to {after.high:.3f}) with it" in text
        assert f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f}) without." in text


def test_choices_that_round_to_none_are_choices_all_the_same(checkpoint):
    table = make_predictions(temperature=1.0004, threshold=0.4999)
    text = text_of(write_card(checkpoint, table))
    assert "temperature 1 (fitted on val)" in text
    assert "from 0.5 on (chosen without these pictures)" in text
    assert " without." in text  # numbers before the temperature
    text = text_of(write_card(checkpoint, make_predictions()))
    assert "(not fitted)" in text and "(not chosen on pictures)" in text and " without." not in text


def test_the_verdict_of_a_slice_is_not_given_again(checkpoint):
    """Another level of significance is decided in `dclib.evaluate.slices` alone."""
    text = text_of(write_card(checkpoint, make_predictions(), SLICES.assign(verdict=UNSEEN)))
    assert "No slice differs clearly from all others." in text


def test_a_checkpoint_loads_with_its_card_and_a_new_one_has_none(tmp_path):
    folder = make_checkpoint(tmp_path / "c", PHOTOS)
    path = write_card(load_checkpoint(folder), make_predictions())
    loaded = load_checkpoint(folder)
    assert f"weights `{loaded.config['weights_sha256'][:12]}`" in text_of(path)
    side = loaded.config["image_size"]
    assert f"input {side} x {side} px of the whole picture" in text_of(path)
    make_checkpoint(folder, PHOTOS | {"name": "newer"})
    assert not path.exists()


def test_stages_are_told_apart(tmp_path):
    text = text_of(write_card(make_told(tmp_path, stage="plain"), make_predictions()))
    assert "A resnet18 with global average pooling: stage `plain`, from a random start" in text
    start = {"stage": "spp", "start_weights": "imagenet"}
    text = text_of(write_card(make_told(tmp_path, **start), make_predictions()))
    assert "pooling (levels 4, 2, 1): stage `spp`, from ImageNet weights." in text
    assert "power mean" not in text


def test_one_picture_makes_a_card_without_intervals_it_cannot_have(checkpoint):
    path = write_card(checkpoint, make_predictions(1))
    names = {metric["name"] for metric in results_of(path)["metrics"]}
    assert "accuracy" in names and "AUROC" not in names
    assert "nan" not in path.read_text().lower()
    assert "| AUROC | - | no interval | 1 |" in path.read_text()


def test_a_table_that_is_not_in_order_leaves_the_old_card(checkpoint):
    table = make_predictions()
    path = write_card(checkpoint, table)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="did the training diverge"):
        write_card(checkpoint, table.assign(logit_happy=np.nan))
    assert path.read_bytes() == before


def test_others_of_other_pictures_are_refused(checkpoint):
    with pytest.raises(ValueError, match="No picture was answered by both"):
        write_card(checkpoint, make_predictions(), others={"x": make_predictions(split="val")})
    assert not (checkpoint.folder / "README.md").exists()


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_of_a_data_set_survives(tmp_path_factory, name):
    checkpoint = make_told(tmp_path_factory.mktemp("card"), PHOTOS | {"name": name})
    path = write_card(checkpoint, make_predictions(4), data=OTHER | {"name": name})
    assert ModelCard.load(path).data.eval_results[0].dataset_name == name


def test_a_name_cannot_write_headings(tmp_path):
    name = "a\n\n# all {title} | `b`"
    path = write_card(make_told(tmp_path, PHOTOS | {"name": name}), make_predictions(4))
    assert "`a # all {title} / 'b'`, `photographs`" in text_of(path)


EVIL = "<img src=x onerror=alert(1)> [a](javascript:b) | `c` **d**\n\n# e"


def test_no_text_of_strangers_is_markdown(tmp_path):
    training = PHOTOS | {"kind": EVIL, "n": {EVIL: 9}}
    versions = {"deepconnection": EVIL, "torch": EVIL}
    checkpoint = make_told(tmp_path, training, versions=versions, start_weights=EVIL)
    table, slices = make_predictions(), SLICES.assign(tag=EVIL, value=EVIL)
    path = write_card(checkpoint, table, slices, {EVIL: table}, OTHER | {"kind": EVIL})
    text = ModelCard.load(path).text
    assert text.count("onerror") >= 8
    outside = "".join(text.split("`")[::2])  # what is not shown as code
    assert "onerror" not in outside and "javascript" not in outside
