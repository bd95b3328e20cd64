"""A collection from a server that does its worst: one outcome a case, and nothing else lost."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hostile import ADDRESSES, ANSWERS, PATHS, Hostile, Trap, catalogue
from PIL import Image

from dclib.scrape import fetch
from dclib.scrape.collect import collect
from dclib.scrape.fetch import Fetcher, Hosts

KEPT = [name for name, (_, reason) in ANSWERS.items() if not reason]
LATER = {"http 503", "connection", "too slow", "cut off", "http 202", "http 403", "http 405"}
ASKED_AGAIN = {"empty", "login page", "login page called jpeg"}  # perhaps a bot check
ASKED_AGAIN |= {name for name in ANSWERS if name.startswith("bot check")}


@contextmanager
def watched_memory():
    """A list of what this process holds, in bytes, before and every 20 ms meanwhile."""
    process, done = psutil.Process(), threading.Event()
    held = [process.memory_info().rss]

    def watch():
        while not done.wait(0.02):
            held.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Rows by case, folder, site, trap, and (seconds, bytes) after one run over all cases."""
    patch = pytest.MonkeyPatch()
    patch.setattr(fetch, "FIRST_WAIT", 0.01)
    patch.setattr(fetch, "ATTEMPTS", 2)
    patch.setattr(fetch, "FAILURES", 10**6)  # the host is one for all cases
    folder = tmp_path_factory.mktemp("hostile")
    with Trap() as trap, Hostile() as site:
        fetcher = Fetcher("ada@uni.test", opening=site.opening)
        fetcher.seconds, fetcher.hosts = 8, Hosts(rate=1000, connections=8)
        plan = [(catalogue(site, trap.port), "happy", "all")]
        start = time.monotonic()
        with watched_memory() as held:
            rows = collect(folder, plan, fetcher, progress=False)
        spent = time.monotonic() - start, max(held) - held[0]
        yield {row["title"]: row for row in rows}, folder, site, trap, spent
    patch.undo()


def test_there_are_enough_cases(outcome):
    assert len(ANSWERS) + len(ADDRESSES) >= 100
    assert set(outcome[0]) == {*ANSWERS, *ADDRESSES}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_has_its_outcome(outcome, name):
    row, reason = outcome[0][name], ANSWERS[name][1]
    assert row["reason"] == reason, row["detail"]
    assert row["stage"] == ("kept" if not reason else row["stage"])
    fetched = not reason or row["stage"] == "duplicates"
    later = reason in LATER or name in ASKED_AGAIN
    assert row["state"] == ("later" if later else "fetched" if fetched else "refused")


@pytest.mark.parametrize("name", ADDRESSES)
def test_no_private_address_is_asked(outcome, name):
    assert outcome[0][name]["reason"] == "address not allowed"


def test_nothing_came_near_the_private_server(outcome):
    assert outcome[3].connections == 0


def test_only_what_was_kept_is_on_the_disk(outcome):
    rows, folder, *_ = outcome
    files = {path.name for path in (folder / "pool").iterdir()}
    assert files == {row["file"] for row in rows.values()} - {""}
    assert len(files) == len(KEPT) + 1  # and what says that it is no longer available
    assert all(name.endswith(".jpg") and len(name) == 20 for name in files)
    assert {path.name for path in folder.iterdir()} == {"manifest.sqlite", "pool"}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_a_clean_picture(outcome, name):
    rows, folder, *_ = outcome
    path = folder / "pool" / rows[name]["file"]
    image = Image.open(path)
    image.load()
    assert (image.format, image.mode, dict(image.getexif())) == ("JPEG", "RGB", {})
    assert b"<script" not in path.read_bytes()


def test_a_photo_on_its_side_is_turned(outcome):
    row = outcome[0]["on its side, with a place"]
    assert (row["width"], row["height"]) == (220, 300)


def test_no_cookie_goes_back(outcome):
    assert set(outcome[2].cookies) == {None}


def test_a_closed_path_is_never_asked(outcome):
    assert not any(path.startswith("/private") for path in outcome[2].asked)
    for name in ("TDM by file", "Content-Usage by file", "Content-Signal by file"):
        assert not outcome[2].asked[PATHS[name]]
    assert not any("riv" in path or path.startswith("/closed") for path in outcome[2].asked)


def test_nothing_hangs_and_memory_stays_small(outcome):
    seconds, grown = outcome[4]
    assert seconds < 300  # a guard against hanging, not a speed
    assert grown < 400_000_000


def test_the_table_of_outcomes_is_true(outcome):
    """tests/hostile.md is what a reader sees; here it is made anew and compared."""
    lines = ["| case | outcome |", "|---|---|"]
    lines += [f"| {name} | {row['reason'] or 'kept'} |" for name, row in outcome[0].items()]
    table = Path(__file__).with_name("hostile.md")
    intro = table.read_text().partition("| case")[0] if table.exists() else ""
    made = intro + "\n".join(lines) + "\n"
    if not table.exists() or table.read_text() != made:
        new = Path("build/test/hostile.md")
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(made)
        pytest.fail(f"{table} is out of date; if the outcomes in {new} are right, copy it there.")
