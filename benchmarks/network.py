"""How the network inside the package was made: couples of photographed and of drawn faces.

python benchmarks/network.py FACES WEIGHTS [--couples FOLDER] [--out build/network]

FACES is a folder as `python -m dclib.drawn --faces` takes it; WEIGHTS are those of a ResNet-34 to
begin with; --couples is a folder of composed couples, whose val becomes the split test. The whole
network learns first; then its head goes on alone, with twice as many pictures. What is done already
is kept, so the command can be started again. On two busy cores the first part took about 75
minutes, the second half an hour.
"""

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save, save_file
from tqdm import tqdm

from dclib.checkpoint import CONFIG, WEIGHTS, is_checkpoint, load_checkpoint
from dclib.data import CLASSES, fingerprint
from dclib.data.metadata import FILE, read_table
from dclib.drawn import render_couples
from dclib.drawn.composed import compose_couples
from dclib.evaluate.calibration import abstain_confidence
from dclib.evaluate.card import write_card
from dclib.evaluate.metrics import measure, tell_value
from dclib.evaluate.predictions import predict_folder, probabilities
from dclib.files import file_hash, save_json, write_folder
from dclib.framing import find_couple
from dclib.model import BLOCKS
from dclib.pictures import read_picture
from dclib.train import fit, load_splits, save_measured, train_checkpoint
from dclib.train.config import TrainConfig

LUMA = torch.tensor([0.299, 0.587, 0.114])
MEAN, STD = (0.45,) * 3, (0.25,) * 3  # as WEIGHTS were trained
AFTER = 0.7  # share of the head that learned on
LEARNED = Path(__file__).with_suffix(".md")  # what the card says besides
COLUMNS = ("file_name", "label", "group", "source", "boxes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--couples", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/network"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = forget_colours(args.weights, args.out / "grey.safetensors")
    learned = [
        (compose_couples(args.faces, args.out / "composed-0", 4400), {}),
        (render_couples(args.out / "drawn-0", 2000), {}),
    ]
    if args.couples:
        learned.append((args.couples, {"val": "test"}))  # as its own train and val share faces
    whole, taught = args.out / "whole", args.out / "head"
    if not is_checkpoint(whole / "checkpoint"):
        data = mix(whole / "couples", learned)
        train_checkpoint(data, whole / "checkpoint", recipe(start), resume=True)
    more = [
        (compose_couples(args.faces, args.out / "composed-1", 5500, seed=1), {}),
        (render_couples(args.out / "drawn-1", 3000, seed=1), {}),
    ]
    data = mix(taught / "couples", learned + more)
    if not is_checkpoint(taught / "checkpoint"):
        teach_head(whole / "checkpoint", taught / "checkpoint", data, recipe(start))
    pack(taught / "checkpoint", args.out / "packed", data)


def recipe(start: Path) -> TrainConfig:
    """The settings: early stages as they came, the rest carefully, the head alone at first."""
    return TrainConfig.colab(
        weights=str(start),
        levels=(4, 2, 1),  # an 8 x 8 level would be 13 million bytes more, for single cells
        image_size=256,
        frame="faces",
        frame_margin=0.1,
        mean=MEAN,
        std=STD,
        augmenter="imgaug",
        augment=0.3,
        freeze_stages=3,
        freeze_norm=True,
        freeze_epochs=1,
        lr=5e-4,
        lr_decay=0.2,
        batch_size=24,
        epochs=3,
        workers=1,
    )


def teach_head(folder: Path, taught: Path, data: Path, config: TrainConfig) -> None:
    """The checkpoint in `folder`, whose head goes on learning, as one in `taught`.

    Its ResNet stands still and the pictures are as they are: each feature map is computed once.
    What comes out is between the head before and after (Wortsman et al., arXiv 2109.01903): the
    former knows augmented pictures.
    """
    alone = {"freeze_stages": len(BLOCKS), "augment": 0, "batch_size": 128, "lr": 1e-3}
    config = replace(config, **alone)
    checkpoint, splits = load_checkpoint(folder), load_splits(data, config)
    model = checkpoint.model
    before = {name: value.clone() for name, value in model.head.state_dict().items()}
    fit(model, splits["train"], splits["val"], config)
    for name, value in model.head.state_dict().items():
        if value.is_floating_point():
            value.copy_(before[name].lerp(value, AFTER))
    start = checkpoint.config["start_weights"]
    save_measured(taught, model, splits, fingerprint(data), start)


def mix(root: Path, sources: list[tuple[Path, dict[str, str]]]) -> Path:
    """One folder of couples out of several, each with new names for its splits.

    Faces of composed couples are looked for, as they will be in photographs.
    """
    if root.is_dir():
        return root
    with write_folder(root, lambda _: False) as unfinished:
        rows: dict[str, list[dict[str, str]]] = {}
        for number, (source, names) in enumerate(sources):
            for split in (path.name for path in source.iterdir() if (path / FILE).is_file()):
                target = names.get(split, split)
                for row in tqdm(read_table(source / split / FILE), f"{source.name}/{split}"):
                    path = source / split / row["file_name"]
                    if known := look_again(path, row):
                        row |= known | {"file_name": f"{row['label']}/{number}-{path.name}"}
                        place = unfinished / target / row["file_name"]
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.write_bytes(path.read_bytes())
                        rows.setdefault(target, []).append(row)
        for split, table in rows.items():
            with (unfinished / split / FILE).open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(table)
    return root


def look_again(path: Path, row: dict[str, str]) -> dict[str, str]:
    """Boxes and source of a picture; empty if two faces are not found in it."""
    try:
        boxes = json.dumps(find_couple(read_picture(path).image))
    except ValueError:
        return {}
    return {"boxes": boxes, "source": row.get("source") or "composed photographs"}


def pack(folder: Path, packed: Path, data: Path) -> None:
    """The checkpoint with its weights in float16, half as large, and its model card.

    It answers from the confidence on from which nine of ten answers on val are right, also on the
    kind of picture that it knows less well: with 95 of 100, as `train_checkpoint` chooses, every
    third photo would have no answer.
    """
    packed.mkdir(exist_ok=True)
    state = load_file(folder / WEIGHTS)
    half = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
    (packed / WEIGHTS).write_bytes(save(half, {"format": "pt"}))
    config = json.loads((folder / CONFIG).read_text())
    config["weights_sha256"] = file_hash(packed / WEIGHTS)
    save_json(packed / CONFIG, config)
    checkpoint = load_checkpoint(packed)
    tables = {split: predict_folder(checkpoint, data, split) for split in ("val", "test")}
    chosen = max(
        abstain_confidence(probabilities(part), part["label"] == CLASSES[1], risk=0.1) or 0.5
        for _, part in tables["val"].groupby("source")
    )
    save_json(packed / CONFIG, config | {"abstain": chosen})
    path = write_card(load_checkpoint(packed), tables["test"], data=fingerprint(data))
    about = LEARNED.read_text().format(
        rows=by_source(tables), abstain=f"{chosen:.2f}", train=config["training_data"]["n"]["train"]
    )
    path.write_text(path.read_text().replace("## Use and limits", f"{about}## Use and limits"))


def by_source(tables: dict[str, pd.DataFrame]) -> str:
    """Rows of a table in Markdown: accuracy, AUROC and log-loss by split and kind of picture."""
    rows = ""
    for split, table in tables.items():
        for source, part in table.groupby("source"):
            measured = measure(part)
            values = [tell_value(measured.loc[name]) for name in ("accuracy", "AUROC", "log-loss")]
            rows += f"| {source} | {split} | {len(part)} | {' | '.join(values)} |\n"
    return rows


def forget_colours(weights: Path, path: Path) -> Path:
    """The weights with a first layer that sees brightness only: in the faces colour tells labels.

    Most grey faces are of another source than the coloured ones, with other shares of expressions.
    """
    state = {name: value.float() for name, value in load_file(weights).items()}
    together = state["conv1.weight"].sum(1, keepdim=True)  # (64, 3, 7, 7) -> (64, 1, 7, 7)
    state["conv1.weight"] = together * LUMA.view(1, 3, 1, 1)
    save_file(state, path)
    return path


if __name__ == "__main__":
    main()
