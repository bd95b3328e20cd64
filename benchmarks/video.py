"""How fast a film is read, end to end, and in how much memory.

    uv run python benchmarks/video.py [--sizes 256 512] [--seconds 10 600]

Frames a second of `score_video` on a film of a photograph (two of scikit-image's astronauts, side
by side and swaying), beside the network alone on as many pictures that are there already, in
batches, and beside a loop that decodes, prepares and judges one frame after another with the same
explanations. The paper's network with random weights, as if for photographs, so that faces are
looked for. Peak memory is that of a child process for each film. Writes results/video.json.
"""

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import machine, versions
from PIL import Image
from skimage import data

from dclib.checkpoint import load_checkpoint, save_checkpoint
from dclib.data.loading import EvalTransform
from dclib.evaluate.intervals import Accuracy
from dclib.explain.evidence import find_evidence, fold_head
from dclib.model import DeepConnection
from dclib.photo import predict_photo
from dclib.pictures.frames import Clip, write_mp4
from dclib.predict import extract_features
from dclib.video import score_video

RESULTS = Path(__file__).parent / "results" / "video.json"
PHOTOS = {"kind": "photographs", "name": "none", "n": {"train": 0}, "sha256": "0" * 64}
RATE, BATCH = 4, 16


def make_checkpoint(folder, size):
    torch.manual_seed(0)
    model = DeepConnection("spp+pmt", "resnet34", weights=None)
    accuracy = {"val": Accuracy(0.5, 6, 0.19, 0.81)}
    return save_checkpoint(folder, model, EvalTransform(size), PHOTOS, accuracy)


def make_film(path, seconds, rate=12):
    """640 x 360 pixels, swaying."""
    astronaut = Image.fromarray(data.astronaut()).resize((380, 380))
    pair = Image.new("RGB", (760, 380))
    pair.paste(astronaut, (0, 0))
    pair.paste(astronaut, (380, 0))
    sways = (round(60 + 50 * math.sin(k / 8)) for k in range(seconds * rate))
    write_mp4(path, (pair.crop((x, 10, x + 640, 370)) for x in sways), rate)


def end_to_end(film, checkpoint):
    return len(score_video(film, checkpoint, RATE, BATCH, progress=False).frames)


def model_only(film, checkpoint):
    """Batches that are in memory already; evidence and all, as in `score_video`."""
    images = [checkpoint.transform(frame.image) for frame in Clip(film, RATE)]
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    start = time.perf_counter()
    for begin in range(0, len(images), BATCH):
        batch = torch.stack(images[begin : begin + BATCH])
        find_evidence(head, extract_features(checkpoint.model, batch))
    return len(images), time.perf_counter() - start


def frame_by_frame(film, checkpoint):
    return len([predict_photo(frame.image, checkpoint) for frame in Clip(film, RATE)])


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


def compare(film, checkpoint, repeats):
    """Medians of frames a second, taken in turns, and their ratios."""
    runs = {"end to end": end_to_end, "model only": model_only, "frame by frame": frame_by_frame}
    rates = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            rates[name].append(timed(run, film, checkpoint))
    found = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    for peer in ("model only", "frame by frame"):
        found[f"end to end / {peer}"] = round(found["end to end"] / found[peer], 3)
    return found


def main():
    parser = argparse.ArgumentParser(description="Frames a second and memory of films.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="of the input")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 600], help="films")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    result = {"machine": machine(), "versions": versions(["torch", "av"])}
    result |= {"threads": torch.get_num_threads(), "film seconds": args.seconds[0]}
    with tempfile.TemporaryDirectory() as folder:
        films = {seconds: Path(folder) / f"{seconds}.mp4" for seconds in args.seconds}
        for seconds, film in films.items():
            make_film(film, seconds)
        folders = {size: make_checkpoint(Path(folder) / f"{size}", size) for size in args.sizes}
        result["frames a second"] = {
            f"{size} px": compare(films[args.seconds[0]], load_checkpoint(at), args.repeats)
            for size, at in folders.items()
        }
        memory = {f"{s} s": peak_memory(film, folders[args.sizes[0]]) for s, film in films.items()}
    result |= {f"peak memory in MiB, {args.sizes[0]} px": memory}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
