"""metadata.csv as people and their programs write it: read, or refused in a sentence."""

import csv
import io
import shutil
import unicodedata

import pytest
from PIL import Image

from dclib.data import CLASSES, check_groups, fingerprint, read_split
from dclib.data.loading import CoupleFolder
from dclib.data.metadata import COLUMNS, KNOWN, group_names

NAMES = ["happy/1.jpg", "happy/2019/b.jpg", "happy/Größe.jpg", "unhappy/1.jpg", "unhappy/c d.jpg"]


@pytest.fixture
def folder(tmp_path):
    """tmp_path/train with pictures of `NAMES`, which nobody decodes."""
    for name in NAMES:
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "train"


def text(names=NAMES, head="file_name,group", **options):
    """A table that tells each picture the group g0, g1, ..."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n", **options)
    writer.writerow(head.split(","))
    writer.writerows([name, f"g{i}"] for i, name in enumerate(names))
    return lines.getvalue()


def spelled(function):
    return text([function(name) for name in NAMES])


READ = {
    "as the files are": text(),
    "backslashes": spelled(lambda name: name.replace("/", "\\")),
    "a dot before": spelled(lambda name: f"./{name}"),
    "a dot and backslashes": spelled(lambda name: ".\\" + name.replace("/", "\\")),
    "double slashes": spelled(lambda name: name.replace("/", "//")),
    "the split before": spelled(lambda name: f"train/{name}"),
    "a whole path": spelled(lambda name: f"/mnt/ann/set/train/{name}"),
    "a whole path of Windows": spelled(lambda name: "C:\\set\\train\\" + name.replace("/", "\\")),
    "blanks at the ends": spelled(lambda name: f" {name}\u00a0"),
    "other case": spelled(str.upper),
    "decomposed letters": spelled(lambda name: unicodedata.normalize("NFD", name)),
    "bare, the label telling": "file_name,label,group\n1.jpg,happy,g0\n2019/b.jpg,,g1\n"
    "Größe.jpg,,g2\n1.jpg,Unhappy,g3\nc d.jpg,,g4\n",
    "semicolons": text(delimiter=";"),
    "tabs": text(delimiter="\t"),
    "Excel's first line": "sep=;\n" + text(delimiter=";"),
    "all in quotes": text(quoting=csv.QUOTE_ALL),
    "empty lines": "\n" + text().replace("\n", "\n\n,\n \n"),
    "columns without names": text(head="file_name,group,,").replace("g4\n", "g4,,\n"),
    "a mark of UTF-8": "\ufeff" + text(),
    "Windows' ends of lines": text().replace("\n", "\r\n"),
    "a row twice": text() + "happy/1.jpg,g0\n" + ".\\happy\\1.jpg,g0\n",
}


@pytest.mark.parametrize("spelling", READ)
def test_a_spelling_that_is_clear_is_read(folder, spelling):
    (folder / "metadata.csv").write_text(READ[spelling], encoding="utf-8", newline="")
    _, rows, notes = read_split(folder)
    assert {name: row["group"] for name, row in rows.items()} == {
        name: f"g{i}" for i, name in enumerate(NAMES)
    }
    assert {row["file_name"] for row in rows.values()} == set(NAMES)
    assert notes == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_are_clear_are_read(folder, encoding):
    (folder / "metadata.csv").write_bytes(text().encode(encoding))
    assert len(read_split(folder).rows) == len(NAMES)


def test_names_on_disk_are_normalised_too(folder):
    (folder / "happy" / "Größe.jpg").rename(
        folder / "happy" / unicodedata.normalize("NFD", "Größe.JPG ")
    )
    (folder / "metadata.csv").write_text(text(["happy/Größe.jpg"]), encoding="utf-8")
    (row,) = read_split(folder).rows.values()
    assert row["group"] == "g0"


REFUSED = {
    "no row names a picture": (text(["x.jpg", "y.jpg"]), "None of the 2 rows .* names a picture"),
    "percent signs": (text(["happy%2F1.jpg"]), "None of the 1 rows"),
    "another split": (text(["val/happy/1.jpg"]), "None of the 1 rows"),
    "out of the folder": (text(["../val/happy/1.jpg", "happy/../1.jpg"]), "None of the 2 rows"),
    "bare, in both classes": (text(["1.jpg"]), r"'1\.jpg' may be happy/1\.jpg or unhappy/1\.jpg"),
    "two rows that differ": (
        text() + "./happy/1.jpg,g9\n",
        r"two rows for happy/1\.jpg that differ",
    ),
    "too many cells": (
        text() + "happy/1.jpg,g0,Ms A, of B\n",
        "Line 7 of .* has 4 cells and 2 columns",
    ),
    "an open quote": (text() + 'happy/1.jpg,"g0\n', "cannot be read; save it as CSV"),
    "a label of the other class": ("file_name,label\nhappy/1.jpg,unhappy\n", "says unhappy"),
    "no names": ("name,age\nA,3\n", "no column file_name"),
    "two columns of one name": ("file_name,group,group\n", "two columns of one name"),
    "Latin-1": (text().encode("cp1252"), "cannot be read; save it as CSV in UTF-8, with commas"),
    "UTF-16 without its mark": (text().encode("utf-16-le"), "metadata.csv"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "cannot be read"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_not_clear_is_refused_in_a_sentence(folder, fault):
    content, sentence = REFUSED[fault]
    content = content if isinstance(content, bytes) else content.encode()
    (folder / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_split(folder)
    assert "\n" not in str(error.value)


MEANT = {
    "file_name": ["filename", "file", "File_Name", "file name", "FileName", "files"],
    "group": ["Group", "groups", " group", "group ", "GROUP", "group_id", "grup"],
    "series": ["Series", "serie"],
    "author": ["Author", "authors", "autor", "author_name"],
    "label": ["Label", "labels"],
    "licence": ["license", "Licence"],
    "page": ["Page", "pages"],
    "boxes": ["Boxes"],
}


@pytest.mark.parametrize(("meant", "name"), [(m, name) for m in MEANT for name in MEANT[m]])
def test_a_column_that_is_nearly_known_is_refused_with_the_right_name(folder, meant, name):
    head = f"{name},age" if meant == "file_name" else f"file_name,{name}"
    (folder / "metadata.csv").write_text(text(head=head))
    with pytest.raises(ValueError, match=rf"has a column '{name}'; call it {meant},"):
        read_split(folder)


def test_other_columns_are_free(folder, couples):
    """What drawn couples are told, our own columns, and a few that look like none of ours."""
    drawn = read_split(couples / "train").rows
    free = [*COLUMNS, *KNOWN, *next(iter(drawn.values())), "age", "camera", "setting", "author_url"]
    free += ["licence_url", "source_url", "filter", "text", "mask_file_name", "other", "order"]
    (folder / "metadata.csv").write_text(",".join(dict.fromkeys(free)) + "\nhappy/1.jpg\n")
    assert read_split(folder).rows["happy/1.jpg"]["group"] == ""


def test_rows_that_name_no_picture_are_counted(folder, capsys):
    (folder / "metadata.csv").write_text(text([*NAMES[:3], "happy/gone.jpg", ""]), encoding="utf-8")
    CoupleFolder(folder.parent)
    sentence = "metadata.csv: 3 of 5 rows name a picture; there is none called 'happy/gone.jpg'."
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize(
    "place",
    [
        *("metadata.jsonl", "metadata.parquet", "Metadata.csv", "metadata (1).csv", "metadata.tsv"),
        *("metadata.csv.txt", "happy/metadata.csv", "happy/2019/metadata.jsonl", "metadata.xlsx"),
        *("../metadata.csv", "../metadata.jsonl"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_metadata_that_is_not_read_is_refused(folder, place, beside):
    """What a Hugging Face imagefolder would read, or a person believe to be read."""
    if beside:
        (folder / "metadata.csv").write_text(text(), encoding="utf-8")
    (folder / place).write_text(text(), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"is not read: put what it tells into .*train/metadata\.csv"
    ):
        read_split(folder)


# ------------------------------------------------------------------ groups


def table(path, *rows):
    """A row a tuple of (file_name, group, series)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "group", "series"), *rows])


SAME = [("Wedding", " wedding "), ("Zoë", unicodedata.normalize("NFD", "zoë")), ("a  b", "A b")]
SAME += [("STRASSE", "straße"), ("g1", "g1")]


@pytest.mark.parametrize(("one", "other"), SAME)
@pytest.mark.parametrize("column", ["group", "series"])
def test_one_comparison_of_groups(folder, one, other, column):
    """When a folder is opened, in folds and in the loader; a series binds as a group does."""
    cells = [(value, "") if column == "group" else ("", value) for value in (one, other)]
    table(folder / "metadata.csv", *((NAMES[i], *cells[i]) for i in (0, 1)))
    groups = dict(zip(NAMES, CoupleFolder(folder.parent).groups, strict=True))
    assert groups[NAMES[0]] == groups[NAMES[1]]
    assert len(set(groups.values())) == len(NAMES) - 1
    shutil.copytree(folder, folder.parent / "val")
    for split, cell in zip(("train", "val"), cells, strict=True):
        table(folder.parent / split / "metadata.csv", (NAMES[0], *cell))
    with pytest.raises(ValueError, match=f"{column.title()} .* is in train and in val"):
        check_groups(folder.parent)


def test_group_and_series_bind_together():
    rows = [
        ("a", ""),
        ("a", "x"),
        ("", "X"),
        ("b", "x "),
        ("", "y"),
        ("", "Y"),
        ("", ""),
        ("n/a", ""),
    ]
    rows = [dict(zip(("group", "series"), row, strict=True)) for row in rows]
    assert group_names(rows) == ["a"] * 4 + ["series y"] * 2 + ["", ""]


def test_groups_are_the_same_in_a_part(couples):
    from dclib.data.loading import keep

    whole = CoupleFolder(couples)
    whole.rows[whole._keys[0]]["series"] = whole.rows[whole._keys[5]]["series"] = "x"
    assert keep(whole, [5, 6]).groups == whole.groups[5:7]
    assert whole.groups[0] == whole.groups[5]


def test_drawings_are_told_whatever_the_spelling(couples, tmp_path):
    """Else the sentence that a network only knows drawings would go."""
    root = shutil.copytree(couples, tmp_path / "data")
    for split in ("train", "val", "test"):
        path = root / split / "metadata.csv"
        path.write_text(path.read_text().replace("happy/", "happy\\"))
    assert fingerprint(root)["kind"] == "demo drawings"
    assert set(CLASSES) == {row["label"] for row in read_split(root / "train").rows.values()}
