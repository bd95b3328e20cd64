"""Logits of all pictures of a loader, and the share that is right with its n and interval."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor, nn


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


def wilson_interval(correct: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): (low, high).

    Counts need not be whole, for numbers of independent pictures that are estimates. Raises
    ValueError if n is not positive or correct lies outside 0 to n.
    """
    if not n > 0 or not 0 <= correct <= n:
        raise ValueError(f"There is no share of {correct} among {n}.")
    share, z2 = correct / n, norm.ppf((1 + confidence) / 2) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = (z2 * (share * (1 - share) / n + z2 / (4 * n**2))) ** 0.5 / (1 + z2 / n)
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


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
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    logits, labels = [], []
    for images, targets in loader:
        with context():
            logits.append(model(to_device(images, device)).float().cpu())
        labels.append(targets)
    model.train(was_training)
    return torch.cat(logits), torch.cat(labels)


def to_device(images: Tensor, device: str | torch.device) -> Tensor:
    """Images (B, 3, H, W) there, in the memory layout that convolutions like."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers, of logits (N, classes) and labels (N,)."""
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()
