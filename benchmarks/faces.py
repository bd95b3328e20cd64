"""How well and how fast YuNet finds faces, beside the two cascades that did it before.

    uv run python benchmarks/faces.py --couples FOLDER [--n 200]

The folder holds pictures and a metadata.csv with file_name and boxes (JSON: x0, y0, x1, y1 in
pixels), two a picture; without it nothing is measured. Peers, as the package had them: the Haar
cascade of OpenCV 4 and the LBP cascade of scikit-image, tilted by 20 degrees either way while there
are fewer than two faces. A face is found if a box overlaps it by an IoU of 0.3; "false" are other
boxes. "One left" and "none left" are the same pictures with one or both faces painted over; YuNet
is asked for drawn couples, too. Pictures are enlarged to 1,024 pixels, since photographs are larger
than what any of them looks at. Cascades take longer where they find nobody, as on most photographs:
then they tilt the picture. One thread, the finders in turn on every picture, medians of
milliseconds of processor time; Wilson intervals, n is pictures. Writes results/faces.json.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from machine import machine, versions
from PIL import Image
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.evaluate.intervals import proportion
from dclib.framing.faces import find_faces, overlap

RESULTS = Path(__file__).parent / "results" / "faces.json"
SIDE = 1024  # pixels of the longer side
TILTS = (0, 20, -20)  # degrees; cascades miss heads that lean further than about ten
LEAST = 24  # pixels of the smallest face


def yunet(image):
    return [face.box for face in find_faces(image)]


def tilted(image, side, scan):
    """Boxes of what `scan` finds in the grey picture, `side` pixels long, also tilted."""
    ratio = min(1, side / max(image.size))
    small = [max(1, round(length * ratio)) for length in image.size]
    grey = image.convert("L").resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0)
    centre, faces = np.array(grey.size) / 2, []
    for tilt in TILTS:
        if len(faces) > 1:
            break
        for x, y, width in scan(np.asarray(grey.rotate(tilt, Image.Resampling.BILINEAR))):
            across, down = np.array([x, y]) + width / 2 - centre
            cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
            middle = centre + np.array([across * cos - down * sin, across * sin + down * cos])
            box = (*(middle - width / 2), *(middle + width / 2))
            if all(overlap(box, other) < 0.2 for other in faces):
                faces.append(box)
    return [tuple(np.array(box) / ratio) for box in faces]


def cascades():
    """The finders that were used before, by name; OpenCV 5 has no Haar cascade."""
    lbp = Cascade(lbp_frontal_face_cascade_filename())

    def by_lbp(grey):
        sizes = {"min_size": (LEAST, LEAST), "max_size": grey.shape[::-1]}
        boxes = lbp.detect_multi_scale(grey, 1.1, 1.3, **sizes, min_neighbor_number=4)
        return [(box["c"], box["r"], box["width"]) for box in boxes]

    finders = {"LBP cascade": lambda image: tilted(image, 256, by_lbp)}
    if hasattr(cv2, "CascadeClassifier"):
        file = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
        haar = cv2.CascadeClassifier(str(file))

        def by_haar(grey):
            found = haar.detectMultiScale(grey, 1.1, 3, minSize=(LEAST, LEAST))
            return [(x, y, width) for x, y, width, _ in found]

        finders["Haar cascade"] = lambda image: tilted(image, 384, by_haar)
    return finders


def enlarge(image, boxes):
    """The picture and its boxes with 1,024 pixels along the longer side."""
    ratio = SIDE / max(image.size)
    size = [round(length * ratio) for length in image.size]
    return image.resize(size, Image.Resampling.BICUBIC), (np.array(boxes) * ratio).tolist()


def paint_over(image, boxes):
    """The picture with boxes filled from its top edge."""
    image = image.copy()
    for x0, y0, x1, y1 in np.array(boxes, int).reshape(-1, 4).tolist():
        patch = image.crop((0, 0, image.width, max(8, image.height // 8)))
        image.paste(patch.resize((x1 - x0, y1 - y0)), (x0, y0))
    return image


def compare(found, known):
    """How many of the known boxes were found, and how many boxes are none of them."""
    same = np.array([[overlap(box, other) > 0.3 for other in known] for box in found])
    same = same.reshape(len(found), len(known))
    return same.any(0).sum(), (~same.any(1)).sum()


def timed(find, image):
    """What is found, and the seconds of processor time that it took."""
    start = time.process_time()
    found = find(image)
    return found, time.process_time() - start


def measure(finders, pictures):
    """What each finder makes of (image, boxes) of all pictures: a dict by its name."""
    rows = {name: [] for name in finders}
    for image, boxes in pictures:
        one, none = paint_over(image, boxes[:1]), paint_over(image, boxes)
        for name, find in finders.items():
            found, seconds = timed(find, image)
            nobody, longer = timed(find, none)
            left = len(find(one)) > 1, len(nobody) > 0
            rows[name].append((*compare(found, boxes), seconds, longer, *left))
    return {name: summarise(np.array(values, float)) for name, values in rows.items()}


def summarise(rows):
    """Rows of (found, false, seconds, seconds where nobody is, one left, none left) in numbers."""
    found, false, *seconds, one, none = rows.T
    shares = {"both found": found == 2, "one left: two": one, "none left: one or more": none}
    result = {name: str(proportion(int(v.sum()), len(v))) for name, v in shares.items()}
    ms, longer = (round(1e3 * float(np.median(values)), 1) for values in seconds)
    return result | {"false boxes": int(false.sum()), "ms": ms, "ms, nobody there": longer}


def drawn(n):
    """Of n drawn couples, in how many YuNet finds both faces, or any."""
    found = []
    for index in range(n):
        scene, _ = sample_scene(0, index)
        boxes = np.array([person.face_box() for person in scene.couple]) * 256
        found.append(compare(yunet(draw_scene(scene, 256)), boxes)[0])
    return {f"{k} or more": str(proportion(sum(f >= k for f in found), n)) for k in (1, 2)}


def main():
    parser = argparse.ArgumentParser(description="Compare finders of faces.")
    parser.add_argument("--couples", type=Path, help="folder of composed couples")
    parser.add_argument("--n", type=int, default=200)
    args = parser.parse_args()
    if not args.couples:
        raise SystemExit("Skipped: name a folder of couples with known faces, --couples FOLDER.")
    cv2.setNumThreads(1)
    table = pd.read_csv(args.couples / "metadata.csv").head(args.n)
    pictures = (
        enlarge(Image.open(args.couples / name).convert("RGB"), json.loads(boxes))
        for name, boxes in zip(table["file_name"], table["boxes"])
    )
    results = measure({"YuNet": yunet} | cascades(), pictures)
    ours, peers = results["YuNet"], [r for name, r in results.items() if name != "YuNet"]
    faster = {k: round(min(peer[k] for peer in peers) / ours[k], 2) for k in ours if "ms" in k}
    content = {"machine": machine(), "versions": versions(["opencv-python", "scikit-image"])}
    content |= {"pictures": len(table), "finders": results, "YuNet on drawn couples": drawn(200)}
    content["times as fast as the faster cascade"] = faster
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
