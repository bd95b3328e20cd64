"""One folder for the series: what is chosen, told, kept and refused; Drive by a stand-in."""

import sys
import tomllib
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dclib.colab import workspace
from dclib.colab.workspace import Workspace, enter, show_next


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty current folder, outside Colab, without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DCLIB_CHOICES", raising=False)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def space():
    return Workspace(Path())


def test_at_first_all_is_drawn(space, capsys):
    use = space.use(data="", checkpoint="", preset="", contact="", source="")
    assert use == (None, "demo", None, "", "", None)
    said = capsys.readouterr().out
    assert said == (
        "Uses data: drawn couples, checkpoint: none of yours, preset: demo, contact: none, "
        "source: none (as nothing was chosen).\n"
    )
    assert not Path("workspace.toml").exists()


def test_a_gpu_or_photographs_take_the_authors_network(space, monkeypatch):
    Path("mine").mkdir()
    assert space.use(data="mine").preset == "colab"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert space.use().preset == "colab"
    assert space.use(preset="demo").preset == "demo"


def test_what_one_notebook_keeps_the_next_one_uses_unless_its_cell_says_otherwise(space, capsys):
    for name in ("data/couples", "checkpoints/mine", "other"):
        Path(name).mkdir(parents=True)
    space.keep(data=space.path("data/couples"), contact="ada@example.org", source="commons")
    space.keep(checkpoint=space.path("checkpoints/mine"), preset="paper")
    capsys.readouterr()
    asked = dict.fromkeys(("data", "checkpoint", "preset", "contact", "source"), "")
    assert Workspace(Path()).use(**asked) == (
        Path("data/couples"),
        "paper",
        Path("checkpoints/mine"),
        "ada@example.org",
        "commons",
        Path("results"),
    )
    assert said(capsys).endswith("source: commons (chosen in workspace.toml).\n")
    assert space.use(data="other", preset="").data == Path("other")
    assert said(capsys) == (
        "Uses data: other, preset: paper (chosen in this notebook's cell and workspace.toml).\n"
    )
    space.use(data="other")
    assert said(capsys) == "Uses data: other (chosen in this notebook's cell).\n"


def said(capsys):
    return capsys.readouterr().out


def test_photographs_with_the_preset_for_drawings_are_warned_of(space, capsys):
    Path("mine").mkdir()
    space.use(data="mine", preset="demo")
    assert "WARNING: the preset demo is for drawn couples" in said(capsys)


@pytest.mark.parametrize("name", ["data", "checkpoint"])
def test_what_is_named_and_not_there_is_an_error_with_two_ways_out(space, name):
    with pytest.raises(FileNotFoundError, match=f"this notebook's cell names as {name}: .* or "):
        space.use(**{name: "gone"})
    space.keep(**{name: "gone"})
    with pytest.raises(FileNotFoundError, match=rf"workspace\.toml names as {name}: .*drive"):
        space.use(**{name: ""})


@pytest.mark.parametrize(
    "text", ["data = 3", "preset = 'huge'", "data", "data = 'a'\ndata = 'b'", 'data = "a\\nb"']
)
def test_a_file_that_is_none_is_refused_in_a_sentence_and_stays(space, text):
    Path("workspace.toml").write_text(text)
    for call in (space.use, lambda: space.keep(contact="ada")):
        with pytest.raises(ValueError, match=r"^workspace\.toml cannot be used: "):
            call()
    assert Path("workspace.toml").read_text() == text


def test_only_what_a_notebook_needs_must_be_there(space):
    space.keep(data="gone", contact="ada")
    assert space.use(contact="", source="").contact == "ada"  # 01, which gathers it again
    space.keep(checkpoint="lost")
    with pytest.raises(FileNotFoundError, match="lost is not there"):
        space.use(checkpoint="")  # 07, which needs no data
    Path("lost").mkdir()
    assert space.use(checkpoint="").data is None
    Path("lost").rmdir()
    Path("gone").mkdir()
    assert space.use(data="", preset="") == (Path("gone"), "colab", None, "", "", Path("results"))


def test_other_photographs_need_another_network(space, capsys):
    space.keep(data="a", checkpoint="checkpoints/a")
    space.keep(data="a", contact="ada")
    assert space.chosen()["checkpoint"] == "checkpoints/a"
    space.keep(data="b")
    assert "checkpoints/a was trained on other pictures: it is not chosen any more" in said(capsys)
    assert space.chosen() == {"data": "b", "contact": "ada"}
    space.keep(data="c", checkpoint="checkpoints/c")
    assert space.chosen()["checkpoint"] == "checkpoints/c"


def test_the_same_folder_written_in_another_way_is_no_other(space):
    here = Path.cwd()
    space.keep(data=here / "data/mine", checkpoint=space.path("checkpoints/a"))
    assert space.chosen()["data"] == str(Path("data/mine"))
    for same in (Path("data/mine"), "data/../data/mine", str(here / "data/mine")):
        space.keep(data=same)
        assert space.chosen()["checkpoint"] == str(Path("checkpoints/a"))
    space.keep(data=here.parent / "elsewhere")
    assert space.chosen() == {"data": str(here.parent / "elsewhere")}


def test_a_file_as_windows_editors_write_it(space):
    Path("workspace.toml").write_bytes(b'\xef\xbb\xbfcontact = "ada"\r\n')
    assert space.chosen() == {"contact": "ada"}


def test_comments_and_entries_of_others_stay_when_a_notebook_keeps_something(space):
    space.choices.write_text(
        "# Ada's, with her consent\ndata = 'b' # hers\nother = 1\n'contact'='x'\n\n"
        "[mine]\ndata = 'b'\n"
    )
    space.keep(contact="ada", preset="paper")
    space.keep(data="a\u2028b")
    space.keep(data="a")
    kept = space.choices.read_text()
    assert kept == (
        "# Ada's, with her consent\nother = 1\n\n"
        'contact = "ada"\npreset = "paper"\ndata = "a"\n[mine]\ndata = \'b\'\n'
    )
    assert space.chosen() == {"data": "a", "contact": "ada", "preset": "paper"}


def test_entries_of_others_are_left_alone_and_empty_ones_are_none(space):
    Path("workspace.toml").write_text('data = ""\nmine = [1, 2]\n')
    assert space.use(data="").data is None
    assert space.chosen() == {}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_line_of_text_comes_back(tmp_path_factory, text):
    space = Workspace(tmp_path_factory.mktemp("space"))
    space.keep(contact=text)
    assert space.chosen() == {"contact": text}
    assert tomllib.loads(space.choices.read_text("utf-8"))["contact"] == text


@pytest.mark.parametrize("text", ["two\nlines", "a\x00", "\ud800"])
def test_what_is_no_line_of_text_is_refused_before_anything_is_written(space, text):
    with pytest.raises(ValueError, match="contact must be one line of text"):
        space.keep(contact=text)
    assert not Path("workspace.toml").exists()


def test_paths_are_of_the_workspace_wherever_it_is_moved(tmp_path):
    old, new = Workspace(tmp_path / "old"), Workspace(tmp_path / "new")
    old.path("data/mine").mkdir(parents=True)
    old.keep(data=old.path("data/mine"))
    old.folder.rename(new.folder)
    assert new.use(data="").data == tmp_path / "new" / "data" / "mine"
    assert new.path("/elsewhere") == Path("/elsewhere")


def test_another_file_of_choices_for_those_who_must_not_see_it(space, monkeypatch, tmp_path):
    space.keep(contact="ada")
    monkeypatch.setenv("DCLIB_CHOICES", str(tmp_path / "none.toml"))
    assert space.chosen() == {}


# ------------------------------------------------------------------ Colab


@pytest.fixture
def drive(monkeypatch, tmp_path):
    """Colab, whose Drive appears when it is mounted; `drive.answer` raises if it is refused."""
    seen = types.SimpleNamespace(mounted=[], answer=lambda: None, home=tmp_path / "drive")

    def mount(place):
        seen.mounted.append(place)
        seen.answer()
        (seen.home / "MyDrive").mkdir(parents=True, exist_ok=True)

    package = types.SimpleNamespace(drive=types.SimpleNamespace(mount=mount))
    monkeypatch.setitem(sys.modules, "google.colab", package)
    monkeypatch.setattr(workspace, "DRIVE", seen.home)
    return seen


def test_drive_is_asked_for_once_and_the_next_machine_finds_what_was_kept(drive, capsys):
    space = enter()
    assert "allow it in the window that opens" in said(capsys)
    assert space.folder == drive.home / "MyDrive" / "deepconnection"
    space.path("data/mine").mkdir(parents=True)
    space.keep(data=space.path("data/mine"))
    assert enter().use(data="").data == space.path("data/mine")
    assert drive.mounted == [str(drive.home)]
    assert "chosen there: data = data/mine" in said(capsys)


def test_no_thanks_works_too_and_says_what_is_lost(drive, capsys):
    def refuse():
        raise RuntimeError("credential propagation was unsuccessful")

    drive.answer = refuse
    assert enter().folder == Path()
    text = said(capsys)
    assert "credential propagation was unsuccessful" in text
    assert "No Drive: this machine's disk is used, which Colab will clear." in text


def test_a_clone_is_its_own_workspace_in_colab_too(drive):
    Path("dclib").mkdir()
    Path("dclib/spp.py").touch()
    assert enter().folder == Path()
    assert not drive.mounted


def test_a_computer_of_ones_own_is_not_asked_for_anything(capsys, tmp_path):
    assert enter().folder == Path()
    assert said(capsys) == f"Workspace: {tmp_path}; nothing is chosen there yet.\n"


@pytest.mark.parametrize("colab", [True, False])
def test_the_next_notebook_opens_where_this_one_came_from(monkeypatch, colab):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing: shown.append(thing.data))
    monkeypatch.setenv("DCLIB_ORIGIN", "grace/couples/blob/main")
    monkeypatch.setattr(workspace, "in_colab", lambda: colab)
    show_next("04_evaluation.ipynb")
    monkeypatch.setenv("DCLIB_ORIGIN", "")
    show_next("04_evaluation.ipynb")
    github = "https://colab.research.google.com/github/grace/couples/blob/main/notebooks/"
    file = "04_evaluation.ipynb"
    upload = f"Next: 04 evaluation (*File*, *Upload notebook*, `notebooks/{file}`)"
    assert shown == [
        f"Next: [04 evaluation]({github if colab else ''}{file})",
        upload if colab else f"Next: [04 evaluation]({file})",
    ]
