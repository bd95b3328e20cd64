"""The command line, mostly in this process."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from dclib.checkpoint import load_checkpoint
from dclib.data import splits_of
from dclib.train.__main__ import main
from dclib.train.studies import DONE, TABLE

SMALL = ["--preset", "demo", "--image-size", "32", "--workers", "0", "--augment", "0"]
SMALL += ["--precision", "fp32"]


@pytest.fixture
def command(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments), *SMALL])
        main()

    return run


def test_a_checkpoint_is_trained(couples, tmp_path, command, capsys):
    command(couples, tmp_path / "c", "--stage", "spp", "--epochs", "1", "--no-cache")
    assert "n = 6" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "c").config["stage"] == "spp"


def test_two_processes_train_and_the_first_writes(couples, tmp_path):
    options = ["--device", "cpu", "--epochs", "1", "--batch-size", "8", "--no-cache"]
    start = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dclib.train"]
    command = [sys.executable, "-m", *start, couples, tmp_path / "c", *SMALL, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Training resnet18") == 1
    assert "in 2 processes in float32" in done.stdout
    assert load_checkpoint(tmp_path / "c").config["metrics"]["test"]["n"] == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "epochs must be a whole number from 1 to 1000000, not 0."),
        (["--clip", "-1"], "clip must be a number from 0 to 1e[+]06, or none, not -1.0."),
        (["--lr", "nan"], "lr must be a number from 0 to 100, not nan."),
        (["--std", "1"], "std must be 3 values, each a number from 0.001 to 10, not "),
        (["--seed", "9" * 30], "seed must be a whole number from 0 to 2147483647, not 9"),
        (["--backbone", "nothing"], "backbone must be a torchvision ResNet"),
        (["--device", "nothing"], "There is no device 'nothing' here: take auto or cpu."),
        (["--device", "meta"], "There is no device 'meta' here: take auto or cpu."),
        (["--ablate", "0"], "2"),
        (["--ablate", "9" * 30], "2"),
        (["--ablate", "--folds", "2"], "two studies: give one of them."),
        (["--ablate", "--resume"], "--ablate and --folds go on by themselves: leave out --resume."),
        (["--seeds", "2"], "--seeds and --stages go with --folds."),
        (["--folds", "1"], "2"),
        (["--folds", "19"], "19 folds need 19 groups with happy pictures or more; there are 18."),
        (["--folds", "2", "--seeds", "0"], "2"),
    ],
)
def test_settings_that_mean_nothing(couples, tmp_path, command, options, said):
    with pytest.raises(SystemExit, match=said):
        command(couples, tmp_path / "c", *options)
    assert not (tmp_path / "c").exists()


def test_a_comparison_is_drawn(couples, tmp_path, monkeypatch, command, capsys, no_training):
    monkeypatch.chdir(tmp_path)
    command(couples, "out", "--ablate", "2")
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert len(no_training) == 8
    assert "Accuracy on test (demo drawings), 2 repetitions, n = 6" in said
    assert "Drawn in out/ablation.png." in said


def test_several_stages_out_of_fold(couples, tmp_path, command, capsys, no_training):
    options = ["--folds", "3", "--seeds", "2", "--stages", "plain", "spp", "--lr", "0.01"]
    command(couples, tmp_path, *options)
    said = capsys.readouterr().out
    assert len(no_training) == 12
    for stage in ("plain", "spp"):
        assert f"{stage}, n = 36 pictures (18 happy, 18 unhappy) in 18 groups, 2 seeds" in said
        assert f"(stage {stage}) from a random start" in said
        settings = json.loads((tmp_path / stage / DONE).read_text())["settings"]
        assert (settings["stage"], settings["lr"]) == (stage, 0.01)
        assert len(pd.read_csv(tmp_path / stage / TABLE)) == 72
    header = next(line for line in said.splitlines() if "metadata only" in line)
    assert header.split() == ["plain", "spp", "majority", "metadata", "only"]


def test_after_its_end_there_is_nothing_to_resume(couples, tmp_path, command, capsys):
    options = ["--stage", "plain", "--epochs", "1", "--no-cache"]
    command(couples, tmp_path / "c", *options)
    before = (tmp_path / "c" / "config.json").stat().st_mtime_ns
    command(couples, tmp_path / "c", *options, "--resume")
    assert "This training has ended, and nothing was done" in capsys.readouterr().out
    assert (tmp_path / "c" / "config.json").stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_neither_trained_nor_studied_in(
    couples, tmp_path, command, no_training
):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (couples, tmp_path):
        for options in ([], ["--ablate", "1"]):
            with pytest.raises(SystemExit, match="holds something else"):
                command(couples, place, *options)
    assert no_training == []
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_one_class_only_and_no_data(couples, tmp_path, command):
    root = shutil.copytree(couples, tmp_path / "data")
    for split in splits_of(root):
        shutil.rmtree(root / split / "unhappy")
    for options in ([], ["--folds", "2"]):
        with pytest.raises(SystemExit, match="has no folder 'unhappy'"):
            command(root, tmp_path / "out", *options)
        with pytest.raises(SystemExit, match=r"There is no folder .*; a data set is"):
            command(tmp_path / "none", tmp_path / "out", *options)


def test_where_pandas_is_missing_training_works_all_the_same(couples, tmp_path):
    code = "import sys; sys.modules['pandas'] = None; from dclib.train.__main__ import main; main()"
    command = [sys.executable, "-c", code, tmp_path / "none", tmp_path / "c", *SMALL]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "There is no folder" in done.stderr
