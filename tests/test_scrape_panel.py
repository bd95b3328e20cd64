"""Looking through a collection: what is shown, pressed, taken out, and what goes wrong."""

import io
import shutil

import pytest
from gathering import gather
from IPython.display import HTML
from PIL import Image

from dclib.scrape import panel as panels
from dclib.scrape import queries
from dclib.scrape.collect import make_plan
from dclib.scrape.dataset import forget, make_dataset
from dclib.scrape.gallery import Gallery
from dclib.scrape.html import HtmlGallery
from dclib.scrape.manifest import Manifest
from dclib.scrape.panel import ReviewPanel, review_panel
from dclib.scrape.queries import first_look
from dclib.scrape.sources import Candidate


@pytest.fixture(scope="module")
def site():
    with Gallery(n=60) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def gathered(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gathered") / "raw"
    gather(site, folder)
    return folder


@pytest.fixture
def collection(gathered, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(gathered, tmp_path / "raw")


def kept(folder, label):
    with Manifest(folder) as manifest:
        return [row["file"] for row in manifest.rows("stage = 'kept' AND label = ?", (label,))]


def shown(panel):
    """Names of the pictures on the page, by their buttons."""
    tiles = zip(panel.tiles.children, panel.buttons, strict=True)
    return [button.tooltip for tile, button in tiles if tile.layout.display != "none"]


def test_every_kept_picture_is_shown_once_by_label(collection, monkeypatch):
    monkeypatch.setattr(panels, "AT_ONCE", 5)
    panel = review_panel(collection)
    for label in ("happy", "unhappy"):
        panel.label.value = label
        assert panel.back.disabled
        seen = shown(panel)
        while not panel.on.disabled:
            panel.on.click()
            seen += shown(panel)
        assert seen == kept(collection, label)
        assert len(seen) > 5
        assert f"of {len(seen)}" in panel.status.value
        panel.back.click()
        assert shown(panel) == seen[panel.start : panel.start + 5]
    first = Image.open(io.BytesIO(panel.pictures[0].value))
    assert first.format == "JPEG" and max(first.size) <= 300


def test_what_is_pressed_goes_from_collection_and_data_set_with_one_button(
    site, collection, monkeypatch
):
    monkeypatch.setattr(panels, "AT_ONCE", 5)
    make_dataset(collection, data := collection.parent / "data")
    panel = review_panel(collection, data)
    assert panel.remove.disabled
    panel.buttons[1].value = panel.buttons[2].value = True
    panel.on.click()
    assert not any(button.value for button in panel.buttons)
    panel.buttons[0].value = True
    panel.label.value = "unhappy"
    panel.buttons[3].value = True
    gone = [kept(collection, "happy")[place] for place in (1, 2, 5)]
    gone.append(kept(collection, "unhappy")[3])
    assert panel.pressed == set(gone)
    panel.label.value = "happy"
    assert [button.description for button in panel.buttons[:3]] == ["stays", "goes", "goes"]
    panel.buttons[1].value = False
    panel.buttons[1].value = True
    assert panel.remove.description == "Take out 4 for ever"
    panel.remove.click()
    assert "went, copies included" in panel.status.value and panel.remove.disabled
    left = {*kept(collection, "happy"), *kept(collection, "unhappy")}
    assert not left & set(gone)
    names = {path.name for path in [*data.rglob("*.jpg"), *(collection / "pool").iterdir()]}
    assert not names & set(gone) and names
    gather(site, collection)
    assert not {*kept(collection, "happy"), *kept(collection, "unhappy")} & set(gone)


def test_a_failure_is_a_sentence_and_keeps_what_is_pressed(collection):
    panel = review_panel(collection)
    panel.buttons[0].value = True
    with Manifest(collection):  # as another run has it
        panel.remove.click()
    assert "another run has this folder open" in panel.status.value
    assert "dc-error" in panel.status.value
    assert len(panel.pressed) == 1 and not panel.remove.disabled


def test_a_data_set_that_refuses_is_asked_before_anything_goes(collection):
    """A picture put there by hand: once it is moved away, the same button does it."""
    make_dataset(collection, data := collection.parent / "data")
    (data / "train" / "happy" / "mine.jpg").write_bytes(b"mine")
    panel = review_panel(collection, data)
    name = kept(collection, "happy")[0]
    panel.buttons[0].value = True
    panel.remove.click()
    assert "mine.jpg was put there by hand" in panel.status.value
    assert name in kept(collection, "happy") and (collection / "pool" / name).exists()
    (data / "train" / "happy" / "mine.jpg").unlink()
    panel.remove.click()
    assert "went, copies included" in panel.status.value
    assert not list(collection.parent.rglob(name))


def test_a_picture_that_is_gone_leaves_a_place(collection):
    (collection / "pool" / kept(collection, "happy")[0]).unlink()
    assert review_panel(collection).pictures[0].value == b""


def test_nothing_to_look_through(tmp_path):
    shown = review_panel(tmp_path / "none")
    assert isinstance(shown, HTML) and "gather one first" in shown.data
    assert not (tmp_path / "none").exists()
    with Manifest(tmp_path):
        pass
    panel = review_panel(tmp_path)
    assert isinstance(panel, ReviewPanel)
    assert "There is no picture that is happy." in panel.status.value
    assert panel.on.disabled and panel.back.disabled


def test_a_first_look_asks_each_source_once_for_each_class():
    one, two = HtmlGallery(name="one"), HtmlGallery(name="two")
    plan = make_plan(
        (one, {"happy": ["a", "b"], "unhappy": ["c", "d"]}),
        (two, {"happy": ["e"], "unhappy": ["f", "g"]}),
    )
    asked = [(source.name, label, text) for source, label, text in first_look(plan)]
    assert sorted(asked) == [
        ("one", "happy", "a"),
        ("one", "unhappy", "c"),
        ("two", "happy", "e"),
        ("two", "unhappy", "f"),
    ]


def test_the_outlook_is_a_proportion(monkeypatch):
    monkeypatch.setattr(queries, "now", lambda: "2026-01-01T10:01:20+00:00")
    begun = "2026-01-01T10:00:00+00:00"
    rows = [{"stage": "kept", "time": "2026-01-01T10:00:30+00:00"}] * 30
    rows += [{"stage": "licence", "time": "2026-01-01T10:01:00+00:00"}] * 10
    old = [{"stage": "kept", "time": "2026-01-01T09:59:59+00:00"}, {"stage": "", "time": None}]
    text = queries.outlook(rows + old, begun, [None] * 2, [None] * 60, 100)
    assert "2 searches brought 40 candidates in 80 s, of which 30 are kept" in text
    assert "at most 200 minutes and 4500 pictures" in text  # 6000 candidates, 2 s each, 3 of 4
    assert "2 candidates are here already" in queries.outlook(old, begun, [], [None], 100)


def test_several_go_together_or_not_at_all(collection):
    before = kept(collection, "happy")
    for wrong in ([before[0], "nobody.jpg"], [before[0], " "], []):
        with pytest.raises(ValueError, match=r"No picture here|Say which picture"):
            forget(collection, wrong)
    assert kept(collection, "happy") == before
    assert forget(collection, before[:2]) >= 2
    assert not {*before[:2]} & {*kept(collection, "happy")}


def test_a_picture_that_was_offered_twice_goes_with_all_that_is_known_of_it(collection):
    """By another phrase it is "listed before", and has a row of its own."""
    name = kept(collection, "happy")[0]
    with Manifest(collection) as manifest:
        (row,) = manifest.rows("file = ?", (name,))
        state = manifest.query(row["source"], "happy", "another phrase", "http://a.test/")
        again = Candidate(row["identity"], title="Ada and Ben", author="Ada")
        manifest.add_page(state, [again], None)
        (second,) = manifest.rows("title = 'Ada and Ben'")
        assert second["reason"] == "listed before"
    assert forget(collection, name) == 1
    with Manifest(collection) as manifest:
        known = [row for row in manifest.rows() if row["query"] == "another phrase"]
    assert not any(row["title"] or row["author"] or row["url"] for row in known)


def test_the_pixels_that_a_training_keeps_go_too(collection):
    make_dataset(collection, data := collection.parent / "data")
    (data / ".cache").mkdir()
    for name in ("train-64px-abc.npy", "notes.txt"):
        (data / ".cache" / name).write_bytes(b"pixels")
    forget(collection, kept(collection, "happy")[0], data)
    assert [path.name for path in (data / ".cache").iterdir()] == ["notes.txt"]
