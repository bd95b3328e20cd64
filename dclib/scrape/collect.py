"""Gather pictures: list what the sources offer, fetch it, and record every outcome.

Killed at any moment and run again, a collection ends as if nothing had happened: listings go on
from the page that was next, what was recorded is not fetched again, and only failures that may pass
(a busy host, a broken line) are tried once more.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from itertools import zip_longest
from pathlib import Path

from tqdm.auto import tqdm

from dclib.data import CLASSES
from dclib.data.listing import walk
from dclib.files import check_place, write_whole, writing
from dclib.scrape.dataset import clear_pool, settle
from dclib.scrape.duplicates import examine
from dclib.scrape.fetch import Fetcher
from dclib.scrape.html import HtmlGallery, may_be_check
from dclib.scrape.licences import ALLOWED
from dclib.scrape.manifest import OFFERED, Manifest, now
from dclib.scrape.optouts import picture_optout
from dclib.scrape.sources import Candidate, FetchError, Source, SourceError, host, reading

MOST_PAGES = 50  # of results for one query
MOST_TRIES = 5  # runs in which a picture may fail before it is given up
WORKERS = 4  # threads that fetch
OPEN = "state IN ('listed', 'later')"  # rows that may still go on

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

    Prints what could not be asked and why. Raises what `Manifest` does.
    """
    with Manifest(folder) as manifest:
        _check_pool(manifest)
        _list_all(manifest, plan, fetcher, per_query)
        sources = {source.name: source for source, _, _ in plan}
        _fetch_all(manifest, sources, fetcher, workers, progress)
        return settle(manifest)


def make_plan(*asked: tuple[Source, Mapping[str, Iterable[str]]]) -> Plan:
    """Of sources and {label: [texts]}: classes in turn, so that a run cut short stays balanced."""
    by_label: dict[str, Plan] = {label: [] for label in CLASSES}
    for source, queries in asked:
        for label, texts in queries.items():
            by_label[label] += [(source, label, text) for text in texts]
    return [task for tasks in zip_longest(*by_label.values()) for task in tasks if task]


def _check_pool(manifest: Manifest) -> None:
    """Have what was deleted from the pool by hand fetched again.

    Raises OSError for a pool that cannot be written, or of whose pictures nothing is known.
    """
    pool = manifest.folder / "pool"
    clear_pool(manifest)
    with writing(pool):
        pool.mkdir(exist_ok=True)
    check_place(pool / "picture.jpg")
    if not manifest.rows() and (found := walk(pool)[0]):
        raise FileExistsError(
            f"{manifest.path} knows none of the {len(found)} pictures in {pool}, such as "
            f"{found[0].name}: put their manifest back, or choose another folder."
        )
    there = {path.name for path in pool.iterdir()}
    lost = [row["id"] for row in manifest.rows("state = 'fetched'") if row["file"] not in there]
    again = {"state": "later", "stage": "fetch", "reason": "deleted by hand"}
    manifest.update(dict.fromkeys(lost, again))


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
            except FetchError as error:
                print(f"{source.name}, {text!r}: {error}")
                if source.api and (error.reason == "host busy" or not error.later):
                    refused.add(source.name)
                    print(f"{source.name} is not asked again in this run.")
                break
            state = manifest.query(source.name, label, text, None)


def _list_page(manifest: Manifest, source: Source, state: dict, fetcher: Fetcher) -> None:
    fetcher.hosts.slow_down(host(state["next"]), source.pace)
    page = fetcher.page(state["next"], api=source.api)
    with reading(page):
        listing = source.parse(page)
    if not (source.api or listing.candidates) and may_be_check(page):
        raise SourceError(listing.note, later=True)
    if listing.note:
        print(f"{source.name}, {state['query']!r}: {listing.note}")
    manifest.add_page(state, listing.candidates, listing.next)


def _fetch_all(
    manifest: Manifest,
    sources: Mapping[str, Source],
    fetcher: Fetcher,
    workers: int,
    progress: bool,
) -> None:
    """Decide about every open row: threads fetch, one examines, so that one picture is decoded."""
    todo = _in_turns(row for row in manifest.rows(OPEN) if row["source"] in sources)
    pool = manifest.folder / "pool"
    bar = tqdm(total=len(todo), desc="fetching", unit="picture", disable=not progress)
    running: dict[Future[dict], int] = {}

    def record(futures: Iterable[Future[dict]]) -> None:
        for future in futures:
            manifest.update({running[future]: future.result() | {"time": now()}})
            running.pop(future)  # only now: a Ctrl-C before is made good below
            bar.update()

    with bar, ThreadPoolExecutor(1) as examiner, ThreadPoolExecutor(workers) as threads:
        try:
            while todo or running:
                while todo and len(running) < 2 * workers:
                    row = todo.popleft()
                    source = sources[row["source"]]
                    task = threads.submit(_take, row, source, fetcher, examiner, pool)
                    running[task] = row["id"]
                record(wait(running, return_when=FIRST_COMPLETED).done)
        finally:  # stopped by hand: what is under way is still recorded
            still_running = [task for task in running if not task.cancel()]
            record([task for task in still_running if not task.exception()])


def _in_turns(rows: Iterable[dict]) -> deque[dict]:
    """Rows so that hosts take turns: while one makes us wait, the others are asked."""
    by_host: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_host[host(row["url"])].append(row)
    return deque(row for turn in zip_longest(*by_host.values()) for row in turn if row)


def _take(row: dict, source: Source, fetcher: Fetcher, examiner: Executor, pool: Path) -> dict:
    """Fetch one picture, its own page before; return the columns to change. Runs in a thread."""
    candidate = Candidate(**{name: row[name] for name in OFFERED})
    try:
        if isinstance(source, HtmlGallery) and candidate.page and not candidate.licence:
            page = fetcher.page(candidate.page)
            with reading(page):
                refined = source.refine(candidate, page)
            if not refined.licence and may_be_check(page):
                raise FetchError("licence unknown", "perhaps a bot check", later=True)
            candidate = refined
        if candidate.licence not in ALLOWED:
            raise FetchError(candidate.licence or "licence unknown", stage="licence")
        content = fetcher.picture(candidate.url).content
        if directive := picture_optout(content):
            raise FetchError("opt-out", directive)
        facts, jpeg = examiner.submit(examine, content).result()
    except FetchError as error:
        outcome = {"state": "refused", "stage": error.stage, "reason": error.reason}
        outcome |= {"detail": error.detail[:300]}
        if error.later:
            tries = row["tries"] + (error.reason != "host busy")  # then it was not asked
            outcome |= {"state": "later" if tries < MOST_TRIES else "refused", "tries": tries}
    else:
        outcome = facts | {"file": f"{facts['sha256'][:16]}.jpg"}  # no name or path of the site's
        outcome |= {"state": "fetched", "stage": "", "reason": "", "detail": ""}
        with write_whole(pool / outcome["file"]) as unfinished:
            unfinished.write_bytes(jpeg)
    return vars(candidate) | outcome
