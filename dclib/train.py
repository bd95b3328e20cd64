"""Train DeepConnection: a loop that can be read in one sitting, and its history.

python -m dclib.train data/couples checkpoints/mine --preset colab --stage spp+pmt
"""

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from dclib.augment import EvalTransform, TrainTransform
from dclib.augment_tensor import TensorTransform
from dclib.checkpoint import load_checkpoint, save_checkpoint
from dclib.config import TrainConfig
from dclib.data import CoupleFolder, fingerprint, make_loader, splits_of
from dclib.demo import render_couples
from dclib.evaluate import accuracy
from dclib.model import STAGES, DeepConnection, dropout_loss

# Settings of a preset that the command line can change, beside stage and weights.
OPTIONS = {"backbone": str, "image_size": int, "augment": float, "augmenter": str, "lr": float}
OPTIONS |= {
    "optimizer": str,
    "batch_size": int,
    "epochs": int,
    "seed": int,
    "workers": int,
    "device": str,
}

AUGMENTERS = {"imgaug": TrainTransform, "tensor": TensorTransform}


@dataclass
class History:
    """One dict an epoch: epoch, lr, seconds, and loss and accuracy of train and val."""

    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = -1
    stopped_early: bool = False

    @property
    def best(self):
        return self.epochs[self.best_epoch]

    def column(self, name):
        return [row[name] for row in self.epochs]


def fit(model, train_set, val_set, config, progress=True):
    """Train `model` in place and leave it with the weights of its best epoch, in eval mode.

    Best: highest validation accuracy, a tie goes to the lower loss. Training stops after
    `config.patience` epochs without a lower validation loss. Returns a `History`.
    Raises RuntimeError when the loss is no longer a number.
    """
    device = pick_device(config.device)
    model.to(device, memory_format=torch.channels_last)
    model.freeze_backbone(config.freeze_backbone)
    torch.manual_seed(config.seed)  # dropout masks
    train_loader = make_loader(
        train_set, config.batch_size, shuffle=True, seed=config.seed, workers=config.workers
    )
    val_loader = make_loader(val_set, config.batch_size, workers=config.workers)
    optimizer = make_optimizer(model, config)
    steps = config.epochs * len(train_loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step / steps))
    history, best_state, best_score, lowest_loss, waited = History(), None, (), math.inf, 0
    bar = tqdm(total=steps, desc="training", unit="batch", disable=not progress)
    for epoch in range(config.epochs):
        start, lr = time.perf_counter(), optimizer.param_groups[0]["lr"]
        train_loader.sampler.set_epoch(epoch)
        loss, accuracy = train_one_epoch(model, train_loader, optimizer, schedule, config, bar)
        logits, labels = predict_logits(model, val_loader)
        val_loss, val_accuracy = score(logits, labels)
        history.epochs.append(
            {
                "epoch": epoch,
                "lr": lr,
                "train_loss": loss,
                "train_accuracy": accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": time.perf_counter() - start,
            }
        )
        bar.set_postfix(val_loss=f"{val_loss:.3f}", val_accuracy=f"{val_accuracy:.3f}")
        if not best_score or (val_accuracy, -val_loss) > best_score:
            best_score, history.best_epoch = (val_accuracy, -val_loss), epoch
            best_state = copy.deepcopy(model.state_dict())
        waited = 0 if val_loss < lowest_loss else waited + 1
        lowest_loss = min(lowest_loss, val_loss)
        if waited >= config.patience:
            history.stopped_early = True
            break
    bar.close()
    model.load_state_dict(best_state)
    model.eval()
    return history


def train_one_epoch(model, loader, optimizer, schedule, config, bar):
    """One pass over the training pictures. Returns loss and accuracy, weighted by pictures."""
    model.train()
    device = next(model.parameters()).device
    total_loss, correct, n = 0.0, 0, 0
    finish = loader.dataset.transform.finish
    for batch, labels in loader:
        images, labels = to_device(finish(batch, device), device), labels.to(device)
        sample_logits = model.sample_logits(images)  # (S, B, 2)
        loss = dropout_loss(sample_logits, labels, config.dropout_loss)
        if not torch.isfinite(loss):
            raise RuntimeError(f"The loss became {loss.item()}; lower lr (it is {config.lr}).")
        optimise(loss, optimizer)
        schedule.step()  # after the optimiser, so that the first step has the full rate
        total_loss += loss.item() * len(labels)
        correct += (sample_logits.detach().mean(0).argmax(1) == labels).sum().item()
        n += len(labels)
        bar.update()
    return total_loss / n, correct / n


def optimise(loss, optimizer):
    """One update of the weights, in full precision."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def predict_logits(model, loader):
    """Logits (N, 2) and labels (N,) of all pictures of a loader, on the CPU, in eval mode."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    logits, labels = [], []
    for images, targets in loader:
        logits.append(model(to_device(images, device)).float().cpu())
        labels.append(targets)
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def measure(model, splits, batch_size=32):
    """`Accuracy` of the model on every split but train, by name."""
    results = {}
    for name, dataset in splits.items():
        if name != "train":
            results[name] = accuracy(*predict_logits(model, make_loader(dataset, batch_size)))
    return results


def score(logits, labels):
    """Mean cross-entropy and accuracy."""
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def cosine(share):
    """Factor of the learning rate after this share of all steps: 1 at the start, 0 at the end."""
    return 0.5 * (1 + math.cos(math.pi * share))


def make_optimizer(model, config):
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if config.optimizer not in kinds:
        raise ValueError(f"optimizer must be one of {tuple(kinds)}, not {config.optimizer!r}.")
    trainable = [p for p in model.parameters() if p.requires_grad]
    return kinds[config.optimizer](
        trainable, lr=config.lr, weight_decay=config.weight_decay, fused=True
    )


def build_model(config):
    """The network of a config, its random parts drawn from config.seed."""
    torch.manual_seed(config.seed)
    return DeepConnection(
        config.stage, config.backbone, config.weights, config.levels, config.dropout_samples
    )


def load_splits(root, config):
    """train, val and, if there is one, test of a folder as `CoupleFolder`s; train is augmented."""
    plain = EvalTransform(config.image_size, config.mean, config.std)
    if config.augmenter not in AUGMENTERS:
        raise ValueError(f"augmenter must be one of {tuple(AUGMENTERS)}, not {config.augmenter!r}.")
    varied = AUGMENTERS[config.augmenter](
        config.image_size, config.mean, config.std, config.augment, config.seed
    )
    splits = {"train": CoupleFolder(root, "train", varied if config.augment else plain)}
    for split in ("val", *(["test"] if "test" in splits_of(root) else [])):
        splits[split] = CoupleFolder(root, split, plain)
    return splits


def pick_device(name="auto"):
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(images, device):
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def train_checkpoint(root, folder, config, progress=True):
    """Train on a folder of couples, measure on its other splits, save; return the `Checkpoint`.

    The epoch is chosen on val, so that only the number on test, where there is one, is untouched.
    """
    splits = load_splits(root, config)
    model = build_model(config)
    print(describe_run(config, splits["train"]))
    fit(model, splits["train"], splits["val"], config, progress)
    save_checkpoint(folder, model, config, fingerprint(root), measure(model, splits))
    return load_checkpoint(folder, pick_device(config.device))


def load_or_train(folder, config, n=3000, root="data/demo"):
    """The checkpoint in `folder`, or one trained on `n` drawn couples now; prints which."""
    if Path(folder).exists():
        checkpoint = load_checkpoint(folder, pick_device(config.device))
        print(f"Found the checkpoint {checkpoint}")
        return checkpoint
    print(f"There is no checkpoint at {folder}: training one on {n} drawn couples.")
    checkpoint = train_checkpoint(render_couples(root, n), folder, config)
    print(f"Trained the checkpoint {checkpoint}")
    return checkpoint


def describe_run(config, train_set):
    """One sentence: network, start, data, augmentation, device and precision of a run."""
    start = {None: "a random start", "imagenet": "ImageNet weights"}.get(config.weights)
    start = start or f"the weights {Path(config.weights).name}"
    by = {"imgaug": "imgaug in the loader", "tensor": "tensor operations on the training device"}
    augmented = f"augmented by {by[config.augmenter]} (strength {config.augment:g})"
    return (
        f"Training {config.backbone} (stage {config.stage}) from {start} on {len(train_set)} "
        f"pictures at {config.image_size} px, {augmented if config.augment else 'not augmented'}, "
        f"on {pick_device(config.device)} in float32."
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m dclib.train", description="Train on a folder.")
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("checkpoint", type=Path, help="folder to write")
    parser.add_argument("--preset", choices=("paper", "colab", "demo"), default="colab")
    parser.add_argument("--weights", help='"imagenet", "none" or a file with a ResNet state dict')
    parser.add_argument("--stage", choices=STAGES)
    for name, kind in OPTIONS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help="instead of the preset's"
        )
    parser.add_argument("--freeze-backbone", action="store_true", default=None)
    args = vars(parser.parse_args())
    root, folder, preset = args.pop("data"), args.pop("checkpoint"), args.pop("preset")
    changes = {name: value for name, value in args.items() if value is not None}
    if changes.get("weights") == "none":
        changes["weights"] = None
    try:
        print(train_checkpoint(root, folder, getattr(TrainConfig, preset)(**changes)))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
