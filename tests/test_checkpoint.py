import json
import pickle
import shutil
from math import inf, nan

import pytest
import torch
from conftest import make_checkpoint
from safetensors.torch import load, save_file
from test_model import Evil

from dclib.checkpoint import (
    CARD,
    CONFIG,
    INSIDE,
    WEIGHTS,
    CheckpointError,
    check_target,
    load_2019,
    load_checkpoint,
    save_checkpoint,
)
from dclib.data import DRAWN
from dclib.data.loading import CoupleFolder, EvalTransform, keep, make_loader
from dclib.drawn import our_couple, render_couples
from dclib.evaluate.metrics import measure
from dclib.evaluate.predictions import make_table, predict_folder
from dclib.files import _hidden, file_hash
from dclib.model import BACKBONE_PARTS, DeepConnection
from dclib.photo import predict_photo
from dclib.predict import predict_logits

PHOTOS = {"kind": "photographs", "name": "mine", "n": {"train": 10, "val": 4}, "sha256": "0" * 64}


def make_small(folder, name="mine", **changes):
    return make_checkpoint(folder, PHOTOS | {"name": name}, levels=(2, 1), **changes)


@pytest.fixture(scope="module")
def unspoilt(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("unspoilt") / "checkpoint")


@pytest.fixture
def saved(unspoilt, tmp_path):
    """A checkpoint that a test may spoil."""
    return shutil.copytree(unspoilt, tmp_path / "checkpoint")


@pytest.mark.parametrize("stage", ["plain", "spp", "spp+pmt"])
def test_round_trip(tmp_path, stage):
    torch.manual_seed(1)
    model = DeepConnection(stage, "resnet18", None, (3, 1), classes=("unhappy", "happy")).eval()
    transform = EvalTransform(96, (0.1, 0.2, 0.3), (1, 1, 1), "faces", 0.25)
    save_checkpoint(tmp_path / "c", model, transform, PHOTOS, {}, threshold=0.6, temperature=2.0)
    loaded = load_checkpoint(tmp_path / "c")
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(loaded.model(images), model(images))
    assert loaded.model.classes == ("unhappy", "happy")
    assert not loaded.model.training
    assert (loaded.config["threshold"], loaded.config["temperature"]) == (0.6, 2.0)
    assert vars(loaded.transform) == vars(transform)
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"model.safetensors", "config.json"}


def test_a_folder_from_before_the_stage_was_called_plain(tmp_path):
    folder = make_small(tmp_path / "old", stage="plain")
    edit(folder, stage="resnet34")
    state = load((folder / "model.safetensors").read_bytes())
    save_file(state, folder / "model.safetensors", {"format": "pt", "config_sha256": "0" * 64})
    edit(folder, weights_sha256=file_hash(folder / "model.safetensors"))
    loaded = load_checkpoint(folder)
    assert (loaded.model.stage, loaded.config["stage"]) == ("plain", "plain")


def test_says_what_it_is(saved, drawn_checkpoint):
    loaded = load_checkpoint(saved)
    text = str(loaded)
    assert "10 pictures of mine (photographs)" in text
    assert "0.500 (95 % interval 0.188 to 0.812, n = 6; it chose the epoch)" in text
    assert not loaded.knows_only_drawings
    assert load_checkpoint(drawn_checkpoint).knows_only_drawings


def change_weights(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_weights(folder):
    path = folder / "model.safetensors"
    torch.save(load(path.read_bytes()), path)


def mix_checkpoints(folder):
    other = make_small(folder.with_name("other"), stage="spp")
    shutil.copy(other / "config.json", folder)


def cut_config(folder):
    path = folder / "config.json"
    path.write_text(path.read_text()[:200])


def forget_threshold(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["threshold"]
    (folder / "config.json").write_text(json.dumps(config))


def next_format(folder):
    """Of a later dclib, which may do without an entry of ours."""
    forget_threshold(folder)
    edit(folder, format=2)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (change_weights, "not the file that was saved"),
        (cut_weights, "not the file that was saved"),
        (pickle_weights, "not the file that was saved"),
        (mix_checkpoints, "parts of two checkpoints were mixed"),
        (lambda folder: edit(folder, levels=[1]), "tells of another network than its weights"),
        (cut_config, "not readable JSON"),
        (forget_threshold, "threshold is missing. So says .*config.json: it is damaged"),
        (lambda folder: edit(folder, format=99), "has format 99"),
        (next_format, "has format 2"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "stage is missing"),
    ],
)
def test_a_tampered_checkpoint_is_refused(saved, tamper, message):
    tamper(saved)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def test_a_pickle_with_a_matching_hash_is_refused_unread(saved, capsys):
    (saved / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    edit(saved, weights_sha256=file_hash(saved / "model.safetensors"))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(saved)
    assert "pickled code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name}"):
        load_checkpoint(saved)


# ------------------------------------------------------------------ 2019


def state_of_2019(model):
    """The same weights under the names that the 2019 notebook gave them."""
    state = {}
    for key, value in model.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "backbone":
            name, _, rest = rest.partition(".")
            key = f"convs.{BACKBONE_PARTS.index(name)}.{rest}"
        else:
            key = f"fc2.{rest}"
        state[key] = value
    return state


@pytest.fixture(scope="module")
def model_of_2019():
    torch.manual_seed(2)
    return DeepConnection(weights=None).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_2019_state_dict(tmp_path, model_of_2019, suffix):
    state = state_of_2019(model_of_2019)
    assert {"convs.0.weight", "convs.7.2.bn2.bias", "fc2.lin1.weight", "fc2.bn1.bias"} < set(state)
    path = tmp_path / f"old{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load_2019(path)(images), model_of_2019(images))


def test_2019_whole_module_is_refused(tmp_path):
    path = tmp_path / "model_ft.pkl"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="not a plain file of weights"):
        load_2019(path)


@pytest.mark.parametrize(
    ("key", "value", "entry"),
    [
        ("fc2.lin2.bias", None, r"head\.lin2\.bias"),  # is missing
        ("fc2.lin2.bias", torch.zeros(3), r"head\.lin2\.bias"),  # of another number of classes
        ("convs.9.weight", torch.zeros(3), r"convs\.9\.weight"),  # of another network
        ("convs.weight", torch.zeros(3), r"convs\.weight"),
    ],
)
def test_2019_with_something_else(tmp_path, model_of_2019, key, value, entry):
    state = state_of_2019(model_of_2019) | {key: value}
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=rf"not a state dict of the 2019 notebook: .* {entry}"):
        load_2019(tmp_path / "old.pth")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_checkpoint(tmp_path / "gone")


def test_an_interrupted_save_leaves_the_old_one(saved, monkeypatch):
    monkeypatch.setattr("dclib.checkpoint.file_hash", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_small(saved, "newer")
    monkeypatch.undo()
    assert load_checkpoint(saved).config["training_data"]["name"] == "mine"


def test_killed_between_the_two_renames(saved):
    """The old one waits under another name, and whoever wants it next brings it back."""
    saved.rename(_hidden(saved, "old"))
    assert load_checkpoint(saved).config["training_data"]["name"] == "mine"


# ------------------------------------------------------------------ what else lies there


def test_what_lies_beside_a_checkpoint_and_in_it_stays(saved):
    beside = [saved.with_name(saved.name + end) for end in (".old", ".unfinished")]
    for folder in (*beside, saved):
        folder.mkdir(exist_ok=True)
        (folder / "notes.txt").write_text("mine")
    (saved / CARD).write_text("tags:\n- deepconnection\n")  # of the older network
    make_small(saved, "newer")
    assert load_checkpoint(saved).config["training_data"]["name"] == "newer"
    assert all((folder / "notes.txt").read_text() == "mine" for folder in (*beside, saved))
    assert {path.name for path in saved.iterdir()} == {WEIGHTS, CONFIG, "notes.txt"}
    (saved / CARD).write_text("My own notes.")
    make_small(saved, "newest")
    assert (saved / CARD).read_text() == "My own notes."


@pytest.mark.parametrize("name", ["notes.txt", "train/happy/1.jpg", "other/config.json", CONFIG])
def test_a_folder_of_something_else_is_refused_untouched(name, tmp_path):
    folder = tmp_path / "theirs"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text('{"model_type": "mine"}')
    for write in (make_small, lambda folder: check_target(folder, PHOTOS)):
        with pytest.raises(FileExistsError, match="theirs holds something else: choose another"):
            write(folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / name]


def test_drawings_do_not_replace_photographs(saved):
    drawn = PHOTOS | {"kind": DRAWN, "name": "drawn"}
    with pytest.raises(FileExistsError, match="is a network of photographs, which one of drawings"):
        check_target(saved, drawn)
    with pytest.raises(FileExistsError, match="holds something else"):
        make_checkpoint(saved, drawn)
    assert load_checkpoint(saved).config["training_data"]["name"] == "mine"
    make_checkpoint(saved.with_name("drawn"), drawn)
    check_target(saved.with_name("drawn"), PHOTOS)


# ------------------------------------------------------------------ odd values with right hashes

NUMBERS = (nan, inf, -inf, -1, 10**30, "1", True, None, [], {})
ODD = {
    "stage": ("", "resnet18", None, [], 1),
    "backbone": ("", "nothing", None, 1),
    "classes": (["happy"], ["a", "b"], ["happy", "happy"], "happy", None, [1, 2]),
    "levels": ([], [0], [-1], [1.5], [10**9], [[1]], 4, "8421", None, [1] * 99),
    "mean": ([], [0, 0], [nan] * 3, ["0"] * 3, 0.5, None, [2, 0, 0]),
    "std": ([0, 0, 0], [-1, 1, 1], [inf] * 3, [1], None),
    "threshold": [value for value in NUMBERS],
    "temperature": (0, *NUMBERS),
    "abstain": [value for value in NUMBERS if value is not None],
    "dropout_samples": (0, 1.5, *NUMBERS),
    "image_size": (0, 64.5, *NUMBERS),
    "start_weights": (1, [], {}),
    "weights_sha256": ("", "0" * 63, 1, None),
    "training_data": ({}, [], None, *(PHOTOS | {"n": n} for n in ([1], {"train": "x"}, None))),
    "metrics": ([], None, {"val": 0.5}, {"val": {"accuracy": nan, "low": 0, "high": 1, "n": 1}}),
    "versions": ([], None, {"torch": 2}),
    "frame": ("", "face", None, 1, ["faces"]),
    "frame_margin": (-0.1, 11, *NUMBERS),
}
ODD["training_data"] += tuple(PHOTOS | {"files": odd} for odd in ("", {"train": 1}, {"val": "x"}))
ODD["training_data"] += tuple(PHOTOS | {"kind": kind} for kind in (None, 1, []))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_value_is_refused_in_a_sentence(saved, name):
    before = json.loads((saved / "config.json").read_text())
    assert before.keys() - ODD.keys() == {"format"}
    for value in ODD[name]:
        (saved / "config.json").write_text(json.dumps(before | {name: value}))
        with pytest.raises(ValueError) as caught:
            load_checkpoint(saved)
        assert name in str(caught.value) and "\n" not in str(caught.value), value


@pytest.fixture(scope="module")
def inside():
    return load_checkpoint()


def test_the_network_inside_the_package_is_small_and_says_what_it_is(inside):
    files = {path.name: path.stat().st_size for path in INSIDE.iterdir()}
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    assert files["model.safetensors"] <= 48_000_000
    assert str(inside).startswith("the network inside the package: resnet34 (spp+pmt), 256 px")
    assert not inside.knows_only_drawings and inside.transform.frame == "faces"
    assert next(inside.model.parameters()).dtype == torch.float32  # half as large on disk only
    card = (INSIDE / "README.md").read_text()
    for split, measured in inside.config["metrics"].items():
        assert measured["n"] > 100, split
    assert inside.config["weights_sha256"][:12] in card and "Not tried" in card


def test_it_answers_for_drawn_couples_that_it_has_not_seen(inside, tmp_path):
    """Every couple is drawn happy and unhappy; n = 60, so at least 0.9 is far from luck."""
    root = render_couples(tmp_path / "drawn", 60, seed=11, splits={"test": 1})
    table = predict_folder(inside, root)
    assert measure(table).loc["accuracy", "value"] >= 0.9
    for label in ("happy", "unhappy"):
        assert predict_photo(our_couple(label), inside).label == label


def test_it_answers_for_couples_of_photographed_faces(inside, real_couples):
    found = CoupleFolder(real_couples, "val", inside.transform)
    assert len(found) > 180  # both faces
    some = keep(found, range(0, len(found), 3))
    table = make_table(some, predict_logits(inside.model, make_loader(some, 16))[0])
    assert measure(table).loc["AUROC", "value"] > 0.95
