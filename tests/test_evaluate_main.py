import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from dclib.checkpoint import load_checkpoint, save_checkpoint
from dclib.data import fingerprint, without_files
from dclib.data.loading import EvalTransform
from dclib.evaluate.__main__ import main
from dclib.evaluate.metrics import compare, conclude, format_differences, measure
from dclib.evaluate.predictions import answered_by_both, predict_folder, probabilities
from dclib.model import DeepConnection
from dclib.train import TrainConfig

CONFIG = TrainConfig.demo(image_size=64)


def save_random(folder, training, seed=0, spoil=None, temperature=1.0, data=None):
    """A checkpoint of random weights; with `data`, one that answers both ways to its pictures."""
    torch.manual_seed(seed)
    model = DeepConnection(CONFIG.stage, CONFIG.backbone, weights=None)
    if spoil is not None:
        torch.nn.init.constant_(model.head.lin2.weight, spoil)
    picks = {"temperature": temperature}
    save_checkpoint(folder, model, EvalTransform(64), training, {}, **picks)
    if data is not None:
        answers = probabilities(predict_folder(load_checkpoint(folder), data))
        picks["threshold"] = float(np.median(answers))
        save_checkpoint(folder, model, EvalTransform(64), training, {}, **picks)


@pytest.fixture(scope="module")
def workplace(couples, tmp_path_factory):
    """Checkpoints and data sets in one folder; bad ones are in test_checkpoint and test_data."""
    here, training = tmp_path_factory.mktemp("report"), fingerprint(couples)
    save_random(here / "good", training, data=couples)
    save_random(here / "second", training, seed=1, temperature=2.0, data=couples)
    save_random(here / "diverged", training, spoil=float("nan"))
    (here / "hollow").mkdir()
    (here / "data").symlink_to(couples)
    shutil.copytree(couples / "test", here / "mine" / "test")
    (here / "file").touch()
    (here / "study").mkdir()
    (here / "study" / "predictions.csv").write_text("mine")
    return here


@pytest.fixture
def there(workplace, tmp_path, monkeypatch):
    """The workplace as the current folder; outputs go to tmp_path."""
    monkeypatch.chdir(workplace)
    yield tmp_path
    for card in workplace.glob("*/README.md"):
        card.unlink()


def test_what_it_writes_is_what_is_measured(there, capsys):
    main(["good", "data", "--out", str(there / "out")])
    table = pd.read_csv(there / "out" / "predictions.csv", keep_default_na=False)
    measured, checkpoint = measure(table), load_checkpoint("good")
    pd.testing.assert_frame_equal(table, predict_folder(checkpoint, "data"))
    told = json.loads((there / "out" / "metrics.json").read_text())
    training = checkpoint.config["training_data"]
    assert list(told["metrics"]) == list(measured.index)
    for name, row in measured.iterrows():
        found = told["metrics"][name]
        assert found["n"] == row.n
        assert found["method"] == row.method
        numbers = [np.nan if found[key] is None else found[key] for key in ("value", "low", "high")]
        assert numbers == pytest.approx([row.value, row.low, row.high], nan_ok=True)
    assert told["data"] == without_files(training) | {"name": "data"}
    assert told["checkpoint"]["weights_sha256"] == checkpoint.config["weights_sha256"]
    assert told["versions"]["torch"] == torch.__version__
    card = ModelCard.load(Path("good") / "README.md")
    values = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert values["accuracy"] == round(measured.loc["accuracy", "value"], 6)
    printed = capsys.readouterr().out
    assert "Data: data/test, drawn couples, n = 6 pictures (3 happy, 3 unhappy)" in printed
    assert "Checkpoint: good: resnet18 (spp+pmt), 64 px" in printed
    assert f"Device: {'cuda' if torch.cuda.is_available() else 'cpu'}" in printed
    assert f"accuracy            {measured.loc['accuracy', 'value']:.3f}" in printed
    assert "WARNING" not in printed


def test_results_are_named_after_checkpoint_and_split(there, monkeypatch, workplace):
    monkeypatch.chdir(there)
    main([str(workplace / "good"), str(workplace / "data")])
    assert (there / "results" / "good-test" / "metrics.json").is_file()


def test_pictures_that_decided_something_get_a_warning_and_no_card(there, capsys):
    Path("good/README.md").write_text("older")
    main(["good", "data", "--split", "val", "--out", str(there / "out")])
    printed = capsys.readouterr().out
    assert "WARNING: Too good to rely on: these pictures chose the epoch, and the" in printed
    assert "No model card was written" in printed
    assert Path("good/README.md").read_text() == "older"
    assert json.loads((there / "out" / "metrics.json").read_text())["split"] == "val"


def test_another_data_set_is_called_another(there, capsys):
    main(["good", "mine", "--out", str(there / "out")])
    told = "another data set; none of these pictures is in its train or val."
    assert f"It was trained on {told}" in capsys.readouterr().out
    card = " ".join(Path("good/README.md").read_text().split())
    assert "another data set than that" in card and "; none of these pictures is in its" in card


def test_training_pictures_are_known_in_a_data_set_that_has_changed(there, capsys):
    root = there / "changed"
    shutil.copytree("data", root)
    next((root / "test" / "happy").iterdir()).unlink()  # one that was forgotten
    moved = next((root / "train" / "happy").glob("*.jpg"))
    moved.rename(root / "test" / "happy" / "new name.jpg")
    said = []
    for split in ("train", "test"):
        main(["good", str(root), "--split", split, "--out", str(there / split)])
        said.append(capsys.readouterr().out)
    assert "Too good to rely on: the network was trained on these pictures." in said[0]
    assert "Too good to rely on: the network was trained on 1 of the 6 pictures." in said[1]
    assert all("No model card was written" in text for text in said)
    assert all("It was trained on another data set." in text for text in said)


def test_an_older_checkpoint_knows_its_own_data_set_only(there, capsys):
    save_random(there / "older", without_files(fingerprint("data")), data=Path("data"))
    shutil.copytree("data/train", there / "part" / "train")
    for root in ("data", there / "part"):
        main([str(there / "older"), str(root), "--split", "train", "--out", str(there / "out")])
    whole, part = capsys.readouterr().out.split("Wrote predictions.csv", 1)
    assert "the network was trained on these pictures." in whole
    assert "another data set; pictures in both were not looked for." in part


def test_against_another_checkpoint(there, capsys):
    main(["good", "data", "--against", "second", "--out", str(there / "out")])
    one, two = (predict_folder(load_checkpoint(name), "data") for name in ("good", "second"))
    paired, printed = compare(one, two), capsys.readouterr().out
    network = "second: resnet18 (spp+pmt), 64 px, looks at the whole picture"
    assert f"Against: {network}, temperature 2.00 (fitted on val)" in printed
    assert format_differences(paired) in printed
    assert conclude(paired, one) in printed
    told = json.loads((there / "out" / "metrics.json").read_text())
    assert told["mcnemar"] == paired.attrs
    assert told["against"]["name"] == "second"
    value = told["differences"]["log-loss"]["value"]
    assert value == pytest.approx(paired.loc["log-loss", "value"])
    assert "| `second` |" in Path("good/README.md").read_text()
    assert not Path("second/README.md").exists()


@pytest.fixture
def undetected(there, couples):
    """Pictures of which one shows nobody, a network that looks at faces, and that one's id."""
    root = there / "undetected"
    shutil.copytree(couples / "test", root / "test")
    rows = pd.read_csv(root / "test" / "metadata.csv", dtype=str, keep_default_na=False)
    rows.loc[0, "boxes"] = ""
    rows.to_csv(root / "test" / "metadata.csv", index=False)
    Image.new("RGB", (64, 64)).save(root / "test" / rows.loc[0, "file_name"])
    model = DeepConnection(CONFIG.stage, CONFIG.backbone, weights=None)
    training = fingerprint(couples)
    save_checkpoint(there / "faces", model, EvalTransform(64, frame="faces"), training, {})
    return root, there / "faces", f"test/{rows.loc[0, 'file_name']}"


@pytest.mark.parametrize("first", ["faces", "good"])
def test_networks_are_compared_on_what_both_answered(there, undetected, capsys, first):
    root, faces, missing = undetected
    pair = {"faces": faces, "good": Path("good")}
    (second,) = pair.keys() - {first}
    command = [str(pair[first]), str(root), "--against", str(pair[second])]
    main([*command, "--out", str(there / "out")])
    printed = capsys.readouterr().out
    assert "as only one of the two answered: 1 of 6 pictures." in printed
    tables = {name: predict_folder(load_checkpoint(folder), root) for name, folder in pair.items()}
    whole = tables["good"]
    tables["good"] = whole[whole["id"] != missing]
    assert (len(whole), len(tables["faces"])) == (6, 5)
    assert format_differences(compare(tables[first], tables[second])) in printed
    card = (pair[first] / "README.md").read_text()
    assert (", on the 5 pictures that both answered |" in card) == (first == "good")
    assert len(pd.read_csv(there / "out" / "predictions.csv")) == {"faces": 5, "good": 6}[first]


def test_what_is_wrong_with_the_second_costs_the_first_nothing(there):
    with pytest.raises(SystemExit, match="did the training diverge"):
        main(["good", "data", "--against", "diverged", "--out", str(there / "out")])
    assert (there / "out" / "predictions.csv").exists() and Path("good/README.md").exists()
    assert "against" not in json.loads((there / "out" / "metrics.json").read_text())
    table = predict_folder(load_checkpoint("good"), "data")
    with pytest.raises(ValueError, match="No picture was answered by both networks"):
        answered_by_both(table[:2], table[2:])


def test_against_one_that_was_trained_on_these_pictures(there, capsys):
    """It is compared with, but the card does not show it."""
    shutil.copytree("mine/test", "other/train")
    save_random(Path("seen"), fingerprint(Path("other")), seed=2, data=Path("mine"))
    arguments = ["good", "other", "--split", "train", "--against", "seen"]
    main([*arguments, "--out", str(there / "out")])
    assert "WARNING: Too good to rely on" in capsys.readouterr().out
    assert "| `seen` |" not in Path("good/README.md").read_text()


def test_a_readme_of_ones_own_stays(there):
    Path("good/README.md").write_text("My notes.")
    with pytest.raises(SystemExit, match=r"README.md was not written by dclib: move it, to make"):
        main(["good", "data", "--out", str(there / "out")])
    assert Path("good/README.md").read_text() == "My notes."
    assert (there / "out" / "predictions.csv").exists()
    Path("good/README.md").unlink()
    for _ in range(2):  # an earlier report, and an earlier card, are replaced
        main(["good", "data", "--out", str(there / "out")])


def test_a_network_of_photographs_on_drawings_is_said(there, capsys, photo_checkpoint):
    main([str(photo_checkpoint), "data", "--out", str(there / "out")])
    said = "WARNING: this network knows photographs, and is measured on drawn couples."
    assert said in capsys.readouterr().out
    (photo_checkpoint / "README.md").unlink()


def test_a_network_of_both_is_at_home_with_either(there, capsys, photo_checkpoint):
    checkpoint = load_checkpoint(photo_checkpoint)
    checkpoint.config["training_data"]["learned_from"] = "photographs and drawings"
    predict_folder(checkpoint, "data")
    assert "WARNING" not in capsys.readouterr().out


NOWHERE = "nowhere is no checkpoint: there is no such folder."
BAD = {
    "no checkpoint": (["nowhere", "data"], NOWHERE),
    "hollow checkpoint": (["hollow", "data"], "hollow is no checkpoint: it has no config.json."),
    "NaN logits": (
        ["diverged", "mine"],
        "The table of predictions has logits, a temperature or a threshold that is no number "
        "(did the training diverge?): 6 rows, the first is id 'test/happy/{first}', label 'happy'.",
    ),
    "no data": (["good", "nowhere"], "There is no folder nowhere."),
    "no such split": (
        ["good", "mine", "--split", "val"],
        "mine has no folder val: it has test; choose one with --split.",
    ),
    "no split at all": (["good", "hollow"], "hollow has no folder test: it has no split."),
    "no folder to write": (
        ["good", "mine", "--out", "file"],
        "{here}/file/predictions.csv cannot be written (Not a directory): make room, or choose "
        "another place.",
    ),
    "a folder of other results": (
        ["good", "mine", "--out", "study"],
        "study holds a predictions.csv of something else: choose another --out.",
    ),
    "no checkpoint to compare with": (["good", "mine", "--against", "nowhere"], NOWHERE),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_writes_nothing(there, case):
    arguments, sentence = BAD[case]
    first = sorted(path.name for path in Path("mine/test/happy").iterdir())[0]
    out = [] if "--out" in arguments else ["--out", str(there / "out")]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *out])
    assert stopped.value.code == sentence.format(first=first, here=Path.cwd())
    assert not list(there.iterdir())
    assert not Path("good/README.md").exists()
