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

    label       "happy", "unhappy" or "not assessable"
    probs       by class name in the checkpoint's order, after temperature; whatever the label says
    margin      logit_unhappy - logit_happy in log-odds, after temperature
    margin_sd   its standard deviation under the dropout of training
    faces       boxes (x0, y0, x1, y1) in pixels, None if nobody looked for them
    reasons     why there is no verdict, in sentences; often none
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
        faces: boxes in pixels if they are known; else they are looked for, unless the checkpoint
            knows only drawings: what finds faces knows only photographs.

    Raises PictureError, FileNotFoundError or CheckpointError.
    """
    from dclib.photo.faces import detector, find_faces, why_not  # OpenCV and scikit-image

    checkpoint = load_checkpoint(checkpoint)
    image, notes = read_picture(source)
    if faces is None and not checkpoint.knows_only_drawings:
        faces = find_faces(image)
        notes = (*notes, *about_faces(faces, detector()))

    evidence, cams = look(checkpoint, image)  # one forward pass, and what it rests on
    margin = evidence.margin.item()  # log-odds for unhappy
    unhappy = sigmoid(margin)
    probs = {"happy": 1 - unhappy, "unhappy": unhappy}
    reasons = (*why_not(image, faces), *not_sure(max(probs.values()), checkpoint.abstain))
    return Prediction(
        label=NOT_ASSESSABLE if reasons else label_of(margin, checkpoint.config["threshold"]),
        probs={name: probs[name] for name in checkpoint.model.classes},
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
    """Why there is no answer below a checkpoint's confidence `abstain`: a sentence, or none."""
    if abstain is None or confidence >= abstain:
        return ()
    return (
        f"The network is not sure enough: {percent(confidence)}, and it only answers from "
        f"{percent(abstain)} on.",
    )


def limits(checkpoint: Checkpoint, image: Image.Image) -> tuple[str, ...]:
    """What must be said of this network's answers to such a picture, in sentences."""
    size, sentences = checkpoint.config["image_size"], []
    if checkpoint.knows_only_drawings:
        sentences.append(DRAWINGS_ONLY)
    if min(image.size) < size / 2:
        sentences.append(
            f"The picture ({image.width} x {image.height}) was enlarged to {size} pixels."
        )
    if checkpoint.abstain is None:
        sentences.append(
            "This checkpoint answers however unsure it is: no confidence is known from which on "
            "95 % of its answers are right."
        )
    return tuple(sentences)


def about_faces(faces: Boxes, detector: str) -> list[str]:
    """Sentences on how faces were found, and on a crowd."""
    sentences = []
    if len(faces) > 2:
        sentences.append(
            f"{len(faces)} faces were found; the network judges the picture as a whole and does "
            "not know which two are the couple."
        )
    if "Haar" not in detector:
        sentences.append(
            f"Faces were looked for with {detector}, which finds fewer than OpenCV 4's."
        )
    return sentences
