"""DeepConnection (Uhlich & Bojar, 2021, doi 10.1007/s42001-021-00102-2): a ResNet whose last
pooling is a spatial pyramid with a power mean transformation, and a head with 8-sample dropout.

Three stages, so that each part's worth can be measured: "plain" (global average pooling), "spp" and
"spp+pmt". The head is the same in all three.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dclib.data import CLASSES
from dclib.pmt import PowerMeanTransform
from dclib.spp import LEVELS, SpatialPyramidPool

# A checkpoint that has seen photographed faces.
INSIDE = Path(__file__).parent / "checkpoint" / "pretrained"
STAGES = ("plain", "spp", "spp+pmt")
NEURONS = 100
BACKBONE_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
BLOCKS = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))  # those that learn


class DeepConnection(nn.Module):
    """Happy or unhappy couple.

    Args:
        stage: one of `STAGES`.
        backbone: name of a torchvision ResNet ("resnet18", "resnet34", "resnext50_32x4d", ...).
        weights: "imagenet"; "faces", the ResNet-34 of the network inside the package, an offline
            stand-in for that; None (random); or the path of a state dict of a ResNet or of a whole
            network (.safetensors, or a .pt/.pth that is read without unpickling code).
        levels: bins a side of the spatial pyramid.
        dropout_samples: dropout masks a training step draws in the head.
        classes: names of the logits, in order.

    Shape: images (B, 3, H, W), normalised -> logits (B, 2); any H, W from 1 up.
    Raises ValueError for weights that do not fit, OSError for weights that cannot be had.
    """

    def __init__(
        self,
        stage: str = "spp+pmt",
        backbone: str = "resnet34",
        weights: str | Path | None = "imagenet",
        levels: Sequence[int] = LEVELS,
        dropout_samples: int = 8,
        classes: Sequence[str] = CLASSES,
    ) -> None:
        super().__init__()
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {STAGES}, not {stage!r}.")
        self.stage, self.backbone_name, self.classes = stage, backbone, tuple(classes)
        self.norm_kept = False  # see `freeze_backbone`
        resnet, channels = _resnet(backbone, weights)
        parts = OrderedDict((name, getattr(resnet, name)) for name in BACKBONE_PARTS)
        self.backbone = nn.Sequential(parts)
        self.levels = tuple(levels)
        pyramid = SpatialPyramidPool(levels)
        self.pool: nn.Module = pyramid
        features = pyramid.out_features(channels)
        if stage == "plain":
            self.pool, features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
        elif stage == "spp+pmt":
            self.pool = nn.Sequential(pyramid, PowerMeanTransform())
            features *= PowerMeanTransform.width_multiplier
        self.head = MultiSampleDropoutHead(features, len(self.classes), dropout_samples)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Last convolution's output: (B, 3, H, W) -> (B, C, ceil(H / 32), ceil(W / 32))."""
        return self.backbone(images)

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Logits from the feature map: (B, C, h, w) -> (B, 2)."""
        return self.head(self.pool(feature_map))

    def sample_logits(self, images: Tensor) -> Tensor:
        """One set of logits a dropout mask: (B, 3, H, W) -> (S, B, 2); S is 1 in eval mode."""
        return self.head.sample_logits(self.pool(self.forward_features(images)))

    def freeze_backbone(self, stages: int = len(BLOCKS), norm: bool = False) -> Self:
        """Only train what comes after so many ResNet stages: all, by default. Returns the model.

        `norm`: batch norm of the whole ResNet keeps its statistics. 0 thaws everything again.
        """
        self.norm_kept, parts = norm, dict(self.backbone.named_children())
        for number, names in enumerate(BLOCKS):
            for name in parts.keys() & set(names):
                parts[name].requires_grad_(number >= stages)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As every module, but what is frozen stays in eval mode and keeps its statistics."""
        super().train(mode)
        for part in self.backbone:
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        for part in self.backbone.modules() if self.norm_kept else ():
            if isinstance(part, nn.modules.batchnorm._NormBase):
                part.eval()
        return self


class MultiSampleDropoutHead(nn.Module):
    """lin1, ReLU, BatchNorm, then several dropout masks that share lin2.

    Training draws `samples` masks. Their mean logits (`forward`, the 2019 code) equal one pass with
    the mean mask, a weaker dropout; the mean of their losses is multi-sample dropout as published
    (Inoue, arXiv 1905.09788), see `dropout_loss`. In eval mode all masks are one: one pass.

    Shape: (B, F) -> (B, n_classes).
    """

    def __init__(self, features: int, n_classes: int = 2, samples: int = 8) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"dropout_samples must be at least 1, not {samples}.")
        self.samples = samples
        self.lin1 = nn.Linear(features, NEURONS)
        self.bn1 = nn.BatchNorm1d(NEURONS)
        self.dropout = nn.Dropout(0.5)
        self.lin2 = nn.Linear(NEURONS, n_classes)
        for layer in (self.lin1, self.lin2):  # as the authors start them
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits of the masks: (B, F) -> (B, n_classes)."""
        return self.sample_logits(x).mean(0)

    def neurons(self, x: Tensor) -> Tensor:
        """Input of the last layer: (B, F) -> (B, 100)."""
        return self.bn1(F.relu(self.lin1(x)))

    def sample_logits(self, x: Tensor) -> Tensor:
        """Logits of every mask: (B, F) -> (S, B, n_classes); S is 1 in eval mode."""
        neurons, samples = self.neurons(x), self.samples if self.training else 1
        masked = self.dropout(neurons.expand(samples, *neurons.shape))  # (B, 100) -> (S, B, 100)
        return self.lin2(masked)


def dropout_loss(sample_logits: Tensor, labels: Tensor, mode: str) -> Tensor:
    """Cross-entropy over dropout masks: (S, B, 2), (B,) -> a scalar, the mean over pictures.

    "logits": loss of the mean logits (2019 code). "loss": mean of the masks' losses (arXiv
    1905.09788); never below the former, as cross-entropy is convex.
    """
    if mode == "logits":
        return F.cross_entropy(sample_logits.mean(0), labels)
    if mode == "loss":
        return F.cross_entropy(sample_logits.flatten(0, 1), labels.repeat(len(sample_logits)))
    raise ValueError(f'dropout_loss must be "logits" or "loss", not {mode!r}.')


def _resnet(name: str, weights: str | Path | None) -> tuple[torchvision.models.ResNet, int]:
    """A torchvision ResNet with the wanted weights, and the channels of its last feature map."""
    names = torchvision.models.list_models(torchvision.models, include="*resne[tx]*")
    if name not in names:
        known = ", ".join(names)
        raise ValueError(f"backbone must be a torchvision ResNet ({known}), not {name!r}.")
    resnet = torchvision.models.get_model(name, weights=None)
    if weights == "imagenet":
        _load_backbone(resnet, _download_imagenet(name), f"ImageNet weights of {name}")
    elif weights == "faces":
        parts = _backbone_of(read_state_dict(INSIDE / "model.safetensors"))
        _load_backbone(resnet, parts, "The ResNet-34 of the network inside the package")
    elif weights is not None:
        _load_backbone(resnet, _backbone_of(read_state_dict(weights)), str(weights))
    return resnet, resnet.fc.in_features


def _download_imagenet(name: str) -> Mapping[str, Tensor]:
    """torchvision's newest ImageNet weights, from its cache or the network."""
    entry = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Either go online, "
            'or pass weights= "faces", a file with a ResNet state dict, or None for a random start.'
        ) from error


def _backbone_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The ResNet of a whole network's state dict; another state dict as it is."""
    inside = {name: v for name, v in state.items() if name.startswith("backbone.")}
    return {name.removeprefix("backbone."): v for name, v in (inside or state).items()}


def _load_backbone(resnet: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy everything but the classifier `fc`; anything else missing or left over is an error."""
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    wanted = {name: v for name, v in resnet.state_dict().items() if not name.startswith("fc.")}
    if misfits := find_misfits(wanted, state):
        raise ValueError(
            f"{origin} does not fit the backbone: {len(misfits)} entries differ, such as "
            f"{misfits[0]}. Choose the ResNet that the weights were trained with."
        )
    resnet.load_state_dict(state, strict=False)  # copies into float32, whatever the file's dtype


def find_misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names that only one of two state dicts has, then those whose tensors differ in shape."""
    shared = sorted(wanted.keys() & state.keys())
    differ = [name for name in shared if wanted[name].shape != state[name].shape]
    return sorted(wanted.keys() ^ state.keys()) + differ


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, or from a .pt/.pth without running pickled code."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There are no weights at {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise types of their own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} is not a plain file of weights ({reason}). Nothing in it was run. "
            "Save a state dict, best as .safetensors."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise ValueError(
            f"{path} holds something other than a state dict; save model.state_dict()."
        )
    return state
