"""Train DeepConnection on a folder of couples, and save a checkpoint. The command: `__main__`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dclib.augment import TrainTransform
from dclib.augment.tensor import TensorTransform
from dclib.checkpoint import (
    Checkpoint,
    check_target,
    is_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from dclib.data import DRAWN, fingerprint, splits_of
from dclib.data.loading import CoupleFolder, EvalTransform, make_loader
from dclib.drawn import render_couples
from dclib.evaluate.calibration import abstain_confidence, fit_temperature
from dclib.evaluate.intervals import Accuracy, accuracy
from dclib.files import put_back
from dclib.model import DeepConnection
from dclib.predict import pick_device, predict_logits
from dclib.train.cache import build_cache
from dclib.train.config import TrainConfig
from dclib.train.distributed import join_processes
from dclib.train.features import features_once
from dclib.train.loop import History, Training, Watcher
from dclib.train.precision import make_precision
from dclib.train.resume import forget_state, has_state, hold_state


def fit(
    model: DeepConnection,
    train_set: CoupleFolder,
    val_set: CoupleFolder,
    config: TrainConfig,
    folder: str | Path | None = None,
    resume: bool = False,
    watchers: Sequence[Watcher] = (),
    progress: bool = True,
) -> History:
    """Train `model` in place and leave it with the weights of its best epoch, in eval mode.

    Best: highest validation accuracy, a tie goes to the lower loss. Training stops after
    `config.patience` epochs without a lower validation loss.

    Args:
        folder: where the state of the run is kept, saved at the end of every epoch. A mounted drive
            will do. None: nowhere.
        resume: go on from the state in `folder`; on the CPU the weights come out bit-identical to
            those of a run that was never cut off. Without a state there, begin.
        watchers: called with the `History` after every epoch and every few seconds within one.

    Raises ValueError if `folder` holds the state of another run, or of any if `resume` is False;
    RuntimeError while another process trains there, when the loss is no longer a number, and when
    memory does not suffice.
    """
    processes, device = join_processes(config.device)
    with (
        hold_state(folder if processes.first else None),
        features_once(model, config, train_set, val_set) as (train_set, val_set),
    ):
        if folder is not None and not resume and has_state(folder):
            raise ValueError(
                f"{folder} holds the state of an earlier run: go on from it with resume=True "
                "(--resume), or delete that folder."
            )
        precision = make_precision(config.precision, device)
        try:
            training = Training(
                model, train_set, val_set, config, precision, processes, device, folder
            )
            if resume and training.load():
                done = f"{training.epoch} of {config.epochs} epochs done"
                print(f"Going on with the run in {folder}: {done}.")
            training.run(watchers, progress)
        finally:
            precision.restore()
        model.load_state_dict(training.best)
    model.eval()
    return training.history


def accuracies(model: DeepConnection, splits: Mapping[str, CoupleFolder]) -> dict[str, Accuracy]:
    """`Accuracy` of the model on every split but train, by name; groups count as wholes."""
    return {
        name: accuracy(*predict_logits(model, make_loader(dataset, 32)), dataset.groups)
        for name, dataset in splits.items()
        if name != "train"
    }


def build_model(config: TrainConfig) -> DeepConnection:
    """The network of a config, its random parts drawn from config.seed."""
    torch.manual_seed(config.seed)
    return DeepConnection(
        config.stage, config.backbone, config.weights, config.levels, config.dropout_samples
    )


def make_transforms(config: TrainConfig) -> tuple[EvalTransform, EvalTransform]:
    """Two transforms: of the pictures that a network learns from, and of all others."""
    size, mean, std = config.image_size, config.mean, config.std
    frame, margin, strength = config.frame, config.frame_margin, config.augment
    plain = EvalTransform(size, mean, std, frame, margin)
    if not strength:
        return plain, plain
    augmenter = {"imgaug": TrainTransform, "tensor": TensorTransform}[config.augmenter]
    return augmenter(size, mean, std, strength, config.seed, frame, margin), plain


def load_splits(root: str | Path, config: TrainConfig) -> dict[str, CoupleFolder]:
    """train, val and, if there is one, test of a folder; train is augmented."""
    varied, plain = make_transforms(config)
    splits = {"train": CoupleFolder(root, "train", varied), "val": CoupleFolder(root, "val", plain)}
    if config.cache:
        for dataset in splits.values():
            build_cache(dataset)
    if "test" in splits_of(root):
        splits["test"] = CoupleFolder(root, "test", plain)
    return splits


def train_checkpoint(
    root: str | Path,
    folder: str | Path,
    config: TrainConfig,
    resume: bool = False,
    watchers: Sequence[Watcher] = (),
    progress: bool = True,
) -> Checkpoint | None:
    """Train on a folder of couples, measure on its other splits, save; return the checkpoint.

    Epoch, temperature and from where on photos get an answer are chosen on val, so that only the
    number on test, where there is one, is untouched; the threshold is 0.5.
    While it trains, the run's state lies in `folder`.run, from where `resume` goes on (see `fit`).
    Raises what `check_target` does, before the work.
    Of several processes only the first writes; the others return None.
    """
    processes, device = join_processes(config.device)
    data, run = fingerprint(root), _run_of(folder)
    check_target(folder, data)
    with hold_state(run if processes.first else None):
        splits = load_splits(root, config)
        precision = make_precision(config.precision, device)
        config = replace(config, precision=precision.name)  # what it comes to is said once
        model = build_model(config)
        if processes.first:
            print(describe_run(config, splits["train"], processes.world))
        fit(model, splits["train"], splits["val"], config, run, resume, watchers, progress)
        if not processes.first:
            return None
        save_measured(folder, model, splits, data, config.weights)
        forget_state(run)
    return load_checkpoint(folder, device)


def save_measured(
    folder: str | Path,
    model: DeepConnection,
    splits: Mapping[str, CoupleFolder],
    data: dict[str, Any],
    start: str | Path | None,
) -> None:
    """Save a trained network, calibrated on val and measured on all splits but train.

    `data`: what `fingerprint` says of its pictures; `start`: the weights that it began with.
    """
    chosen = calibrate(*predict_logits(model, make_loader(splits["val"], 32)), model.classes)
    results, transform = accuracies(model, splits), splits["val"].transform
    save_checkpoint(folder, model, transform, data, results, start, **chosen)


def is_ended(folder: str | Path) -> bool:
    """Whether a checkpoint is there, and no state from which its training could go on."""
    return is_checkpoint(Path(folder)) and not has_state(_run_of(folder))


def _run_of(folder: str | Path) -> Path:
    """Where the state of a checkpoint's training lies."""
    folder = Path(folder).resolve()
    return folder.with_name(f"{folder.name}.run")


def calibrate(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """temperature and abstain for `save_checkpoint`, chosen on val and printed.

    `logits`: (N, 2); `labels`: (N,).
    """
    temperature = fit_temperature(logits.numpy(), labels.numpy())
    unhappy = classes.index("unhappy")
    probs = (logits / temperature).softmax(1)[:, unhappy].numpy()
    abstain = abstain_confidence(probs, labels.numpy() == unhappy)
    answers = "at any confidence" if abstain is None else f"from a confidence of {abstain:.2f} on"
    print(
        f"Temperature {temperature:.2f}, fitted on val (n = {len(labels)}); threshold 0.5; photos "
        f"get an answer {answers}."
    )
    return {"temperature": temperature, "abstain": abstain}


def load_or_train(
    folder: str | Path, config: TrainConfig, n: int = 3000, root: str | Path = "data/demo"
) -> Checkpoint:
    """The checkpoint in `folder`, or one trained on `n` drawings of couples now; prints which.

    It is only trained in a folder whose name begins with "demo": FileNotFoundError for another that
    is not there. A training that was cut off goes on; the end of one that runs is awaited. For one
    process only.
    """
    folder = Path(folder)
    put_back(folder)
    present = is_checkpoint(folder)
    if not present and not folder.name.startswith("demo"):
        raise FileNotFoundError(
            f"There is no checkpoint at {folder}. Name the folder of yours (is its drive there?), "
            "or checkpoints/demo, which is trained on drawings if it is missing."
        )
    if not present:
        with hold_state(_run_of(folder), wait=True):
            present = is_checkpoint(folder)  # by now, of the process that was awaited
            if not present:
                print(
                    f"There is no checkpoint at {folder}: training one on {n} drawings of couples."
                )
                train_checkpoint(render_couples(root, n), folder, config, resume=True)
    checkpoint = load_checkpoint(folder, pick_device(config.device))
    print(f"{'Found' if present else 'Trained'} the checkpoint {checkpoint}")
    return checkpoint


def describe_run(config: TrainConfig, train_set: CoupleFolder, world: int = 1) -> str:
    """A sentence on network, start, data, augmentation and device; another if they do not fit."""
    starts = {None: "a random start", "imagenet": "ImageNet weights"}
    starts["faces"] = "the ResNet-34 of the network inside the package"
    start = starts.get(config.weights) or f"the weights {Path(str(config.weights)).name}"
    by = {"imgaug": "imgaug in the loader", "tensor": "tensor operations on the training device"}
    augmented = f"augmented by {by[config.augmenter]} (strength {config.augment:g})"
    device = pick_device(config.device)
    together = "" if world == 1 else f" in {world} processes"
    drawn = all(source.startswith(DRAWN) for source in train_set.column("source"))
    misfit = " WARNING: a random start is for drawn couples; for photographs take the preset colab."
    misfit = "" if config.weights or drawn else misfit
    return (
        f"Training {config.backbone} (stage {config.stage}) from {start} on {len(train_set)} "
        f"pictures at {config.image_size} px, {augmented if config.augment else 'not augmented'}, "
        f"on {device}{together} in {make_precision(config.precision, device)}.{misfit}"
    )
