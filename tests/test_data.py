import json
import os
import shutil
from itertools import zip_longest

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tables import write_metadata

from dclib.augment import TrainTransform
from dclib.data import (
    CLASSES,
    OUR_GROUP,
    count_seen,
    find_one,
    find_pair,
    fingerprint,
    splits_of,
    without_files,
)
from dclib.data.loading import (
    CoupleFolder,
    EpochBatches,
    EvalTransform,
    choose_pictures,
    keep,
    make_loader,
    read_boxes,
)
from dclib.data.metadata import FILE, read_table
from dclib.framing import frame_picture


def test_reads_the_folder_contract(couples):
    train = CoupleFolder(couples, "train")
    assert str(train) == "train: 24 pictures (12 happy, 12 unhappy)"
    image, label = train[0]
    assert (image.mode, image.size, label) == ("RGB", (64, 64), 0)
    assert train.labels.tolist() == [0] * 12 + [1] * 12
    assert len(set(train.column("group"))) == 12
    assert splits_of(couples) == ["train", "val", "test"]
    with pytest.raises(IndexError, match=r"There is no picture 24: .*train has 24, from 0 on"):
        train.picture(24)


def test_same_pictures_and_labels_as_torchvision(couples):
    ours, theirs = CoupleFolder(couples), torchvision.datasets.ImageFolder(couples / "train")
    assert [str(path) for path, _ in ours.samples] == [path for path, _ in theirs.samples]
    assert ours.labels.tolist() == theirs.targets


def test_class_order_is_given_not_alphabetical(couples):
    reverse = CoupleFolder(couples, classes=("unhappy", "happy"))
    assert reverse.samples[0][0].parent.name == "unhappy"
    assert reverse.labels[0] == 0


def test_without_metadata(folder):
    for path in folder.rglob("metadata.csv"):
        path.unlink()
    train = CoupleFolder(folder)
    assert len(train) == 24
    assert set(train.column("group")) == {""}


def test_unreadable_files_are_listed_and_left_out(folder, capsys):
    good = folder / "train" / "happy" / "00000.jpg"
    (good.parent / "text.jpg").write_text("not a picture")
    (good.parent / "half.jpg").write_bytes(good.read_bytes()[:-200])
    train = CoupleFolder(folder)
    assert len(train) == 24
    assert [path.name for path, _ in train.left_out] == ["half.jpg", "text.jpg"]
    out = capsys.readouterr().out
    assert "Left out of train: text.jpg is not a picture that can be read" in out
    assert "half.jpg is damaged or cut off" in out
    assert "2 left out" in str(train)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda d: shutil.rmtree(d / "train"), FileNotFoundError, "There is no folder"),
        (
            lambda d: shutil.rmtree(d / "train/happy"),
            FileNotFoundError,
            r"no folder 'happy' \(it has \['unhappy'\]",
        ),
        (
            lambda d: [p.unlink() for p in (d / "train/happy").iterdir()],
            ValueError,
            "holds no pictures",
        ),
        (
            lambda d: [p.write_text("x") for p in (d / "train/happy").iterdir()],
            ValueError,
            "can be used",
        ),
    ],
)
def test_a_folder_that_cannot_be_used(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message) as caught:
        CoupleFolder(folder)
    assert "\n" not in str(caught.value)


def test_a_group_in_two_splits(folder):
    rows, group = read_table(folder / "train" / FILE), CoupleFolder(folder, "val").groups[0]
    rows[3]["group"] = group
    write_metadata(folder / "train", rows)
    with pytest.raises(ValueError, match=rf"Group '{group}' is in train and in val: .* too good"):
        CoupleFolder(folder, "test")  # whichever split is opened


def test_fingerprint_tells_drawings_and_changes(folder, monkeypatch):
    drawn = fingerprint(folder)
    monkeypatch.chdir(folder)
    assert fingerprint(".") == drawn
    assert (drawn["kind"], drawn["n"]) == ("demo drawings", {"train": 24, "val": 6, "test": 6})
    assert fingerprint(folder) == drawn
    Image.new("RGB", (9, 9)).save(folder / "train" / "happy" / "mine.png")
    mixed = fingerprint(folder)
    assert mixed["kind"] == "photographs and drawings"
    assert mixed["sha256"] != drawn["sha256"]
    (folder / "train" / "happy" / "mine.png").rename(folder / "test" / "happy" / "mine.png")
    apart = fingerprint(folder)
    assert apart["kind"] == "photographs and drawings"
    assert apart["learned_from"] == "demo drawings"
    for path in folder.rglob("metadata.csv"):
        path.unlink()
    assert fingerprint(folder)["kind"] == "photographs"


def test_pictures_are_found_again_under_other_names_and_in_other_splits(folder, tmp_path):
    training, other = fingerprint(folder), tmp_path / "other"
    shutil.copytree(folder / "train", other / "test")
    first, second = sorted((other / "test" / "happy").glob("*.jpg"))[:2]
    Image.new("RGB", (9, 9)).save(first)
    second.rename(other / "test" / "unhappy" / "renamed.jpg")
    shutil.copy(next((folder / "val" / "happy").glob("*.jpg")), other / "test" / "happy" / "v.jpg")
    data = fingerprint(other)
    assert count_seen(training, data, ["test"]) == {"train": 23, "val": 1}
    assert count_seen(training, training, ["test"]) == {"train": 0, "val": 0}
    older = without_files(training)
    assert count_seen(older, training, ["train", "test"]) == {"train": 24, "val": 0}
    assert count_seen(older, data, ["train", "test"]) == {"train": 0, "val": 0}


# ------------------------------------------------------------------ loaders


def batches(dataset, workers, epochs=2, seed=0):
    loader = make_loader(dataset, batch_size=5, shuffle=True, seed=seed, workers=workers)
    for epoch in range(epochs):
        loader.batch_sampler.set_epoch(epoch)
        yield from loader


def test_same_batches_with_any_number_of_workers(couples):
    train = CoupleFolder(couples, transform=TrainTransform(32, seed=1))
    alone, with_two = (list(batches(train, workers)) for workers in (0, 2))
    assert len(alone) == len(with_two) == 10
    for (images, labels), (images2, labels2) in zip(alone, with_two, strict=True):
        assert torch.equal(images, images2)
        assert torch.equal(labels, labels2)


def test_epochs_and_seeds_differ_in_order(couples):
    train = CoupleFolder(couples, transform=EvalTransform(8))
    labels = [torch.cat([y for _, y in batches(train, 0, 1, seed)]) for seed in range(3)]
    assert len({tuple(y.tolist()) for y in labels}) == 3
    two = list(batches(train, 0, 2))
    assert not all(torch.equal(two[i][0], two[i + 5][0]) for i in range(5))


def test_every_picture_once_an_epoch(couples):
    train = CoupleFolder(couples)
    loader = make_loader(train, 5, shuffle=True)
    keys = [key for batch in loader.batch_sampler for key in batch]
    assert sorted(index for _, index in keys) == list(range(24))


def test_a_last_batch_of_one_is_dropped_in_training_only(couples):
    train = CoupleFolder(couples, transform=EvalTransform(8))
    assert [len(y) for _, y in make_loader(train, 23, shuffle=True)] == [23]
    assert [len(y) for _, y in make_loader(train, 23)] == [23, 1]
    assert [len(y) for _, y in make_loader(train, 5, shuffle=True)] == [5, 5, 5, 5, 4]


def test_real_couples(real_couples):
    train, val = CoupleFolder(real_couples, "train"), CoupleFolder(real_couples, "val")
    assert (len(train), len(val)) == (800, 200)
    assert fingerprint(real_couples)["kind"] == "photographs"
    assert np.asarray(train[0][0]).shape == (256, 256, 3)


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(8, 20),
    world=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_processes_share_the_batches_of_one(n, batch_size, world, seed):
    """Interleaved, the shares of all processes are the batches of one, but for a tiny last one."""
    alone = EpochBatches(n, batch_size, seed)
    shares = [EpochBatches(n, batch_size, seed, rank, world) for rank in range(world)]
    alone.set_epoch(3)
    for share in shares:
        share.set_epoch(3)
    wholes = list(alone)[: len(shares[0])]
    for batch, parts in zip(wholes, zip(*shares, strict=True), strict=True):
        assert [key for row in zip_longest(*parts) for key in row if key] == batch
        assert n < batch_size or all(parts)
    assert len(list(alone)) == len(alone)
    sizes = [alone.size(batch) for batch in range(len(alone))]
    assert sizes == [len(batch) for batch in alone]
    assert sum(sizes) >= n - 1


def test_a_batch_must_reach_all_processes():
    with pytest.raises(ValueError, match="batch_size must be at least 4, not 3"):
        EpochBatches(10, 3, world=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        EpochBatches(10, 0)


def test_loaders_leave_torchs_random_numbers_alone(couples):
    train = CoupleFolder(couples, transform=EvalTransform(8))
    before = torch.get_rng_state()
    for shuffle in (True, False):
        list(make_loader(train, 8, shuffle))
    assert torch.equal(torch.get_rng_state(), before)


class Listed:
    """As much of a `CoupleFolder` as boxes need."""

    def __init__(self, *values):
        self.values, self.ids = values, [f"test/happy/{k}.jpg" for k in range(len(values))]

    def column(self, name):
        return self.values


def test_what_a_network_looks_at_is_cut_around_the_boxes_of_metadata(couples):
    transform = EvalTransform(32, frame="faces", margin=0.2)
    train = CoupleFolder(couples, transform=transform)
    assert len(train) == 24 and train.left_out == []
    boxes = read_boxes(train)[3].tolist()
    frame = frame_picture(train.picture(3), boxes, "faces", 32, 0.2)
    assert train.framed(3).pieces == frame.pieces
    assert torch.equal(train[3][0], transform.to_tensor(frame.image))
    assert torch.equal(keep(train, [3])[0][0], train[3][0])


def test_faces_in_photographs_are_looked_for_and_boxes_count_where_none_is_found(
    folder, pair, capsys
):
    happy = folder / "train" / "happy"
    pair.save(happy / "pair.png")
    for name in ("nobody.png", "hidden.png"):
        Image.new("RGB", (90, 90), "red").save(happy / name)
    wrong, many = [[0, 0, 9, 9], [9, 9, 20, 20]], [[0, 0, 3, 3], [20, 20, 30, 30], [34, 20, 44, 30]]
    rows = read_table(folder / "train" / FILE)
    for name, boxes in (("pair.png", wrong), ("hidden.png", many)):
        row = {"file_name": f"happy/{name}", "label": "happy", "boxes": json.dumps(boxes)}
        rows.append(dict.fromkeys(rows[0], "") | row)
    write_metadata(folder / "train", rows)
    train = CoupleFolder(folder, transform=EvalTransform(32, frame="couple"))
    couples = {path.name: boxes for path, boxes in train.couples.items()}
    assert couples["hidden.png"] == many[1:]
    (a, b), width = couples["pair.png"], pair.width / 2
    assert abs(abs(a[0] - b[0]) - width) < 8  # the same face twice
    out = capsys.readouterr().out
    assert "Left out of train: 1 of 27 pictures in which two faces" in out
    assert "the setting frame='whole' takes them" in out  # as the last line shows
    assert [path.name for path, _ in train.left_out] == ["nobody.png"]
    assert "1 left out" in str(train)
    assert len(CoupleFolder(folder)) == 27  # who looks at the whole picture sees all


def test_boxes_are_those_of_metadata(couples):
    train = CoupleFolder(couples)
    faces, none = read_boxes(train), read_boxes(train, "column that is not there")
    assert [len(boxes) for boxes in faces] == [2] * 24
    assert all((boxes >= 0).all() and (boxes <= 64).all() for boxes in faces)
    assert {boxes.shape for boxes in none} == {(0, 4)}
    assert read_boxes(Listed("[[1, 2, 3.5, 4]]", "[]"))[0].tolist() == [[1, 2, 3.5, 4]]


@pytest.mark.parametrize(
    "text",
    [
        *("somewhere", "1 2 3 4", "7", "{}", "[1, 2", "[1, 2, 3, 4]", "[[1, 2, 3]]"),
        *("[[1, 2], [3, 4]]", '[["a", 1, 2, 3]]', "[[1, 2, 3, NaN]]"),
    ],
)
def test_boxes_that_cannot_be_read_are_named(text):
    with pytest.raises(ValueError, match=r"boxes of test/happy/1\.jpg .* \[x0, y0, x1, y1\], not"):
        read_boxes(Listed("[]", text))


# ------------------------------------------------------------------ parts


@pytest.fixture(scope="module")
def dataset(couples):
    """24 pictures in pairs, a happy and an unhappy one."""
    return CoupleFolder(couples, "train", EvalTransform(32))


def test_a_part_leaves_the_whole_as_it_is(dataset):
    part = keep(dataset, [6, 0, 3])
    assert part.ids == [dataset.ids[index] for index in (6, 0, 3)]
    assert len(dataset) == 24 and len(part) == len(part.groups) == len(part.labels) == 3
    assert torch.equal(part[2][0], dataset[3][0])
    with pytest.raises(IndexError):
        keep(dataset, [24])


def test_pictures_are_chosen_by_whole_groups_with_each_class_in_its_share(dataset):
    chosen = choose_pictures(dataset, 12)
    assert len(chosen) == 12 and chosen == sorted(chosen)
    assert len({dataset.groups[index] for index in chosen}) == 6
    assert dataset.labels[chosen].float().mean() == 0.5
    assert chosen == choose_pictures(dataset, 12) != choose_pictures(dataset, 12, seed=1)
    assert choose_pictures(dataset, None) == choose_pictures(dataset, 400) == list(range(24))
    with pytest.raises(ValueError, match="at least 2 pictures"):
        choose_pictures(dataset, 1)


def test_classes_keep_their_shares_where_groups_hold_one_class(tmp_path):
    for k in range(40):
        path = tmp_path / "test" / CLASSES[k % 4 > 0] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, 0, 0)).save(path)
    dataset = CoupleFolder(tmp_path, "test")
    chosen = choose_pictures(dataset, 20, seed=3)
    assert len(chosen) == 20 and dataset.labels[chosen].sum() == 15


IDS = ["happy/1.jpg", "happy/2.jpg", "unhappy/1.jpg", "unhappy/2.jpg"]


@pytest.mark.parametrize(
    "groups, couple, pair",
    [
        (["a", "b", "a", "b"], "", (0, 2)),  # the first of each class
        (["a", OUR_GROUP, "b", OUR_GROUP], "", (1, 3)),  # the one that the notebooks follow
        (["a", "b", "a", "b"], "B", (1, 3)),  # spelling is none of its business
        (["a", "b", "c", "d"], "unhappy/2.jpg", (0, 3)),  # a picture, and the first of the others
        ([""] * 4, "happy/2.jpg", (1, 2)),
    ],
)
def test_a_pair_to_look_at(groups, couple, pair):
    assert find_pair(IDS, groups, [0, 0, 1, 1], couple) == pair


@pytest.mark.parametrize(
    "groups, couple, one",
    [
        (["a", "b", "a", "b"], "", 2),  # the first unhappy one
        (["a", OUR_GROUP, "b", OUR_GROUP], "", 3),
        (["a", "b", "a", "b"], "b", 3),
        (["a", "b", "a", "b"], "happy/2.jpg", 1),  # the very one that is named
        (["a", "b", "c", "c"], "b", 1),  # a couple that is never unhappy
    ],
)
def test_one_picture_to_look_at(groups, couple, one):
    assert find_one(IDS, groups, [0, 0, 1, 1], couple) == one


def test_a_couple_that_is_not_there_is_said_with_one_that_is():
    with pytest.raises(ValueError, match=r"There is no couple 'x' here: .*such as 'a'"):
        find_pair(IDS, ["a", "b", "a", "b"], [0, 0, 1, 1], "x")
    with pytest.raises(ValueError, match=r"such as 'happy/1\.jpg'"):
        find_pair(IDS, [""] * 4, [0, 0, 1, 1], "x")


def test_no_loader_forks_a_process_that_may_have_threads(folder):
    loader = make_loader(CoupleFolder(folder, transform=EvalTransform(32)), 4, workers=1)
    way = loader.multiprocessing_context.get_start_method()
    assert way == ("forkserver" if os.name == "posix" else "spawn")
