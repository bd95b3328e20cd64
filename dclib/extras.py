"""A package that is missing becomes one sentence with the command that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import inside what this extra of pyproject.toml brings.

    Raises ModuleNotFoundError, saying what to install, where a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing: it comes with dclib's extra {name}. In a clone, "
            f"`pip install '.[{name}]'`; elsewhere put the path of its wheel in place of the dot."
        ) from error
