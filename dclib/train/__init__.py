"""Train DeepConnection on a folder of couples, from Python or from the command line.

python -m dclib.train data/couples checkpoints/mine --preset colab --stage spp+pmt
torchrun --nproc-per-node 2 -m dclib.train data/couples checkpoints/mine
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from dclib.augment import TrainTransform
from dclib.augment.tensor import TensorTransform
from dclib.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dclib.data import fingerprint, splits_of
from dclib.data.loading import CoupleFolder, EvalTransform, make_loader
from dclib.drawn import render_couples
from dclib.evaluate.calibration import abstain_confidence, fit_temperature
from dclib.evaluate.intervals import Accuracy, accuracy
from dclib.model import DeepConnection
from dclib.predict import pick_device, predict_logits
from dclib.train.amp import FullPrecision
from dclib.train.cache import build_cache
from dclib.train.config import TrainConfig
from dclib.train.distributed import Processes, as_one, explain_lost_process, join_processes
from dclib.train.loop import History, Training, Watcher
from dclib.train.precision import PRECISIONS, make_precision
from dclib.train.resume import forget_state, has_state

AUGMENTERS = {"imgaug": TrainTransform, "tensor": TensorTransform}


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
        folder: where the state of the run is kept, saved at the end of every epoch and every
            `config.save_minutes` within one. A mounted drive will do. None: nowhere.
        resume: go on from the state in `folder`; on the CPU the weights come out bit-identical to
            those of a run that was never cut off. Without a state there, begin.
        watchers: called with the `History` after every epoch and every few seconds within one.

    Raises ValueError if `folder` holds the state of a run with other settings
    or data, or of any run if `resume` is False, and RuntimeError when the loss is no longer a
    number, when memory does not suffice (for two pictures; with several processes, for `accumulate`
    parts), or when another process of a distributed run has died.
    """
    processes, device = join_processes(config.device)
    precision = make_precision(config.precision, device, config.opt_level)
    try:
        check_agreement(precision, processes)
        with as_one(model.to(device), processes):
            training = Training(
                model, train_set, val_set, config, precision, processes, device, folder
            )
            begin(training, resume)
            training.run(watchers, progress)
    except RuntimeError as error:
        lost = explain_lost_process(error)
        if lost is None:
            raise
        raise RuntimeError(f"{lost} {_where_to_go_on(folder)}") from error
    finally:
        precision.restore(model)
    model.load_state_dict(training.best)
    model.eval()
    return training.history


def check_agreement(precision: FullPrecision, processes: Processes) -> None:
    """Raise RuntimeError if Apex works for some of the processes only."""
    counts = processes.total(*(precision.name == name for name in PRECISIONS))
    if max(counts) < processes.world:
        raise RuntimeError(
            "Apex works in some of the processes only: train with --precision torch."
        )


def begin(training: Training, resume: bool) -> None:
    """Load the state that there may be, and say so; raises ValueError if there must be none."""
    if training.folder is not None and not resume and has_state(training.folder):
        raise ValueError(
            f"{training.folder} holds the state of an earlier run: go on from it with resume=True "
            "(--resume), or delete that folder."
        )
    if resume and training.load():
        done = f"{training.epoch} of {training.config.epochs} epochs"
        print(
            f"Going on with the run in {training.folder}: {done} and {training.batch} batches done."
        )


def _where_to_go_on(folder: str | Path | None) -> str:
    if folder is None or not has_state(folder):
        return "No state was saved yet: start again."
    return f"Start again with --resume to go on from the state in {folder}."


def accuracies(model: DeepConnection, splits: Mapping[str, CoupleFolder]) -> dict[str, Accuracy]:
    """`Accuracy` of the model on every split but train, by name."""
    results = {}
    for name, dataset in splits.items():
        if name != "train":
            results[name] = accuracy(*predict_logits(model, make_loader(dataset, 32)))
    return results


def build_model(config: TrainConfig) -> DeepConnection:
    """The network of a config, its random parts drawn from config.seed."""
    torch.manual_seed(config.seed)
    return DeepConnection(
        config.stage, config.backbone, config.weights, config.levels, config.dropout_samples
    )


def make_transforms(config: TrainConfig) -> tuple[EvalTransform, EvalTransform]:
    """Two transforms: of the pictures that a network learns from, and of all others.

    Raises ValueError for an unknown augmenter.
    """
    if config.augmenter not in AUGMENTERS:
        raise ValueError(f"augmenter must be one of {tuple(AUGMENTERS)}, not {config.augmenter!r}.")
    size, mean, std, sizes = config.image_size, config.mean, config.std, config.train_sizes
    plain, varied = EvalTransform(size, mean, std), EvalTransform(size, mean, std, sizes)
    if config.augment:
        kind = AUGMENTERS[config.augmenter]
        varied = kind(size, mean, std, config.augment, config.seed, sizes)
    return varied, plain


def load_splits(root: str | Path, config: TrainConfig) -> dict[str, CoupleFolder]:
    """train, val and, if there is one, test of a folder; train is augmented.

    Raises what `CoupleFolder` and `make_transforms` raise.
    """
    varied, plain = make_transforms(config)
    splits = {"train": CoupleFolder(root, "train", varied)}
    for split in ("val", *(["test"] if "test" in splits_of(root) else [])):
        splits[split] = CoupleFolder(root, split, plain)
    if config.cache:
        build_cache(splits["train"], varied.sizes)
        build_cache(splits["val"], plain.sizes)
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
    Of several processes only the first writes; the others return None. Raises what `load_splits`
    and `fit` raise.
    """
    processes, device = join_processes(config.device)
    splits = processes.first_prepares(lambda: load_splits(root, config))
    precision = make_precision(config.precision, device, config.opt_level)
    config = replace(config, precision=precision.name)  # what it comes to is said once, and kept
    model, run = build_model(config), Path(folder).with_name(Path(folder).name + ".run")
    if processes.first:
        print(describe_run(config, splits["train"], processes.world))
    fit(model, splits["train"], splits["val"], config, run, resume, watchers, progress)
    if not processes.first:
        return None
    logits, labels = predict_logits(model, make_loader(splits["val"], 32))
    chosen = calibrate(logits, labels, model.classes)
    results = accuracies(model, splits)
    transform = splits["val"].transform
    save_checkpoint(folder, model, transform, fingerprint(root), results, config.weights, **chosen)
    forget_state(run)
    return load_checkpoint(folder, device)


class Calibration(TypedDict):
    """What is chosen on val, by the names that `save_checkpoint` has for it."""

    temperature: float
    abstain: float | None


def calibrate(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Calibration:
    """Temperature and abstaining, chosen on val: logits (N, 2), labels (N,). Says what it chose."""
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

    A training that was cut off goes on. For one process only.
    """
    found = Path(folder).exists()
    if not found:
        print(f"There is no checkpoint at {folder}: training one on {n} drawings of couples.")
        train_checkpoint(render_couples(root, n), folder, config, resume=True)
    checkpoint = load_checkpoint(folder, pick_device(config.device))
    print(f"{'Found' if found else 'Trained'} the checkpoint {checkpoint}")
    return checkpoint


def describe_run(config: TrainConfig, train_set: CoupleFolder, world: int = 1) -> str:
    """One sentence: network, start, data, augmentation, device and precision of a run."""
    start = "a random start"
    if config.weights is not None:
        own = config.weights != "imagenet"
        start = f"the weights {Path(config.weights).name}" if own else "ImageNet weights"
    by = {"imgaug": "imgaug in the loader", "tensor": "tensor operations on the training device"}
    augmented = f"augmented by {by[config.augmenter]} (strength {config.augment:g})"
    device = pick_device(config.device)
    precision = make_precision(config.precision, device, config.opt_level)
    size = " and ".join(map(str, config.train_sizes or (config.image_size,)))
    together = "" if world == 1 else f" in {world} processes"
    return (
        f"Training {config.backbone} (stage {config.stage}) from {start} on {len(train_set)} "
        f"pictures at {size} px, {augmented if config.augment else 'not augmented'}, "
        f"on {device}{together} in {precision}."
    )
