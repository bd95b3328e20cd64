"""What to search for, and where: phrases and gallery pages per class, from data/queries.toml."""

import shutil
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from dclib.data import CLASSES, DRAWN
from dclib.files import write_whole
from dclib.scrape.collect import Plan, make_plan
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT, Gallery
from dclib.scrape.html import HtmlGallery
from dclib.scrape.manifest import now
from dclib.scrape.openverse import Commons, Openverse
from dclib.scrape.sources import Source, identity

SOURCES: dict[str, type[Source]] = {"openverse": Openverse, "commons": Commons, "html": HtmlGallery}
# Where the phrases lie in a clone and, second, in an installed package.
QUERIES = [Path(__file__).parents[2] / "data" / "queries.toml"]
QUERIES += [Path(__file__).with_name("queries.toml")]


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path} is not readable as TOML ({error}); mend that place.") from error
    for name in tables:
        if name not in CLASSES:
            raise ValueError(
                f"{path} has a class {name!r}; the classes are {' and '.join(CLASSES)}."
            )
    queries = {name: _read_list(path, tables.get(name), name, kind) for name in CLASSES}
    seen: dict[str, str] = {}
    for name, text in ((name, text) for name, texts in queries.items() for text in texts):
        key = identity(text) if kind == "pages" else " ".join(text.casefold().split())
        if not key:
            raise ValueError(f"{path}: {text!r} under [{name}] is no http(s) address.")
        if key in seen:
            where = "twice" if seen[key] == name else f"under [{seen[key]}] and [{name}]"
            raise ValueError(f"{path} has {text!r} {where}; keep one of them.")
        seen[key] = name
    return queries


def _read_list(path: Path, table: object, name: str, kind: str) -> list[str]:
    texts = table.get(kind) if isinstance(table, dict) else None
    texts = texts if isinstance(texts, list) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{path} needs, under [{name}], {kind} = a list of texts in quotes.")
    return [text.strip() for text in texts]


def write_queries(path: str | Path) -> Path:
    """Our search phrases as a file to edit, where there is none; OSError where it cannot be."""
    path = Path(path)
    if not path.exists():
        with write_whole(path) as unfinished:
            shutil.copyfile(next(ours for ours in QUERIES if ours.exists()), unfinished)
        print(f"Wrote our search phrases to {path}; edit them there.")
    return path


@contextmanager
def open_sources(
    names: str,
    contact: str = "",
    queries: str | Path = "data/queries.toml",
    n: int = 120,
    port: int = 0,
) -> Iterator[tuple[Plan, Fetcher]]:
    """Within the `with`: a plan and a fetcher for `collect`.

    Args:
        names: "gallery" for the drawn one on this computer (`n` drawings, `port` as in `Gallery`),
            or of openverse, commons and html those to ask, joined by "+".
        contact: your own e-mail address or web page; the gallery needs none.
        queries: a TOML file as `load_queries` reads it, made with our phrases where there is none.

    Prints who is asked. Raises ValueError for an unknown name, a missing contact or bad queries.
    """
    if names == "gallery":
        with Gallery(n, port=port) as gallery:
            print(f"Asking the gallery of drawn couples on this computer, {gallery.url}")
            plan = make_plan((HtmlGallery(name=DRAWN), gallery.queries))
            yield plan, Fetcher(CONTACT, rate=100, opening=gallery.opening)
        return
    chosen = [name.strip() for name in names.split("+")]
    unknown = [name for name in chosen if name not in SOURCES]
    if unknown:
        raise ValueError(
            f"There is no source {unknown[0]!r}; choose gallery, or of {', '.join(SOURCES)}."
        )
    fetcher = Fetcher(contact)
    write_queries(queries)
    kinds = {name: "pages" if name == "html" else "phrases" for name in chosen}
    plan = make_plan(*((SOURCES[name](), load_queries(queries, kinds[name])) for name in chosen))
    print(f"Asking {' and '.join(chosen)} as {fetcher.session.headers['User-Agent']}")
    yield plan, fetcher


def first_look(plan: Plan) -> Plan:
    """Of a plan the first search of each class at each source: some dozens of pictures."""
    firsts = {(source.name, label): (source, label, text) for source, label, text in plan[::-1]}
    return [task for task in plan if task in firsts.values()]


def outlook(rows: Sequence[dict], begun: str, few: Plan, plan: Plan, most: int) -> str:
    """What to expect of a plan, after `few` of its searches brought `rows` since `begun` (`now`).

    `most`: pictures that are listed for a search. Sources run dry and copies add up, so it is an
    upper bound. What was here before says nothing about the pace.
    """
    new = [row for row in rows if row["time"] and row["time"] >= begun]
    if not new:
        return f"Nothing new came in a first look; {len(rows)} candidates are here already."
    kept = sum(row["stage"] == "kept" for row in new)
    took = datetime.fromisoformat(now()) - datetime.fromisoformat(begun)
    listed = len(plan) * most
    minutes = listed / len(new) * took.total_seconds() / 60
    return (
        f"A first look: {len(few)} searches brought {len(new)} candidates in "
        f"{took.total_seconds():.0f} s, of which {kept} are kept. All {len(plan)} searches list up "
        f"to {listed}: at this pace at most {minutes:.0f} minutes and "
        f"{listed * kept / len(new):.0f} pictures."
    )
