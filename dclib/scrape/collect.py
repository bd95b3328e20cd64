"""Gather pictures: list what the sources offer, fetch it, and record every outcome.

Killed at any moment and run again, a collection ends as if nothing had happened: listings go on
from the page that was next, what was fetched is not fetched again, and only failures that may pass
(a busy host, a broken line) are tried once more.
"""

import json
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import zip_longest
from pathlib import Path

from tqdm.auto import tqdm

from dclib.data import CLASSES
from dclib.scrape.dataset import settle
from dclib.scrape.duplicates import Unsuitable, examine
from dclib.scrape.fetch import Fetcher, FetchError
from dclib.scrape.html import HtmlGallery, page_optouts
from dclib.scrape.licences import ALLOWED
from dclib.scrape.manifest import OFFERED, Manifest, now
from dclib.scrape.sources import Candidate, Page, Source, SourceError, host

MOST_PAGES = 50  # of results for one query
MOST_TRIES = 5  # runs in which a picture may fail before it is given up
WORKERS = 8
OPEN = "state IN ('listed', 'described', 'later')"  # rows that may still go on

Plan = list[tuple[Source, str, str]]  # source, label, text


def collect(
    folder: str | Path,
    plan: Plan,
    fetcher: Fetcher,
    per_query: int = 100,
    workers: int = WORKERS,
    progress: bool = True,
) -> list[dict]:
    """Carry out a plan into `folder`: manifest.sqlite and pool/*.jpg. Returns the final rows.

    Args:
        plan: what to ask which source, see `make_plan`.
        per_query: stop listing a query after this many pictures; its last page is taken whole.
        workers: threads that fetch; how many of them ask one host is the fetcher's business.

    Prints what could not be asked and why. Raises RuntimeError if another run has the folder open,
    ValueError if its manifest is damaged.
    """
    folder = Path(folder)
    with Manifest(folder) as manifest:
        _remove_torn(manifest, folder / "pool")
        _list_all(manifest, plan, fetcher, per_query)
        sources = {source.name: source for source, _, _ in plan}
        _fetch_all(manifest, sources, fetcher, workers, progress)
        return settle(manifest)


def make_plan(*asked: tuple[Source, Mapping[str, Iterable[str]]]) -> Plan:
    """What to ask which source: the classes in turn, so that a run cut short stays balanced.

    Args:
        asked: pairs of a source and what it is asked, {label: [texts]} as `load_queries` returns.
    """
    by_label: dict[str, Plan] = {label: [] for label in CLASSES}
    for source, queries in asked:
        for label, texts in queries.items():
            by_label[label] += [(source, label, text) for text in texts]
    return [task for tasks in zip_longest(*by_label.values()) for task in tasks if task]


def _list_all(manifest: Manifest, plan: Plan, fetcher: Fetcher, per_query: int) -> None:
    """List every query as far as it is wanted. A source that refuses is not asked again."""
    refused: set[str] = set()
    for source, label, text in plan:
        state = manifest.query(source.name, label, text, source.start(text))
        seen: set[str] = set()
        while (
            state["next"]
            and state["next"] not in seen
            and state["count"] < per_query
            and state["pages"] < MOST_PAGES
            and source.name not in refused
        ):
            seen.add(state["next"])
            try:
                _list_page(manifest, source, state, fetcher)
            except (FetchError, SourceError) as error:
                print(f"{source.name}, {text!r}: {error}")
                resting = getattr(error, "reason", "") == "host busy"
                if source.api and (resting or not error.later):
                    refused.add(source.name)
                    print(f"{source.name} is not asked again in this run.")
                break
            state = manifest.query(source.name, label, text, None)


def _list_page(manifest: Manifest, source: Source, state: dict, fetcher: Fetcher) -> None:
    fetcher.hosts.slow_down(host(state["next"]), source.pace)
    page = fetcher.page(state["next"], api=source.api)
    if not source.api and (directive := page_optouts(page)):
        raise FetchError("opt-out", directive)
    listing = source.parse(page)
    if listing.note:
        print(f"{source.name}, {state['query']!r}: {listing.note}")
    manifest.add_page(state, listing.candidates, listing.next, listing.note)


def _fetch_all(
    manifest: Manifest,
    sources: Mapping[str, Source],
    fetcher: Fetcher,
    workers: int,
    progress: bool,
) -> None:
    """Take every open row one step further, in threads, until none can go on in this run."""
    todo = _in_turns([row for row in manifest.rows(OPEN) if row["source"] in sources])
    bar = tqdm(total=len(todo), desc="fetching", unit="picture", disable=not progress)
    pool = manifest.folder / "pool"
    running: dict[Future[dict], dict] = {}

    def record(futures: Iterable[Future[dict]]) -> None:
        for future in futures:
            row, changes = running[future], future.result()
            manifest.update({row["id"]: changes | {"time": now()}})
            running.pop(future)  # only now: a Ctrl-C before is made good below
            for kind in ("page", "picture"):
                (pool / f"{row['id']}.{kind}").unlink(missing_ok=True)
            if changes["state"] == "described":
                todo.appendleft(row | changes)
            else:
                bar.update()

    with ThreadPoolExecutor(workers) as threads, bar:
        try:
            while todo or running:
                while todo and len(running) < 2 * workers:
                    row = todo.popleft()
                    running[threads.submit(_step, row, sources, fetcher, pool)] = row
                record(wait(running, return_when=FIRST_COMPLETED).done)
        finally:  # stopped by hand: what is under way is still recorded
            running_still = [task for task in running if not task.cancel()]
            record([task for task in running_still if not task.exception()])


def _in_turns(rows: Sequence[dict]) -> deque[dict]:
    """Rows so that hosts take turns: while one makes us wait, the others are asked."""
    turn: Counter[str] = Counter()
    keys = []
    for row in rows:
        turn[host(row["url"])] += 1
        keys.append((turn[host(row["url"])], row["id"]))
    order = sorted(range(len(rows)), key=keys.__getitem__)
    return deque(rows[i] for i in order)


def _step(row: dict, sources: Mapping[str, Source], fetcher: Fetcher, pool: Path) -> dict:
    """Describe or fetch one picture; return the columns to change. Runs in a thread."""
    source = sources[row["source"]]
    candidate = Candidate(**{name: row[name] for name in OFFERED})
    try:
        if (
            isinstance(source, HtmlGallery)
            and row["state"] != "described"
            and source.needs_detail(candidate)
        ):
            page = _fetch_once(pool / f"{row['id']}.page", fetcher.page, candidate.page)
            if directive := page_optouts(page):
                raise FetchError("opt-out", directive)
            return vars(source.refine(candidate, page)) | {"state": "described"}
        if candidate.licence not in ALLOWED:
            return _refused("licence", candidate.licence or "licence unknown")
        page = _fetch_once(pool / f"{row['id']}.picture", fetcher.picture, candidate.url)
        facts, jpeg = examine(page.content)
    except FetchError as error:
        if error.later:
            tries = row["tries"] + 1
            state = "later" if tries < MOST_TRIES else "refused"
            return _refused("fetch", error.reason, error.detail) | {"state": state, "tries": tries}
        return _refused("fetch", error.reason, error.detail)
    except Unsuitable as error:
        return _refused("quality", error.reason, error.detail)
    except SourceError as error:
        return _refused("fetch", "page unreadable", str(error))
    name = f"{facts['sha256'][:16]}.jpg"  # no name or path of the site's
    _write(pool / name, jpeg)
    return facts | {"file": name, "state": "fetched", "stage": "", "reason": "", "detail": ""}


def _refused(stage: str, reason: str, detail: str = "") -> dict:
    return {"state": "refused", "stage": stage, "reason": reason, "detail": detail[:300]}


def _fetch_once(path: Path, fetch: Callable[[str], Page], url: str) -> Page:
    """The answer of `fetch(url)`, kept at `path` until the row that needed it is recorded: a kill
    in between costs no second request."""
    if path.exists():
        head, _, content = path.read_bytes().partition(b"\n")
        return Page(**json.loads(head), content=content)
    page = fetch(url)
    head = json.dumps({"url": page.url, "headers": page.headers}).encode()
    _write(path, head + b"\n" + page.content)
    return page


def _write(path: Path, content: bytes) -> None:
    """The file appears whole or not at all, though threads may write the same picture at once."""
    part = path.with_name(f"{path.name}.{threading.get_ident()}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _remove_torn(manifest: Manifest, pool: Path) -> None:
    """Of what a killed run left behind all but what open rows still need."""
    pool.mkdir(exist_ok=True)
    known = {row["file"] for row in manifest.rows("file != ''")}
    for row in manifest.rows(OPEN):
        known |= {f"{row['id']}.page", f"{row['id']}.picture"}
    for path in pool.iterdir():
        if path.name not in known:
            path.unlink()
