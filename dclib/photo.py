"""One photo in, one answer out."""

from dataclasses import dataclass

import torch

from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.pictures import read_picture

DRAWINGS_ONLY = (
    "This checkpoint has only ever seen drawn couples. What it says about a photograph means "
    "nothing; train on photographs first (notebook 03, DATA)."
)


@dataclass(frozen=True)
class Prediction:
    """What the network says about one picture.

    `probs` by class name; `margin` = logit_unhappy - logit_happy in log-odds, after temperature;
    `warnings`: sentences that belong beside the answer.
    """

    label: str
    probs: dict[str, float]
    margin: float
    warnings: tuple[str, ...]

    def __str__(self):
        shares = ", ".join(f"{name} {prob:.1%}" for name, prob in self.probs.items())
        return "\n".join([f"{self.label} ({shares})", *(f"Warning: {w}" for w in self.warnings)])


def predict_photo(source, checkpoint):
    """Happy or unhappy, as the network sees it; not a finding about the people in the picture.

    Args:
        source: path, bytes, Pillow image or array; see `dclib.pictures.read_picture`.
        checkpoint: a loaded `Checkpoint`, or the path of its folder.

    Raises PictureError, FileNotFoundError or CheckpointError, each one sentence for the reader.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(checkpoint)
    image, notes = read_picture(source)
    size = checkpoint.config["image_size"]
    warnings = [DRAWINGS_ONLY] if checkpoint.knows_only_drawings else []
    if min(image.size) < size / 2:
        warnings.append(
            f"The picture ({image.width} x {image.height}) was enlarged to {size} pixels."
        )
    device = next(checkpoint.model.parameters()).device
    images = checkpoint.transform(image)[None].to(device)  # (3, S, S) -> (1, 3, S, S)
    with torch.inference_mode():
        logits = (
            checkpoint.model(images)[0].float().cpu() / checkpoint.config["temperature"]
        )  # (2,)
    probs = dict(zip(checkpoint.model.classes, logits.softmax(0).tolist(), strict=True))
    happy, unhappy = (checkpoint.model.classes.index(name) for name in ("happy", "unhappy"))
    label = "unhappy" if probs["unhappy"] >= checkpoint.config["threshold"] else "happy"
    margin = (logits[unhappy] - logits[happy]).item()
    return Prediction(label, probs, margin, (*warnings, *notes))
