"""Ask a network: logits of pictures, feature maps, and what log-odds are called."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dclib.data import NOT_ASSESSABLE
from dclib.model import DeepConnection

Z95 = 1.96  # standard deviations on either side that hold 95 % of a normal distribution


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every part is in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    try:
        if training:  # to go through all modules again takes milliseconds
            model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Logits (N, classes), float32, and labels (N,) of all pictures of a loader, on the CPU.

    The model predicts in eval mode. `context` makes a context manager for each batch: autocast.
    """
    device = next(model.parameters()).device
    logits, labels = [], []
    with eval_mode(model):
        for images, targets in loader:
            with context():
                logits.append(model(to_device(images, device)).float().cpu())
            labels.append(targets)
    return torch.cat(logits), torch.cat(labels)


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of this name, ValueError if there is none; "auto" is the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    elif str(name) != "cpu":
        try:
            torch.zeros(1, device=name).cpu()
        except (RuntimeError, AssertionError) as error:  # as each build of torch says it
            raise ValueError(f"There is no device {str(name)!r} here: take auto or cpu.") from error
    return torch.device(name)


def to_device(images: Tensor, device: str | torch.device) -> Tensor:
    """Images (B, 3, H, W) there, in the memory layout that convolutions like."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers, of logits (N, classes) and labels (N,)."""
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def extract_features(model: DeepConnection, images: Tensor) -> Tensor:
    """The feature map in eval mode and without a graph: (B, 3, H, W) -> (B, C, h, w), float32."""
    with eval_mode(model), torch.no_grad():
        return model.forward_features(images.to(next(model.parameters()))).float()


def head_logits(model: DeepConnection, feature_map: Tensor) -> Tensor:
    """Logits of pooling and head in eval mode and float32: (B, C, h, w) -> (B, n_classes).

    The gradient reaches the feature map, never the parameters.
    """
    state = {
        name: value.float() if value.is_floating_point() else value
        for name, value in model.head.state_dict().items()
    }
    with eval_mode(model), torch.autocast(feature_map.device.type, enabled=False):
        return functional_call(model.head, state, model.pool(feature_map.float()))


def target_weights(classes: Sequence[str], targets: Sequence[str]) -> Tensor:
    """What each target (a class, or "margin") is of the logits: names -> (T, n_classes).

    >>> target_weights(("happy", "unhappy"), ("happy", "margin"))
    tensor([[ 1.,  0.],
            [-1.,  1.]])
    """
    units = dict(zip(classes, torch.eye(len(classes)), strict=True))
    known = units | {"margin": units["unhappy"] - units["happy"]}
    unknown = [target for target in targets if target not in known]
    if unknown or not targets:
        raise ValueError(f"targets must be some of {tuple(known)}, not {tuple(targets)}.")
    return torch.stack([known[target] for target in targets])


def label_of(margin: float, threshold: float = 0.5, abstain: float | None = None) -> str:
    """What log-odds are called: "unhappy" from a probability of `threshold` on, else "happy".

    "not assessable" for NaN, and where the likelier class has less than `abstain`.

    >>> label_of(0.1), label_of(0.1, threshold=0.6), label_of(0.1, abstain=0.6)
    ('unhappy', 'happy', 'not assessable')
    """
    unhappy = sigmoid(margin)
    if math.isnan(margin) or (abstain is not None and max(unhappy, 1 - unhappy) < abstain):
        return NOT_ASSESSABLE
    return "unhappy" if unhappy >= threshold else "happy"


def how_sure(confidence: float) -> str:
    """A probability from 0.5 to 1 in words."""
    for least, words in ((0.95, "sure"), (0.8, "fairly sure"), (0.65, "leaning this way")):
        if confidence >= least:
            return words
    return "hardly more than the toss of a coin"


def percent(share: float) -> str:
    """As people read it, and never 100 % or 0 % for what is only close to it.

    >>> percent(0.5), percent(0.9999), percent(0.0)
    ('50.0 %', '99.9 %', '0.1 %')
    """
    return f"{min(max(share, 0.001), 0.999):.1%}".replace("%", " %")


def sigmoid(margin: float) -> float:
    """The probability that log-odds mean, in float64."""
    return torch.tensor(margin, dtype=torch.float64).sigmoid().item()
