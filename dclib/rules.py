"""What a value must be, in words and as a test: of settings, files and command lines, whose errors
end as one sentence."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import nan
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A kind of value: `words` end the sentence "it must be ..."."""

    words: str
    holds: Callable[[Any], bool]


TEXT = Rule("text", lambda value: isinstance(value, str))
TRUTH = Rule("true or false", lambda value: isinstance(value, bool))


def number(least: float, most: float, whole: bool = False) -> Rule:
    """A number between two, both included; not nan, not inf."""
    kinds = int if whole else (int, float)

    def holds(value: Any) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most

    form = ".0f" if whole else "g"
    return Rule(f"a {'whole ' * whole}number from {least:{form}} to {most:{form}}", holds)


def one_of(*choices: Any) -> Rule:
    """Exactly one of these."""
    return Rule(f"one of {', '.join(map(str, choices))}", lambda value: value in choices)


def row_of(rule: Rule, least: int, most: int) -> Rule:
    """A list or tuple of so many values that each keep a rule."""

    def holds(value: Any) -> bool:
        rows = isinstance(value, list | tuple) and least <= len(value) <= most
        return rows and all(map(rule.holds, value))

    many = f"{least}" if least == most else f"{least} to {most}"
    return Rule(f"{many} values, each {rule.words}", holds)


def or_none(rule: Rule) -> Rule:
    """That or nothing."""
    return Rule(f"{rule.words}, or none", lambda value: value is None or rule.holds(value))


def check(values: Any, rules: Mapping[str, Any], name: str = "") -> None:
    """Raise ValueError, one sentence, unless `values` maps each name to what its rule allows.

    A rule is a `Rule`, or again such a mapping. That of "*" is every name's; a name that ends with
    "?" may be missing. Other names are not looked at.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name or 'It'} must map names to values, not be {values!r:.60}.")
    for key, rule in (dict.fromkeys(values, rules["*"]) if "*" in rules else rules).items():
        entry = f"{name}.{key}".strip(".?")
        if key.strip("?") in values:
            value = values[key.strip("?")]
            if not isinstance(rule, Rule):
                check(value, rule, entry)
            elif not rule.holds(value):
                raise ValueError(f"{entry} must be {rule.words}, not {value!r:.60}.")
        elif not key.endswith("?"):
            raise ValueError(f"{entry} is missing.")


def argument(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[str], int | float]:
    """A `type` for argparse: an int or a float from `least` to `most`."""
    rule = number(least, most, whole=kind is int)

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
