"""From a name and a contact to everything that a collection needs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dclib.data import DRAWN
from dclib.scrape.collect import Plan, make_plan
from dclib.scrape.commons import Commons
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT, Gallery
from dclib.scrape.html import HtmlGallery
from dclib.scrape.openverse import Openverse
from dclib.scrape.queries import load_queries

SOURCES = {"openverse": Openverse, "commons": Commons, "html": HtmlGallery}
# Where the phrases lie in a clone and, second, in an installed package.
QUERIES = [Path(__file__).parents[2] / "data" / "queries.toml"]
QUERIES += [Path(__file__).with_name("queries.toml")]


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
    _provide(Path(queries))
    kinds = {name: "pages" if name == "html" else "phrases" for name in chosen}
    plan = make_plan(*((SOURCES[name](), load_queries(queries, kinds[name])) for name in chosen))
    print(f"Asking {' and '.join(chosen)} as {fetcher.session.headers['User-Agent']}")
    yield plan, fetcher


def _provide(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(ours for ours in QUERIES if ours.exists()), path)
        print(f"Wrote our search phrases to {path}; edit them there.")
