"""A trained network as a folder: model.safetensors (weights) and config.json (everything else).

config.json says how the network is built, how pictures must be prepared, what it was trained on and
how well it did, and holds a hash of the weights: changed or half-written ones are noticed. Nothing
here unpickles code.
"""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dclib import __version__
from dclib.data import CLASSES, DRAWN
from dclib.data.loading import EvalTransform
from dclib.files import Proof, check_folder, file_hash, put_back, write_folder
from dclib.framing import KINDS
from dclib.model import (
    BACKBONE_PARTS,
    INSIDE,
    STAGES,
    DeepConnection,
    find_misfits,
    read_state_dict,
)
from dclib.rules import TEXT, Rule, check, number, one_of, or_none, row_of

WEIGHTS, CONFIG, FORMAT = "model.safetensors", "config.json", 1
CARD, CARD_TAG = "README.md", "- deepconnection\n"  # see dclib.evaluate.card
NETWORK = {  # settings of a training too
    "stage": one_of(*STAGES),
    "backbone": TEXT,
    "levels": row_of(number(1, 32, whole=True), 1, 8),
    "dropout_samples": number(1, 1000, whole=True),
    "image_size": number(1, 4096, whole=True),
    "mean": row_of(number(0, 1), 3, 3),
    "std": row_of(number(1e-3, 10), 3, 3),
    "frame": one_of(*KINDS),
    "frame_margin": number(0, 10),
}
SHARE, COUNT = number(0, 1), number(0, 1e9, whole=True)
HASH = Rule("64 hexadecimal digits", lambda v: bool(re.fullmatch("[0-9a-f]{64}", str(v))))
HASHES = Rule("hexadecimal", lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f ]*", v)))
ENTRIES: dict[str, Any] = NETWORK | {  # all that config.json may hold
    "classes": one_of(list(CLASSES), list(CLASSES[::-1])),
    "threshold": SHARE,
    "temperature": number(1e-3, 1e3),
    "abstain?": or_none(SHARE),
    "start_weights?": or_none(TEXT),
    "training_data": {
        "kind": TEXT,
        "learned_from?": TEXT,
        "name": TEXT,
        "n": {"*": COUNT},
        "sha256": HASH,
        "files?": {"*": HASHES},
    },
    "metrics": {"*": {"accuracy": SHARE, "low": SHARE, "high": SHARE, "n": COUNT}},
    "versions": {"*": TEXT},
    "weights_sha256": HASH,
}
LOOKS = dict(zip(KINDS, ("the whole picture", "the couple", "faces and couple")))
ADVICE = "it is damaged, or parts of two checkpoints were mixed. Copy the whole folder again."
DRAWINGS_ONLY = (
    "This checkpoint has only ever seen drawn couples. What it says about a photograph means "
    "nothing; train on photographs first (notebook 03, DATA)."
)


class CheckpointError(ValueError):
    """A folder that is not a whole checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded network (eval mode), config.json as a dict, and the folder it was read from."""

    model: DeepConnection
    config: dict[str, Any]
    folder: Path

    @property
    def transform(self) -> EvalTransform:
        """What turns a picture into this network's input."""
        names = ("image_size", "mean", "std", "frame", "frame_margin")
        return EvalTransform(*(self.config[name] for name in names))

    @property
    def knows_only_drawings(self) -> bool:
        """Whether all its training pictures were drawn, so that photographs mean nothing to it."""
        return _is_drawn(self.config["training_data"])

    @property
    def name(self) -> str:
        """Its folder, or that it is the network inside the package."""
        return "the network inside the package" if self.folder == INSIDE else str(self.folder)

    @property
    def abstain(self) -> float | None:
        """Confidence below which it does not answer; None if none is known."""
        return self.config.get("abstain")

    def __str__(self) -> str:
        data, config = self.config["training_data"], self.config
        fitted = config["temperature"] != 1
        lines = [
            f"{self.name}: {config['backbone']} ({config['stage']}), {config['image_size']} px, "
            f"looks at {LOOKS[config['frame']]}"
            + (f", temperature {config['temperature']:.2f} (fitted on val)" if fitted else ""),
            f"trained on {data['n'].get('train', '?')} pictures of {data['name']} ({data['kind']})",
        ]
        for split, m in config["metrics"].items():
            chose = "; it chose the epoch" if split == "val" else ""
            lines.append(
                f"{split} accuracy {m['accuracy']:.3f} "
                f"(95 % interval {m['low']:.3f} to {m['high']:.3f}, n = {m['n']}{chose})"
            )
        return "\n  ".join(lines)


def save_checkpoint(
    folder: str | Path,
    model: DeepConnection,
    transform: EvalTransform,
    training_data: dict[str, Any],
    metrics: Mapping[str, Any],
    start_weights: str | Path | None = None,
    threshold: float = 0.5,
    temperature: float = 1.0,
    abstain: float | None = None,
) -> Path:
    """Write a checkpoint folder, in place of an older one once it is complete. Returns its path.

    Args:
        model: its weights are saved in float32.
        transform: what turns a picture into the network's input.
        training_data: from `dclib.data.fingerprint`.
        metrics: `dclib.evaluate.intervals.Accuracy` by split.
        start_weights: "imagenet", or the file of the weights that the training began with.
        threshold: probability of unhappy from which that is the verdict.
        temperature: divides the logits before the softmax; fitted on val, or 1.
        abstain: confidence below which no answer is given, from `dclib.evaluate.calibration`.

    Raises ValueError for what config.json may not hold, and what `dclib.files.write_folder` does;
    an older checkpoint is then still there. What else lies in its folder stays.
    """
    config = _config_of(model, transform, start_weights) | {
        "training_data": training_data,
        "metrics": {split: asdict(result) for split, result in metrics.items()},
        "threshold": threshold,
        "temperature": temperature,
        "abstain": abstain,
    }
    state = {key: _portable(value) for key, value in model.state_dict().items()}
    # a card tells of the weights beside it
    parts = [WEIGHTS, CONFIG] + [CARD] * is_card(Path(folder) / CARD)
    with write_folder(folder, _replaces(training_data), parts) as unfinished:
        (unfinished / WEIGHTS).write_bytes(save(state, {"format": "pt"}))
        config["weights_sha256"] = file_hash(unfinished / WEIGHTS)
        check(config, ENTRIES)
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
    return Path(folder)


def check_target(folder: str | Path, training_data: dict[str, Any]) -> None:
    """Raise OSError, one sentence, if `save_checkpoint` could not write there; before training.

    `training_data` as there. A network of drawings never takes the place of one of photographs.
    """
    if is_checkpoint(Path(folder)) and not _replaces(training_data)(Path(folder)):
        raise FileExistsError(
            f"{folder} is a network of photographs, which one of drawings would replace: choose "
            "another folder."
        )
    check_folder(folder, _replaces(training_data))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, whole or damaged, that another may replace."""
    return {"stage", "backbone", "weights_sha256", "training_data"} <= _peek(folder).keys()


def _replaces(training_data: dict[str, Any]) -> Proof:
    """Which checkpoints another one, trained on these data, may replace."""

    def replaces(folder: Path) -> bool:
        before = _peek(folder).get("training_data")
        photographs = not isinstance(before, dict) or not _is_drawn(before)
        return is_checkpoint(folder) and not (photographs and _is_drawn(training_data))

    return replaces


def _peek(folder: Path) -> dict[str, Any]:
    """config.json, unchecked; empty if there is none."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _is_drawn(data: dict[str, Any]) -> bool:
    """Whether all pictures of a fingerprint that were learned from were drawn."""
    return data.get("learned_from", data.get("kind")) == DRAWN


def is_card(path: Path) -> bool:
    """Whether a file is a model card that `dclib.evaluate.card` wrote."""
    try:
        return CARD_TAG in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def load_checkpoint(
    folder: "Checkpoint | str | Path | None" = None, device: str | torch.device = "cpu"
) -> Checkpoint:
    """Read a checkpoint folder, with the network in eval mode on `device`.

    None is the network inside the package, which has seen photographs (its card: `INSIDE`). One
    that is loaded already is returned as it is. Raises FileNotFoundError or CheckpointError.
    """
    if isinstance(folder, Checkpoint):
        return folder
    folder = INSIDE if folder is None else Path(folder)
    put_back(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no checkpoint: there is no such folder.")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {name}.")
    config = _read_config(folder)
    if file_hash(folder / WEIGHTS) != config["weights_sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS} is not the file that was saved: {ADVICE}")
    try:
        state = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS} is no safetensors file ({error}).") from error
    model = DeepConnection(
        config["stage"],
        config["backbone"],
        weights=None,
        levels=tuple(config["levels"]),
        dropout_samples=config["dropout_samples"],
        classes=config["classes"],
    )
    if find_misfits(model.state_dict(), state):
        raise CheckpointError(
            f"{folder / CONFIG} tells of another network than its weights: {ADVICE}"
        )
    model.load_state_dict(state)
    return Checkpoint(model.eval().to(device), config, folder)


def load_2019(path: str | Path) -> DeepConnection:
    """A network in eval mode from a state dict of the 2019 notebook's `PMT_SPP`.

    Its keys are `convs.*` and `fc2.*`. Raises FileNotFoundError, or ValueError for anything else,
    such as the whole pickled modules that the authors shared: save `model.state_dict()` of those.
    """
    parts = {f"convs.{index}": f"backbone.{name}" for index, name in enumerate(BACKBONE_PARTS)}
    parts["fc2"] = "head"
    state = {}
    for key, value in read_state_dict(path).items():
        part = next((part for part in parts if key.startswith(part + ".")), "")
        state[parts.get(part, "") + key.removeprefix(part)] = value
    model = DeepConnection(STAGES[-1], "resnet34", weights=None)
    if misfits := find_misfits(model.state_dict(), state):
        raise ValueError(
            f"{path} is not a state dict of the 2019 notebook: see its entry {misfits[0]}."
        )
    model.load_state_dict(state)
    return model.eval()


def _config_of(
    model: DeepConnection, transform: EvalTransform, start_weights: str | Path | None
) -> dict[str, Any]:
    """What config.json says of the network itself, its input and its origin."""
    return {
        "format": FORMAT,
        "stage": model.stage,
        "backbone": model.backbone_name,
        "levels": list(model.levels),
        "classes": list(model.classes),
        "dropout_samples": model.head.samples,
        "image_size": transform.size,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "frame": transform.frame,
        "frame_margin": transform.margin,
        "start_weights": start_weights and Path(start_weights).name,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "deepconnection": __version__,
        },
    }


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json, with what is needed and nothing that it may not hold."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / CONFIG} is not readable JSON: {ADVICE}") from error
    entries = config if isinstance(config, dict) else {}
    if entries.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            f"{folder} has format {entries['format']!r:.60}; this dclib reads {FORMAT}."
        )
    if entries.get("stage") == "resnet34":  # what "plain" was called at first
        entries["stage"] = "plain"
    entries = {"frame": KINDS[0], "frame_margin": 0.0} | entries  # older ones know no other
    try:
        check(entries, ENTRIES)
    except ValueError as error:
        raise CheckpointError(f"{error} So says {folder / CONFIG}: {ADVICE}") from error
    return entries


def _portable(tensor: Tensor) -> Tensor:
    """On the CPU, in the default memory layout, floats as float32."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor
