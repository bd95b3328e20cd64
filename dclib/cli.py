"""What all command lines share: numbers with a range, and errors that end as one sentence."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import nan

from dclib import rules


def number(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[str], int | float]:
    """A `type` for argparse: an int or a float from `least` to `most`."""
    rule = rules.number(least, most, whole=kind is int)

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = nan
        if not rule.holds(value):
            raise argparse.ArgumentTypeError(f"it must be {rule.words}, not {text!r:.60}.")
        return value

    return read


@contextmanager
def sentences(stopped: str = "Stopped.") -> Iterator[None]:
    """What goes wrong in the `with` block ends the command with one sentence, and status 1.

    `stopped` is what Ctrl-C ends it with.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(stopped)
    except MemoryError:
        sys.exit("There is not enough memory for this: choose smaller numbers.")
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        sys.exit(str(error) or f"It ended with {type(error).__name__}.")
