"""What to search for: phrases and gallery pages per class, read from data/queries.toml."""

import tomllib
from pathlib import Path

from dclib.data import CLASSES
from dclib.scrape.urls import identity


def load_queries(path: str | Path, kind: str = "phrases") -> dict[str, list[str]]:
    """{"happy": [...], "unhappy": [...]} in the order of the file.

    Args:
        path: a TOML file with a table per class, each with lists `phrases` and `pages`.
        kind: "phrases" for searches, or "pages" (http(s) addresses) for HTML galleries.

    The query is the label, so that one under two classes, or twice, is an error. Raises
    FileNotFoundError, or ValueError with one sentence on what to change.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as TOML ({error}); mend that place.") from error
    for name in tables:
        if name not in CLASSES:
            raise ValueError(
                f"{path} has a class {name!r}; the classes are {' and '.join(CLASSES)}."
            )
    queries: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for name in CLASSES:
        queries[name] = _read_list(path, tables, name, kind)
        for text in queries[name]:
            key = identity(text) if kind == "pages" else " ".join(text.casefold().split())
            if not key:
                raise ValueError(f"{path}: {text!r} under [{name}] is no http(s) address.")
            if key in seen:
                where = "twice" if seen[key] == name else f"under [{seen[key]}] and [{name}]"
                raise ValueError(f"{path} has {text!r} {where}; keep one of them.")
            seen[key] = name
    return queries


def _read_list(path: Path, tables: dict, name: str, kind: str) -> list[str]:
    table = tables.get(name)
    if not isinstance(table, dict):
        raise ValueError(f"{path} has no table [{name}]; both classes are needed.")
    texts = table.get(kind, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path}: {kind} under [{name}] must be a list of texts in quotes.")
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"{path} has an empty list or text as {kind} under [{name}]; fill it in.")
    return [text.strip() for text in texts]
