"""Does the evidence sum to the network's margin? On many pictures: results/completeness.json.

    python benchmarks/completeness.py [--random 1000] [--drawn 200]

Random pictures and drawn couples of 96 to 768 pixels a side, mostly not square, each through both
stages that have a pyramid (the paper's network, random weights). The error of a picture is
|constant + sum of cells - margin| / max(1, |margin|), once with the margin of the network, which
rounds in float32 itself, and once with that of its head in float64.
"""

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine, versions
from torchvision.transforms.functional import pil_to_tensor

from dclib.data.loading import CoupleFolder
from dclib.drawn import render_couples
from dclib.explain.evidence import find_evidence, fold_head
from dclib.model import DeepConnection
from dclib.predict import extract_features

RESULTS = Path(__file__).parent / "results" / "completeness.json"
STAGES, SIDES, LIMIT = ("spp", "spp+pmt"), (96, 768), 1e-4


@torch.no_grad()
def settle(model, batches=30):
    """Let the running statistics of BatchNorm become those of its input, as training would."""
    rng = np.random.default_rng(1)
    model.train()
    for _ in range(batches):
        model(torch.randn(4, 3, *rng.integers(*SIDES, 2, endpoint=True).tolist()))
    model.eval()


def drawn_pictures(n, rng):
    with tempfile.TemporaryDirectory() as folder:
        root = render_couples(Path(folder) / "drawn", n=n, seed=1, splits={"test": 1})
        dataset = CoupleFolder(root, "test")
        for index in range(n):
            image = dataset.picture(index).resize(rng.integers(*SIDES, 2, endpoint=True))
            yield pil_to_tensor(image)[None] / 127.5 - 1


def random_pictures(n, rng):
    for index in range(n):
        height, width = rng.integers(*SIDES, 2, endpoint=True).tolist()
        generator = torch.Generator().manual_seed(index)
        yield torch.randn(1, 3, height, width, generator=generator)


@torch.inference_mode()
def errors_of(networks, pictures):
    """{stage: errors (N, 2)}, against the network and against its head in float64."""
    errors = {stage: [] for stage in networks}
    for images in pictures:
        for stage, (model, folded) in networks.items():
            feature_map = extract_features(model, images)
            found = find_evidence(folded, feature_map)
            total = (found.of_margin("const") + found.margin_map.sum((1, 2))).item()
            exact = copy.deepcopy(model.head).double()(model.pool(feature_map.double()))
            margins = [(logits[0, 1] - logits[0, 0]).item() for logits in (model(images), exact)]
            errors[stage].append([abs(total - margin) / max(1, abs(margin)) for margin in margins])
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=1000)
    parser.add_argument("--drawn", type=int, default=200)
    args = parser.parse_args()
    torch.manual_seed(0)
    networks = {stage: DeepConnection(stage, weights=None) for stage in STAGES}
    for model in networks.values():
        settle(model)
    networks = {stage: (model, fold_head(model)) for stage, model in networks.items()}
    report = {"machine": machine(), "versions": versions(["torch"]), "limit": LIMIT}
    start, rng = time.perf_counter(), np.random.default_rng(0)
    for kind, pictures in (
        ("random", random_pictures(args.random, rng)),
        ("drawn", drawn_pictures(args.drawn, rng)),
    ):
        report[kind] = {
            stage: {"n": len(errors), "largest_error": own, "against_float64": wide}
            for stage, errors in errors_of(networks, pictures).items()
            for own, wide in [np.max(errors, 0).tolist()]
        }
        print(kind, report[kind], flush=True)
    report["seconds"] = round(time.perf_counter() - start)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
