"""Logits of all pictures of a loader, where they are computed, and the share that is right."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dclib.intervals import wilson_interval
from dclib.model import eval_mode


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % Wilson interval."""

    accuracy: float
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.3f} (95 % interval {self.low:.3f} to {self.high:.3f}, n = {self.n})"
        )


def proportion(correct: int, n: int) -> Accuracy:
    """`Accuracy` of so many right ones among n. Raises ValueError as `wilson_interval` does.

    >>> print(proportion(3, 4))
    0.750 (95 % interval 0.301 to 0.954, n = 4)
    """
    low, high = wilson_interval(correct, n)
    return Accuracy(correct / n, n, low, high)


def accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """`Accuracy` of logits (N, classes) against labels (N,). Raises ValueError if N is 0."""
    return proportion(int((logits.argmax(1) == labels).sum()), len(labels))


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Logits (N, classes), float32, and labels (N,) of all pictures of a loader, on the CPU.

    The model predicts in eval mode and is left in the mode it was in. `context` makes the context
    manager of each forward pass, such as autocast.
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
    """The device of this name; "auto" is the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def to_device(images: Tensor, device: str | torch.device) -> Tensor:
    """Images (B, 3, H, W) there, in the memory layout that convolutions like."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers, of logits (N, classes) and labels (N,)."""
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()
