"""Everything that decides a training run, in one frozen object with three presets."""

from dataclasses import dataclass, replace
from typing import Any, Self

from dclib.data.loading import IMAGENET_MEAN, IMAGENET_STD
from dclib.spp import LEVELS

LEAST = {  # smallest values that mean something
    "image_size": 1,
    "augment": 0,
    "dropout_samples": 1,
    "freeze_epochs": 0,
    "lr": 0,
    "weight_decay": 0,
    "clip": 0,
    "batch_size": 2,  # batch statistics of one picture are none
    "accumulate": 1,
    "epochs": 1,
    "patience": 1,
    "workers": 0,
    "save_minutes": 0,
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Three presets: `paper()`, `colab()`, `demo()`.

    The presets take changes by name. Raises ValueError for a number below its least, see `LEAST`.

    >>> TrainConfig.demo(epochs=2).backbone
    'resnet18'
    """

    stage: str = "spp+pmt"
    backbone: str = "resnet34"
    weights: str | None = "imagenet"  # or a path, or None for a random start
    levels: tuple[int, ...] = LEVELS
    image_size: int = 512  # pixels a side
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augment: float = 1.0  # strength of the authors' augmentation; 0 trains without any
    augmenter: str = "imgaug"  # in the loader; "tensor" does the same on the training device
    train_sizes: tuple[int, ...] = ()  # alternate by epoch while training instead of image_size
    dropout_samples: int = 8
    dropout_loss: str = "logits"  # "loss" is multi-sample dropout as published
    class_weights: str | None = None  # "balanced", or a number a class, such as "1,2"
    freeze_backbone: bool = False  # only the head ever learns
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
    precision: str = "auto"  # "fp32", "torch", "apex"; "auto" is torch on a GPU, else fp32
    opt_level: str = "O1"  # of Apex, "O0" to "O3"
    workers: int = 2
    cache: bool = True  # keep decoded and resized pictures in a hidden folder beside them
    save_minutes: float = 5.0  # between two saved states within an epoch
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}.")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """The authors' numbers, with faults of the 2019 notebook repaired.

        Repaired: the learning rate starts at its full value and falls with every update (it was
        stepped once an epoch, before the optimiser, so that the first epoch missed the full rate
        and the last but one had a rate of exactly zero); early stopping counts a tie as no progress
        and starts anew in every run (its object outlived the cell); a tie in accuracy goes to the
        lower loss (the later epoch won). Kept: the whole ResNet trains, as it did there, because
        `require_grad` was a typo; Adam with an L2 penalty of 0.1; the mean of 8 logits;
        augmentation at full strength. There it ran under Apex O1: precision="apex".
        """
        return cls(**changes)

    @classmethod
    def colab(cls, **changes: Any) -> Self:
        """What we recommend for photographs on one GPU.

        The head learns alone at first, so that its random start does not disturb the ResNet; then
        each ResNet stage learns at a share of the next one's rate. Decoupled weight decay, clipped
        gradients, multi-sample dropout as published, half the augmentation, done on the GPU, half
        the pixels.
        """
        ours = cls(
            image_size=256,
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
            dropout_loss="loss",
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.05,
            batch_size=32,
            epochs=6,
            patience=6,
            workers=1,
        )
        return replace(small, **changes)
