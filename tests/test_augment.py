import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from dclib.augment import TrainTransform, authors_policy
from dclib.data.loading import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene


@pytest.fixture(scope="module")
def image():
    return draw_scene(sample_scene(0, 0)[0], 96)


def test_eval_is_torchvisions_normalisation(image):
    ours = EvalTransform(96)(image)
    theirs = functional.normalize(functional.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
    assert ours.shape == (3, 96, 96)
    assert torch.allclose(ours, theirs, atol=1e-6)


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 64))
def test_any_picture_becomes_a_square(width, height, size):
    assert EvalTransform(size)(Image.new("RGB", (width, height))).shape == (3, size, size)


def test_undo(image):
    transform = EvalTransform(96)
    back = transform.undo(transform(image)[None])
    assert back.shape == (1, 96, 96, 3)
    assert np.abs(back[0].numpy() * 255 - np.asarray(image)).max() < 1


def test_48_variants_differ(image):
    """Another picture, another epoch: another draw. The same: the same."""
    transform = TrainTransform(64, seed=0)
    variants = [transform(image, epoch, index) for epoch in range(8) for index in range(6)]
    assert len({v.numpy().tobytes() for v in variants}) == 48
    assert torch.equal(transform(image, 3, 4), variants[3 * 6 + 4])
    assert torch.equal(TrainTransform(64, seed=0)(image, 3, 4), variants[3 * 6 + 4])
    assert not torch.equal(TrainTransform(64, seed=1)(image, 3, 4), variants[3 * 6 + 4])


def levels_off(image, strength):
    """How far 30 variants are from the picture or its mirror image, in grey levels of 255."""
    transform, plain = TrainTransform(64, strength=strength), EvalTransform(64)
    kept = plain.undo(plain(image)) * 255
    variants = [plain.undo(transform(image, index=i)) * 255 for i in range(30)]
    to_kept = torch.stack([(v - kept).abs().mean() for v in variants])
    to_mirrored = torch.stack([(v - kept.flip(1)).abs().mean() for v in variants])
    return torch.minimum(to_kept, to_mirrored), to_kept < to_mirrored


def test_strength_zero_only_mirrors(image):
    distance, kept = levels_off(image, 0)
    assert distance.max() < 1  # the way to HSV and back rounds
    assert kept.any()
    assert not kept.all()


def test_strength_grows(image):
    a_quarter, whole = (levels_off(image, strength)[0].mean() for strength in (0.25, 1))
    assert 3 < 2 * a_quarter < whole


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_bad_strength(strength):
    with pytest.raises(ValueError, match="between 0 and 1"):
        authors_policy(strength)


def test_bad_size():
    with pytest.raises(ValueError, match="at least 1 pixel"):
        EvalTransform(0)


@settings(max_examples=20)
@given(st.integers(8, 80), st.integers(0, 10_000))
def test_policy_runs_on_any_size(size, index):
    image = Image.fromarray(np.random.default_rng(index).integers(0, 256, (50, 70, 3), np.uint8))
    variant = TrainTransform(size)(image, index=index)
    assert variant.shape == (3, size, size)
    assert torch.isfinite(variant).all()


def test_survives_pickling(image):
    transform = TrainTransform(64, strength=0.5, seed=3)
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(image, 1, 2), transform(image, 1, 2))


def test_numpy_is_left_alone():
    code = (
        "import numpy as np; before = set(vars(np)); "
        "from dclib.augment.imgaug_numpy2 import iaa; "
        "names = {'sctypes', 'complex'} & (set(vars(np)) - before); assert not names, names; "
        "iaa.OneOf([iaa.Clouds(), iaa.SomeOf(1, [iaa.Rain(), iaa.Fog()])])"
        "(image=np.zeros((32, 32, 3), np.uint8))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_imgaug_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "dclib.augment.imgaug_numpy2", raising=False)
    monkeypatch.setitem(sys.modules, "imgaug", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[augment\]'"):
        authors_policy()
