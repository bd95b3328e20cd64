"""Training with a cache is training without one, whatever happens to files, disks and processes."""

import errno
import inspect
import io
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, features

from dclib import framing, pictures
from dclib.augment import TrainTransform
from dclib.augment.tensor import TensorTransform
from dclib.data import fingerprint, splits_of
from dclib.data.loading import CoupleFolder, EvalTransform, make_loader
from dclib.pictures import colour, heif
from dclib.train import cache as cache_module
from dclib.train.cache import RESERVE, build_cache

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # meant

TRANSFORMS = [EvalTransform, TrainTransform, TensorTransform]
N = 24


@pytest.fixture
def folder(couples, tmp_path):
    """A copy of the drawn couples that a test may spoil: 24 train, 64 px."""
    return shutil.copytree(couples, tmp_path / "data", ignore=shutil.ignore_patterns(".cache"))


def cached(folder, transform=None):
    train = CoupleFolder(folder, transform=transform or EvalTransform(32))
    build_cache(train)
    return train


def items(dataset, epochs=2):
    """All items of some epochs, as bytes."""
    keys = [(epoch, index) for epoch in range(epochs) for index in range(len(dataset))]
    return [(*_bytes(inputs), label) for inputs, label in map(dataset.__getitem__, keys)]


def _bytes(inputs):
    """Of a tensor, or of the pixels and the key that a `TensorTransform` gives."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    return [(tensor.shape, tensor.numpy().tobytes()) for tensor in tensors]


def same(dataset):
    """Whether a data set gives what one without caches gives."""
    plain = CoupleFolder(dataset.root, dataset.split, dataset.transform, dataset.classes)
    return items(dataset) == items(plain)


def files(folder):
    return sorted((folder / ".cache").iterdir())


def forget_pictures(folder):
    """From here on only a cache can give them."""
    for path in folder.glob("train/*/*"):
        path.unlink()


@pytest.mark.parametrize("make", TRANSFORMS)
@pytest.mark.parametrize("size", [32, 100])  # smaller and larger than the pictures
def test_items_are_the_same_bit_for_bit_with_and_without_a_cache(folder, make, size):
    transform = make(size)
    without = items(CoupleFolder(folder, transform=transform))
    train = cached(folder, transform)
    forget_pictures(folder)
    assert items(train) == without
    assert len(set(without)) >= N


@pytest.mark.parametrize("make", TRANSFORMS)
def test_a_picture_that_has_its_size_stays_as_it_is(make):
    for size in (1, 2, 7, 64):
        pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
        assert np.array_equal(make(size).resize(Image.fromarray(pixels)), pixels)


def odd_picture(kind, width, height, rng):
    """A file that is not plain 8-bit RGB: (its name's end, bytes)."""
    rgba = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8))
    options = {"format": "PNG"}
    if kind == "turned":
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = int(rng.integers(2, 9))
        image, options = rgba.convert("RGB"), {"format": "JPEG", "exif": exif}
    elif kind == "16 bit":
        image = Image.fromarray(rng.integers(0, 2**16, (height, width), np.uint16))
    elif kind == "CMYK":
        image, options = rgba.convert("RGB").convert("CMYK"), {"format": "JPEG"}
    else:
        image = rgba.convert({"grey": "L", "palette": "P", "bitmap": "1"}.get(kind, kind))
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return options["format"].lower(), buffer.getvalue()


KINDS = ("grey", "LA", "RGBA", "palette", "bitmap", "turned", "16 bit", "CMYK")


@settings(max_examples=25)
@given(
    side=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.integers(1, 70),
    seed=st.integers(0, 2**16),
)
def test_odd_pictures_are_the_same_too(side, size, seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as root:
        for label in ("happy", "unhappy"):
            (Path(root) / "train" / label).mkdir(parents=True)
            for kind in KINDS:
                suffix, data = odd_picture(kind, *side, rng)
                (Path(root) / "train" / label / f"{kind}.{suffix}").write_bytes(data)
        train = CoupleFolder(root, transform=EvalTransform(size))
        without = items(train, 1)
        build_cache(train)
        forget_pictures(Path(root))
        assert len(train) == 2 * len(KINDS)
        assert items(train, 1) == without


def test_the_file_is_what_numpy_writes(folder, monkeypatch):
    monkeypatch.setattr(cache_module, "CHUNK", 5)
    train = cached(folder)
    (file,) = files(folder)
    pixels = np.load(file)
    assert (pixels.shape, pixels.dtype) == ((N, 32, 32, 3), np.uint8)
    resize = train.transform.resize
    assert all(np.array_equal(pixels[i], resize(train.picture(i))) for i in range(N))
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    assert file.read_bytes() == buffer.getvalue()


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_what_is_cut_out_around_faces_is_the_same_too(folder, kind):
    train = cached(folder, kind(32, frame="faces", margin=0.2))
    assert len(train.couples) == N and same(train)
    path = train.samples[0][0]
    train.couples[path] = [[0, 0, 20, 20], [30, 30, 60, 60]]  # others: another cache
    build_cache(train)
    assert len(files(folder)) == 1
    cut = train.transform.cut(train.picture(0), train.couples[path]).image
    assert np.array_equal(np.asarray(train.caches[path][path].image), np.asarray(cut))


def test_what_wants_another_size_is_decoded(folder):
    train = cached(folder)
    assert train.picture(0).size == (64, 64)
    train.transform = EvalTransform(40)
    assert same(train)
    train.transform = None
    assert train[0][0].size == (64, 64)


def test_other_samples_meet_their_own_pictures(folder):
    train = cached(folder)
    new = folder / "train" / "happy" / "new.png"
    Image.new("RGB", (9, 9), "red").save(new)
    reverse = [(new, 0), *train.samples[::-1]]
    plain = CoupleFolder(folder, transform=train.transform)
    plain.samples = train.samples = reverse
    assert items(train) == items(plain)


def test_a_second_run_reads_and_stays_silent(folder, capsys, monkeypatch):
    cached(folder)
    first = capsys.readouterr().out.splitlines()
    assert first == [f"Decoded 24 pictures at 32 px into {folder}/.cache (0 MB)"]
    before = [(file, file.stat().st_ino) for file in files(folder)]
    monkeypatch.setattr(cache_module, "_build", None)
    train = cached(folder)
    assert capsys.readouterr().out == ""
    assert [(file, file.stat().st_ino) for file in files(folder)] == before
    assert same(train)


def test_a_file_replaced_by_one_of_the_same_size_and_time(folder):
    path = folder / "train" / "happy" / "plain.bmp"
    Image.new("RGB", (20, 20), "red").save(path)
    old = cached(folder)
    before, stale, red = path.stat(), files(folder), old[0, N // 2]
    Image.new("RGB", (20, 20), "blue").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    train = cached(folder)
    assert not torch.equal(train[0, N // 2][0], red[0])
    assert_made_anew(folder, stale)


def assert_made_anew(folder, stale):
    assert same(cached(folder))
    assert len(files(folder)) == 1
    assert not set(files(folder)) & set(stale)


def add(folder):
    Image.new("RGB", (9, 9)).save(folder / "train" / "happy" / "a.png")


def remove(folder):
    (folder / "train" / "happy" / "00000.jpg").unlink()


def rename(folder):
    path = folder / "train" / "happy" / "00000.jpg"
    path.rename(path.with_name("00000a.jpg"))


def swap(folder):
    one, two = sorted((folder / "train" / "happy").iterdir())[:2]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


@pytest.mark.parametrize("change", [add, remove, rename, swap])
def test_any_change_of_the_folder_makes_another_cache(folder, change):
    cached(folder)
    stale = files(folder)
    change(folder)
    assert_made_anew(folder, stale)


CODE = [pictures, colour, heif, framing, "pil", "libjpeg_turbo", "littlecms2"]


@pytest.mark.parametrize("code", CODE)
def test_other_code_makes_another_cache(folder, monkeypatch, code):
    cached(folder)
    stale = files(folder)
    source, version = inspect.getsource, features.version
    monkeypatch.setattr(inspect, "getsource", lambda of: source(of) + "#" * (of == code))
    monkeypatch.setattr(features, "version", lambda of: "99" if of == code else version(of))
    assert_made_anew(folder, stale)


def test_splits_and_sizes_leave_each_other_alone(folder):
    cached(folder)
    cached(folder, EvalTransform(16))
    val = CoupleFolder(folder, "val", EvalTransform(32))
    build_cache(val)
    assert same(val)
    cached(folder, EvalTransform(32, frame="faces", margin=0.1))
    assert same(cached(folder))  # what it removes is not another frame's
    names = [file.name.rsplit("-", 1)[0] for file in files(folder)]
    assert names == ["train-16px", "train-32px", "train-faces-0.1-32px", "val-32px"]


def test_nobody_takes_the_cache_for_pictures(folder):
    before = fingerprint(folder), splits_of(folder), len(CoupleFolder(folder))
    cached(folder)
    (folder / ".cache" / "happy").mkdir()
    shutil.copy(folder / "train" / "happy" / "00000.jpg", folder / ".cache" / "happy" / "x.jpg")
    assert (fingerprint(folder), splits_of(folder), len(CoupleFolder(folder))) == before
    assert len(torchvision.datasets.ImageFolder(folder / "train")) == N


@pytest.mark.parametrize("length", [0, 5, 127, 128, 128 + N * 32 * 32 * 3 - 1])
def test_a_file_that_is_cut_off_is_made_anew(folder, capsys, length):
    cached(folder)
    (file,) = files(folder)
    whole = file.read_bytes()
    os.truncate(file, length)
    capsys.readouterr()
    train = cached(folder)
    assert file.read_bytes() == whole
    assert "Decoded 24 pictures at 32 px" in capsys.readouterr().out
    assert same(train)


def refused(folder, capsys):
    """Nothing is cached, one sentence says so, and the data set works as ever."""
    capsys.readouterr()
    train = cached(folder)
    out = capsys.readouterr().out
    assert train.caches == {}
    assert out.count("\n") == 1
    assert out.startswith("Pictures of train are decoded every time, because")
    assert same(train)
    return out


def test_a_folder_that_cannot_be_written(folder, capsys):
    (folder / ".cache").write_text("a file")
    assert "File exists" in refused(folder, capsys)


def test_a_disk_without_room(folder, capsys, monkeypatch):
    free = RESERVE + N * 32 * 32 * 3 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9**12, 0, free))
    assert "it takes 0 MB, 1.0 GB must stay free, and only 1.0 GB" in refused(folder, capsys)
    assert files(folder) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_in_the_middle(folder, capsys, monkeypatch, code):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    assert os.strerror(code) in refused(folder, capsys)
    assert files(folder) == []


def test_a_full_or_read_only_disk_does_not_matter_where_the_cache_is_there(folder, monkeypatch):
    cached(folder)
    (folder / ".cache" / "train-32px-stale.npy").touch()

    def fail(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, fail)
    assert len(cached(folder).caches) == N


def test_a_cache_that_disappears_during_training(folder, capsys):
    train = cached(folder)
    open_map = train[0]
    elsewhere = pickle.loads(pickle.dumps(train))  # as in a worker that starts later
    for file in files(folder):
        file.unlink()
    assert torch.equal(train[0][0], open_map[0])
    capsys.readouterr()
    assert items(elsewhere) == items(train)
    out = capsys.readouterr().out
    assert out.startswith("From now on pictures are decoded every time: ")
    assert out.count("\n") == 1


def in_a_process(target, *args):
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def build_until(train, row):
    """Build up to a picture, or to the last step before the file gets its name."""
    read, stop = pictures.read_picture, dict(enumerate(train.samples)).get(row, (None,))[0]
    pictures.read_picture = lambda path: time.sleep(60) if path == stop else read(path)
    os.fsync = lambda _: time.sleep(60)
    build_cache(train)


def test_killed_while_it_builds(folder):
    train = CoupleFolder(folder, transform=EvalTransform(32))
    for row in (0, 7, N):
        process = in_a_process(build_until, train, row)
        while not list(folder.glob(".cache/.dclib-*/*.npy")):
            assert process.is_alive()
        time.sleep(0.1)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not list(folder.glob(".cache/*.npy"))
    build_cache(train)
    assert len(train.caches) == N
    assert same(train)
    assert [file.suffix for file in files(folder)] == [".npy"]  # what the killed left has gone


def build_beside(train, barrier):
    """Build; the file gets its name when the other process has come as far."""
    os.fsync = lambda _: barrier.wait(300)
    build_cache(train)
    os._exit(0 if same(train) and train.caches else 1)


def test_two_processes_build_at_once(folder):
    train = CoupleFolder(folder, transform=EvalTransform(32))
    for _ in range(2):
        barrier = multiprocessing.get_context("fork").Barrier(2)
        processes = [in_a_process(build_beside, train, barrier) for _ in range(2)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        (file,) = files(folder)
        build_cache(train)
        assert same(train)
        file.unlink()


def test_a_pickle_holds_no_pixels(folder):
    plain = CoupleFolder(folder, transform=EvalTransform(32))
    train = cached(folder)
    train[0]
    assert len(pickle.dumps(train)) < len(pickle.dumps(plain)) + 1000
    assert isinstance(train.caches[train.samples[0][0]].pixels, np.memmap)
    again = pickle.loads(pickle.dumps(train))
    forget_pictures(folder)
    assert items(again) == items(train)


def test_the_same_batches_from_worker_processes(folder):
    transform = TensorTransform(32)
    alone = make_loader(CoupleFolder(folder, transform=transform), 5, shuffle=True)
    loader = make_loader(cached(folder, transform), 5, shuffle=True, workers=1)
    expected = [batch for epoch in range(2) for batch in epoch_of(alone, epoch)]
    forget_pictures(folder)
    got = [batch for epoch in range(2) for batch in epoch_of(loader, epoch)]
    assert len(got) == len(expected) == 10
    for ((pixels, keys), labels), ((pixels2, keys2), labels2) in zip(got, expected, strict=True):
        assert torch.equal(pixels, pixels2)
        assert torch.equal(keys, keys2)
        assert torch.equal(labels, labels2)


def epoch_of(loader, epoch):
    loader.batch_sampler.set_epoch(epoch)
    yield from loader


def test_a_picture_that_changes_while_the_cache_is_made(folder, capsys, monkeypatch):
    hashes = iter(range(10**6))
    monkeypatch.setattr(cache_module, "file_hash", lambda path: str(next(hashes)))
    assert cached(folder).caches == {}
    assert "was changed in the meantime" in capsys.readouterr().out
    assert files(folder) == []
