"""One prediction as a page of HTML alone, for phones and screen readers too, and as JSON."""

import html
import json

import numpy as np
from PIL import Image, ImageDraw

from dclib import __version__
from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES, NOT_ASSESSABLE
from dclib.explain.evidence import Evidence
from dclib.explain.neurons import waterfall_steps
from dclib.photo import Prediction
from dclib.plots import HAPPY, UNHAPPY, overlay
from dclib.predict import percent
from dclib.web import html as web

ABOUT = (
    "Evidence splits the network's log-odds exactly among the cells of the picture. It says where "
    "a feature fired, not which pixels behind it; and nothing here says anything about two people."
)


def photo_page(name: str, prediction: Prediction) -> str:
    """Everything about one picture as HTML, every text escaped."""
    parts = [f"<style>{web.CSS}</style>", verdict_html(name, prediction), maps_html(prediction)]
    if prediction.evidence:
        parts += [waterfall_html(prediction.evidence), f'<p class="dc-note">{ABOUT}</p>']
    return f'<div class="dc-panel">{"".join(parts)}</div>'


def verdict_html(name: str, prediction: Prediction) -> str:
    """The answer, how sure it is, and what speaks against trusting it."""
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td><td>"
        f'<meter min="0" max="1" value="{prob:.3f}" aria-label="{html.escape(label)}"></meter>'
        f"</td><td>{percent(prob)}</td></tr>"
        for label, prob in prediction.probs.items()
    )
    answer = f"the network says <b>{html.escape(prediction.label)}</b>"
    if prediction.label == NOT_ASSESSABLE:
        answer = f"<b>{NOT_ASSESSABLE}</b>"
    reasons = "".join(f"<p>{html.escape(text)}</p>" for text in prediction.reasons)
    warnings = "".join(f'<p class="dc-warning">{html.escape(t)}</p>' for t in prediction.warnings)
    numbers = f"<table>{rows}</table><p>{html.escape(prediction.words)}</p>" if rows else ""
    return (
        f'<div class="dc-verdict"><h4>{html.escape(name)}: {answer}.</h4>'
        f"{reasons}{warnings}{numbers}</div>"
    )


def maps_html(prediction: Prediction) -> str:
    """The photo; with a verdict also the exact evidence and Grad-CAM of each class, over it."""
    title = "the photo, with its faces" if prediction.faces else "the photo"
    figures = [_figure(title, framed(prediction))]
    if not (prediction.evidence and prediction.grad_cam and prediction.size):
        return f'<div class="dc-figures">{figures[0]}</div>'
    image, size, frame = shown(prediction.image), prediction.size, prediction.frame
    margin_map = prediction.evidence.margin_map[0].cpu()
    scale, at = margin_map.abs().max().item() or 1.0, web.strongest_cell(margin_map)
    alt = f"strongest in {web.place(at)}: {web.describe_pull(margin_map[at].item())}"
    colours = overlay(image, margin_map, scale, size, frame=frame)
    figures.append(_figure("exact evidence", colours, alt))
    cams = {name: prediction.grad_cam[name][0].clamp(min=0).cpu() for name in CLASSES}
    full = max(cam.max().item() for cam in cams.values()) or 1.0
    for name, cam in cams.items():
        signed = cam if name == "unhappy" else -cam
        colours = overlay(image, signed, full, size, smooth=True, frame=frame)
        alt = "" if (cam > 0).any() else "no evidence"
        figures.append(_figure(f"Grad-CAM for {name}", colours, alt))
    return (
        f'<div class="dc-figures">{"".join(figures)}</div><p>{web.legend(scale)} Both Grad-CAM '
        f"maps have one scale of their own (full colour: {full:.2g}).</p>"
    )


def shown(image: Image.Image) -> Image.Image:
    """A picture as the page shows it: its longer side SIDE pixels long."""
    ratio = web.SIDE / max(image.size)
    return image.resize([max(1, round(length * ratio)) for length in image.size])


def framed(prediction: Prediction) -> np.ndarray:
    """The photo (H, W, 3), 0 to 1, with its faces framed."""
    image = shown(prediction.image)
    draw = ImageDraw.Draw(image)
    ratios = np.tile(np.array(image.size) / prediction.image.size, 2)
    for box in prediction.faces:
        draw.rectangle((np.array(box) * ratios).tolist(), outline="white", width=3)
    return np.asarray(image) / 255


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


def _figure(title: str, pixels: np.ndarray, alt: str = "") -> str:
    source = web.data_uri(web.to_image(pixels), "JPEG")
    words = html.escape(f"{title}; {alt}" if alt else title)
    caption = html.escape(title) + (": none" if alt == "no evidence" else "")
    return f'<figure><img src="{source}" alt="{words}"><figcaption>{caption}</figcaption></figure>'


def report_json(name: str, prediction: Prediction, checkpoint: Checkpoint) -> str:
    """What is known of one picture as JSON; the picture itself is not in it."""
    evidence, cams, config = prediction.evidence, prediction.grad_cam, checkpoint.config
    kept = ("stage", "backbone", "image_size", "temperature", "threshold", "training_data")
    fields = ("label", "probs", "margin", "margin_sd", "faces", "two", "reasons", "warnings")
    content = {
        "picture": name,
        **{field: getattr(prediction, field) for field in fields},
        "unhappy_95": prediction.band,
    }
    if evidence and cams:
        content |= {
            "evidence_by_cell": evidence.margin_map[0].tolist(),
            "evidence_by_neuron": evidence.of_margin("contributions")[0].tolist(),
            "grad_cam": {target: cams[target][0].tolist() for target in cams.targets},
        }
    content |= {
        "checkpoint": {key: config[key] for key in (*kept, "metrics", "weights_sha256")},
        "deepconnection": __version__,
        "about": ABOUT,
    }
    return json.dumps(content, indent=1)
