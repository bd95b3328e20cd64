"""One photo in, one answer out, with what speaks for it and what speaks against trusting it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import Evidence, find_evidence, fold_head
from dclib.explain.gradcam import Cams, grad_cam
from dclib.framing import Frame, pick_two
from dclib.pictures import Boxes, Source, read_picture
from dclib.pictures.mark import drawn_faces
from dclib.predict import Z95, extract_features, how_sure, label_of, percent, sigmoid

ENLARGED = 2  # times, from which on that is said
SHOWN = 400  # pixels of a picture's longer side on a page
IN_PROFILE = "A face is seen from the side; networks learn mostly from faces seen from the front."


@dataclass(frozen=True)
class Prediction:
    """What the network says about one picture; nothing where the label is "not assessable".

    label       "happy", "unhappy" or "not assessable"
    reasons     why there is no verdict, in sentences; none if there is one
    warnings    sentences that belong beside the answer
    faces       boxes (x0, y0, x1, y1) in pixels: as given, as drawn, or as found
    two         which of them were taken for the couple
    image       the picture that was judged: RGB and upright

    With a verdict only, else empty or None:

    probs       by class name in the checkpoint's order, after temperature
    margin      logit_unhappy - logit_happy in log-odds, after temperature
    margin_sd   its standard deviation under the dropout of training
    frame       what the network looked at, and where it is in the picture (`Frame`)
    evidence    exact shares in the margin by cell and neuron (`Evidence`), batch of one
    grad_cam    Grad-CAM for both classes, batch of one
    """

    label: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    faces: Boxes
    two: tuple[int, ...]
    image: Image.Image = field(repr=False, compare=False)
    probs: dict[str, float] = field(default_factory=dict)
    margin: float | None = None
    margin_sd: float | None = None
    frame: Frame | None = field(default=None, repr=False, compare=False)
    evidence: Evidence | None = field(default=None, repr=False, compare=False)
    grad_cam: Cams | None = field(default=None, repr=False, compare=False)

    @cached_property
    def shown(self) -> Image.Image:
        """The picture as pages show it: its longer side 400 pixels long."""
        return resize(self.image, SHOWN)

    @property
    def size(self) -> int | None:
        """Pixels a side of the network's input; None without a verdict."""
        return self.frame.image.width if self.frame else None

    @property
    def band(self) -> tuple[float, float] | None:
        """Probabilities of "unhappy" (low, high) that hold 95 % of what dropout makes of it."""
        if self.margin is None or self.margin_sd is None:
            return None
        reach = Z95 * self.margin_sd
        return sigmoid(self.margin - reach), sigmoid(self.margin + reach)

    @property
    def words(self) -> str:
        """The probability and its uncertainty as a sentence; "" without a verdict."""
        if not self.band:
            return ""
        name = max(self.probs, key=lambda name: self.probs[name])
        low, high = self.band
        if name == "happy":
            low, high = 1 - high, 1 - low
        return (
            f"The network gives {name} {percent(self.probs[name])}: {how_sure(self.probs[name])}. "
            "With half of its neurons left out at random, as in training, it would mostly give "
            f"between {percent(low)} and {percent(high)}."
        )

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {percent(prob)}" for name, prob in self.probs.items())
        lines = [f"{self.label} ({shares})", self.words] if shares else [self.label, *self.reasons]
        return "\n".join([*lines, *(f"Warning: {text}" for text in self.warnings)])


def predict_photo(
    source: Source,
    checkpoint: Checkpoint | str | Path,
    faces: Boxes | None = None,
    two: tuple[int, int] | None = None,
) -> Prediction:
    """Happy or unhappy, as the network sees it; not a finding about the people in the picture.

    There is no verdict unless two faces are seen in good light, nor on a photograph by a network
    that has only seen drawings, nor where the network is not sure enough.

    Args:
        source: path, bytes, Pillow image or array; see `dclib.pictures.read_picture`.
        checkpoint: a loaded `Checkpoint`, or the path of its folder.
        faces: boxes in pixels if they are known; else those of a drawing are, and in a photograph
            they are looked for.
        two: indices in `faces` of the couple; else the largest and most central are taken.

    Raises PictureError, FileNotFoundError or CheckpointError, ValueError for impossible boxes.
    """
    from dclib.photo.gate import why_not  # OpenCV

    checkpoint = load_checkpoint(checkpoint)
    image, notes = read_picture(source)
    drawn = drawn_faces(image)
    boxes, in_profile = _see(image, drawn if faces is None else faces)
    couple = pick_two(boxes, image.size) if two is None else _check_two(two, len(boxes))
    if in_profile & set(couple):
        notes = (IN_PROFILE, *notes)
    notes = (*about_faces(len(boxes), checkpoint.config["frame"], two is not None), *notes)
    seen: dict[str, Any] = {"faces": boxes, "two": couple, "image": image}
    reasons = why_not(image, boxes)
    if checkpoint.knows_only_drawings and drawn is None:
        reasons = (DRAWINGS_ONLY, *reasons)
    if reasons:
        return Prediction(NOT_ASSESSABLE, reasons, notes, **seen)

    frame = checkpoint.transform.cut(image, [boxes[k] for k in couple])
    evidence, cams = look(checkpoint, frame)  # one forward pass, and what it rests on
    margin = evidence.margin.item()  # log-odds for unhappy
    unhappy = sigmoid(margin)
    probs = {"happy": 1 - unhappy, "unhappy": unhappy}
    if reasons := not_sure(max(probs.values()), checkpoint.abstain):
        return Prediction(NOT_ASSESSABLE, reasons, notes, **seen)
    return Prediction(
        label_of(margin, checkpoint.config["threshold"]),
        reasons=(),
        warnings=(*limits(checkpoint, frame), *notes),
        **seen,
        probs={name: probs[name] for name in checkpoint.model.classes},
        margin=margin,
        margin_sd=evidence.margin_sd.item(),
        frame=frame,
        evidence=evidence,
        grad_cam=cams,
    )


def look(checkpoint: Checkpoint, frame: Frame) -> tuple[Evidence, Cams]:
    """`Evidence` and `Cams` of one forward pass."""
    images = checkpoint.transform(frame)[None]  # (1, 3, H, W)
    feature_map = extract_features(checkpoint.model, images)
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    return find_evidence(head, feature_map), grad_cam(checkpoint.model, feature_map)


def resize(image: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side is `side` pixels long."""
    ratio = side / max(image.size)
    size = [max(1, round(length * ratio)) for length in image.size]
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def not_sure(confidence: float, abstain: float | None) -> tuple[str, ...]:
    """Why there is no answer below a checkpoint's confidence `abstain`: a sentence, or none."""
    if abstain is None or confidence >= abstain:
        return ()
    return (f"The network is not sure enough: it only answers from {percent(abstain)} on.",)


def limits(checkpoint: Checkpoint, frame: Frame) -> tuple[str, ...]:
    """What must be said of this network's answers to such a picture, in sentences."""
    sentences = []
    if checkpoint.knows_only_drawings:
        sentences.append(DRAWINGS_ONLY)
    if frame.enlarged > ENLARGED:
        what = "The faces are" if checkpoint.config["frame"] == "faces" else "The picture is"
        sentences.append(f"{what} small: enlarged {frame.enlarged:.1f} times for the network.")
    if checkpoint.abstain is None:
        sentences.append(
            "This checkpoint answers however unsure it is: no confidence is known from which on "
            "95 % of its answers are right."
        )
    return tuple(sentences)


def about_faces(n: int, kind: str, chosen: bool) -> tuple[str, ...]:
    """What must be said where there are more than two faces: a sentence, or none."""
    if n < 3 or (chosen and kind != "whole"):
        return ()
    if kind == "whole":
        return (f"There are {n} faces, and the network judges the picture as a whole.",)
    return (f"There are {n} faces; the largest and most central two were taken for the couple.",)


def _see(image: Image.Image, faces: Boxes | None) -> tuple[Boxes, set[int]]:
    """Boxes of all faces, looked for unless they are given, and which are seen from the side."""
    from dclib.framing.faces import SAME, find_faces, overlap  # OpenCV

    for box in () if faces is None else faces:
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):  # NaN too
            raise ValueError(f"A face is a box (x0, y0, x1, y1) in pixels, not {box!r:.60}.")
    found = () if drawn_faces(image) else find_faces(image)
    boxes = [face.box for face in found] if faces is None else faces
    boxes = tuple(tuple(map(float, box)) for box in boxes)
    sides = [face.box for face in found if face.in_profile]
    return boxes, {k for k, box in enumerate(boxes) if any(overlap(box, s) > SAME for s in sides)}


def _check_two(two: tuple[int, int], n: int) -> tuple[int, ...]:
    """The same, if these are two of n faces."""
    if len(set(two)) != 2 or not set(two) <= set(range(n)):
        raise ValueError(f"two must be two different numbers of the {n} faces, not {two!r:.60}.")
    return tuple(two)
