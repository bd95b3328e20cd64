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
            f"{error.name} is missing: install the extra that brings it, "
            f"`pip install 'deepconnection[{name}]'`."
        ) from error
