"""A trained network as a folder: model.safetensors (weights) and config.json (everything else).

config.json says how the network is built, how pictures must be prepared, what it was trained on and
how well it did, and holds a hash of the weights: changed or half-written ones are noticed. Nothing
here unpickles code.
"""

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dclib import __version__
from dclib.data import DRAWN
from dclib.data.loading import EvalTransform
from dclib.files import file_hash
from dclib.model import BACKBONE_PARTS, STAGES, DeepConnection, find_misfits, read_state_dict

WEIGHTS, CONFIG, FORMAT = "model.safetensors", "config.json", 1
REQUIRED = (
    *("stage", "backbone", "levels", "classes", "dropout_samples", "image_size", "mean", "std"),
    *("threshold", "temperature", "training_data", "versions", "metrics", "weights_sha256"),
)
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
        return EvalTransform(self.config["image_size"], self.config["mean"], self.config["std"])

    @property
    def knows_only_drawings(self) -> bool:
        """Whether all its training pictures were drawn, so that photographs mean nothing to it."""
        data = self.config["training_data"]
        return data.get("learned_from", data["kind"]) == DRAWN

    @property
    def abstain(self) -> float | None:
        """Confidence below which it does not answer; None if none is known."""
        return self.config.get("abstain")

    def __str__(self) -> str:
        data, config = self.config["training_data"], self.config
        fitted = config["temperature"] != 1
        lines = [
            f"{self.folder}: {config['backbone']} ({config['stage']}), {config['image_size']} px"
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

    Raises ValueError for a number that is none; an older checkpoint is then still there.
    """
    folder = Path(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():  # killed between the two renames below
        old.rename(folder)
    for leftover in (unfinished, old):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    config = _config_of(model, transform, start_weights) | {
        "training_data": training_data,
        "metrics": {split: asdict(result) for split, result in metrics.items()},
        "threshold": threshold,
        "temperature": temperature,
        "abstain": abstain,
    }
    state = {key: _portable(value) for key, value in model.state_dict().items()}
    save_file(state, unfinished / WEIGHTS, metadata={"format": "pt"})
    config["weights_sha256"] = file_hash(unfinished / WEIGHTS)
    (unfinished / CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def load_checkpoint(
    folder: "Checkpoint | str | Path", device: str | torch.device = "cpu"
) -> Checkpoint:
    """Read a checkpoint folder, with the network in eval mode on `device`.

    One that is loaded already is returned as it is. Raises FileNotFoundError or CheckpointError.
    """
    if isinstance(folder, Checkpoint):
        return folder
    folder = Path(folder)
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
        "start_weights": start_weights and Path(start_weights).name,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "deepconnection": __version__,
        },
    }


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json, with every entry that is needed."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} is not readable JSON: {ADVICE}") from error
    entries = config if isinstance(config, dict) else {}
    if entries.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{folder} has format {config['format']}; this dclib reads {FORMAT}.")
    if missing := [key for key in REQUIRED if key not in entries]:
        raise CheckpointError(f"{folder / CONFIG} lacks {', '.join(missing)}: {ADVICE}")
    if entries["stage"] == "resnet34":  # what "plain" was called at first
        entries["stage"] = "plain"
    return entries


def _portable(tensor: Tensor) -> Tensor:
    """On the CPU, in the default memory layout, floats as float32."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.float() if tensor.is_floating_point() else tensor
