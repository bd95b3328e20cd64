"""One photo in, one answer out, with what speaks for it and what speaks against trusting it."""

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dclib.checkpoint import DRAWINGS_ONLY, Checkpoint, load_checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import Evidence, find_evidence, fold_head
from dclib.explain.gradcam import Cams, grad_cam
from dclib.pictures import Boxes, Source, read_picture
from dclib.predict import Z95, extract_features, how_sure, label_of, percent, sigmoid


@dataclass(frozen=True)
class Prediction:
    """What the network says about one picture.

    label       "happy", "unhappy" or "not assessable"; why the last, see `reasons`
    probs       by class name in the checkpoint's order, after temperature; whatever the label says
    margin      logit_unhappy - logit_happy in log-odds, after temperature
    margin_sd   its standard deviation under the dropout of training
    faces       boxes (x0, y0, x1, y1) in pixels, None if nobody looked for them
    reasons     sentences: why there is no verdict; often none
    warnings    sentences that belong beside the answer
    image       the picture that was judged: RGB and upright
    size        pixels a side of the network's input
    evidence    exact shares in the margin by cell and neuron (`Evidence`), batch of one
    grad_cam    Grad-CAM for both classes, batch of one
    """

    label: str
    probs: dict[str, float]
    margin: float
    margin_sd: float
    faces: Boxes | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    image: Image.Image = field(repr=False, compare=False)
    size: int = field(repr=False, compare=False)
    evidence: Evidence = field(repr=False, compare=False)
    grad_cam: Cams = field(repr=False, compare=False)

    @property
    def band(self) -> tuple[float, float]:
        """Probabilities of "unhappy" (low, high) that hold 95 % of what dropout makes of it."""
        reach = Z95 * self.margin_sd
        return sigmoid(self.margin - reach), sigmoid(self.margin + reach)

    @property
    def words(self) -> str:
        """The probability and its uncertainty as a sentence."""
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
        lines = [f"{self.label} ({shares})", *self.reasons, self.words]
        return "\n".join([*lines, *(f"Warning: {text}" for text in self.warnings)])


def predict_photo(
    source: Source, checkpoint: Checkpoint | str | Path, faces: Boxes | None = None
) -> Prediction:
    """Happy or unhappy, as the network sees it; not a finding about the people in the picture.

    Args:
        source: path, bytes, Pillow image or array; see `dclib.pictures.read_picture`.
        checkpoint: a loaded `Checkpoint`, or the path of its folder.
        faces: boxes in pixels if they are known; otherwise they are looked for, but not for a
            checkpoint that only knows drawings, as what finds faces only knows photographs.

    Not assessable is what `faces.why_not` gives a reason against, and what the network is
    less sure about than the checkpoint's `abstain`.
    Raises PictureError, FileNotFoundError or CheckpointError, each one sentence for the reader, and
    ModuleNotFoundError without the extra "photo".
    """
    from dclib.photo import faces as looking  # OpenCV and scikit-image: only to judge a photo

    checkpoint = load_checkpoint(checkpoint)
    image, notes = read_picture(source)
    if faces is None and not checkpoint.knows_only_drawings:
        faces = looking.find_faces(image)
        notes = (*notes, *about_faces(faces, looking.detector()))
    evidence, cams = look(checkpoint, image)
    margin = evidence.margin.item()
    unhappy = sigmoid(margin)
    by_name = {"unhappy": unhappy, "happy": 1 - unhappy}
    probs = {name: by_name[name] for name in checkpoint.model.classes}
    reasons = (*looking.why_not(image, faces), *not_sure(max(probs.values()), checkpoint.abstain))
    return Prediction(
        label=NOT_ASSESSABLE if reasons else label_of(margin, checkpoint.config["threshold"]),
        probs=probs,
        margin=margin,
        margin_sd=evidence.margin_sd.item(),
        faces=faces,
        reasons=reasons,
        warnings=(*limits(checkpoint, image), *notes),
        image=image,
        size=checkpoint.config["image_size"],
        evidence=evidence,
        grad_cam=cams,
    )


def look(checkpoint: Checkpoint, image: Image.Image) -> tuple[Evidence, Cams]:
    """`Evidence` and `Cams` of both classes for one RGB image, from one forward pass."""
    images = checkpoint.transform(image)[None]  # (3, S, S) -> (1, 3, S, S)
    feature_map = extract_features(checkpoint.model, images)
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    return find_evidence(head, feature_map), grad_cam(checkpoint.model, feature_map)


def not_sure(confidence: float, abstain: float | None) -> tuple[str, ...]:
    """Why there is no answer below the confidence `abstain` of a checkpoint: a sentence, or none.

    >>> not_sure(0.6, None)
    ()
    """
    if abstain is None or confidence >= abstain:
        return ()
    return (
        f"The network is not sure enough: {percent(confidence)}, and it only answers from "
        f"{percent(abstain)} on.",
    )


def limits(checkpoint: Checkpoint, image: Image.Image) -> tuple[str, ...]:
    """What must be said of this network's answers to such a picture, in sentences."""
    size, said = checkpoint.config["image_size"], []
    if checkpoint.knows_only_drawings:
        said.append(DRAWINGS_ONLY)
    if min(image.size) < size / 2:
        said.append(f"The picture ({image.width} x {image.height}) was enlarged to {size} pixels.")
    if checkpoint.abstain is None:
        said.append(
            "This checkpoint answers however unsure it is: no confidence is known from which on "
            "95 % of its answers are right."
        )
    return tuple(said)


def about_faces(faces: Boxes, detector: str) -> list[str]:
    """Notes on how faces were found, and on a crowd."""
    said = []
    if len(faces) > 2:
        said.append(
            f"{len(faces)} faces were found; the network judges the picture as a whole and does "
            "not know which two are the couple."
        )
    if "Haar" not in detector:
        said.append(f"Faces were looked for with {detector}, which finds fewer than OpenCV 4's.")
    return said
