"""How many pictures a second each way of augmenting varies: writes results/augment.json.

    python benchmarks/augment.py [--size 512] [--pictures 16] [--repeats 15]

One process, one thread for what runs on the CPU, so that numbers are pictures a second and core.
The ways take turns, and the median of all turns counts. Resizing, decoding and normalising are left
out. kornia is measured where it can be imported; the project does without it.
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import machine, versions
from torchvision.transforms import v2

from dclib.augment import authors_policy
from dclib.augment.tensor import TensorPolicy
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene

RESULTS = Path(__file__).parent / "results" / "augment.json"
PACKAGES = ["torch", "torchvision", "numpy", "imgaug", "opencv-python-headless", "opencv-python"]
PACKAGES += ["kornia"]
NO_GPU = "this machine has no CUDA device"
NO_KORNIA = "kornia is not installed"
LABELS = {
    "imgaug": "imgaug, one uint8 picture at a time (the 2019 loader's way)",
    "torchvision_v2": "torchvision.transforms.v2, nearest operations, one picture at a time",
    "kornia": "kornia.augmentation, nearest operations, whole batch, one order for all",
    "tensor_cpu": "dclib.augment.tensor on the CPU",
    "tensor_gpu": "dclib.augment.tensor on the GPU",
}


def nearest_in_torchvision(size):
    """The authors' policy in the operations that v2 has: per picture, in random order."""
    return v2.RandomOrder(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomResizedCrop(size, scale=(0.64, 1), antialias=False),
            v2.RandomApply([v2.GaussianBlur(5, (0.01, 0.5))], 0.5),
            v2.GaussianNoise(sigma=0.025),
            v2.ColorJitter(brightness=0.2),
            v2.RandomAffine(
                25,
                (0.2, 0.2),
                (0.8, 1.2),
                (-8, 8, -8, 8),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(hue=0.02, saturation=0.04),
            v2.ColorJitter(contrast=(0.75, 1.5)),
        ]
    )


def nearest_in_kornia(size):
    """The same in kornia: parameters per picture, but one order for the whole batch."""
    import kornia.augmentation as K

    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomResizedCrop((size, size), scale=(0.64, 1), p=1.0),
        K.RandomGaussianBlur((5, 5), (0.01, 0.5), p=0.5),
        K.RandomGaussianNoise(std=0.025, p=1.0),
        K.RandomBrightness((0.8, 1.2), p=1.0),
        K.RandomAffine(25, (0.2, 0.2), (0.8, 1.2), (-8, 8, -8, 8), p=1.0),
        K.ColorJiggle(hue=0.02, saturation=0.04, p=1.0),
        K.RandomContrast((0.75, 1.5), p=1.0),
        data_keys=["input"],
        random_apply=8,
    )


def ways(pictures):
    """{name: function of the turn's number}; a way that cannot run here gives its reason."""
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()  # (N, 3, H, W)
    imgaug, twin, size = authors_policy(), TensorPolicy(), images.shape[-1]
    in_torchvision = nearest_in_torchvision(size)

    def by_imgaug(_):
        return [imgaug(image=picture) for picture in pictures]

    def by_torchvision(_):
        return [in_torchvision(image.float() / 255) for image in images]

    def by_twin(turn):
        return twin(images, [(turn, index) for index in range(len(images))])

    def by_kornia(_):
        return in_kornia(images.float() / 255)

    def by_twin_on_gpu(turn):
        twin(on_gpu, [(turn, index) for index in range(len(on_gpu))])
        torch.cuda.synchronize()

    found = {"imgaug": by_imgaug, "torchvision_v2": by_torchvision, "kornia": NO_KORNIA}
    found |= {"tensor_cpu": by_twin, "tensor_gpu": NO_GPU}
    if importlib.util.find_spec("kornia"):
        in_kornia = nearest_in_kornia(size)
        found["kornia"] = by_kornia
    if torch.cuda.is_available():
        on_gpu = images.cuda()
        found["tensor_gpu"] = by_twin_on_gpu
    return found


def measure(found, n, repeats):
    """Pictures a second of each way: median over turns that are interleaved, with the quartiles."""
    seconds = {name: [] for name, way in found.items() if callable(way)}
    for turn in range(repeats + 1):  # the first warms up
        for name, taken in seconds.items():
            start = time.perf_counter()
            found[name](turn)
            if turn:
                taken.append(time.perf_counter() - start)
    results = {}
    for name, way in found.items():
        if callable(way):
            low, middle, high = (n / s for s in statistics.quantiles(seconds[name])[::-1])
            results[name] = {"images_per_s": round(middle, 1)}
            results[name]["quartiles"] = [round(low, 1), round(high, 1)]
        else:
            results[name] = {"images_per_s": None, "reason": way}
        results[name]["what"] = LABELS[name]
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--pictures", type=int, default=16, help="pictures a turn")
    parser.add_argument("--repeats", type=int, default=15, help="turns that count")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    pictures = [
        np.asarray(draw_scene(sample_scene(0, index)[0], args.size))
        for index in range(args.pictures)
    ]
    results = measure(ways(pictures), args.pictures, args.repeats)
    imgaug = results["imgaug"]["images_per_s"]
    for result in results.values():
        if result["images_per_s"]:
            result["ratio_to_imgaug"] = round(result["images_per_s"] / imgaug, 2)
    report = {
        "machine": machine(),
        "versions": versions(PACKAGES),
        "threads": 1,
        "size_px": args.size,
    }
    report |= {"pictures_a_turn": args.pictures, "turns": args.repeats, "results": results}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, result in results.items():
        print(f"{name:15} {result.get('images_per_s') or result['reason']}")


if __name__ == "__main__":
    main()
