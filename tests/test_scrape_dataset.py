import csv
import errno
import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from dclib.data import CLASSES, SPLITS, check_groups, read_split
from dclib.data.loading import CoupleFolder
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.scrape import dataset
from dclib.scrape.__main__ import main
from dclib.scrape.dataset import (
    COLUMNS,
    MARK,
    claim,
    read_folder,
    split_folder,
    write_dataset,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # meant

N = 40


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """source/{happy,unhappy}: 40 drawn couples, no two of which belong together."""
    root = tmp_path_factory.mktemp("drawings") / "source"
    for index in range(N):
        path = root / CLASSES[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_scene(sample_scene(5, index)[0], 128).save(path)
    return root


@pytest.fixture
def source(drawings, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(drawings, tmp_path / "source")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for i in range(30):
        (folder / f"{i}.jpg").write_bytes(b"picture %d" % i)
    return folder


def some(pool, *numbers):
    return [place(pool, i) for i in range(*numbers)]


def place(pool, i, **more):
    row = {"path": pool / f"{i}.jpg", "file": f"{i}.jpg", "sha256": f"{i:064x}", "group": f"g{i}"}
    return row | {"label": CLASSES[i % 2], "split": SPLITS[i // 2 % 3]} | more


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def inodes(root):
    stats = {path: path.stat() for path in root.glob("*/*/*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def cells(root):
    """{sha256: row of metadata.csv, with its split}."""
    rows = [(row, split) for split in SPLITS for row in read_split(root / split).rows.values()]
    return {row["sha256"]: row | {"split": split} for row, split in rows}


def splits_in(root):
    return {key: row["split"] for key, row in cells(root).items()}


def test_what_was_written_is_what_training_reads(source, tmp_path):
    report = split_folder(source, tmp_path / "data")
    sets = {split: CoupleFolder(tmp_path / "data", split) for split in SPLITS}
    assert {split: len(data) for split, data in sets.items()} == {"train": 28, "val": 6, "test": 6}
    for line, split in zip(report.splitlines(), SPLITS):
        assert line.startswith(f"{split}: {len(sets[split])} pictures (")
    check_groups(tmp_path / "data")
    for split, data in sets.items():
        assert set(data.column("source")) == {"source"}
        for path, _ in data.samples:
            row = data.rows[path.relative_to(tmp_path / "data" / split).as_posix()]
            assert tuple(row) == COLUMNS
            assert int(row["bytes"]) == path.stat().st_size
            assert (row["width"], row["height"]) == ("128", "128")
            assert row["sha256"].startswith(path.stem)
    pictures = {path.read_bytes() for path in source.rglob("*.jpg")}
    copied = {path.read_bytes() for path in (tmp_path / "data").rglob("*.jpg")}
    assert copied == pictures


def test_a_set_grows_without_moving_a_file(source, tmp_path):
    data = tmp_path / "data"
    held_back = [source / CLASSES[i % 2] / f"{i}.jpg" for i in range(30, N)]
    for path in held_back:
        path.rename(tmp_path / path.name)
    split_folder(source, data)
    before, splits = inodes(data), splits_in(data)
    for path in held_back:
        (tmp_path / path.name).rename(path)
    split_folder(source, data, seed=1)
    assert inodes(data).items() > before.items()
    assert splits_in(data).items() > splits.items()
    assert len(splits_in(data)) == N


def test_what_no_row_names_any_more_goes(pool, tmp_path):
    data = write_dataset(some(pool, 12), tmp_path / "data")
    (data / "train" / "happy" / ".ipynb_checkpoints").mkdir()
    (data / "notes" / "of" / "mine").mkdir(parents=True)
    write_dataset(some(pool, 6), data)
    assert {p.name for p in data.glob("*/*/*") if p.is_file()} == {f"{i}.jpg" for i in range(6)}
    assert (data / "notes" / "of" / "mine").is_dir()
    assert set(read_split(data / "train").rows) == {"happy/0.jpg", "unhappy/1.jpg"}
    assert all((pool / f"{i}.jpg").exists() for i in range(12))  # originals stay


def test_a_picture_put_there_by_hand_is_refused_and_left_alone(pool, tmp_path):
    """It is in no group, so nobody knows what it shares with the other splits."""
    data = write_dataset(some(pool, 6), tmp_path / "data")
    (data / "train" / "happy" / "notes.txt").write_text("mine")
    write_dataset(some(pool, 8), data)
    assert (data / "train" / "happy" / "notes.txt").read_text() == "mine"
    mine = data / "train" / "happy" / "mine.JPG"
    mine.write_bytes((pool / "11.jpg").read_bytes())
    before = tree(data)
    with pytest.raises(FileExistsError, match=r"mine\.JPG was put there by hand.*move it away"):
        write_dataset(some(pool, 4), data)
    assert tree(data) == before
    mine.unlink()
    write_dataset(some(pool, 4), data)
    assert len(list(data.glob("*/*/*.jpg"))) == 4


@pytest.mark.parametrize("name", ["data/holiday.jpg", f"data/{MARK}", "source"])
def test_a_folder_of_somebody_else_is_refused_and_left_alone(name, source, tmp_path):
    """Nor is a data set written over its own source."""
    (tmp_path / "data" / "train" / "happy").mkdir(parents=True)
    data = source
    if name != "source":
        data = tmp_path / "data"
        for path in (tmp_path / name, data / "train" / "happy" / "1.jpg"):
            path.write_text('{"labels": []}')
    before = tree(data)
    with pytest.raises(FileExistsError, match="holds something else; choose another folder"):
        split_folder(source, data)
    with pytest.raises(FileExistsError, match="holds something else"):
        write_dataset([], data)
    assert tree(data) == before


OURS = {"version": "0" * 64, "n": 1}
PLACES = ("../victim", "/victim", "..", ".", "", "notes", 1)
MARKS = [
    *({"splits": {"a.jpg": place}} for place in PLACES),
    *({"splits": {name: "train"}} for name in ("../a.jpg", "b/../../a.jpg", "c\\a.jpg", ".a", "")),
    *({"splits": splits} for splits in (["a.jpg"], "train", None)),
    {"splits": {"a.jpg": "train"}, "version": 1},
    {"splits": {"a.jpg": "train"}, "tables": 1},
]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_that_is_not_ours_removes_nothing(mark, pool, tmp_path):
    """A folder that came with a dataset.json of somebody else."""
    data = tmp_path / "data"
    for path in (tmp_path / "victim" / "a.jpg", data / "notes" / "a.jpg", data / "train" / "a.jpg"):
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    (data / MARK).write_text(json.dumps(OURS | mark))
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="holds something else; choose another folder"):
        write_dataset(some(pool, 6), data)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("more", [{"file": "../../x.jpg"}, {"file": "/x.jpg"}, {"split": ".."}])
def test_a_row_that_leads_elsewhere_is_refused(more, pool, tmp_path):
    with pytest.raises(ValueError, match="must be a bare name"):
        write_dataset([place(pool, 0, **more)], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_what_is_not_ours_stays_where_all_of_ours_goes(pool, tmp_path):
    data = write_dataset(some(pool, 6), tmp_path / "data")
    names = ["test/extra/4.jpg", "test/happy/notes.txt", "test/notes.txt", "train/happy/a.part"]
    for name in names:
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text("mine")
    write_dataset(some(pool, 2), data)
    assert sorted(key for key, content in tree(data).items() if content == b"mine") == names
    assert not (data / "val").exists() and not (data / "test" / "metadata.csv").exists()


def test_a_table_that_a_person_changed_is_not_written_over(pool, tmp_path):
    data = write_dataset(some(pool, 6), tmp_path / "data")
    table = data / "test" / "metadata.csv"
    table.write_text(table.read_text().replace("title", "boxes"))
    before = tree(data)
    for rows in (some(pool, 8), some(pool, 4)):
        with pytest.raises(FileExistsError, match=r"test/metadata\.csv was changed by hand"):
            write_dataset(rows, data)
        assert tree(data) == before
    table.rename(tmp_path / "mine.csv")
    write_dataset(some(pool, 8), data)


def test_a_second_process_is_refused_in_a_sentence(source, tmp_path):
    data = tmp_path / "data"
    split_folder(source, data)
    before = tree(data)

    def second():
        with pytest.raises(RuntimeError, match=r"Another process writes .*data: wait"):
            split_folder(source, data, seed=1)

    with claim(data):
        assert in_child(second)
    assert tree(data) == before


def test_a_full_disk_ends_in_a_sentence_and_loses_nothing(pool, tmp_path, monkeypatch):
    rows, data, real = some(pool, 12), tmp_path / "data", Path.write_bytes
    monkeypatch.setattr(os, "link", no_links)
    for n in range(12):
        full = itertools.count()

        def write_bytes(path, content, n=n, full=full):
            if path.suffix == ".jpg" and next(full) == n:
                real(path, content[:3])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(path, content)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(OSError, match=r"\.jpg cannot be written \(No space left on device\)"):
            write_dataset(rows, data / f"{n}")
        assert not list((data / f"{n}").rglob(".*"))  # no half picture keeps the disk full
    monkeypatch.setattr(Path, "write_bytes", real)
    expected = tree(write_dataset(rows, tmp_path / "undisturbed"))
    assert all(tree(write_dataset(rows, data / f"{n}")) == expected for n in range(12))


def test_where_nothing_can_be_written_no_picture_is_read(source, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "read_folder", None)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "data", tmp_path / "file", Path("/proc/data")):
        with pytest.raises(OSError, match=r"cannot be written|holds something else"):
            split_folder(source, place)

    def read_only(path, *args, **more):
        if not path.exists():
            raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OSError, match=r"data.* cannot be written \(Read-only file system\)"):
        split_folder(source, tmp_path / "data")


FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"]
HARMLESS = ["", "Jane Doe", "a=b", 'quote " and , comma', "line\nbreak", "Zoë 💔", "'quoted'"]


def test_no_cell_is_a_formula_and_the_rest_comes_back_as_it_was(pool, tmp_path):
    texts = FORMULAS + HARMLESS
    rows = [place(pool, i, author=t, title=t, split="train") for i, t in enumerate(texts)]
    data = write_dataset(rows, tmp_path / "data")
    found = read_split(data / "train").rows
    for i, text in enumerate(texts):
        row = found[f"{CLASSES[i % 2]}/{i}.jpg"]
        assert row["author"] == row["title"] == (f"'{text}" if text in FORMULAS else text)
    with (data / "train" / "metadata.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in row)


def no_links(*args):
    raise OSError(18, "Invalid cross-device link")


def test_pictures_are_links_or_where_that_cannot_be_done_copies(pool, tmp_path, monkeypatch):
    linked = write_dataset(some(pool, 6), tmp_path / "linked")
    monkeypatch.setattr(os, "link", no_links)
    copied = write_dataset(some(pool, 6), tmp_path / "copied")
    assert tree(copied) == tree(linked)
    assert os.path.samefile(linked / "train" / "happy" / "0.jpg", pool / "0.jpg")
    assert not os.path.samefile(copied / "train" / "happy" / "0.jpg", pool / "0.jpg")


def in_child(work):
    """Run `work` in a child process; True if it came to its end."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


def dying(n):
    """A function that kills this process when it is called for the nth time."""
    calls = itertools.count(1)
    return lambda: next(calls) == n and os.kill(os.getpid(), signal.SIGKILL)


def killed_at_line(n, work):
    """`work` that dies when dclib.scrape.dataset comes to its nth line."""
    die = dying(n)

    def trace(frame, event, _):
        if frame.f_code.co_filename != dataset.__file__:
            return None
        if event == "line":
            die()
        return trace

    def traced():
        sys.settrace(trace)
        work()

    return traced


@pytest.mark.parametrize("linked", [True, False])
def test_a_kill_at_many_lines_of_writing_changes_nothing(linked, pool, tmp_path, monkeypatch):
    """A set that grows by two pictures and loses two."""
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    old = some(pool, 6)
    new = some(pool, 2, 8)
    expected = tree(write_dataset(new, write_dataset(old, tmp_path / "undisturbed")))
    for kills in range(1, 10**6):
        data = tmp_path / f"{kills}"
        write_dataset(old, data)
        ended = in_child(killed_at_line(9 * kills, lambda d=data: write_dataset(new, d)))
        for path in data.rglob("*.jpg"):  # no half pictures under their own names
            if not path.name.startswith("."):
                assert path.read_bytes() == (pool / path.name).read_bytes()
        assert tree(write_dataset(new, data)) == expected
        if ended:
            break
    assert kills > 15


def killed_before(name, n, work):
    """`work` that dies before its nth call of os.<name>."""
    real, die = getattr(os, name), dying(n)

    def counted():
        setattr(os, name, lambda *args: die() or real(*args))  # in the child only
        work()

    return counted


def test_a_kill_before_the_first_file_leaves_a_folder_that_is_ours(pool, tmp_path):
    rows, data = some(pool, 6), tmp_path / "data"
    assert not in_child(killed_before("replace", 1, lambda: write_dataset(rows, data)))
    assert [path.name[:7] for path in data.iterdir()] == [".dclib-"]
    write_dataset(rows, data)
    assert len(list(data.glob("*/*/*.jpg"))) == 6


@pytest.mark.parametrize("n", [1, 7, 25, N])
def test_a_kill_while_pictures_are_linked_does_not_divide_the_rest_anew(n, source, tmp_path):
    expected, killed = split_folder(source, tmp_path / "data"), tmp_path / "killed"
    assert not in_child(killed_before("link", n, lambda: split_folder(source, killed)))
    assert len(list(killed.glob("*/*/*.jpg"))) == n - 1
    assert split_folder(source, killed) == expected
    assert tree(killed) == tree(tmp_path / "data")


@pytest.fixture
def messy(source):
    """Drawn couples with what folders of one's own have: copies, damage, authors."""
    shutil.copy(source / "happy" / "0.jpg", source / "happy" / "again.jpg")
    ImageOps.mirror(Image.open(source / "happy" / "2.jpg")).save(source / "happy" / "mirrored.jpg")
    Image.open(source / "happy" / "4.jpg").save(source / "unhappy" / "both.png")
    Image.new("RGB", (300, 300), "white").save(source / "happy" / "white.png")
    (source / "unhappy" / "half.jpg").write_bytes((source / "unhappy" / "1.jpg").read_bytes()[:900])
    (source / "unhappy" / "gone.jpg").symlink_to(source / "nowhere.jpg")
    rows = [{"file_name": f"{CLASSES[i % 2]}/{i}.jpg", "author": "@ms_six"} for i in range(6, 12)]
    rows += [{"file_name": f"{CLASSES[i % 2]}/{i}.jpg", "group": "wedding"} for i in range(12, 16)]
    with (source / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("file_name", "author", "group"))
        writer.writeheader()
        writer.writerows(rows)
    return source


def test_a_folder_of_ones_own(messy, tmp_path, capsys):
    data = tmp_path / "data"
    report = split_folder(messy, data)
    out = capsys.readouterr().out
    assert "Left out: half.jpg is damaged or cut off" in out
    assert "1 files, folders or links that are no pictures, such as unhappy/gone.jpg" in out
    assert "Left out: white.png has nothing in it, one colour or close to it." in out
    both = f"Left out, in both classes: {messy / 'happy/4.jpg'}, {messy / 'unhappy/both.png'}"
    assert both in out
    assert out.count("Left out") == 3
    rows = {row["path"].name: row for row in read_folder(messy)}
    found = cells(data)
    assert len(found) == N  # without 4.jpg, with mirrored.jpg

    def group(name):
        return found[rows[name]["sha256"]]["group"], found[rows[name]["sha256"]]["split"]

    assert group("2.jpg") == group("mirrored.jpg")
    assert len({group(f"{i}.jpg") for i in range(6, 12)}) == 1
    assert len({group(f"{i}.jpg") for i in range(12, 16)}) == 1
    assert group("6.jpg")[0] != group("12.jpg")[0]
    assert found[rows["6.jpg"]["sha256"]]["author"] == "'@ms_six"
    assert f"{N - 1 - 5 - 3} groups, the largest has 6 of {N} pictures." in report
    for split in SPLITS:
        CoupleFolder(data, split)
    before, places = tree(data), inodes(data)
    split_folder(messy, data)
    assert (tree(data), inodes(data)) == (before, places)


SPELLINGS = [lambda name: name.replace("/", "\\"), lambda name: f"./{name}", str.upper]
SPELLINGS += [lambda name: name.rpartition("/")[2], lambda name: f"C:\\a\\source\\{name}"]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("columns", [("author",), ("group",), ("series",), ("series", "group")])
def test_no_group_is_in_two_splits_whatever_the_spelling(spell, columns, source, tmp_path):
    """Twelve of each column; where there are two, they cross."""
    names = [f"{CLASSES[i % 2]}/{i}.jpg" for i in range(N)]
    rows = [[spell(name), f"{columns[0]} {i // 3 % 12}"] for i, name in enumerate(names)]
    if len(columns) > 1:
        rows = [[*row, f"{'Day' if i % 2 else 'DAY '} {i // 6}"] for i, row in enumerate(rows)]
    with (source / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", *columns), *rows])
    split_folder(source, tmp_path / "data")
    hashes = {row["sha256"]: int(row["path"].stem) for row in read_folder(source)}
    where = {hashes[key]: split for key, split in splits_in(tmp_path / "data").items()}
    for column in range(1, len(columns) + 1):
        for value in {row[column].casefold() for row in rows}:
            assert len({where[i] for i in range(N) if rows[i][column].casefold() == value}) == 1


def test_copies_are_bound_by_what_each_is_told(source, tmp_path):
    """The same bytes twice, by two authors: all pictures of both stay together."""
    shutil.copy(source / "happy" / "0.jpg", source / "happy" / "again.jpg")
    (source / "metadata.csv").write_text(
        "file_name,author\nhappy/0.jpg,A\nhappy/again.jpg,B\nhappy/2.jpg,A\nhappy/4.jpg,B\n"
    )
    report = split_folder(source, tmp_path / "data")
    assert f"{N - 2} groups, the largest has 3 of {N} pictures." in report
    assert "left out" not in report
    assert len(cells(tmp_path / "data")) == N


def test_pictures_of_any_name_and_links_to_pictures_are_taken(source, tmp_path, capsys):
    happy = source / "happy"
    (happy / "0.jpg").rename(happy / "no end")
    (happy / "2.jpg").rename(happy / "2.jfif")
    (happy / "4.jpg").rename(tmp_path / "4.jpg")
    (happy / "4.jpg").symlink_to(Path("..", "..", "4.jpg"))  # a link to it would lead nowhere
    split_folder(source, tmp_path / "data")
    assert {path.suffix for path in (tmp_path / "data").glob("*/*/*")} == {".jpg"}
    assert sum(len(CoupleFolder(tmp_path / "data", split)) for split in SPLITS) == N
    (happy / "4.jpg").unlink()
    split_folder(source, tmp_path / "data")
    assert "1 pictures go from " in capsys.readouterr().out


def test_a_picture_that_changes_its_class_stays_in_its_split(source, tmp_path):
    split_folder(source, tmp_path / "data")
    before, splits = cells(tmp_path / "data"), splits_in(tmp_path / "data")
    (source / "happy" / "0.jpg").rename(source / "unhappy" / "moved.jpg")
    split_folder(source, tmp_path / "data")
    after = cells(tmp_path / "data")
    changed = [key for key in before if after[key]["label"] != before[key]["label"]]
    assert [after[key]["label"] for key in changed] == ["unhappy"]
    assert splits_in(tmp_path / "data") == splits
    assert len(list((tmp_path / "data").glob("*/*/*.jpg"))) == N


def keep(n):
    return lambda source, _: [p.unlink() for p in sorted((source / "happy").iterdir())[n:]]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda source, _: shutil.rmtree(source), "There is no folder"),
        (lambda source, _: shutil.rmtree(source / "happy"), "has no folder 'happy'"),
        (keep(0), "happy holds no pictures"),
        (keep(2), "would have no happy picture: there are too few pictures"),
        (lambda source, _: (source / "metadata.csv").write_text("a\n1\n"), "no column file_name"),
        (lambda _, data: (data.mkdir(), (data / "x").touch()), "holds something else"),
        (lambda _, data: data.touch(), "data"),
        (lambda source, data: data.symlink_to(source / "happy"), "holds something else"),
        (lambda source, data: data.symlink_to(source / "new"), "lies in .*, which is divided"),
    ],
)
def test_the_command_ends_with_a_sentence(spoil, sentence, source, tmp_path, monkeypatch):
    spoil(source, tmp_path / "data")
    monkeypatch.setattr(sys, "argv", ["", "--divide", str(source), str(tmp_path / "data")])
    with pytest.raises(SystemExit, match=sentence) as error:
        main()
    assert "\n" not in str(error.value)


def test_the_command_divides_and_reports(source, tmp_path, monkeypatch, capsys):
    command = ["", "--divide", str(source), str(tmp_path / "data"), "--seed", "3"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    out = capsys.readouterr().out
    assert "train: 28 pictures (14 happy, 14 unhappy)" in out
    assert out.endswith("No picture, author, series or page is in two splits.\n")
    split_folder(source, tmp_path / "same", seed=3)
    assert tree(tmp_path / "same") == tree(tmp_path / "data")
