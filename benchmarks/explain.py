"""What an explanation costs, in units of one forward pass, beside captum, torchcam and grad-cam.

    uv run --with grad-cam python benchmarks/explain.py [--repeats 5]

The paper's network with random weights. Everybody explains both classes; the tools take turns, and
medians are reported. Ours shares one forward pass among both classes, the margin and all evidence.
captum and torchcam must give the same maps. Peers that are not installed are left out, and named.
Writes results/explain.json.
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import torch
from machine import machine, versions

from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.gradcam import grad_cam
from dclib.model import DeepConnection
from dclib.predict import extract_features

RESULTS = Path(__file__).parent / "results" / "explain.json"
PACKAGES = ["torch", "captum", "torchcam", "grad-cam"]
SIZES, BATCHES, CLASSES = (256, 512), (1, 16), (0, 1)
TARGETS = {"grad-cam": 1.15, "grad-cam and evidence": 1.3}  # forward passes


def forward(model, images):
    with torch.inference_mode():
        return model(images)


def ours(model, images):
    return grad_cam(model, extract_features(model, images)).maps


def ours_with_evidence(head):
    """Both classes' Grad-CAM and HiResCAM's better: the maps of all 100 neurons and the margin."""

    def explain(model, images):
        feature_map = extract_features(model, images)
        find_evidence(head, feature_map)
        return grad_cam(model, feature_map).maps

    return explain


def by_captum(model, images):
    from captum.attr import LayerGradCam

    explainer = LayerGradCam(model, model.backbone.layer4)
    maps = [explainer.attribute(images, target=c).detach() for c in CLASSES]
    return torch.cat(maps, 1)


def by_torchcam(model, images):
    from torchcam.methods import GradCAM

    maps = []
    for c in CLASSES:
        with GradCAM(model, "backbone.layer4") as extractor:
            logits = model(images.clone().requires_grad_())
            maps.append(extractor([c] * len(images), logits, normalized=False)[0])
    return torch.stack(maps, 1)


def by_grad_cam(model, images):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model, [model.backbone.layer4]) as explainer:
        for c in CLASSES:
            explainer(images, [ClassifierOutputTarget(c)] * len(images))


PEERS = {"captum": by_captum, "torchcam": by_torchcam, "pytorch_grad_cam": by_grad_cam}


def measure(model, size, batch, repeats):
    """Median seconds of each tool, which take turns, and the largest difference of the maps."""
    images, head = torch.rand(batch, 3, size, size), fold_head(model)
    tools = {"forward": forward, "grad-cam": ours}
    tools["grad-cam and evidence"] = ours_with_evidence(head)
    tools |= {name: f for name, f in PEERS.items() if importlib.util.find_spec(name)}
    maps = {name: tool(model, images) for name, tool in tools.items()}  # the first call warms up
    seconds = {name: [] for name in tools}
    for _ in range(repeats):
        for name, tool in tools.items():
            start = time.perf_counter()
            tool(model, images)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    row = {"size": size, "batch": batch, "forward_seconds": round(medians.pop("forward"), 4)}
    row["forward_passes"] = {k: round(v / row["forward_seconds"], 2) for k, v in medians.items()}
    ours_maps = maps["grad-cam"]
    row["largest_difference"] = {
        name: (theirs - expected).abs().max().item()
        for name, theirs, expected in (
            ("captum", maps.get("captum"), ours_maps),
            ("torchcam", maps.get("torchcam"), ours_maps.clamp(min=0)),
        )
        if theirs is not None
    }
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = DeepConnection(weights=None).eval()
    start = time.perf_counter()
    fold_head(model)
    missing = [name for name in PEERS if not importlib.util.find_spec(name)]
    report = {"machine": machine(), "versions": versions([p for p in PACKAGES if p not in missing])}
    report |= {"threads": args.threads, "repeats": args.repeats, "not_installed": missing}
    report |= {"folding_seconds": round(time.perf_counter() - start, 4), "targets": TARGETS}
    report["rows"] = []
    for size in SIZES:
        for batch in BATCHES:
            row = measure(model, size, batch, args.repeats)
            report["rows"].append(row)
            print(f"{size} px, batch {batch}: {row['forward_passes']}", flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
