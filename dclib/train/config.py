"""All settings of a training run, in one frozen object, and the optimiser that they ask for."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch.optim import Optimizer

from dclib.checkpoint import NETWORK, WEIGHTS
from dclib.data.loading import IMAGENET_MEAN, IMAGENET_STD
from dclib.files import file_hash
from dclib.model import BLOCKS, INSIDE, DeepConnection
from dclib.rules import TEXT, TRUTH, check, number, one_of, or_none
from dclib.spp import LEVELS

# From the head down; every group learns at `lr_decay` times the rate of the one above it.
GROUPS = (("head",), *BLOCKS[::-1])
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PRECISIONS = ("auto", "fp32", "torch", "apex")
TIMES = number(1, 1e6, whole=True)
RULES = NETWORK | {  # what each setting may be
    "weights": or_none(TEXT),
    "augment": number(0, 10),
    "augmenter": one_of("imgaug", "tensor"),
    "dropout_loss": one_of("logits", "loss"),
    "freeze_stages": number(0, len(BLOCKS), whole=True),
    "freeze_norm": TRUTH,
    "freeze_epochs": number(0, 1e6, whole=True),
    "optimizer": one_of(*OPTIMIZERS),
    "lr": number(0, 100),
    "lr_decay": number(1e-6, 1),
    "weight_decay": number(0, 100),
    "clip": or_none(number(0, 1e6)),
    "batch_size": number(2, 1e5, whole=True),  # batch statistics of one picture are none
    "accumulate": TIMES,
    "epochs": TIMES,
    "patience": TIMES,
    "seed": number(0, 2**31 - 1, whole=True),
    "precision": one_of(*PRECISIONS),
    "workers": number(0, 256, whole=True),
    "cache": TRUTH,
    "device": TEXT,
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Three presets, `paper()`, `colab()`, `demo()`, take changes.

    >>> TrainConfig.demo(epochs=2).backbone
    'resnet18'
    """

    stage: str = "spp+pmt"
    backbone: str = "resnet34"
    weights: str | None = "imagenet"  # or "faces", a path, or None; see `DeepConnection`
    levels: tuple[int, ...] = LEVELS
    image_size: int = 512  # pixels a side
    frame: str = "whole"  # what it looks at: see `dclib.framing`
    frame_margin: float = 0.1  # room around a face, as a share of its side
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augment: float = 1.0  # strength of the authors' augmentation; 0 trains without any
    augmenter: str = "imgaug"  # in the loader; "tensor" does the same on the training device
    dropout_samples: int = 8
    dropout_loss: str = "logits"  # "loss" is multi-sample dropout as published
    freeze_stages: int = 0  # ResNet stages, from the input on, that never learn; 5 are all
    freeze_norm: bool = False  # batch norm of the ResNet keeps the statistics of its weights
    freeze_epochs: int = 0  # only the head learns in so many epochs at the start
    optimizer: str = "adam"  # "adam" (weight decay as an L2 penalty) or "adamw"
    lr: float = 1e-4  # of the head
    lr_decay: float = 1.0  # rate of each ResNet stage, as a share of the next stage's
    weight_decay: float = 0.1
    clip: float | None = None  # largest norm of all gradients together; 0 is none
    batch_size: int = 48  # pictures an update, all processes together
    accumulate: int = 1  # parts that a batch is worked off in, if it does not fit into memory
    epochs: int = 16
    patience: int = 3  # epochs without a lower validation loss before training stops
    seed: int = 0
    precision: str = "auto"  # "fp32", "torch", "apex" (O1); "auto": see `make_precision`
    workers: int = 2
    cache: bool = True  # keep decoded and resized pictures in a hidden folder beside them
    device: str = "auto"

    def __post_init__(self) -> None:
        check(vars(self), RULES)

    def identity(self) -> dict[str, Any]:
        """All settings, with a hash of the start weights in place of their path.

        The same path may hold another network tomorrow, another path the same. Raises
        FileNotFoundError if there is none.
        """
        settings = asdict(self)
        if self.weights not in (None, "imagenet"):
            path = INSIDE / WEIGHTS if self.weights == "faces" else Path(self.weights)
            if not path.is_file():
                raise FileNotFoundError(f"There are no weights at {path}.")
            settings["weights"] = f"sha256 {file_hash(path)}"
        return settings

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """The authors' numbers, with faults of the 2019 notebook repaired.

        Repaired: the learning rate starts at its full value and falls with every update (it was
        stepped once an epoch, before the optimiser, so that the first epoch missed the full rate
        and the last but one had a rate of exactly zero); early stopping counts a tie as no progress
        and starts anew in every run (its object outlived the cell); a tie in accuracy goes to the
        lower loss (the later epoch won). Kept: the whole ResNet trains, as it did there, because
        `require_grad` was a typo; Adam with an L2 penalty of 0.1; the mean of 8 logits;
        augmentation at full strength. There it ran under Apex: precision="apex".
        """
        return cls(**changes)

    @classmethod
    def colab(cls, **changes: Any) -> Self:
        """What we recommend for photographs on one GPU.

        It looks at the couple, not at the room: pictures without two faces are left out. The head
        learns alone at first, so that its random start does not disturb the ResNet; then each
        ResNet stage learns at a share of the next one's rate. Decoupled weight decay, clipped
        gradients, multi-sample dropout as published, half the augmentation, done on the GPU, half
        the pixels.
        """
        ours = cls(
            image_size=256,
            frame="faces",
            augment=0.5,
            augmenter="tensor",
            dropout_loss="loss",
            freeze_epochs=3,
            optimizer="adamw",
            lr=1e-3,
            lr_decay=0.3,
            weight_decay=0.05,
            clip=1.0,
            epochs=12,
            patience=4,
        )
        return replace(ours, **changes)

    @classmethod
    def demo(cls, **changes: Any) -> Self:
        """Drawn couples on two CPU cores in minutes. Not the authors' network.

        A ResNet-18 from a random start on pictures of 80 px, whose feature map has 3 x 3 cells, so
        that an 8 x 8 level would only repeat them; a tenth of the augmentation.
        """
        small = cls(
            backbone="resnet18",
            weights=None,
            levels=(4, 2, 1),
            image_size=80,
            augment=0.1,
            augmenter="tensor",
            dropout_loss="loss",
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.05,
            batch_size=32,
            epochs=6,
            patience=6,
            workers=0,
        )
        return replace(small, **changes)


def make_optimizer(model: DeepConnection, config: TrainConfig) -> Optimizer:
    """Adam or AdamW over all parameters that require a gradient, with discriminative rates.

    The head learns at config.lr, each ResNet stage at config.lr_decay times the rate of the stage
    above it (Howard & Ruder, arXiv 1801.06146, section 3.2).
    """
    groups, parts = [], dict(model.backbone.named_children()) | {"head": model.head}
    for depth, names in enumerate(GROUPS):
        modules = [parts[name] for name in names if name in parts]
        params = [p for module in modules for p in module.parameters() if p.requires_grad]
        if params:
            rate = config.lr * config.lr_decay**depth
            groups.append({"params": params, "lr": rate, "initial_lr": rate})
    return OPTIMIZERS[config.optimizer](groups, weight_decay=config.weight_decay, fused=True)
