"""One prediction as a page: verdict, maps, waterfall, and the report to take away.

HTML only, so that it can be read on a phone, by a screen reader, and in an exported notebook.
"""

import html
import io
import json

import numpy as np
from PIL import ImageDraw

from dclib import __version__
from dclib.checkpoint import Checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.explain.evidence import Evidence
from dclib.explain.neuron_plots import waterfall_steps
from dclib.files import extra
from dclib.photo import Prediction
from dclib.plots import HAPPY, UNHAPPY, overlay
from dclib.predict import percent
from dclib.web.html import CSS, SIDE, data_uri, describe_pull, legend, place, strongest, to_image

with extra("plots"):
    import matplotlib.pyplot as plt

ABOUT = (
    "Evidence splits the network's log-odds exactly among the cells of the picture. It says where "
    "a feature fired, not which pixels behind it; and nothing here says anything about two people."
)


def photo_page(name: str, prediction: Prediction) -> str:
    """Everything about one picture as HTML, every text escaped."""
    return (
        f'<div class="dc-panel"><style>{CSS}</style>{verdict_html(name, prediction)}'
        f"{maps_html(prediction)}{waterfall_html(prediction.evidence)}"
        f'<p class="dc-note">{ABOUT}</p></div>'
    )


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
    numbers = f"<table>{rows}</table><p>{html.escape(prediction.words)}</p>"
    if prediction.reasons:  # still there for who wants it, but not the first thing read
        numbers = f"<details><summary>What it would have said</summary>{numbers}</details>"
    return (
        f'<div class="dc-verdict"><h4>{html.escape(name)}: {answer}.</h4>'
        f"{reasons}{warnings}{numbers}</div>"
    )


def maps_html(prediction: Prediction) -> str:
    """The photo, the exact evidence and Grad-CAM of each class, as the square the network sees."""
    (photo, *maps), scale, full = _squares(prediction)
    margin_map, cams = prediction.evidence.margin_map[0], prediction.grad_cam
    at = strongest(margin_map)
    alts = [f"strongest in {place(at)}: {describe_pull(margin_map[at].item())}"]
    alts += ["" if (cams[name] > 0).any() else "no evidence" for name in ("happy", "unhappy")]
    titles = ("exact evidence", "Grad-CAM for happy", "Grad-CAM for unhappy")
    found = "the photo" if prediction.faces is None else "the photo, with the faces found"
    figures = [_figure(found, photo, "")]
    figures += [_figure(*figure) for figure in zip(titles, maps, alts, strict=True)]
    return (
        f'<div class="dc-figures">{"".join(figures)}</div><p>{legend(scale)} Both Grad-CAM maps '
        f"have one scale of their own (full colour: {full:.2g}).</p>"
    )


def _squares(prediction: Prediction) -> tuple[list[np.ndarray], float, float]:
    """The photo, its evidence, Grad-CAM for happy and for unhappy, (SIDE, SIDE, 3) of 0 to 1 each.

    Then the values of full colour: of the evidence, and of both Grad-CAM maps.
    """
    image, size = prediction.image.resize((SIDE, SIDE)), prediction.size
    margin_map = prediction.evidence.margin_map[0].cpu()
    happy, unhappy = (
        prediction.grad_cam[name][0].clamp(min=0).cpu() for name in ("happy", "unhappy")
    )
    scale = margin_map.abs().max().item() or 1.0
    full = max(happy.max().item(), unhappy.max().item()) or 1.0
    squares = [framed(prediction), overlay(image, margin_map, scale, size)]
    squares += [overlay(image, cam, full, size, smooth=True) for cam in (-happy, unhappy)]
    return squares, scale, full


def framed(prediction: Prediction) -> np.ndarray:
    """The photo (SIDE, SIDE, 3), 0 to 1, squeezed to the square, with its faces framed."""
    image = prediction.image.resize((SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    ratios = np.tile(SIDE / np.array(prediction.image.size), 2)
    for box in prediction.faces or ():
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


def _figure(title: str, pixels: np.ndarray, alt: str) -> str:
    source = data_uri(to_image(pixels), "JPEG")
    words = html.escape(f"{title}; {alt}" if alt else title)
    return (
        f'<figure><img src="{source}" alt="{words}"><figcaption>{html.escape(title)}'
        f"{'' if alt != 'no evidence' else ': none'}</figcaption></figure>"
    )


def report_json(name: str, prediction: Prediction, checkpoint: Checkpoint) -> str:
    """What is known of one picture as JSON text; the picture itself is not in it."""
    evidence, cams, config = prediction.evidence, prediction.grad_cam, checkpoint.config
    kept = ("stage", "backbone", "image_size", "temperature", "threshold", "training_data")
    content = {
        "picture": name,
        "label": prediction.label,
        "probs": prediction.probs,
        "margin": prediction.margin,
        "margin_sd": prediction.margin_sd,
        "unhappy_95": prediction.band,
        "faces": prediction.faces,
        "reasons": prediction.reasons,
        "warnings": prediction.warnings,
        "evidence_by_cell": evidence.margin_map[0].tolist(),
        "evidence_by_neuron": evidence.of_margin("contributions")[0].tolist(),
        "grad_cam": {target: cams[target][0].tolist() for target in cams.targets},
        "checkpoint": {key: config[key] for key in (*kept, "metrics", "weights_sha256")},
        "deepconnection": __version__,
        "about": ABOUT,
    }
    return json.dumps(content, indent=1)


def report_png(name: str, prediction: Prediction) -> bytes:
    """Photo, maps and answer on one sheet, as a PNG."""
    squares, scale, _ = _squares(prediction)
    evidence = f"exact evidence\n(full colour {scale:.2g} log-odds)"
    titles = ("photo", evidence, "Grad-CAM for happy", "Grad-CAM for unhappy")
    fig, axes = plt.subplots(1, 4, figsize=(12, 4.6))
    for axis, title, pixels in zip(axes, titles, squares, strict=True):
        axis.imshow(pixels)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    plain = name.encode("ascii", "replace").decode().replace("$", "S")  # fonts lack most scripts
    text = f"{plain}: {prediction}\n{ABOUT}"
    fig.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.34, wspace=0.03)
    fig.text(0.01, 0.3, text, fontsize=8, va="top", wrap=True, parse_math=False)
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=100)
    plt.close(fig)
    return file.getvalue()
