"""How fast a film is read, end to end, and in how much memory.

    uv run python benchmarks/video.py [--size 256] [--seconds 10 600]

Frames a second of `score_video` on drawn films, beside the network alone on as many pictures that
are there already (as a batch), and beside a loop that decodes, prepares and judges one frame after
another with the same explanations. The paper's network with random weights; for photographs, so
faces are looked for. Peak memory is that of a child process for each film. Writes results/video.json.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import machine, versions

from dclib.checkpoint import load_checkpoint, save_checkpoint
from dclib.config import TrainConfig
from dclib.demo import render_clip
from dclib.evaluate import Accuracy
from dclib.evidence import find_evidence, fold_head
from dclib.frames import read_frames
from dclib.gradcam import extract_features
from dclib.model import DeepConnection
from dclib.photo import predict_photo
from dclib.video import score_video

RESULTS = Path(__file__).parent / "results" / "video.json"
PHOTOS = {"kind": "photographs", "name": "none", "n": {"train": 0}, "sha256": "0" * 64}
RATE, BATCH = 4, 16


def make_checkpoint(folder, size):
    torch.manual_seed(0)
    model = DeepConnection("spp+pmt", "resnet34", weights=None)
    config = TrainConfig.demo(image_size=size)
    return save_checkpoint(folder, model, config, PHOTOS, {"val": Accuracy(0.5, 6, 0.19, 0.81)})


def make_film(path, seconds):
    parts = [("couple", [("happy", 5), ("unhappy", 5)])] * (seconds // 10)
    render_clip(path, plan=parts, size=320)


def end_to_end(film, checkpoint):
    return len(score_video(film, checkpoint, RATE, BATCH, progress=False).frames)


def model_only(film, checkpoint):
    """Batches that are in memory already; evidence and all, as in `score_video`."""
    images = [checkpoint.transform(frame.image) for frame in read_frames(film, RATE)]
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    start = time.perf_counter()
    for begin in range(0, len(images), BATCH):
        batch = torch.stack(images[begin : begin + BATCH])
        find_evidence(head, extract_features(checkpoint.model, batch))
    return len(images), time.perf_counter() - start


def frame_by_frame(film, checkpoint):
    return len([predict_photo(frame.image, checkpoint) for frame in read_frames(film, RATE)])


def timed(run, film, checkpoint):
    """Frames a second."""
    start = time.perf_counter()
    done = run(film, checkpoint)
    n, seconds = done if isinstance(done, tuple) else (done, time.perf_counter() - start)
    return n / seconds


def peak(film, folder, queue):
    end_to_end(film, load_checkpoint(folder))
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak_memory(film, folder):
    """MiB of a fresh process that scores a film."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=peak, args=(film, folder, queue))
    child.start()
    mebibytes = queue.get()
    child.join()
    return round(mebibytes)


def main():
    parser = argparse.ArgumentParser(description="Frames a second and memory of films.")
    parser.add_argument("--size", type=int, default=256, help="pixels a side of the input")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 600], help="films")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    runs = {"end to end": end_to_end, "model only": model_only, "frame by frame": frame_by_frame}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint_folder, films = make_checkpoint(Path(folder) / "checkpoint", args.size), {}
        for seconds in args.seconds:
            films[seconds] = Path(folder) / f"{seconds}.mp4"
            make_film(films[seconds], seconds)
        checkpoint, first = load_checkpoint(checkpoint_folder), films[args.seconds[0]]
        rates = {name: [] for name in runs}
        for _ in range(args.repeats):  # in turns
            for name, run in runs.items():
                rates[name].append(timed(run, first, checkpoint))
        memory = {f"{s} s": peak_memory(films[s], checkpoint_folder) for s in args.seconds}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {"machine": machine(), "versions": versions(["torch", "av"]), "size": args.size}
    result |= {"film seconds": args.seconds[0], "frames a second": medians}
    result |= {"threads": torch.get_num_threads(), "peak memory in MiB": memory}
    result["end to end / model only"] = medians["end to end"] / medians["model only"]
    result["end to end / frame by frame"] = medians["end to end"] / medians["frame by frame"]
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
