"""One prediction as a page of HTML alone, for phones and screen readers too, and as JSON."""

import html
import json
from collections.abc import Sequence

import numpy as np

from dclib import __version__
from dclib.checkpoint import Checkpoint
from dclib.colab import describe_machine
from dclib.data import CLASSES, without_files
from dclib.explain.evidence import Evidence, waterfall_steps
from dclib.photo import Prediction, resize
from dclib.pictures import Boxes
from dclib.plots import COLOURS, HAPPY, UNHAPPY, overlay
from dclib.predict import how_sure, percent
from dclib.web import html as web

SMALL, THUMB = 240, 64  # pixels of the longer side: of Grad-CAM, in the overview
DIMMED = 0.5  # of the light of what the network did not look at
HELP = "What helps: another photo, sharp and in good light, in which the faces of both are seen."
NOBODY = "Nothing here says anything about two people: it is about pixels."
ABOUT = (
    "Evidence splits the network's log-odds exactly among the cells of the picture. It says where "
    "a feature fired, not which pixels behind it."
)


def photo_page(name: str, prediction: Prediction) -> str:
    """Everything about one picture as HTML, every text escaped."""
    figures = photo_html(prediction) + evidence_html(prediction)
    return (
        f'<div class="dc-panel"><style>{web.CSS}</style>{verdict_html(name, prediction)}'
        f'<div class="dc-figures">{figures}</div>{doubts_html(prediction)}{why_html(prediction)}'
        "</div>"
    )


def verdict_html(name: str, prediction: Prediction) -> str:
    """The answer in a sentence and a bar; or why there is none, and what to do."""
    if not prediction.probs:
        sentences = [*prediction.reasons, HELP]
        said = "<b>Not assessable.</b></p>" + "".join(f"<p>{html.escape(s)}</p>" for s in sentences)
    else:
        label, prob = prediction.label, prediction.probs[prediction.label]
        word = f'<b style="color: {COLOURS[label]}">{label}</b>'
        said = f"The network says {word}: {roughly(prob)}, {how_sure(prob)}.</p>{_bar(prediction)}"
    heading = f"<h4>{html.escape(name)}</h4>"
    return f'<div class="dc-verdict">{heading}<p class="dc-says">{said}</div>'


def roughly(share: float) -> str:
    r"""A probability in whole percent, which no line breaks.

    >>> roughly(0.866), roughly(0.994), roughly(1.0), roughly(0.0)
    ('87\xa0%', '99\xa0%', 'over 99\xa0%', 'under 1\xa0%')
    """
    if not 0.005 <= share < 0.995:
        return "over 99\xa0%" if share > 0.5 else "under 1\xa0%"
    return f"{100 * share:.0f}\xa0%"


def _bar(prediction: Prediction) -> str:
    """The probability of the answer, as a bar in its colour between the names of both classes."""
    label = prediction.label
    other = next(name for name in CLASSES if name != label)
    ends = [f"{name} {roughly(prediction.probs[name])}" for name in (label, other)]
    filled = f"width: {prediction.probs[label]:.1%}; background: {COLOURS[label]}"
    return (
        f'<div class="dc-share" role="img" aria-label="{", ".join(ends)}"><i style="{filled}"></i>'
        f'</div><p class="dc-ends"><span>{ends[0]}</span><span>{ends[1]}</span></p>'
    )


def photo_html(prediction: Prediction) -> str:
    """The photo, bright where the network looked, with its faces numbered."""
    faces = "".join(
        f'<b class="dc-face {"dc-taken" * (k in prediction.two)}" style="{place}">{k + 1}</b>'
        for k, place in enumerate(face_places(prediction.faces, prediction.image.size))
    )
    return (
        f'<figure><div class="dc-photo">{lit_html(prediction)}{faces}</div>'
        f"<figcaption>{caption(prediction)}</figcaption></figure>"
    )


def caption(prediction: Prediction) -> str:
    """What is to be seen in the photo."""
    if not prediction.frame:
        return "the photo"
    everywhere = lit(prediction).all()
    if everywhere and len(prediction.frame.pieces) == 1:  # whoever is in it
        return "the photo; the network looked at all of it"
    where = "at all of it" if everywhere else "where it is bright"
    taken = " and ".join(str(k + 1) for k in prediction.two)
    return f"the photo, with faces {taken} taken for the couple; the network looked {where}"


def face_places(faces: Boxes, size: tuple[int, int]) -> list[str]:
    """Where each face is in a picture of this width and height, as CSS."""
    places = []
    for box in faces:
        x0, y0, x1, y1 = np.clip(np.array(box) / (*size, *size), 0, 1) * 100
        sides = {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}
        places.append("; ".join(f"{side}: {value:.2f}%" for side, value in sides.items()))
    return places


def lit(prediction: Prediction) -> np.ndarray:
    """Which pixels of the photo as it is shown the network looked at: (H, W) bool."""
    width, height = prediction.shown.size
    if not prediction.frame:
        return np.ones((height, width), bool)
    return prediction.frame.spread(np.ones((1, 1)), (height, width)) > 0


def lit_html(prediction: Prediction) -> str:
    """The photo as an <img>, dimmed where the network did not look."""
    pixels = np.asarray(prediction.shown) / 255
    return _image(np.where(lit(prediction)[..., None], pixels, pixels * DIMMED), "the photo")


def evidence_html(prediction: Prediction) -> str:
    """The exact evidence over the photo as a figure; "" without a verdict."""
    if not (prediction.evidence and prediction.size):
        return ""
    margin_map = prediction.evidence.margin_map[0].cpu()
    scale, at = margin_map.abs().max().item() or 1.0, web.strongest_cell(margin_map)
    colours = overlay(prediction.shown, margin_map, scale, prediction.size, frame=prediction.frame)
    pieces = prediction.frame.pieces if prediction.frame else ()
    where = f" in {web.place(at)}" if len(pieces) == 1 else ""  # else its rows are not the photo's
    alt = f"exact evidence; strongest{where}: {web.describe_pull(margin_map[at].item())}"
    words = f"where something spoke for {_named('happy')} or for {_named('unhappy')}"
    return _figure(colours, alt, words)


def doubts_html(prediction: Prediction) -> str:
    """What speaks against trusting the answer."""
    warnings = "".join(f'<p class="dc-warning">{html.escape(t)}</p>' for t in prediction.warnings)
    return warnings + (f'<p class="dc-note">{NOBODY}</p>' if prediction.evidence else "")


def why_html(prediction: Prediction) -> str:
    """Folded: Grad-CAM of each class, neurons and sums, numbers; "" without a verdict."""
    if not (prediction.evidence and prediction.grad_cam and prediction.size):
        return ""
    image, size, frame = resize(prediction.shown, SMALL), prediction.size, prediction.frame
    cams = {name: prediction.grad_cam[name][0].clamp(min=0).cpu() for name in CLASSES}
    full = max(cam.max().item() for cam in cams.values()) or 1.0
    figures = ""
    for name, cam in cams.items():
        signed = cam if name == "unhappy" else -cam
        colours = overlay(image, signed, full, size, smooth=True, frame=frame)
        title = f"Grad-CAM for {name}" + ("" if (cam > 0).any() else ": none")
        figures += _figure(colours, title, title)
    scale = prediction.evidence.margin_map[0].abs().max().item() or 1.0
    return (
        f'<details class="dc-why"><summary>Why?</summary><p>{ABOUT} {web.legend(scale)}</p>'
        f'<div class="dc-figures dc-small">{figures}</div><p>Both Grad-CAM maps have one scale of '
        f"their own (full colour: {full:.2g}).</p>{waterfall_html(prediction.evidence)}"
        f"{numbers_html(prediction)}</details>"
    )


def numbers_html(prediction: Prediction) -> str:
    """Probabilities to a tenth of a percent, and what dropout makes of them."""
    both = ", ".join(f"{name} {percent(prob)}" for name, prob in prediction.probs.items())
    low, high = prediction.band or (0.0, 1.0)
    return (
        f"<p>Probabilities: {both}. With half of its last neurons left out at random, as in "
        f"training, the network mostly gives between {percent(low)} and {percent(high)} for "
        "unhappy: so much it wavers, which does not say how often it is right.</p>"
    )


def overview_html(answers: Sequence[tuple[str, Prediction | None]]) -> str:
    """A table of several photos, whose names open the answers; None: there is no answer."""
    rows = ""
    for k, (name, prediction) in enumerate(answers):
        image, word, prob = "", "no answer", ""
        if prediction:
            thumb = np.asarray(resize(prediction.shown, THUMB)) / 255
            image, word = _image(thumb, ""), prediction.label
        if prediction and prediction.probs:
            word, prob = _named(word), roughly(prediction.probs[prediction.label])
        link = (
            f'<button type="button" class="dc-link" data-answer="{k}">{html.escape(name)}</button>'
        )
        rows += f"<tr><td>{image}</td><td>{link}</td><td>{word}</td><td>{prob}</td></tr>"
    return f'<div class="dc-panel"><table class="dc-overview">{rows}</table></div>'


def about_html(checkpoint: Checkpoint) -> str:
    """Folded: which network this is, and what it runs on."""
    text = html.escape(f"{checkpoint}\n{describe_machine()}")
    return (
        '<details class="dc-about"><summary>About the network and this computer</summary>'
        f"<pre>{text}</pre></details>"
    )


def waterfall_html(evidence: Evidence) -> str:
    """From the constant to the margin by the 8 strongest neurons: a table with bars."""
    steps = waterfall_steps(evidence, n=8)
    ends = np.cumsum([0, *(value for _, value in steps)])
    low, width = ends.min(), np.ptp(ends) or 1.0
    rows = ""
    for (name, value), start, end in zip(steps, ends, ends[1:]):
        left, wide = (min(start, end) - low) / width * 100, abs(value) / width * 100
        colour = "#999" if name == "constant" else UNHAPPY if value > 0 else HAPPY
        rows += (
            f'<tr><td>{name}</td><td>{value:+.2f}</td><td><span class="dc-fall"><i style="left: '
            f'{left:.1f}%; width: {wide:.1f}%; background: {colour}"></i></span></td></tr>'
        )
    total = f"<tr><td><b>margin</b></td><td><b>{ends[-1]:+.2f}</b></td><td></td></tr>"
    head = "<tr><th>neurons, added up</th><th>log-odds for unhappy</th><th></th></tr>"
    return f'<table class="dc-waterfall">{head}{rows}{total}</table>'


def _named(label: str) -> str:
    """The name of a class in its colour."""
    return f'<span style="color: {COLOURS[label]}">{label}</span>' if label in COLOURS else label


def _image(pixels: np.ndarray, alt: str) -> str:
    """Values (H, W, 3) of 0 to 1 as an <img> that holds itself."""
    source = web.data_uri(web.to_image(pixels), "JPEG")
    return f'<img src="{source}" alt="{html.escape(alt)}">'


def _figure(pixels: np.ndarray, alt: str, words: str) -> str:
    """A picture with what is written below it, which is HTML."""
    return f"<figure>{_image(pixels, alt)}<figcaption>{words}</figcaption></figure>"


def report_json(name: str, prediction: Prediction, checkpoint: Checkpoint) -> str:
    """What is known of one picture as JSON; the picture itself is not in it."""
    evidence, cams, config = prediction.evidence, prediction.grad_cam, checkpoint.config
    kept = ["stage", "backbone", "image_size", "frame", "frame_margin", "temperature", "threshold"]
    kept += ["metrics", "weights_sha256"]
    fields = ["label", "faces", "two", "reasons", "warnings"]
    fields += ["probs", "margin", "margin_sd"] if prediction.probs else []
    content = {"picture": name} | {field: getattr(prediction, field) for field in fields}
    if evidence and cams and prediction.frame:
        content |= {
            "looked_at": [piece._asdict() for piece in prediction.frame.pieces],
            "unhappy_under_dropout": prediction.band,
            "evidence_by_cell": evidence.margin_map[0].tolist(),
            "evidence_by_neuron": evidence.of_margin("contributions")[0].tolist(),
            "grad_cam": {target: cams[target][0].tolist() for target in cams.targets},
        }
    content |= {
        "checkpoint": {key: config[key] for key in kept}
        | {"training_data": without_files(config["training_data"])},
        "deepconnection": __version__,
        "about": f"{ABOUT} {NOBODY}",
    }
    return json.dumps(content, indent=1)
