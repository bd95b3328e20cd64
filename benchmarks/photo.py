"""How long a photo takes from its bytes to the page with all maps, in units of one forward pass.

    uv run python benchmarks/photo.py [--repeats 9]

The network inside the package, a JPEG of two faces (an astronaut, twice: public domain, of
NASA), everything that the photo panel does for an upload: reading, looking for faces, network,
evidence, Grad-CAM, page. Medians; they take turns. Writes results/photo.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import machine, versions
from PIL import Image
from skimage import data

from dclib.checkpoint import load_checkpoint
from dclib.framing.faces import find_faces
from dclib.photo import look, predict_photo
from dclib.photo.page import photo_page
from dclib.pictures import encode, read_picture

RESULTS = Path(__file__).parent / "results" / "photo.json"


def make_photo(width):
    """JPEG bytes of two faces side by side."""
    one = Image.fromarray(data.astronaut()).crop((0, 0, 400, 512))
    both = Image.new("RGB", (800, 512))
    both.paste(one, (0, 0))
    both.paste(one, (400, 0))
    return encode(both.resize((width, width * 512 // 800), Image.BICUBIC), quality=92)


def main():
    parser = argparse.ArgumentParser(description="Seconds from an upload to its page.")
    parser.add_argument("--width", type=int, default=1600, help="pixels of the photo")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    photo = make_photo(args.width)
    checkpoint = load_checkpoint()
    image = read_picture(photo).image
    frame = checkpoint.transform.cut(image)
    images = checkpoint.transform(frame)[None]
    prediction = predict_photo(photo, checkpoint)

    def forward():
        with torch.inference_mode():
            checkpoint.model(images)

    steps = {
        "forward": forward,
        "read": lambda: read_picture(photo),
        "find faces": lambda: find_faces(image),
        "network and maps": lambda: look(checkpoint, frame),
        "page": lambda: photo_page("us.jpg", prediction),
        "all": lambda: photo_page("us.jpg", predict_photo(photo, checkpoint)),
    }
    times = {name: [] for name in steps}
    for _ in range(args.repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(values[1:]) for name, values in times.items()}
    passes = {name: value / seconds["forward"] for name, value in seconds.items()}
    result = {"machine": machine(), "versions": versions(["torch", "opencv-python"])}
    result |= {"size": frame.image.width, "photo": list(image.size)}
    result |= {"threads": torch.get_num_threads()}
    result |= {"seconds": seconds, "forward passes": passes}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
