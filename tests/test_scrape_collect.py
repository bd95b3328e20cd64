"""Collections: what is kept and why not, going on after any end, forgetting."""

import os
import random
import signal
import sys
import threading
import time

import pytest
from PIL import Image

from dclib.data import DRAWN, fingerprint
from dclib.data.loading import CoupleFolder
from dclib.scrape import fetch
from dclib.scrape.__main__ import main
from dclib.scrape.collect import MOST_TRIES, collect, make_plan
from dclib.scrape.dataset import MOST_BY_ONE_AUTHOR, describe, forget, funnel, make_dataset
from dclib.scrape.fetch import CONNECTIONS, Fetcher
from dclib.scrape.gallery import CONTACT, TRAPS, Gallery
from dclib.scrape.html import HtmlGallery
from dclib.scrape.manifest import Manifest
from dclib.scrape.queries import load_queries, open_sources
from dclib.scrape.sources import Candidate, Listing, SourceError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.001)


def run(site, folder, **options):
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    plan = make_plan((HtmlGallery(name=DRAWN), site.queries))
    return collect(folder, plan, fetcher, progress=False, **options)


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in ("time", "tries")} for row in rows]


def tree(folder):
    return {path.name: path.read_bytes() for path in (folder / "pool").iterdir()}


@pytest.fixture(scope="module")
def site():
    with Gallery(n=40) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def large_site():
    with Gallery(n=240) as gallery:
        assert len(gallery.drawings) > 300
        for drawing in gallery.drawings:
            gallery.jpeg(drawing)
        yield gallery


@pytest.fixture
def collected(site, tmp_path):
    return run(site, tmp_path / "raw"), tmp_path / "raw"


def by_trap(site, rows):
    """{trap: rows}: what became of the pictures with each fault."""
    found = {}
    for row in rows:
        number = int(row["identity"].rpartition("/")[2].removesuffix(".jpg"))
        if row["reason"] != "listed before":
            found.setdefault(site.by_number[number].trap, []).append(row)
    return found


def test_every_fault_of_the_gallery_is_found(site, collected):
    outcomes = by_trap(site, collected[0])
    assert set(outcomes) == {*TRAPS, ""}
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
        assert {row["reason"] for row in outcomes[trap]} == {reason}, trap
    copies = [row["reason"] for row in outcomes["re-encoded"] + outcomes["mirrored"]]
    assert set(copies) <= {"seen before", "", "under both labels"}
    fine = [row["reason"] for row in outcomes[""]]
    assert set(fine) == {"", "seen before", "under both labels"}
    assert fine.count("") > 30


def test_of_every_picture_one_copy_at_most_is_kept(site, collected):
    kept = [row for row in collected[0] if row["stage"] == "kept"]
    scenes = []
    for row in kept:
        number = int(row["identity"].rpartition("/")[2].removesuffix(".jpg"))
        scenes.append(site.by_number[number].scene)
    assert len(set(scenes)) == len(scenes)


def test_a_row_says_where_it_comes_from(collected):
    rows, folder = collected
    for row in rows:
        if row["stage"] == "kept":
            assert row["licence"] in ("by", "by-sa", "cc0")
            assert row["author"]
            assert row["page"].startswith("http")
            assert (row["width"], row["height"]) == (448, 448)
            with Image.open(folder / "pool" / row["file"]) as image:
                assert image.size == (448, 448)
            assert len(row["sha256"]) == 64
            assert row["time"].endswith("Z")


def test_nothing_is_fetched_twice(site, collected):
    """Neither in one run, whatever lists it again, nor in the next."""
    media = {path: n for path, n in site.asked.items() if path.startswith(("/media", "/photo"))}
    before, folder = site.asked.copy(), collected[1]
    again = run(site, folder)
    asked = site.asked - before
    assert not any(path.startswith(("/media", "/photo", "/search")) for path in asked)
    assert timeless(again) == timeless(collected[0])
    assert media


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
    run(site, folder, per_query=1)
    first = [row for row in collect_rows(folder) if row["stage"] == "kept"]
    make_dataset(folder, tmp_path / "data")
    before = {row["id"]: row["split"] for row in collect_rows(folder) if row["split"]}
    assert len(before) == len(first)
    run(site, folder, per_query=1000)
    make_dataset(folder, tmp_path / "data")
    after = {row["id"]: row["split"] for row in collect_rows(folder) if row["split"]}
    assert len(after) > len(before)
    moved = [i for i in before if i in after and after[i] != before[i]]
    assert not moved


def collect_rows(folder):
    with Manifest(folder) as manifest:
        return manifest.rows()


# ------------------------------------------------------------------ kills


class Address:
    """What `run` needs of a gallery that another process serves."""

    def __init__(self, site):
        self.opening, self.queries = site.opening, site.queries


def run_in_child(address, folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        run(address, folder)
    except KeyboardInterrupt:
        os._exit(3)


def test_killed_50_times_the_end_is_the_same(large_site, start_child, tmp_path):
    run(large_site, tmp_path / "undisturbed")
    expected = timeless(collect_rows(tmp_path / "undisturbed"))
    alone = large_site.asked.copy()
    folder, rng, kills, reach = tmp_path / "killed", random.Random(5), 0, 0.4
    while kills < 50:
        child = start_child(run_in_child, Address(large_site), folder)
        time.sleep(rng.uniform(0.0, reach))
        child.kill()
        child.join()
        if child.exitcode == -signal.SIGKILL:
            kills += 1
            if kills % 10 == 0 and len(collect_rows(folder)) <= 100:
                reach *= 2  # a slow machine gets nowhere in this time
    assert len(collect_rows(folder)) > 100  # the kills let it get somewhere
    run(large_site, folder)
    assert timeless(collect_rows(folder)) == expected
    assert tree(folder) == tree(tmp_path / "undisturbed")
    media = [path for path in alone if path.startswith(("/media", "/photo"))]
    asked = {path: large_site.asked[path] - alone[path] for path in media}
    again = sum(n - 1 for n in asked.values() if n > 1)
    assert again <= 50 * CONNECTIONS  # what was on its way when it was killed, nothing else


def test_stopped_by_hand_nothing_is_lost(large_site, start_child, tmp_path, monkeypatch):
    """Ctrl-C: what is under way is still recorded. The site waits for it, so that it comes then."""
    before, stopped, answer = large_site.asked.copy(), threading.Event(), large_site.answer

    def answer_some(*request):
        if sum((large_site.asked - before).values()) > 120:
            assert stopped.wait(60)
        answer(*request)

    monkeypatch.setattr(large_site, "answer", answer_some)
    child = start_child(run_in_child, Address(large_site), tmp_path)
    while sum((large_site.asked - before).values()) < 122:  # both of its connections hang
        assert child.is_alive()
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(child.pid, signal.SIGINT)
    stopped.set()
    child.join()
    assert child.exitcode == 3
    rows = collect_rows(tmp_path)
    recorded = {row["url"] for row in rows if row["state"] in ("fetched", "refused")}
    asked = [path for path in large_site.asked - before if path.startswith("/media")]
    assert {f"{large_site.url}{path}" for path in asked} <= recorded
    assert any(row["state"] in ("listed", "described") for row in rows)


def test_a_second_run_on_the_same_folder_is_refused(site, tmp_path):
    with Manifest(tmp_path), pytest.raises(RuntimeError, match="another run has this folder open"):
        run(site, tmp_path)


def test_a_file_that_is_no_manifest(site, tmp_path):
    (tmp_path / "manifest.sqlite").write_text("no database, no database, no database " * 99)
    with pytest.raises(ValueError, match="is no manifest"):
        run(site, tmp_path)


def test_a_manifest_that_cannot_be_opened(tmp_path):
    (tmp_path / "manifest.sqlite").mkdir()
    with pytest.raises(RuntimeError, match="cannot be used"):
        Manifest(tmp_path)


def test_a_full_disk_stops_the_run_and_loses_nothing(site, tmp_path, monkeypatch):
    from dclib.scrape import collect as module

    real, written, lock = module._write, [], threading.Lock()

    def write(path, content):
        if path.suffix == ".jpg":
            with lock:
                if len(written) == 10:
                    raise OSError(28, "No space left on device")
                written.append(path)
        real(path, content)

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(OSError, match="No space left"):
        run(site, tmp_path)
    assert sum(row["state"] == "fetched" for row in collect_rows(tmp_path)) == 10
    monkeypatch.setattr(module, "_write", real)
    rows = run(site, tmp_path)
    assert not {row["state"] for row in rows} & {"listed", "described", "later"}


# ------------------------------------------------------------------ failures by class


class Flaky(Gallery):
    """Every picture fails with `self.status` while it is set."""

    status = None

    def answer(self, handler, path, query):
        if self.status and path.startswith("/media"):
            handler.send(b"", "text/plain", self.status)
        else:
            super().answer(handler, path, query)


@pytest.mark.parametrize(("status", "again"), [(503, True), (404, False)])
def test_failures_that_may_pass_are_tried_again(tmp_path, monkeypatch, status, again):
    monkeypatch.setattr("dclib.scrape.fetch.FAILURES", 1000)
    with Flaky(n=6) as site:
        site.status = status
        rows = run(site, tmp_path)
        failed = [row for row in rows if row["reason"] == f"http {status}"]
        assert {row["state"] for row in failed} == {"later" if again else "refused"}
        assert ("failures may pass" in describe(rows)) == again
        site.status = None
        rows = run(site, tmp_path)
        kept = [row for row in rows if row["stage"] == "kept"]
        assert bool(kept) == again
        assert not any(row["state"] == "later" for row in rows)


def test_after_some_runs_a_failure_is_final(tmp_path, monkeypatch):
    monkeypatch.setattr("dclib.scrape.fetch.FAILURES", 1000)
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    with Flaky(n=4) as site:
        site.status = 503
        for _ in range(MOST_TRIES):
            rows = run(site, tmp_path)
        assert {row["state"] for row in rows if row["reason"] == "http 503"} == {"refused"}


class Marked(Gallery):
    """Pages under `self.where` say in their head that they are not for training."""

    where = ""

    def answer(self, handler, path, query):
        send = handler.send
        if path.startswith(self.where):
            mark = b'<head><meta name="robots" content="noai">'
            handler.send = lambda body, *more: send(body.replace(b"<head>", mark), *more)
        super().answer(handler, path, query)


@pytest.mark.parametrize(("where", "listed"), [("/search", False), ("/photo", True)])
def test_a_mark_in_the_page_is_an_opt_out(tmp_path, capsys, where, listed):
    """On a page of results nothing of it is taken; on a picture's own page, not this picture."""
    with Marked(n=6) as site:
        site.where = where
        rows = run(site, tmp_path)
    assert bool(rows) == listed
    assert {row["reason"] for row in rows} <= {"opt-out", "listed before"}
    assert not any(path.startswith(("/media", "/private")) for path in site.asked)
    assert ("opt-out: meta robots: noai" in capsys.readouterr().out) != listed


def test_a_source_is_asked_at_its_own_pace(site, tmp_path):
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    source = Listed(site, {"a": (offers(site, 1), None)})
    source.pace = 7.0
    asked = []
    fetcher.hosts.slow_down = lambda *args: asked.append(args)
    collect(tmp_path, plan_of(source, happy=["a"]), fetcher, progress=False)
    assert asked[0] == (site.url.removeprefix("http://"), 7.0)


class Listed:
    """A source with pages given here: address -> (candidates, next) or an exception."""

    api, pace = True, 0.0

    def __init__(self, site, pages, name="listed"):
        self.site, self.pages, self.name = site, pages, name

    def start(self, text):
        return f"{self.site.url}/search?q={text}"

    def parse(self, page):
        answer = self.pages[page.url.partition("q=")[2]]
        if isinstance(answer, Exception):
            raise answer
        candidates, following = answer
        return Listing(candidates, following and self.start(following))


def offers(site, *numbers, **more):
    return [Candidate(f"{site.url}/media/{i}.jpg", licence="by", **more) for i in numbers]


def plan_of(source, **texts):
    return [(source, label, text) for label, asked in texts.items() for text in asked]


def test_a_listing_that_goes_in_circles_ends(site, tmp_path):
    pages = {"a": (offers(site, 1), "b"), "b": (offers(site, 2), "a")}
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    source = Listed(site, pages)
    rows = collect(tmp_path, plan_of(source, happy=["a"]), fetcher, progress=False)
    assert len(rows) == 2


def test_a_source_that_refuses_costs_only_itself(site, tmp_path, capsys):
    broken = Listed(site, {"a": SourceError("No."), "b": SourceError("No.")}, "broken")
    sound = Listed(site, {"a": (offers(site, 1), None)}, "sound")
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    plan = plan_of(broken, happy=["a", "b"]) + plan_of(sound, happy=["a"])
    rows = collect(tmp_path, plan, fetcher, progress=False)
    assert [row["source"] for row in rows] == ["sound"]
    assert capsys.readouterr().out == ("broken, 'a': No.\nbroken is not asked again in this run.\n")


def test_rows_of_a_source_that_is_not_asked_wait(site, tmp_path):
    """Another plan for the same folder leaves what it knows nothing about for later."""
    one, two = [d.number for d in site.drawings if not d.trap][:2]
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    first = Listed(site, {"a": (offers(site, one), None)}, "first")
    with Manifest(tmp_path) as manifest:
        state = manifest.query("first", "happy", "a", first.start("a"))
        manifest.add_page(state, offers(site, one), None)
    second = Listed(site, {"a": (offers(site, two), None)}, "second")
    rows = collect(tmp_path, plan_of(second, happy=["a"]), fetcher, progress=False)
    assert [row["state"] for row in rows] == ["listed", "fetched"]
    rows = collect(tmp_path, plan_of(first, happy=["a"]), fetcher, progress=False)
    assert [row["state"] for row in rows] == ["fetched", "fetched"]


def test_the_same_address_under_both_labels(site, tmp_path):
    one, two, three = [d.number for d in site.drawings if not d.trap][:3]
    pages = {"a": (offers(site, one, two), None), "b": (offers(site, two, three), None)}
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    source = Listed(site, pages)
    rows = collect(tmp_path, plan_of(source, happy=["a"], unhappy=["b"]), fetcher, progress=False)
    reasons = [row["reason"] for row in rows]
    assert reasons == ["", "under both labels", "listed before", ""]


def test_what_the_source_objects_to_is_never_fetched(site, tmp_path):
    pages = {"a": (offers(site, 5, objection="marked mature"), None)}
    before = site.asked["/media/5.jpg"]
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    rows = collect(tmp_path, plan_of(Listed(site, pages), happy=["a"]), fetcher, progress=False)
    assert [row["reason"] for row in rows] == ["marked mature"]
    assert site.asked["/media/5.jpg"] == before


def test_one_author_does_not_become_a_class(tmp_path):
    with Gallery(n=60) as site:
        fine = [d.number for d in site.drawings if not d.trap][: MOST_BY_ONE_AUTHOR + 5]
        pages = {"a": (offers(site, *fine, author="Ada"), None)}
        fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
        rows = collect(tmp_path, plan_of(Listed(site, pages), happy=["a"]), fetcher, progress=False)
    assert [row["reason"] for row in rows].count("many by one author") == 5


def test_plan_takes_the_classes_in_turn():
    plan = make_plan(("s", {"happy": ["a", "b", "c"], "unhappy": ["x"]}), ("t", {"happy": ["d"]}))
    assert [(label, text) for _, label, text in plan] == [
        ("happy", "a"),
        ("unhappy", "x"),
        ("happy", "b"),
        ("happy", "c"),
        ("happy", "d"),
    ]


# ------------------------------------------------------------------ forgetting


def kept_row(rows):
    return next(row for row in rows if row["stage"] == "kept")


@pytest.mark.parametrize("column", ["url", "page", "sha256", "identity", "file"])
def test_forget(site, collected, tmp_path, column):
    rows, folder = collected
    make_dataset(folder, tmp_path / "data")
    row = kept_row(rows)
    assert forget(folder, row[column], tmp_path / "data") >= 1
    assert not (folder / "pool" / row["file"]).exists()
    assert not list((tmp_path / "data").rglob(row["file"]))
    everything = b"".join(p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert row["sha256"].encode() not in everything
    assert row["page"].encode() + b")" not in everything
    before = site.asked[f"/media/{row['url'].rpartition('/')[2]}"]
    again = run(site, folder)
    now = next(r for r in again if r["id"] == row["id"])
    assert (now["state"], now["reason"], now["author"], now["page"]) == (
        "refused",
        "forgotten",
        "",
        "",
    )
    assert site.asked[f"/media/{row['url'].rpartition('/')[2]}"] == before


def test_what_is_forgotten_does_not_come_back_under_another_address(site, collected):
    """The same bytes, or a copy that was compressed again, at a new address."""
    rows, folder = collected
    row = kept_row(rows)
    number = int(row["url"].rpartition("/")[2].removesuffix(".jpg"))
    forget(folder, row["url"])
    fetcher = Fetcher(CONTACT, rate=1000, opening=site.opening)
    other = Candidate(f"{site.url}/media/{number}.jpg?copy=1", licence="by")
    source = Listed(site, {"a": ([other], None)})
    again = collect(folder, plan_of(source, happy=["a"]), fetcher, progress=False)
    assert again[-1]["reason"] == "forgotten"
    assert not (folder / "pool" / row["file"]).exists()


def test_forget_does_not_need_enough_for_a_new_split(site, tmp_path):
    """The last picture of a class can be removed: it goes, and the data set is what is left."""
    folder, data = tmp_path / "raw", tmp_path / "data"
    rows = run(site, folder)
    make_dataset(folder, data)
    for row in rows:
        if row["stage"] == "kept" and row["label"] == "happy":
            forget(folder, row["url"], data)
    assert not list(data.glob("*/happy/*.jpg"))
    assert list(data.glob("*/unhappy/*.jpg"))
    assert "happy" not in {r["label"] for r in collect_rows(folder) if r["stage"] == "kept"}


def test_forget_before_there_is_a_data_set(collected, tmp_path):
    forget(collected[1], kept_row(collected[0])["url"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_forget_what_is_not_there(collected):
    with pytest.raises(ValueError, match="No picture here has"):
        forget(collected[1], "http://nowhere.test/a.jpg")
    for nothing in ("", " "):
        with pytest.raises(ValueError, match="Say which picture"):
            forget(collected[1], nothing)


# ------------------------------------------------------------------ the command


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["dclib.scrape", *map(str, arguments)])
    main()


def test_the_command_on_the_gallery(tmp_path, monkeypatch, capsys):
    folders = tmp_path / "raw", tmp_path / "data"
    command(monkeypatch, *folders, "--sources", "gallery")
    shown = capsys.readouterr().out
    assert "Asking the gallery of drawn couples on this computer" in shown
    assert "119 kept." in shown
    assert "AUROC" in shown
    page = kept_row(collect_rows(folders[0]))["page"]
    command(monkeypatch, *folders, "--forget", page)
    assert "Removed 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "contact is '': give your own e-mail address"),
        (["--sources", "flickr"], "There is no source 'flickr'; choose gallery, or of"),
        (["--contact", "ada@uni.test", "--sources", "html"], "empty list or text as pages"),
        (["--forget", "http://a.test/"], "No picture here has"),
        (["--forget", ""], "Say which picture"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=sentence):
        command(monkeypatch, "raw", "data", *arguments)


def test_phrases_are_provided_and_then_the_readers(tmp_path, capsys):
    path = tmp_path / "mine" / "queries.toml"
    with open_sources("openverse+commons", "ada@uni.test", path) as (plan, _):
        assert len(plan) == 2 * 2 * len(load_queries(path)["happy"])
    assert "edit them there" in capsys.readouterr().out
    path.write_text('[happy]\nphrases = ["a"]\n[unhappy]\nphrases = ["b"]\n')
    with open_sources("commons", "ada@uni.test", path) as (plan, fetcher):
        assert [(source.name, *rest) for source, *rest in plan] == [
            ("commons", "happy", "a"),
            ("commons", "unhappy", "b"),
        ]
        assert "(ada@uni.test)" in fetcher.session.headers["User-Agent"]
    assert "edit them" not in capsys.readouterr().out
