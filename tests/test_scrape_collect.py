"""Collections: what is kept and why not, going on after any end, forgetting."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gathering import Listed, gather
from PIL import Image

from dclib import files
from dclib.data import DRAWN, fingerprint
from dclib.data.loading import CoupleFolder
from dclib.scrape import fetch
from dclib.scrape.__main__ import main
from dclib.scrape.collect import MOST_TRIES, WORKERS, collect, make_plan
from dclib.scrape.dataset import MOST_BY_ONE_AUTHOR, describe, forget, funnel, make_dataset
from dclib.scrape.duplicates import duplicate_groups
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT, TRAPS, Gallery
from dclib.scrape.manifest import Manifest
from dclib.scrape.queries import load_queries, open_sources, write_queries
from dclib.scrape.sources import Candidate, SourceError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.001)


def rows_of(folder, stage=""):
    """Rows of a manifest, or those of a stage."""
    with Manifest(folder) as manifest:
        return manifest.rows("stage = ?", (stage,)) if stage else manifest.rows()


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in ("time", "tries")} for row in rows]


def given_up(rows):
    """A failure that may pass is refused in the end; every kill ends a run."""
    return [row | {"state": row["state"].replace("later", "refused")} for row in timeless(rows)]


def tree(folder):
    return {path.name: path.read_bytes() for path in (folder / "pool").iterdir()}


@pytest.fixture(scope="module")
def site():
    with Gallery(n=40) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def large_site():
    with Gallery(n=120) as gallery:
        for drawing in gallery.drawings:
            gallery.jpeg(drawing)
        yield gallery


@pytest.fixture(scope="module")
def collection(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection") / "raw"
    return gather(site, folder), folder


@pytest.fixture
def collected(collection, tmp_path):
    """Rows, and a copy of the folder that a test may spoil."""
    return collection[0], shutil.copytree(collection[1], tmp_path / "raw")


def drawing_of(site, row):
    return site.by_number[int(row["identity"].rpartition("/")[2].removesuffix(".jpg"))]


def test_every_fault_of_the_gallery_is_found(site, collected):
    outcomes = {trap: set() for trap in (*TRAPS, "")}
    for row in collected[0]:
        if row["reason"] != "listed before":
            outcomes[drawing_of(site, row).trap].add(row["reason"])
    expected = {
        "non-commercial": "by-nc",
        "unlicensed": "licence unknown",
        "small": "too small",
        "cut off": "damaged or too large",
        "noai": "opt-out",
        "private": "robots.txt",
        "gone": "http 410",
        "login": "not a picture",
        "busy": "",
        "other label": "under both labels",
    }
    for trap, reason in expected.items():
        assert outcomes[trap] == {reason}, trap
    of_copies = {"seen before", "", "under both labels"}
    assert outcomes["re-encoded"] | outcomes["mirrored"] <= of_copies == outcomes[""]


def test_kept_rows_say_where_they_come_from_and_show_a_picture_once(site, collected):
    kept = rows_of(collected[1], "kept")
    for row in kept:
        assert row["licence"] in ("by", "by-sa", "cc0")
        assert row["author"]
        assert row["page"].startswith("http")
        assert (row["width"], row["height"]) == (448, 448)
        with Image.open(collected[1] / "pool" / row["file"]) as image:
            assert image.size == (448, 448)
        assert len(row["sha256"]) == 64
        assert row["time"].endswith("Z")
    assert len({drawing_of(site, row).scene for row in kept}) == len(kept) > 30


def test_nothing_is_fetched_twice(site, collected):
    """Neither in one run, whatever lists it again, nor in the next."""
    assert any(path.startswith("/media") for path in site.asked)
    before = site.asked.copy()
    again = gather(site, collected[1])
    asked = site.asked - before
    logins = {d.media for d in site.drawings if d.trap == "login"}  # perhaps a bot check today
    assert {path for path in asked if path.startswith(("/media", "/photo", "/search"))} == logins
    assert timeless(again) == timeless(collected[0])


def test_the_same_pictures_at_new_addresses_change_nothing(collected):
    """The gallery has another port each time that the command is run."""
    before = {row["id"] for row in collected[0] if row["stage"] == "kept"}
    with Gallery(n=40) as again:
        rows = gather(again, collected[1])
    assert {row["id"] for row in rows if row["stage"] == "kept"} == before


def test_funnel_counts_every_candidate(collected):
    steps = funnel(collected[0])
    assert sum(n for *_, n in steps) == len(collected[0])
    assert steps[-1][:2] == ("kept", "")
    text = describe(collected[0])
    assert f"{len(collected[0])} candidates, {steps[-1][2]} kept." in text
    assert "opt-out (the owner does not want" in text


def test_data_set_of_a_collection(collected, tmp_path):
    rows, folder = collected
    report = make_dataset(folder, tmp_path / "data")
    kept = sum(row["stage"] == "kept" for row in rows)
    sets = [CoupleFolder(tmp_path / "data", split) for split in ("train", "val", "test")]
    assert sum(map(len, sets)) == kept
    assert "No picture, author, series or page is in two splits." in str(report)
    assert fingerprint(tmp_path / "data")["kind"] == DRAWN  # drawings are called drawings
    credits_text = (tmp_path / "data" / "ATTRIBUTION.md").read_text()
    assert credits_text.count("\n- ") == kept


def test_growth_moves_nothing(large_site, tmp_path):
    """More pictures later: those placed stay in their split, new ones join."""
    folder, site = tmp_path / "raw", large_site
    splits = []
    for per_query in (1, 1000):
        gather(site, folder, per_query=per_query)
        kept = len(rows_of(folder, "kept"))
        make_dataset(folder, tmp_path / "data")
        splits.append({row["id"]: row["split"] for row in rows_of(folder) if row["split"]})
        assert len(splits) == 2 or len(splits[0]) == kept
    before, after = splits
    assert len(after) > len(before)
    assert not [i for i in before if i in after and after[i] != before[i]]


# ------------------------------------------------------------------ kills


class Address:
    """What `gather` needs of a gallery that another process serves."""

    def __init__(self, site):
        self.opening, self.queries = site.opening, site.queries


def gather_in_child(address, folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        gather(address, folder)
    except KeyboardInterrupt:
        os._exit(3)


def test_killed_many_times_the_end_is_the_same(large_site, start_child, tmp_path):
    gather(large_site, tmp_path / "undisturbed")
    expected = given_up(rows_of(tmp_path / "undisturbed"))
    alone = large_site.asked.copy()
    folder, rng, kills = tmp_path / "killed", random.Random(5), 0
    while kills < 20:
        wanted = large_site.asked.total() + rng.randrange(20)  # requests before the kill
        child = start_child(gather_in_child, Address(large_site), folder)
        while child.is_alive() and large_site.asked.total() < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
    assert len(rows_of(folder)) > 100  # the kills let it get somewhere
    gather(large_site, folder)
    assert given_up(rows_of(folder)) == expected
    assert tree(folder) == tree(tmp_path / "undisturbed")
    media = [path for path in alone if path.startswith(("/media", "/photo"))]
    asked = {path: large_site.asked[path] - alone[path] for path in media}
    again = sum(n - 1 for n in asked.values() if n > 1)
    assert again <= kills * 2 * WORKERS  # what was on its way when it was killed, nothing else


def test_stopped_by_hand_nothing_is_lost(large_site, start_child, tmp_path, monkeypatch):
    """Ctrl-C: what is under way is still recorded. The site waits for it, so that it comes then."""
    before, stopped, answer = large_site.asked.copy(), threading.Event(), large_site.answer

    def answer_some(*request):
        if sum((large_site.asked - before).values()) > 120:
            assert stopped.wait(60)
        answer(*request)

    monkeypatch.setattr(large_site, "answer", answer_some)
    child = start_child(gather_in_child, Address(large_site), tmp_path)
    while sum((large_site.asked - before).values()) < 122:  # both of its connections hang
        assert child.is_alive()
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(child.pid, signal.SIGINT)
    stopped.set()
    child.join()
    assert child.exitcode == 3
    rows = rows_of(tmp_path)
    recorded = {row["url"] for row in rows if row["state"] in ("fetched", "refused")}
    asked = [path for path in large_site.asked - before if path.startswith("/media")]
    assert {f"{large_site.url}{path}" for path in asked} <= recorded
    assert any(row["state"] == "listed" for row in rows)


def test_a_file_that_is_no_manifest(tmp_path):
    (tmp_path / "manifest.sqlite").write_text("no database, no database, no database " * 99)
    sentence = r"is no manifest, or a damaged one .* put a copy of it back"
    with pytest.raises(ValueError, match=sentence):
        Manifest(tmp_path)
    (tmp_path / "folder" / "manifest.sqlite").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="cannot be used"):
        Manifest(tmp_path / "folder")
    with pytest.raises(OSError, match="cannot be written"):
        Manifest(tmp_path / "manifest.sqlite" / "folder")


def test_a_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "manifest.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (name)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"is no manifest.*\(it has a table songs\)"):
        Manifest(tmp_path)
    assert path.read_bytes() == before


def test_a_manifest_damaged_in_the_middle_is_refused(collected):
    path = collected[1] / "manifest.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[:20_000] + bytes(40_000) + content[60_000:])
    before = tree(collected[1])
    with pytest.raises(ValueError, match="is no manifest, or a damaged one"):
        Manifest(collected[1])
    assert tree(collected[1]) == before


def test_without_its_manifest_a_collection_loses_nothing(site, collected, tmp_path):
    rows, folder = collected
    (folder / "pool" / "holiday.jpg").write_text("a file that no row knows")
    before = tree(folder)
    (folder / "manifest.sqlite").rename(tmp_path / "moved away")
    for _ in range(2):
        with pytest.raises(FileExistsError, match=rf"knows none of the {len(before)} pictures in"):
            gather(site, folder)
        assert tree(folder) == before
    (tmp_path / "moved away").rename(folder / "manifest.sqlite")
    assert timeless(gather(site, folder)) == timeless(rows)
    assert tree(folder) == before


def test_a_kill_amid_forgetting_leaves_no_file(site, collected, monkeypatch):
    folder, row = collected[1], rows_of(collected[1], "kept")[0]
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove_files", lambda *_: None)  # killed before it
        forget(folder, row["url"])
    assert (folder / "pool" / row["file"]).exists()
    gather(site, folder)
    assert not (folder / "pool" / row["file"]).exists()


def test_a_picture_deleted_by_hand_comes_back(site, collected, tmp_path):
    rows, folder = collected
    before, name = tree(folder), rows_of(folder, "kept")[0]["file"]
    (folder / "pool" / name).unlink()
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=rf"1 pictures .*{name}: collect again, and"):
            make_dataset(folder, tmp_path / "data")
        assert not (tmp_path / "data").exists()
    again = [row | {"group": "", "split": ""} for row in gather(site, folder)]
    assert timeless(again) == timeless(rows)
    assert tree(folder) == before
    make_dataset(folder, tmp_path / "data")
    assert list((tmp_path / "data").rglob(name))


def test_what_was_deleted_by_hand_and_is_gone_blocks_nothing(site, collected, tmp_path):
    """Neither forgetting nor the data set, once its source was asked in vain."""
    folder, (first, second, *_) = collected[1], rows_of(collected[1], "kept")
    make_dataset(folder, tmp_path / "data")
    (folder / "pool" / first["file"]).unlink()
    make_dataset(folder, tmp_path / "data")  # which still holds it
    next((tmp_path / "data").rglob(first["file"])).unlink()
    forget(folder, second["url"], tmp_path / "data")
    assert not list(tmp_path.rglob(second["file"]))
    with Manifest(folder) as manifest:
        manifest.update({first["id"]: {"url": f"{site.url}/media/nowhere.jpg"}})
    gone = next(row for row in gather(site, folder) if row["id"] == first["id"])
    assert (gone["state"], gone["reason"]) == ("refused", "http 404")
    make_dataset(folder, tmp_path / "data")


def test_a_copy_of_what_was_deleted_by_hand_is_forgotten_with_it(site, collected, tmp_path):
    """It takes the place of the picture that waits to be fetched again."""
    rows = [row for row in rows_of(collected[1]) if row["reason"] in ("", "seen before")]
    groups = [[rows[i] for i in group] for group in duplicate_groups(rows)]
    kept = next(row for group in groups for row in group if row["stage"] == "kept")
    (collected[1] / "pool" / kept["file"]).unlink()
    nothing = Listed(site, {"a": []})
    gather(site, collected[1], nothing.plan())
    make_dataset(collected[1], tmp_path / "data")
    held = len(list((tmp_path / "data").rglob("*.jpg")))
    forget(collected[1], kept["url"], tmp_path / "data")
    assert len(list((tmp_path / "data").rglob("*.jpg"))) == held - 1


def test_a_manifest_of_somebody_else_removes_nothing_elsewhere(collected, tmp_path):
    folder, row = collected[1], rows_of(collected[1], "kept")[0]
    (tmp_path / "victim.jpg").write_text("mine")
    with Manifest(folder) as manifest:
        manifest.update({row["id"]: {"file": "../../victim.jpg"}})
    with pytest.raises(ValueError, match="must be a bare name"):
        make_dataset(folder, tmp_path / "data")
    with pytest.raises(ValueError, match="victim"):
        forget(folder, row["url"])
    assert (tmp_path / "victim.jpg").read_text() == "mine"


def test_a_full_disk_stops_the_run_and_loses_nothing(site, tmp_path, monkeypatch):
    real, written, lock = Path.write_bytes, [], threading.Lock()

    def write_bytes(path, content):
        if path.suffix == ".jpg":
            with lock:
                if len(written) == 10:
                    raise OSError(28, "No space left on device")
                written.append(path)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=r"pool/.* cannot be written \(No space left on device\)"):
        gather(site, tmp_path)
    assert sum(row["state"] == "fetched" for row in rows_of(tmp_path)) == 10
    monkeypatch.setattr(Path, "write_bytes", real)
    assert not any(row["state"] == "listed" for row in gather(site, tmp_path))


def test_a_disk_full_of_the_manifest_itself(site, tmp_path, monkeypatch):
    real = Manifest._open

    def small(manifest):
        real(manifest)
        manifest._db.execute("PRAGMA max_page_count = 12")

    monkeypatch.setattr(Manifest, "_open", small)
    sentence = r"manifest\.sqlite cannot be written \(database or disk is full"
    with pytest.raises(OSError, match=sentence):
        gather(site, tmp_path)
    monkeypatch.setattr(Manifest, "_open", real)
    assert any(row["stage"] == "kept" for row in gather(site, tmp_path))


# ------------------------------------------------------------------ failures by class


@pytest.mark.parametrize(("status", "again"), [(503, True), (404, False)])
def test_failures_that_may_pass_are_tried_again_in_some_runs(tmp_path, monkeypatch, status, again):
    class Flaky(Gallery):
        broken = True

        def _send_media(self, handler, drawing):
            if self.broken:
                handler.send(b"", "text/plain", status)
            else:
                super()._send_media(handler, drawing)

    monkeypatch.setattr(fetch, "FAILURES", 1000)
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    with Flaky(n=6) as site:
        for tries in range(1, MOST_TRIES + 1):
            rows = gather(site, tmp_path / "broken")
            failed = {row["state"] for row in rows if row["reason"] == f"http {status}"}
            may_pass = again and tries < MOST_TRIES
            assert failed == {"later" if may_pass else "refused"}
            assert ("failures may pass" in describe(rows)) == may_pass
        gather(site, tmp_path / "repaired")
        site.broken = False
        rows = gather(site, tmp_path / "repaired")
        assert any(row["stage"] == "kept" for row in rows) == again
        assert {row["reason"] for row in rows if row["state"] == "later"} <= {"not a picture"}


META = (b"<head>", b'<head><meta name="robots" content="noai">')


@pytest.mark.parametrize("header", [{}, {"X-Robots-Tag": "noai"}])
@pytest.mark.parametrize(("where", "listed"), [("/search", False), ("/photo", True)])
def test_a_mark_in_the_page_is_an_opt_out(tmp_path, capsys, where, listed, header):
    """On a page of results nothing of it is taken; on a picture's own page, not this picture.

    For good: both show a picture, and so are no bot checks.
    """

    class Marked(Gallery):
        def answer(self, handler, path, query):
            send = handler.send
            if path.startswith(where):
                mark = (b"", b"") if header else META
                handler.send = lambda body: send(body.replace(*mark), headers=header)
            super().answer(handler, path, query)
            vars(handler).pop("send", None)  # other requests come by the same connection

    with Marked(n=6) as site:
        rows = gather(site, tmp_path)
    assert bool(rows) == listed
    outcomes = {(row["state"], row["reason"]) for row in rows}
    assert outcomes <= {("refused", "opt-out"), ("refused", "listed before")}
    assert not any(path.startswith(("/media", "/private")) for path in site.asked)
    name = "x-robots-tag" if header else "robots"
    assert (f"opt-out: {name}: noai" in capsys.readouterr().out) != listed


def offers(site, *numbers, **more):
    return [Candidate(f"{site.url}/media/{i}.jpg", licence="by", **more) for i in numbers]


@pytest.fixture(scope="module")
def fine(site):
    """Numbers of drawings without a fault."""
    return [drawing.number for drawing in site.drawings if not drawing.trap]


def test_a_source_is_asked_at_its_own_pace(site, tmp_path):
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    source, asked = Listed(site, {"a": offers(site, 1)}), []
    source.pace = 7.0
    fetcher.hosts.slow_down = lambda *args: asked.append(args)
    collect(tmp_path, source.plan(), fetcher, progress=False)
    assert asked[0] == (site.url.removeprefix("http://"), 7.0)


def test_a_listing_that_goes_in_circles_ends(site, tmp_path):
    source = Listed(site, {"a": (offers(site, 1), "b"), "b": (offers(site, 2), "a")})
    assert len(gather(site, tmp_path, source.plan())) == 2


def test_a_source_that_refuses_costs_only_itself(site, tmp_path, capsys):
    broken = Listed(site, {"a": SourceError("No."), "b": SourceError("No.")}, "broken")
    sound = Listed(site, {"a": offers(site, 1)}, "sound")
    rows = gather(site, tmp_path, broken.plan("ab") + sound.plan())
    assert [row["source"] for row in rows] == ["sound"]
    assert capsys.readouterr().out == ("broken, 'a': No.\nbroken is not asked again in this run.\n")


def test_rows_of_a_source_that_is_not_asked_wait(site, fine, tmp_path):
    """Another plan for the same folder leaves what it knows nothing about for later."""
    first, second = (Listed(site, {"a": offers(site, fine[i])}, f"number {i}") for i in range(2))
    with Manifest(tmp_path) as manifest:
        state = manifest.query(first.name, "happy", "a", first.start("a"))
        manifest.add_page(state, first.pages["a"], None)
    rows = gather(site, tmp_path, second.plan())
    assert [row["state"] for row in rows] == ["listed", "fetched"]
    rows = gather(site, tmp_path, first.plan())
    assert [row["state"] for row in rows] == ["fetched", "fetched"]


def test_the_same_address_under_both_labels(site, fine, tmp_path):
    source = Listed(site, {"a": offers(site, *fine[:2]), "b": offers(site, *fine[1:3])})
    rows = gather(site, tmp_path, source.plan("a", "b"))
    assert [row["reason"] for row in rows] == ["", "under both labels", "listed before", ""]


def test_what_the_source_objects_to_is_never_fetched(site, tmp_path):
    before = site.asked["/media/5.jpg"]
    source = Listed(site, {"a": offers(site, 5, objection="marked mature")})
    assert [row["reason"] for row in gather(site, tmp_path, source.plan())] == ["marked mature"]
    assert site.asked["/media/5.jpg"] == before


def test_one_author_does_not_become_a_class(site, fine, tmp_path):
    some = fine[: MOST_BY_ONE_AUTHOR + 5]
    source = Listed(site, {"a": offers(site, *some, author="Ada")})
    reasons = [row["reason"] for row in gather(site, tmp_path, source.plan())]
    assert reasons.count("many by one author") == 5


def test_plan_takes_the_classes_in_turn():
    plan = make_plan(("s", {"happy": ["a", "b", "c"], "unhappy": ["x"]}), ("t", {"happy": ["d"]}))
    assert "".join(text for *_, text in plan) == "axbcd"
    assert [label for _, label, _ in plan] == ["happy", "unhappy", "happy", "happy", "happy"]


# ------------------------------------------------------------------ forgetting


@pytest.mark.parametrize("column", ["url", "page", "sha256", "identity", "file"])
def test_forget(site, collected, tmp_path, column):
    folder, row = collected[1], rows_of(collected[1], "kept")[0]
    make_dataset(folder, tmp_path / "data")
    assert forget(folder, row[column], tmp_path / "data") >= 1
    assert not (folder / "pool" / row["file"]).exists()
    assert not list((tmp_path / "data").rglob(row["file"]))
    everything = b"".join(p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert row["sha256"].encode() not in everything
    assert row["page"].encode() + b")" not in everything
    media = row["url"].removeprefix(site.url)
    before = site.asked[media]
    assert before
    again = gather(site, folder)
    now = next(r for r in again if r["id"] == row["id"])
    assert (now["state"], now["reason"]) == ("refused", "forgotten")
    assert now["author"] == now["page"] == ""
    assert site.asked[media] == before


def test_what_is_forgotten_does_not_come_back_under_another_address(site, collected):
    """Its full size, which is not asked for; and the same bytes at an address nobody knows."""
    folder, row = collected[1], rows_of(collected[1], "kept")[0]
    forget(folder, row["url"])
    others = [Candidate(row["url"] + end, licence="by") for end in ("", "?copy=1")]
    before = site.asked[row["url"].removeprefix(site.url)]
    again = gather(site, folder, Listed(site, {"a": others}).plan())
    assert [other["reason"] for other in again[-2:]] == ["forgotten", "forgotten"]
    assert site.asked[row["url"].removeprefix(site.url)] == before + 1
    assert not (folder / "pool" / row["file"]).exists()


def test_forget_does_not_need_enough_for_a_new_split(collected, tmp_path):
    """The last picture of a class can be removed: it goes, and the data set is what is left."""
    folder, data = collected[1], tmp_path / "data"
    make_dataset(folder, data)
    for row in rows_of(folder, "kept"):
        if row["label"] == "happy":
            forget(folder, row["url"], data)
    assert not list(data.glob("*/happy/*.jpg"))
    assert list(data.glob("*/unhappy/*.jpg"))
    assert {row["label"] for row in rows_of(folder, "kept")} == {"unhappy"}


def forget_and_die(n, *what):
    """`forget` in a process that is killed before it removes or renames its nth file."""
    changes = itertools.count(1)

    def die(event, _):
        if event in ("os.remove", "os.rename") and next(changes) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    forget(*what)


def test_forgetting_that_is_killed_can_be_repeated(collected, start_child, tmp_path):
    row = rows_of(collected[1], "kept")[0]
    make_dataset(collected[1], tmp_path / "data")
    for n in itertools.count(1):
        folder = shutil.copytree(collected[1], tmp_path / f"{n}" / "raw")
        data = shutil.copytree(tmp_path / "data", tmp_path / f"{n}" / "data")
        child = start_child(forget_and_die, n, folder, row["page"], data)
        child.join()
        if child.exitcode != -signal.SIGKILL:
            break
        with contextlib.suppress(ValueError):  # forgotten is its page, too
            forget(folder, row["page"], data)
        assert not list((tmp_path / f"{n}").rglob(row["file"]))
        assert row["page"] not in {known["page"] for known in rows_of(folder)}
    assert n > 5 and child.exitcode == 0


def test_forget_before_there_is_a_data_set(collected, tmp_path):
    forget(collected[1], rows_of(collected[1], "kept")[0]["url"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


# ------------------------------------------------------------------ the command


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["dclib.scrape", *map(str, arguments)])
    main()


IN_CHILD = """
import psutil, sys
from dclib.scrape.__main__ import main
main()
print("torch" in sys.modules, psutil.Process().memory_info().rss)
"""


def test_the_command_on_the_gallery(tmp_path, monkeypatch, capsys):
    """In a process of its own: gathering pictures needs no torch and little memory."""
    folders = tmp_path / "raw", tmp_path / "data"
    command_line = [sys.executable, "-c", IN_CHILD, *folders, "--sources", "gallery"]
    shown = subprocess.run(command_line, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "Asking the gallery of drawn couples on this computer" in shown
    assert "119 kept." in shown
    assert "AUROC" in shown
    torch_was_imported, held = shown.split()[-2:]
    assert torch_was_imported == "False"
    assert int(held) < 300_000_000  # at the end, when scikit-learn is there too
    page = rows_of(folders[0], "kept")[0]["page"]
    command(monkeypatch, *folders, "--forget", page)
    assert "Removed 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "contact is '': give your own e-mail address"),
        (["--sources", "flickr"], "There is no source 'flickr'; choose gallery, or of"),
        (["--contact", "ada@uni.test", "--sources", "html"], "pages = a list of texts"),
        (["--forget", "http://a.test/"], "No picture here has"),
        (["--forget", ""], "Say which picture"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=sentence):
        command(monkeypatch, "raw", "data", *arguments)


def test_phrases_that_a_full_disk_cut_off_are_written_again(tmp_path, monkeypatch):
    path, real = tmp_path / "mine" / "queries.toml", shutil.copyfile

    def cut_off(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", cut_off)
    with pytest.raises(OSError, match=r"queries\.toml cannot be written \(No space left"):
        write_queries(path)
    monkeypatch.setattr(shutil, "copyfile", real)
    assert load_queries(write_queries(path))["happy"]


def test_phrases_are_provided_and_then_the_readers(tmp_path, capsys):
    path = tmp_path / "mine" / "queries.toml"
    with open_sources("openverse+commons", "ada@uni.test", path) as (plan, _):
        assert len(plan) == 2 * 2 * len(load_queries(path)["happy"])
    assert "edit them there" in capsys.readouterr().out
    path.write_text('[happy]\nphrases = ["a"]\n[unhappy]\nphrases = ["b"]\n')
    with open_sources("commons", "ada@uni.test", path) as (plan, fetcher):
        assert [task[1:] for task in plan] == [("happy", "a"), ("unhappy", "b")]
        assert {source.name for source, *_ in plan} == {"commons"}
        assert "(ada@uni.test)" in fetcher.session.headers["User-Agent"]
    assert "edit them" not in capsys.readouterr().out
