"""Which detector that is there anyway finds the faces? Measured on couples with known boxes.

    uv run python benchmarks/faces.py FOLDER [--n 200]

FOLDER holds pictures and a metadata.csv with file_name and boxes (JSON: x0, y0, x1, y1 in pixels),
two a picture. Candidates: the Haar cascades of OpenCV 4 and the LBP cascade of scikit-image, each
on the upright picture alone and tilted by 20 degrees either way while there are fewer than two. A
face is found if a box overlaps it by an IoU of 0.3. "One left" and "none left" are the same
pictures with one or both faces painted over. Wilson intervals; n is pictures. Writes
results/faces.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from machine import machine, versions
from PIL import Image

from dclib.evaluate.intervals import proportion
from dclib.photo import faces

RESULTS = Path(__file__).parent / "results" / "faces.json"
FILES = ["haarcascade_frontalface_alt2.xml", "haarcascade_frontalface_default.xml"]


def paint_over(image, boxes):
    """The picture with boxes filled from its top edge."""
    image = image.copy()
    for x0, y0, x1, y1 in np.array(boxes, int).reshape(-1, 4).tolist():
        patch = image.crop((0, 0, image.width, max(8, image.height // 8)))
        image.paste(patch.resize((x1 - x0, y1 - y0)), (x0, y0))
    return image


def measure(pictures):
    """Shares of one candidate, as it is set now."""
    both, enough, extra, one, none, start = [], [], 0, [], [], time.perf_counter()
    for image, boxes in pictures:
        found = [np.array(box) for box in faces.find_faces(image)]
        hits = [any(faces.overlap(box, known) > 0.3 for box in found) for known in boxes]
        extra += sum(all(faces.overlap(box, known) <= 0.3 for known in boxes) for box in found)
        both.append(all(hits))
        enough.append(len(found) > 1)
    seconds = (time.perf_counter() - start) / len(pictures)
    for image, boxes in pictures:
        one.append(len(faces.find_faces(paint_over(image, boxes[:1]))) > 1)
        none.append(len(faces.find_faces(paint_over(image, boxes))) > 0)
    shares = {"both found": both, "two or more": enough, "one left: two": one}
    shares["none left: one or more"] = none
    result = {name: str(proportion(sum(v), len(v))) for name, v in shares.items()}
    return result | {"false boxes a picture": extra / len(pictures), "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description="Compare detectors of faces.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=200)
    args = parser.parse_args()
    table = pd.read_csv(args.folder / "metadata.csv").head(args.n)
    pictures = [
        (Image.open(args.folder / name).convert("RGB"), np.array(json.loads(boxes), float))
        for name, boxes in zip(table["file_name"], table["boxes"])
    ]
    results, haar = {}, faces._haar
    for file in [*FILES, None]:
        if file and haar() is None:
            continue
        for tilts in ((0,), (0, 20, -20)):
            haar.cache_clear()
            faces.HAAR_FILE, faces.TILTS = file, tilts
            faces._haar = haar if file else lambda: None
            name = f"{file or 'LBP of scikit-image'}, {'tilted' if len(tilts) > 1 else 'upright'}"
            results[name] = measure(pictures)
            print(name, json.dumps(results[name], indent=1), flush=True)
    content = {"machine": machine(), "versions": versions(["opencv-python", "scikit-image"])}
    content |= {"pictures": len(pictures), "candidates": results}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
