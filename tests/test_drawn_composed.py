import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.stats import chi2_contingency
from skimage import data

from dclib.data import CLASSES, check_groups, fingerprint, read_split
from dclib.drawn import composed
from dclib.drawn.__main__ import main
from dclib.drawn.composed import IN_COLOUR, SOURCE, compose_couple, compose_couples
from dclib.drawn.portraits import EXPRESSIONS, Portrait, cast_by_look, list_portraits, read_people
from dclib.framing.faces import find_faces, overlap
from dclib.pictures.mark import drawn_faces

SPLITS = {"train": "abc", "val": "de"}  # and who is in them


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Photographed faces: one astronaut (public domain, of NASA), who plays all people."""
    root = tmp_path_factory.mktemp("faces")
    astronaut = Image.fromarray(data.astronaut()).crop((150, 0, 300, 190))
    rows = []
    for split, people in SPLITS.items():
        for expression in EXPRESSIONS:
            for number, person in enumerate(people):
                path = root / split / expression / f"{person}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                grey = ImageOps.grayscale(astronaut).convert("RGB")
                grey.point(lambda v, n=number: v * (10 - n) // 10).save(path)
                name = path.relative_to(root).as_posix()
                rows.append([name, f"{expression} {person}", "CC0", f"of {person}"])
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "group", "licence", "author"], *rows])
    return root


@pytest.fixture(scope="module")
def root(faces, tmp_path_factory):
    return compose_couples(faces, tmp_path_factory.mktemp("set") / "composed", n=36, seed=1)


def rows_of(root, split):
    return list(csv.DictReader((root / split / "metadata.csv").read_text().splitlines()))


def all_rows(root):
    return [(split, row) for split in SPLITS for row in rows_of(root, split)]


def test_same_arguments_same_bytes(faces, root, tmp_path):
    again = compose_couples(shutil.copytree(faces, tmp_path / "moved"), tmp_path / "again", 36, 1)
    files = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
    assert len(files) == 36 + 2 + 1
    for path in files:
        assert (root / path).read_bytes() == (again / path).read_bytes(), path


def test_another_seed_other_pictures(faces, root, tmp_path):
    other = compose_couples(faces, tmp_path / "other", n=4, seed=2)
    known = {row["sha256"] for _, row in all_rows(root)}
    assert not known & {row["sha256"] for _, row in all_rows(other)}


def test_layout_and_metadata(root):
    for split, n in {"train": 32, "val": 4}.items():
        rows = rows_of(root, split)
        assert len(read_split(root / split).rows) == len(rows) == n
        assert sum(row["label"] == "happy" for row in rows) == n / 2
    for split, row in all_rows(root):
        path = root / split / row["file_name"]
        assert row["file_name"].startswith(row["label"] + "/")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert row["source"] == SOURCE and row["licence"] == "CC0" and row["url"] == ""
        assert {f"of {group[-1]}" for group in row["group"].split("+")} <= set(
            row["author"].split("; ")
        )


def test_a_network_trained_on_them_has_seen_photographs(root):
    assert fingerprint(root)["kind"] == fingerprint(root)["learned_from"] == "photographs"
    for split, row in all_rows(root):
        with Image.open(root / split / row["file_name"]) as image:
            assert drawn_faces(image) is None


def test_nobody_is_in_two_splits_and_nobody_is_with_themselves(root):
    check_groups(root)
    for split, row in all_rows(root):
        first, second = row["group"].split("+")
        assert first != second
        assert {first[-1], second[-1]} <= set(SPLITS[split])


def test_one_smile_at_least_is_happy_and_none_unhappy(root):
    smiles = {"happy": set(), "unhappy": set()}
    for _, row in all_rows(root):
        expressions = [group.split()[0] for group in row["group"].split("+")]
        smiles[row["label"]].add(expressions.count("happy"))
    assert smiles == {"happy": {1, 2}, "unhappy": {0}}


def test_faces_are_where_their_boxes_are(root):
    hits = []
    for split, row in all_rows(root):
        with Image.open(root / split / row["file_name"]) as image:
            found = find_faces(image)
            boxes = json.loads(row["boxes"])
            assert len(boxes) == 2 and boxes[0][0] < boxes[1][0]
            for x0, y0, x1, y1 in boxes:
                assert 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height
            hits += [any(overlap(box, face.box) > 0.5 for face in found) for box in boxes]
    assert np.mean(hits) > 0.8


def people(n, colour_of):
    """Portraits of `n` people of each expression."""
    return [
        Portrait(Path("x.jpg"), expression, f"{expression} {k}", "", "", (0, 0, 1, 1), colour)
        for expression in EXPRESSIONS
        for k in range(n)
        for colour in colour_of(expression, k)
    ]


def test_colour_is_independent_of_the_label():
    """Nearly all unhappy people are in colour, nearly all happy ones grey."""
    mostly = {"happy": 3, "neutral": 10, "unhappy": 17}
    everybody = people(20, lambda expression, k: [k < mostly[expression]])
    casts = cast_by_look(Path("faces"), everybody)
    rng, table = np.random.default_rng(0), np.zeros((2, 2))
    for index in range(3000):
        couple = composed._choose_couple(rng, casts, CLASSES[index % 2])
        assert couple[0].colour == couple[1].colour
        table[index % 2, int(couple[0].colour)] += 1
    assert chi2_contingency(table).pvalue > 1e-3
    assert table[:, 1].sum() / 3000 == pytest.approx(IN_COLOUR, abs=0.03)


def test_where_colour_would_tell_the_label_all_are_grey():
    """All unhappy people are in colour, all others grey."""
    everybody = people(3, lambda expression, _: [expression == "unhappy"])
    (cast,) = cast_by_look(Path("faces"), everybody)
    portraits = [p for group in cast.values() for some in group.values() for p in some]
    assert len(portraits) == 9 and not any(portrait.colour for portrait in portraits)


def test_where_all_are_in_colour_all_stay_so():
    (cast,) = cast_by_look(Path("faces"), people(2, lambda *_: [True]))
    assert all(p.colour for group in cast.values() for some in group.values() for p in some)


def test_everything_but_the_faces_is_drawn_alike_for_both_labels(faces):
    """The same lot, two other expressions: the same places of faces, the same size of picture."""
    box = (40.0, 50.0, 110.0, 140.0)

    def pair(expression):
        paths = [faces / "train" / expression / f"{person}.jpg" for person in "ab"]
        return [Portrait(path, expression, path.stem, "", "", box, False) for path in paths]

    (smiling, boxes), (blank, others) = (
        compose_couple(np.random.default_rng(3), pair(expression), pair("neutral"))
        for expression in ("happy", "unhappy")
    )
    assert boxes == others and smiling.size == blank.size


def test_another_layout_is_refused_with_the_names_that_are_wanted(faces, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/train; .*happy and neutral and unhappy"):
        compose_couples(tmp_path / "nowhere", tmp_path / "out")
    other = shutil.copytree(faces, tmp_path / "other")
    (other / "val" / "unhappy").rename(other / "val" / "anger")
    with pytest.raises(FileNotFoundError, match=r"other/val has no folder 'unhappy' .*'anger'"):
        compose_couples(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_people_are_refused(faces, tmp_path):
    alone = shutil.copytree(faces, tmp_path / "alone")
    (alone / "val" / "neutral" / "d.jpg").unlink()
    with pytest.raises(ValueError, match=r"two people at least.*val/neutral shows 1"):
        compose_couples(alone, tmp_path / "out", n=4)
    table = (alone / "metadata.csv").read_text()
    (alone / "metadata.csv").write_text(
        table.replace("happy b", "happy a").replace("happy c", "happy a")
    )
    with pytest.raises(ValueError, match="train/happy shows 1"):
        compose_couples(alone, tmp_path / "out", n=4)


def test_a_person_in_two_splits_is_refused(faces, tmp_path):
    both = shutil.copytree(faces, tmp_path / "both")
    table = (both / "metadata.csv").read_text()
    (both / "metadata.csv").write_text(table.replace("neutral d", "Neutral  A"))
    with pytest.raises(ValueError, match=r"'neutral a' .* is in train and in val"):
        compose_couples(both, tmp_path / "out", n=4)


def test_rows_that_name_no_picture_are_told_and_looked_at(faces, tmp_path, capsys):
    """A mistyped name hides nobody who is in two splits."""
    lost = shutil.copytree(faces, tmp_path / "lost")
    table = (lost / "metadata.csv").read_text()
    table = table.replace("/d.jpg", "/d d.jpg").replace("/e.jpg", "/e e.jpg")
    (lost / "metadata.csv").write_text(table)
    rows = read_people(lost, list_portraits(lost))
    said = f"{lost / 'metadata.csv'}: 9 of 15 rows name a picture; there is none called "
    assert capsys.readouterr().out == f"{said}'val/happy/d d.jpg'.\n"
    assert rows["val/happy/d.jpg"]["group"] == "val/happy/d.jpg"
    for spelled in ("val/neutral/d d.jpg", r"C:\train\faces\Val\neutral\d d.jpg"):
        both = table.replace("neutral d", "happy a").replace("val/neutral/d d.jpg", spelled)
        (lost / "metadata.csv").write_text(both)
        with pytest.raises(ValueError, match=r"'happy a' .* is in train and in val"):
            read_people(lost, list_portraits(lost))


def test_what_else_lies_in_a_folder_of_faces_is_told_or_refused(faces, tmp_path, capsys):
    more = shutil.copytree(faces, tmp_path / "more")
    shutil.copytree(more / "val" / "neutral", more / "val" / "surprised")
    list_portraits(more)
    what = "1 files, folders or links that are no pictures, such as surprised"
    assert capsys.readouterr().out == f"Not looked at in {more / 'val'}: {what}.\n"
    (more / "metadata.csv").rename(more / "metadata.xlsx")
    with pytest.raises(ValueError, match=r"metadata\.xlsx is not read: put what it tells into"):
        list_portraits(more)


def test_pictures_without_a_face_are_counted(faces, tmp_path, capsys):
    some = shutil.copytree(faces, tmp_path / "some")
    Image.new("RGB", (200, 200), "grey").save(some / "train" / "happy" / "wall.jpg")
    (some / "train" / "happy" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    compose_couples(some, tmp_path / "out", n=4)
    said = capsys.readouterr().out
    assert said == "Left out of train: 2 of 11 pictures, with no face found.\n"


def test_the_target_is_looked_at_before_the_faces(faces, root, tmp_path, monkeypatch):
    monkeypatch.setattr("dclib.drawn.portraits.find_faces", None)  # nobody calls it
    assert compose_couples(faces, root, n=36, seed=1) == root
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for target in (root, tmp_path / "full"):
        with pytest.raises(FileExistsError, match="holds something else"):
            compose_couples(faces, target, n=12)
    with pytest.raises(ValueError, match="n is 3, but 2 splits need at least 4"):
        compose_couples(faces, tmp_path / "out", n=3)
    lost = shutil.copytree(root, tmp_path / "lost")
    next(lost.rglob("*.jpg")).unlink()
    with pytest.raises(FileExistsError, match="lost holds only some of its pictures"):
        compose_couples(faces, lost, n=36, seed=1)
    monkeypatch.setattr("dclib.drawn.composed.COMPOSER", 99)
    with pytest.raises(FileExistsError, match="holds older pictures; delete it"):
        compose_couples(faces, root, n=36, seed=1)


def test_command_line(faces, tmp_path, capsys, monkeypatch):
    command = ["drawn", str(tmp_path / "out"), "--faces", str(faces), "--n", "8"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: train 6, val 2 composed pictures\n"
    monkeypatch.setattr(sys, "argv", [*command, "--size", "64"])
    with pytest.raises(SystemExit):
        main()
    assert "--size and --shortcut are for drawings" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["drawn", str(tmp_path / "out"), "--faces", str(tmp_path)])
    with pytest.raises(SystemExit, match="each with happy and neutral and unhappy"):
        main()


def test_with_photographs_of_many_people(tmp_path):
    shared = Path(__file__).parents[2] / "shared" / "faces"
    if not shared.is_dir():
        pytest.skip("there are no photographed faces beside the project")
    for path in shared.glob("*/*"):
        (tmp_path / "faces" / path.relative_to(shared)).mkdir(parents=True)
        for picture in sorted(path.iterdir())[::40]:
            shutil.copy(picture, tmp_path / "faces" / picture.relative_to(shared))
    shutil.copy(shared / "metadata.csv", tmp_path / "faces" / "metadata.csv")
    root = compose_couples(tmp_path / "faces", tmp_path / "out", n=24)
    assert fingerprint(root)["n"] == {"train": 22, "val": 2}
    check_groups(root)
