"""Epochs of dclib beside a port of the 2019 loop: writes results/train.json and .png.

    python benchmarks/train.py [--size 512] [--pictures 600] [--batch 48] [--epochs 3] [--repeats 3]

Same drawn couples, same batch size, same network (ResNet-34, spp+pmt, random start). Every way runs
in a process of its own, so that its peak memory is its own, and the ways take turns. The first
epoch of a process warms up and does not count. What cannot run here says why.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import torch
from loop2019 import train as train_2019
from machine import machine, versions
from torch.utils.data import DataLoader

from dclib.data.loading import CoupleFolder, EvalTransform
from dclib.drawn import render_couples
from dclib.predict import pick_device
from dclib.train import TrainConfig, build_model, fit, load_splits
from dclib.train.distributed import Processes
from dclib.train.loop import Stopwatch, Training, peak_memory
from dclib.train.precision import make_precision, why_no_apex

RESULTS = Path(__file__).parent / "results" / "train.json"
PACKAGES = ["torch", "torchvision", "numpy", "imgaug", "apex"]
BASE = {"dropout_loss": "logits", "weights": None, "patience": 10**6}  # never stops early
TWIN = {"augmenter": "tensor"}
WAYS = {  # name: (what it is, changes of paper(); None for the 2019 loop)
    "2019": ("port of the 2019 loop: imgaug in the loader, every picture decoded each epoch", None),
    "imgaug": ("dclib, imgaug in the loader, cached pictures", {"precision": "fp32"}),
    "tensor": ("dclib, tensor twin on the training device, cached", TWIN | {"precision": "fp32"}),
    "fp16": ("the same, torch AMP in float16", TWIN | {"precision": "torch"}),
    "bf16": ("the same, torch AMP in bfloat16", TWIN | {"precision": "torch"}),
    "O1": ("the same, Apex O1", TWIN | {"precision": "apex"}),
}


def reason_against(name):
    """Why a way cannot run here, or None."""
    if name not in ("fp16", "bf16", "O1"):
        return None
    if not torch.cuda.is_available():
        if name != "bf16":
            return "this machine has no CUDA device"
        units = make_precision("auto", "cpu").dtype is torch.bfloat16
        return None if units else "this CPU has no units for bfloat16"
    if name == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bfloat16"
    return why_no_apex() if name == "O1" else None


def run_way(name, args):
    """Train once, in this process: epochs after the first, waiting, memory, losses."""
    device = pick_device()
    if WAYS[name][1] is None:
        rows, waiting, precision = train_2019(
            args.data, args.size, args.batch, args.epochs, args.workers, device
        )
        seconds, losses = [row["seconds"] for row in rows], [row["losses"] for row in rows]
        found = {"precision": precision, "waiting": waiting}
    else:
        config = TrainConfig.paper(**BASE | WAYS[name][1])
        config = replace(config, image_size=args.size, batch_size=args.batch)
        config = replace(config, epochs=args.epochs, workers=args.workers)
        splits, model = load_splits(args.data, config), build_model(config)
        history = fit(model, splits["train"], splits["val"], config, progress=False)
        seconds, steps = history.column("seconds"), history.steps
        losses = [[s["loss"] for s in steps if s["epoch"] == e] for e in range(args.epochs)]
        precision = str(make_precision(config.precision, device))
        found = {"precision": precision, "waiting": statistics.mean(history.column("waiting"))}
    found |= {"seconds": seconds[1:], "losses": losses, "peak_memory": peak_memory(device)}
    if WAYS[name][1] is not None:
        found["compute_alone"] = compute_alone(config, splits["train"], device)
    return found


def compute_alone(config, train_set, device):
    """Seconds an epoch would take if every batch lay ready on the device."""
    precision = make_precision(config.precision, device)
    plain = CoupleFolder(train_set.root, "train", EvalTransform(config.image_size))
    images, labels = next(iter(DataLoader(plain, config.batch_size, shuffle=True)))
    images, labels = images.to(device), labels.to(device)
    try:
        model, alone = build_model(config), Processes()
        training = Training(model, plain, plain, config, precision, alone, device, None)
        training.freeze()
        for step in range(len(train_set) // config.batch_size + 2):
            if step == 2:  # the first two warm up
                watch = Stopwatch(device)
            training.step(images, labels, len(labels), 1.0)
        return watch.stop()[0]
    finally:
        precision.restore()


def in_a_process(name, args):
    """What `run_way` returns, from a fresh process."""
    command = [sys.executable, __file__, "--way", name, "--data", args.data]
    for option in ("size", "pictures", "batch", "epochs", "workers"):
        command += [f"--{option}", getattr(args, option)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def summarise(runs, peer):
    """Medians over all runs of a way, and the ratio of whole epochs to the 2019 loop's."""
    seconds = [value for run in runs for value in run["seconds"]]
    result = {
        "precision": runs[0]["precision"],
        "seconds_an_epoch": round(statistics.median(seconds), 2),
        "all_seconds": [round(value, 2) for value in seconds],
        "waiting": round(statistics.median(run["waiting"] for run in runs), 3),
        "peak_memory_mib": round(statistics.median(run["peak_memory"] for run in runs) / 2**20),
        "steps_an_epoch": len(runs[0]["losses"][0]),
        "loss_by_step": [round(loss, 4) for epoch in runs[0]["losses"] for loss in epoch],
    }
    if peer is not None:
        result["speed_in_2019_loops"] = round(
            peer["seconds_an_epoch"] / result["seconds_an_epoch"], 2
        )
    if "compute_alone" in runs[0]:
        alone = statistics.median(run["compute_alone"] for run in runs)
        result["compute_alone_s"] = round(alone, 2)
    return result


def plot_losses(results, path):
    """Training losses of all ways over each other: every step thin, means of epochs as dots."""
    fig, axis = plt.subplots(figsize=(7, 3.5))
    for name, result in results.items():
        if losses := result.get("loss_by_step"):
            steps = result["steps_an_epoch"]
            line = axis.plot(range(1, len(losses) + 1), losses, lw=0.8, alpha=0.5)[0]
            starts = range(0, len(losses), steps)
            means = [statistics.mean(losses[start : start + steps]) for start in starts]
            middles = [start + (steps + 1) / 2 for start in starts]
            axis.plot(middles, means, "o-", color=line.get_color(), label=name)
    axis.set(xlabel="step", ylabel="training loss", yscale="log")
    axis.legend(frameon=False)
    fig.savefig(path, dpi=85, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--pictures", type=int, default=600, help="drawn; 80 % of them train")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3, help="of each run; the first warms up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count()))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        # what a GPU can do decides between the two; here both are wanted
        with patch("torch.cuda.is_bf16_supported", return_value=args.way == "bf16"):
            print(json.dumps(run_way(args.way, args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.data = render_couples(Path(folder) / "couples", args.pictures, size=512)
        reasons = {name: reason_against(name) for name in WAYS}
        runs = {name: [] for name, reason in reasons.items() if not reason}
        for _ in range(args.repeats):
            for name, found in runs.items():
                found.append(in_a_process(name, args))
    results = {}
    for name, (what, _) in WAYS.items():
        results[name] = {"what": what}
        if reasons[name]:
            results[name] |= {"seconds_an_epoch": None, "reason": reasons[name]}
        else:
            peer = results["2019"] if name != "2019" else None
            results[name] |= summarise(runs[name], peer)
    report = {"machine": machine(), "versions": versions(PACKAGES)}
    options = ("size", "pictures", "batch", "epochs", "repeats", "workers")
    report |= {name: getattr(args, name) for name in options} | {"results": results}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    plot_losses(results, args.out.with_suffix(".png"))
    for name, result in results.items():
        print(f"{name:8} {result.get('speed_in_2019_loops') or result.get('reason') or 1.0}")


if __name__ == "__main__":
    main()
