"""Which files are taken: by content, whatever a name, a link, a system or a drive does."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dclib.data import fingerprint, listing, read_split
from dclib.data.listing import SUFFIXES, kind
from dclib.data.loading import CoupleFolder
from dclib.evaluate.probe import measure_pictures

NAMES = ["a.jfif", "b.jpe", "c", "d.JPG ", "e.jpg.download", "f.JPEG", "g.1", "h.txt"]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_taken_whatever_its_name(folder, name):
    happy = folder / "train" / "happy"
    (happy / "00000.jpg").rename(happy / name)
    assert len(CoupleFolder(folder)) == fingerprint(folder)["n"]["train"] == 24


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".jpeg", ".tiff", ".heic"}))
def test_every_kind_is_known_by_its_first_bytes(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (9, 9), "red").save(path)
    assert kind(path.read_bytes()[:1024]) == suffix
    assert kind(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == ".heic"
    assert not any(
        map(kind, (b"", b"BM is a company", b"GIF87", b"\0\0\0\x18ftypisom", b"\xff\xd8"))
    )


@pytest.mark.parametrize(
    "place",
    [
        *("@eaDir/00000.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/a.jpg", ".thumbnails/a.jpg"),
        *("#recycle/a.jpg", "$RECYCLE.BIN/a.jpg", "lost+found/a.jpg", "@Recycle/a.jpg"),
        *("._00000.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", ".stversions/anna/old.jpg"),
    ],
)
def test_what_systems_lay_beside_pictures_is_passed_over(folder, place):
    happy = folder / "train" / "happy"
    (happy / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(happy / "00000.jpg", happy / place)
    pictures, _, notes = read_split(folder / "train")
    assert (len(pictures), notes) == (24, [])


ODD = {
    "link to nowhere": lambda happy: (happy / "x.jpg").symlink_to(happy / "gone.jpg"),
    "link in a circle": lambda happy: (happy / "x.jpg").symlink_to(happy / "x.jpg"),
    "linked folder": lambda happy: (happy / "x").symlink_to(happy.parent),
    "pipe": lambda happy: os.mkfifo(happy / "x.jpg"),
    "notes": lambda happy: (happy / "x.txt").write_text("mine"),
    "folder of another class": lambda happy: (happy.parent / "x").mkdir(),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_picture_is_counted_and_raises_nowhere(folder, odd, capsys):
    ODD[odd](folder / "train" / "happy")
    assert len(CoupleFolder(folder)) == fingerprint(folder)["n"]["train"] == 24
    assert len(measure_pictures(folder)) == 36
    sentence = (
        f"Not looked at in {folder / 'train'}: 1 files, folders or links that are no pictures"
    )
    assert f"{sentence}, such as " in capsys.readouterr().out


def test_a_folder_with_a_pictures_name_is_a_folder(folder):
    happy = folder / "train" / "happy"
    (happy / "x.jpg").mkdir()
    shutil.copy(happy / "00000.jpg", happy / "x.jpg" / "inside.jpg")
    assert len(CoupleFolder(folder)) == fingerprint(folder)["n"]["train"] == 25


def test_a_class_may_be_a_link(folder, tmp_path):
    (folder / "train" / "happy").rename(tmp_path / "elsewhere")
    (folder / "train" / "happy").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(CoupleFolder(folder)) == 24


def test_the_fingerprint_is_of_what_is_used(folder):
    before = fingerprint(folder)
    (folder / "train" / "happy" / "broken.jpg").write_text("no picture")
    assert fingerprint(folder) == before
    assert len(CoupleFolder(folder)) == before["n"]["train"]


# ------------------------------------------------------------------ drives


def failing(monkeypatch, times, only=""):
    """Let the first reads of every file fail, as those of a mounted drive do."""
    real, left = Path.read_bytes, {}

    def read_bytes(path):
        left.setdefault(path, times)
        if only in path.name and left[path]:
            left[path] -= 1
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(listing, "PAUSES", (0, 0, None))


def test_a_read_error_that_passes_costs_no_picture(couples, folder, monkeypatch):
    before = fingerprint(couples) | {"name": "data"}
    failing(monkeypatch, 2)
    train = CoupleFolder(folder)
    assert (len(train), train.left_out) == (24, [])
    assert (read_split(folder / "train").rows, fingerprint(folder)) == (train.rows, before)
    assert train.picture(0).size == (64, 64)
    assert len(measure_pictures(folder)) == 36


@pytest.mark.parametrize("read", [CoupleFolder, fingerprint, measure_pictures])
def test_one_that_stays_stops_and_names_the_file(folder, monkeypatch, read):
    failing(monkeypatch, 3, only="00007")
    with pytest.raises(OSError, match=r"00007\.jpg cannot be read \(Input/output error\)") as error:
        read(folder)
    assert "\n" not in str(error.value)
