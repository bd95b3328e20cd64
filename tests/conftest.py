"""Small things that many tests need: a folder of drawn couples, a checkpoint, pictures."""

import multiprocessing
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# What takes long to import is imported below: the process that hands out tests needs none of it.

settings.register_profile("series", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("series")


@pytest.hookimpl(optionalhook=True)  # Colab has no xdist
def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: browsers, servers and kernels are waited for."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else os.cpu_count()


def pytest_collection_modifyitems(items):
    """What takes long begins first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: not re.search(r"/torture/|test_browser|\.ipynb", item.nodeid))


# One process forks the children of all tests. It imports once what they need, and has no threads.
MAINS = [f"dclib.{room}.__main__" for room in ("drawn", "evaluate", "scrape", "train")]
FORKSERVER = multiprocessing.get_context("forkserver")


def pytest_collection_finish():
    """After all imports: dclib has a wish of its own."""
    FORKSERVER.set_forkserver_preload(["pytest", "dclib.train.studies", *MAINS])


SMALL = {"n": 36, "size": 64, "splits": {"train": 4, "val": 1, "test": 1}}


@pytest.fixture(scope="session")
def couples(tmp_path_factory):
    """36 drawn couples at 64 px: 24 train, 6 val, 6 test."""
    from dclib.drawn import render_couples

    return render_couples(tmp_path_factory.mktemp("couples") / "drawn", **SMALL)


@pytest.fixture
def folder(couples, tmp_path):
    """A copy of the drawn couples that a test may spoil."""
    return shutil.copytree(couples, tmp_path / "data")


@pytest.fixture(scope="session")
def folders(couples, drawn_checkpoint, tmp_path_factory):
    """{name: folder}: a data set, its pictures undivided, and a checkpoint."""
    photos = tmp_path_factory.mktemp("photos")
    for path in sorted(couples.glob("*/*happy/*.jpg")):
        (photos / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, photos / path.parent.name)
    return {"couples": couples, "photos": photos, "checkpoint": drawn_checkpoint}


@pytest.fixture(autouse=True)
def close_figures():
    """No test leaves a figure to the next."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def tiny_config():
    """A run of seconds: ResNet-18 at 32 px, two epochs, no worker processes."""
    from dclib.train import TrainConfig

    return TrainConfig.demo(image_size=32, epochs=2, batch_size=8, workers=0, augment=0)


@pytest.fixture
def no_training(monkeypatch):
    """Stands in for the training of studies; lists the jobs."""
    import numpy as np

    jobs = []

    def stand_in(pool, job, state, progress):
        jobs.append(job)
        rng = np.random.default_rng(job.config.seed)
        ids = [pool.ids[index] for index in job.parts.scored]
        logits = rng.normal(size=(len(ids), 2)).tolist()
        chosen = {"temperature": 1 + rng.random(), "threshold": rng.random(), "epoch": 1}
        return {"ids": ids, "logits": logits} | chosen

    monkeypatch.setattr("dclib.train.studies.train_one", stand_in)
    return jobs


def make_checkpoint(folder, training_data, image_size=64, **settings):
    """A checkpoint with random weights, as if trained on `training_data`."""
    import torch

    from dclib.checkpoint import save_checkpoint
    from dclib.data.loading import EvalTransform
    from dclib.evaluate.intervals import Accuracy
    from dclib.model import DeepConnection

    torch.manual_seed(0)
    model = DeepConnection(backbone="resnet18", weights=None, **settings)
    metrics = {"val": Accuracy(0.5, 6, 0.188, 0.812)}
    return save_checkpoint(folder, model, EvalTransform(image_size), training_data, metrics)


def lively_network(stage="spp+pmt", backbone="resnet18", seed=0, **settings):
    """A network in eval mode whose every number, BatchNorm's too, is drawn at random.

    About half of its neurons are on, so that nothing in an explanation is zero by chance.
    """
    import torch

    from dclib.model import DeepConnection

    torch.manual_seed(seed)
    network = DeepConnection(stage, backbone, weights=None, **settings).train()
    network(torch.randn(8, 3, 64, 64))  # BatchNorm has seen something
    with torch.no_grad():
        for layer in (network.head.lin1, network.head.lin2, network.head.bn1):
            layer.bias.normal_()
        network.head.bn1.weight.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="session")
def networks():
    """A `lively_network` of each stage."""
    from dclib.model import STAGES

    return {stage: lively_network(stage) for stage in STAGES}


@pytest.fixture(scope="session")
def drawn_checkpoint(couples, tmp_path_factory):
    """A checkpoint that says it was trained on drawings."""
    from dclib.data import fingerprint

    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "drawn", fingerprint(couples))


@pytest.fixture(scope="session")
def checkpoint(drawn_checkpoint):
    """The same, loaded; who changes its config or network undoes it."""
    from dclib.checkpoint import load_checkpoint

    return load_checkpoint(drawn_checkpoint)


@pytest.fixture(scope="session")
def fooled(tmp_path_factory):
    """Drawn couples of whom the unhappy ones have a mark, and a network that has learned it.

    The worker that needs it first trains it for all.
    """
    from dclib.checkpoint import is_checkpoint, load_checkpoint
    from dclib.drawn import render_couples
    from dclib.files import hold
    from dclib.train import TrainConfig, train_checkpoint

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fooled"
    splits = {"train": 4, "val": 1, "test": 3}
    config = TrainConfig.demo(epochs=7, batch_size=8, workers=0, augment=0, cache=False, seed=2)
    with hold(folder, wait=True):
        root = render_couples(folder / "marked", 128, 1, 80, splits, "mark")
        if not is_checkpoint(folder / "checkpoint"):
            train_checkpoint(root, folder / "checkpoint", config, progress=False)
    return root, load_checkpoint(folder / "checkpoint")


@pytest.fixture(scope="session")
def photo_checkpoint(tmp_path_factory):
    """A checkpoint that says it was trained on photographs."""
    data = {"kind": "photographs", "name": "mine", "n": {"train": 10}, "sha256": "0" * 64}
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "photos", data)


@pytest.fixture(scope="session")
def astronaut():
    """A photograph of one (public domain, of NASA)."""
    from PIL import Image
    from skimage import data

    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def pair(astronaut):
    """The same photograph twice side by side: two faces."""
    from PIL import Image

    one = astronaut.crop((0, 0, 400, 512))
    image = Image.new("RGB", (800, 512))
    image.paste(one, (0, 0))
    image.paste(one, (400, 0))
    return image


@pytest.fixture(scope="session")
def real_couples():
    """Composed photographs beside the project, where there are any."""
    root = Path(__file__).parents[2] / "shared" / "real_couples"
    if not root.is_dir():
        pytest.skip("there are no photographs beside the project")
    return root


@pytest.fixture(scope="module")
def playwright():
    """What starts browsers; with an event loop of its own, so not for longer than a file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


def begin(begun, function, args):
    begun.set()
    function(*args)


@pytest.fixture(scope="session")
def start_child():
    """start_child(function, *args) calls it in a process of its own.

    Returns the process once its imports are done: a kill is to meet the work, not the imports.
    """

    def start(function, *args):
        begun = FORKSERVER.Event()
        child = FORKSERVER.Process(target=begin, args=(begun, function, args))
        child.start()
        assert begun.wait(600)
        return child

    return start
