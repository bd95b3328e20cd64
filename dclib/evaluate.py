"""Numbers with their n and interval."""

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % Wilson interval."""

    accuracy: float
    n: int
    low: float
    high: float

    def __str__(self):
        return (
            f"{self.accuracy:.3f} (95 % interval {self.low:.3f} to {self.high:.3f}, n = {self.n})"
        )


def wilson_interval(correct, n, confidence=0.95):
    """Wilson's score interval of a proportion (Wilson 1927): (low, high).

    Raises ValueError if n is 0 or correct lies outside 0 to n.
    """
    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(logits, labels):
    """`Accuracy` of logits (N, classes) against labels (N,)."""
    correct, n = int((logits.argmax(1) == labels).sum()), len(labels)
    return Accuracy(correct / n, n, *wilson_interval(correct, n))
