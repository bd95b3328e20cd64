"""What metadata.csv tells of pictures. One reader for all, which passes nothing over in silence.

A name need not be spelled as the file is, as long as it is clear which is meant; a table that can
be understood in two ways is refused.
"""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dclib.data.listing import patiently

FILE = "metadata.csv"
BINDING = ("group", "series")  # columns of which a value must not be in two splits
COLUMNS: tuple[str, ...] = ("file_name", "label", "group", "source", "licence", "author", "title")
COLUMNS += ("url", "page", "sha256", "width", "height", "bytes", "phash", "dhash", "series")
KNOWN = (*COLUMNS, "red", "green", "blue", "boxes", "body_boxes", "bystander_boxes")
TYPED = ("file_name", "label", "group", "series", "source", "licence", "author")  # often mistyped
TABLES = re.compile(r"metadata.*\.(csv|tsv|txt|jsonl?|parquet|xlsx?|ods)", re.IGNORECASE)
NOBODY = {"", "unknown", "unknown author", "unknown photographer", "anonymous", "none", "n/a"}

Rows = dict[str, dict[str, str]]


def told(value: object) -> str:
    """A group, author or label without what spelling makes of it; "" for nobody."""
    text = " ".join(unicodedata.normalize("NFC", str(value or "").casefold()).split())
    return "" if text in NOBODY else text


def read_metadata(folder: Path, names: Sequence[str]) -> tuple[Rows, list[str]]:
    """Rows of metadata.csv by the names of pictures, paths below `folder`; and what to say of it.

    Names are compared without what systems make of them: backslashes, "./", blanks at the ends,
    composed letters, and where only one picture can be meant, case and the folders before. Raises
    ValueError for a table that cannot be read, in which no row names a picture, or in which a name
    or two rows leave open what is meant.
    """
    path, rows, lost = folder / FILE, Rows(), []
    table, find = read_table(path), _finder(names, folder.absolute().name)
    for row in table:
        named = row["file_name"]
        found = find(named)
        if len(found) > 1:  # of the same name in both classes: the label tells
            found = {n for n in found if told(n.split("/")[0]) == told(row.get("label"))} or found
        if len(found) > 1:
            first, second = sorted(found)[:2]
            raise ValueError(f"{path}: {named!r} may be {first} or {second}; write which.")
        if not found:
            lost.append(named)
            continue
        row["file_name"] = name = found.pop()
        if rows.setdefault(name, row) != row:
            raise ValueError(f"{path} has two rows for {name} that differ; keep one.")
    if not lost:
        return rows, []
    if not rows:
        raise ValueError(
            f"None of the {len(table)} rows of {path} names a picture (the first: {lost[0]!r}); "
            f"file_name is a path below {folder}, such as {names[0]}."
        )
    found_of = f"{len(table) - len(lost)} of {len(table)} rows name a picture"
    return rows, [f"{path}: {found_of}; there is none called {lost[0]!r}."]


def _finder(names: Iterable[str], home: str) -> Callable[[str], set[str]]:
    """A function from a name as people write it to the pictures that it may mean."""
    exact = set(names)
    ends: dict[str, set[str]] = defaultdict(set)
    for name in exact:
        parts = _spelled(name).split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            ends[end].add(name)
            ends["/" + end.casefold()].add(name)  # no spelled name begins so

    def find(named: str) -> set[str]:
        if named in exact:
            return {named}
        spelled = _spelled(named)
        below = f"/{spelled}".rpartition(f"/{home}/")[2].removeprefix("/")
        keys = (spelled, f"/{spelled.casefold()}", below, f"/{below.casefold()}")
        return set(next((ends[key] for key in keys if key in ends), ()))

    return find


def _spelled(name: str) -> str:
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return "/".join(p for part in parts if (p := part.strip()) not in ("", "."))


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a metadata.csv, "" for what they leave out; none where there is no such file.

    Commas, semicolons or tabs; UTF-8, or UTF-16 with its mark. Raises ValueError for the rest.
    """
    if not path.is_file():
        return []
    content = patiently(Path.read_bytes, path)
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig").lstrip("\r\n")
        if text.lower().startswith("sep="):  # a line that Excel writes and understands
            text = text.partition("\n")[2]
        heads = [next(csv.reader(io.StringIO(text, ""), delimiter=cut), []) for cut in ",;\t"]
        header = max(heads, key=len)
        cut = ",;\t"[heads.index(header)]
        table = csv.reader(io.StringIO(text, ""), delimiter=cut, strict=True)
        next(table, None)
        _check_header(path, header)
        filled = (cells for cells in table if any(map(str.strip, cells)))
        return [_row(path, header, cells, table.line_num) for cells in filled]
    except (UnicodeError, csv.Error) as error:
        sentence = f"{path} cannot be read; save it as CSV in UTF-8, with commas ({error})."
        raise ValueError(sentence) from error


def _row(path: Path, header: list[str], cells: list[str], line: int) -> dict[str, str]:
    """One row; raises ValueError if a cell has no column, as after a comma without quotes."""
    if any(cells[len(header) :]):
        raise ValueError(
            f"Line {line} of {path} has {len(cells)} cells and {len(header)} columns; put what "
            'holds a comma into "quotes".'
        )
    return dict(zip(header, cells + [""] * len(header)))


def _check_header(path: Path, header: list[str]) -> None:
    """Raise ValueError for a name that is nearly one we know, one that is there twice, no names."""
    while header and not header[-1].strip():  # columns that a spreadsheet left empty
        header.pop()
    for name in header:
        if name not in KNOWN and (meant := _meant(name)):
            raise ValueError(
                f"{path} has a column {name!r}; call it {meant}, or something else that does not "
                "look like it."
            )
    if len(set(header)) < len(header):
        raise ValueError(f"{path} has two columns of one name ({', '.join(header)}); rename one.")
    if header and "file_name" not in header:
        raise ValueError(f"{path} has no column file_name; is it a CSV with commas?")


def _meant(name: str) -> str:
    """The known column that a name was probably to be, "" if none."""
    short = {_short(known): known for known in KNOWN}
    typed = [_short(known) for known in TYPED]
    near = get_close_matches(_short(name), typed, 1, 0.84) if len(_short(name)) > 3 else []
    return short.get(_short(name)) or (short[near[0]] if near else "")


def _short(name: str) -> str:
    """A column's name without case, signs and endings: file for file_name, group for Groups."""
    return re.sub(r"(?<=.)(ids?|names?|s)$", "", re.sub(r"[\W_]", "", name.casefold()))


def refuse_tables(folder: Path, others: Iterable[Path]) -> None:
    """Raise ValueError for metadata in a place or of a kind that others read and we do not."""
    for path in others:
        if TABLES.fullmatch(path.name) and not (path == folder / FILE and path.is_file()):
            raise ValueError(
                f"{path} is not read: put what it tells into {folder / FILE}, one table for all "
                "pictures below, or move it away."
            )


def shared(rows: Sequence[Mapping], columns: Iterable[str]) -> list[tuple[int, int]]:
    """Pairs of rows that have a value of one of these columns in common (`told`)."""
    first: dict[tuple[str, str], int] = {}
    values = [(i, name, told(row.get(name))) for name in columns for i, row in enumerate(rows)]
    return [(first.setdefault((name, value), i), i) for i, name, value in values if value]


def components(n: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """What of `n` things the pairs link: lists of indices, in the order of their first member."""
    links = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), bool), (links[0], links[1])), (n, n))
    groups: dict[int, list[int]] = {}
    for i, number in enumerate(connected_components(graph, directed=False)[1] if n else []):
        groups.setdefault(number, []).append(i)
    return list(groups.values())


def group_names(rows: Sequence[Mapping]) -> list[str]:
    """The group of each row, "" if it is told none; a `series` binds as a `group` does."""
    names = [""] * len(rows)
    for members in components(len(rows), shared(rows, BINDING)):
        groups, series = ({told(rows[i].get(name)) for i in members} - {""} for name in BINDING)
        for i in members if groups or series else ():
            names[i] = min(groups or {f"series {name}" for name in series})
    return names
