"""The tensor twin against imgaug itself: the same pixels, the same draws, the same distribution."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare, ks_2samp
from torch.utils.data import DataLoader

from dclib.augment import TrainTransform, authors_policy
from dclib.augment.imgaug_numpy2 import iaa
from dclib.augment.tensor import OPERATIONS, TensorPolicy, TensorTransform, apply_draws
from dclib.data.loading import CoupleFolder, EvalTransform
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene

SIZE = 48
N = 500  # pictures a sample
N_DRAWS = 3000  # parameters a sample


def far(n):
    """The Kolmogorov-Smirnov distance that 1 in 10,000 pairs of samples of n exceeds by chance."""
    return 2.23 * np.sqrt(2 / n)


POLICY = dict(zip(OPERATIONS, authors_policy(), strict=True))  # imgaug's, by our names


@pytest.fixture(scope="module")
def picture():
    return np.asarray(draw_scene(sample_scene(0, 0)[0], SIZE))


@pytest.fixture(scope="module")
def batch():
    scenes = [np.asarray(draw_scene(sample_scene(0, index)[0], SIZE)) for index in range(12)]
    return to_batch(scenes)


def to_batch(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def keys(n, epoch=0):
    return [(epoch, index) for index in range(n)]


# ------------------------------------------------------------ the same operations


def affine(scale_x, scale_y, move_x, move_y, rotate, shear):
    return iaa.Affine(
        scale={"x": scale_x, "y": scale_y},
        translate_percent={"x": move_x, "y": move_y},
        rotate=rotate,
        shear={"x": shear, "y": shear},
    )


def multiply(*factors):
    channels = [iaa.WithChannels(c, iaa.Multiply(factor)) for c, factor in enumerate(factors)]
    return iaa.Sequential(channels)


FIXED = {  # imgaug's operation with the parameters that `TensorPolicy.draw` gives
    "mirror": iaa.Fliplr,
    "crop": lambda *sides: iaa.Crop(percent=sides),
    "blur": iaa.GaussianBlur,
    "multiply": multiply,
    "affine": affine,
    "colour": lambda hue, saturation: iaa.AddToHueAndSaturation(
        value_hue=int(hue), value_saturation=int(saturation)
    ),
    "contrast": iaa.LinearContrast,
}


@pytest.mark.exact
@pytest.mark.parametrize("name", FIXED)
@settings(max_examples=25)
@given(index=st.integers(0, 10_000))
def test_with_the_same_parameters_the_pixels_are_imgaugs(name, picture, index):
    """Half a level on average, 2 levels for 99 % of the values; all but rounding is exact."""
    values = TensorPolicy(seed=1).draw(0, index)[name]
    theirs = FIXED[name](*(float(v) for v in values))(image=picture).astype(float)
    ours = OPERATIONS[name](to_batch([picture]).float(), torch.tensor([values]).double())
    apart = np.abs(ours[0].permute(1, 2, 0).numpy() - theirs)
    if name == "mirror" and not values[0]:
        return
    assert apart.mean() < 0.5
    assert np.quantile(apart, 0.99) <= 2


@pytest.mark.parametrize("own", [True, False])
def test_noise_is_imgaugs(own):
    """On mid grey: the same normal numbers in whole levels, shared by the channels or not."""
    grey = np.full((96, 96, 3), 128, np.uint8)
    theirs = iaa.AdditiveGaussianNoise(scale=6, per_channel=own, seed=0)(image=grey)
    parameters = torch.tensor([(6, own, 1234)]).double()
    ours = OPERATIONS["noise"](to_batch([grey]).float(), parameters)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(ours, ours.round())
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.15)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    assert ks_2samp(ours.ravel(), theirs.ravel()).statistic < far(ours.size)
    for values in (ours, theirs.astype(float)):
        between = np.corrcoef(values[..., 0].ravel(), values[..., 1].ravel())[0, 1]
        assert between == pytest.approx(0 if own else 1, abs=0.05)


def test_noise_differs_from_picture_to_picture():
    grey = torch.full((2, 3, 64, 64), 128.0)
    first, second = OPERATIONS["noise"](grey, torch.tensor([(6.0, 1, 10), (6.0, 1, 5000)])) - 128
    assert torch.corrcoef(torch.stack([first.ravel(), second.ravel()]))[0, 1].abs() < 0.05


# ------------------------------------------------------------ the same draws


@pytest.fixture(scope="module")
def imgaugs_draws():
    """What imgaug draws, by the operation and the place in the tuples of `draw`."""
    affine, some_blur = POLICY["affine"], POLICY["blur"]
    parameters = {
        ("mirror", 0): POLICY["mirror"].p,
        ("noise", 1): POLICY["noise"].per_channel,
        ("multiply", 0): POLICY["multiply"].mul,
        ("affine", 0): affine.scale[0],
        ("affine", 1): affine.scale[1],
        ("affine", 2): affine.translate[0],
        ("affine", 3): affine.translate[1],
        ("affine", 4): affine.rotate,
        ("affine", 5): affine.shear,
        ("colour", 0): POLICY["colour"].value,
        ("colour", 1): POLICY["colour"].value,
        ("contrast", 0): POLICY["contrast"].params1d[0],
    }
    drawn = {
        key: value.draw_samples((N_DRAWS,), random_state=1) for key, value in parameters.items()
    }
    drawn["noise", 0] = POLICY["noise"].value.scale.draw_samples((N_DRAWS,), random_state=1)
    for side in range(4):  # imgaug's crop is a padding by less than nothing
        drawn["crop", side] = -POLICY["crop"].all_sides.draw_samples((N_DRAWS,), random_state=side)
    blurred = some_blur.p.draw_samples((N_DRAWS,), random_state=2)
    sigma = some_blur.then_list[0].sigma.draw_samples((N_DRAWS,), random_state=3)
    return drawn | {("blur", 0): blurred * sigma}


def distances_of_parameters(strength, imgaugs_draws):
    draws = [TensorPolicy(strength, seed=5).draw(0, index) for index in range(N_DRAWS)]
    return {
        (name, place): ks_2samp([float(draw[name][place]) for draw in draws], theirs).statistic
        for (name, place), theirs in imgaugs_draws.items()
    }


def test_parameters_are_drawn_like_imgaugs(imgaugs_draws):
    for key, distance in distances_of_parameters(1, imgaugs_draws).items():
        assert distance < far(N_DRAWS), key


def test_ranges_a_quarter_too_narrow_are_found_out(imgaugs_draws):
    distances = distances_of_parameters(0.75, imgaugs_draws)
    for key in set(distances) - {("mirror", 0), ("noise", 1)}:  # these two are chances, no ranges
        assert distances[key] > far(N_DRAWS), key


def test_brightness_is_rarely_drawn_per_channel():
    """imgaug: per_channel=0.2. Otherwise one factor serves all three channels."""
    factors = np.array([TensorPolicy().draw(0, index)["multiply"] for index in range(2000)])
    own = (factors[:, 0] != factors[:, 1]).mean()
    assert own == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 2000))
    assert ((factors[:, 0] == factors[:, 1]) == (factors[:, 0] == factors[:, 2])).all()


def test_every_order_is_as_likely():
    """Each operation comes as often at each place; mirror and blur, often left out, set aside."""
    always = [name for name in OPERATIONS if name not in ("mirror", "blur")]
    counts = np.zeros((6, 6))
    for index in range(3000):
        order = [name for name in TensorPolicy().draw(0, index)["order"] if name in always]
        for place, name in enumerate(order):
            counts[always.index(name), place] += 1
    assert chisquare(counts.ravel()).pvalue > 1e-4


# ------------------------------------------------------------ the same distribution


def describe(images):
    """Statistics of pictures (n, H, W, 3): one row of numbers a picture, by name."""
    x = images.astype(float)
    grey = x.mean(3)
    rows = {"mean": grey.mean((1, 2)), "std": grey.std((1, 2))}
    rows |= {f"channel {c}": x[..., c].mean((1, 2)) for c in range(3)}
    rows["colourfulness"] = x.std(3).mean((1, 2))
    rows["gradient"] = np.abs(np.diff(grey, axis=1)).mean((1, 2))
    rows["gradient across"] = np.abs(np.diff(grey, axis=2)).mean((1, 2))
    rows["left half"] = grey[:, :, : SIZE // 2].mean((1, 2))
    return rows | {f"quantile {q}": np.quantile(grey, q, (1, 2)) for q in (0.05, 0.5, 0.95)}


def run_imgaug(augmenter, picture, n=N):
    augmenter.seed_(7)
    return np.stack([augmenter(image=picture) for _ in range(n)])


def run_twin(picture, n=N, only=None, strength=1.0):
    policy, images = TensorPolicy(strength, seed=11), to_batch([picture]).float()
    draws = [policy.draw(0, index) for index in range(n)]
    if only:
        draws = [d | {"order": [name for name in d["order"] if name == only]} for d in draws]
    varied = torch.cat([apply_draws(images, [draw]) for draw in draws])
    return varied.permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def by_imgaug(picture):
    return run_imgaug(authors_policy(), picture)


def largest_distance(first, second):
    ours, theirs = describe(first), describe(second)
    return max((ks_2samp(ours[name], theirs[name]).statistic, name) for name in ours)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_spreads_pictures_as_imgaug_does(name, picture):
    distance, where = largest_distance(
        run_twin(picture, only=name).round(1), run_imgaug(POLICY[name], picture).round(1)
    )
    assert distance < far(N), where


def test_the_whole_policy_spreads_pictures_as_imgaug_does(picture, by_imgaug):
    ours, theirs = run_twin(picture), by_imgaug
    distance, where = largest_distance(ours, theirs)
    assert distance < far(N), where
    mean_apart = np.abs(ours.mean(0) - theirs.mean(0)) / (theirs.std(0) * np.sqrt(2 / N))
    assert np.quantile(mean_apart, 0.99) < 4  # standard errors, pixel by pixel
    spread = ours.std(0) / theirs.std(0)
    assert np.median(spread) == pytest.approx(1, abs=0.05)


def test_the_whole_policy_at_less_strength_is_found_out(picture, by_imgaug):
    assert largest_distance(run_twin(picture, strength=0.7), by_imgaug)[0] > far(N)


# ------------------------------------------------------------ what a picture's draw depends on


def test_same_key_same_picture_whatever_the_batch(batch):
    policy = TensorPolicy(seed=3)
    varied = policy(batch, keys(12))
    assert torch.equal(TensorPolicy(seed=3)(batch, torch.tensor(keys(12))), varied)
    assert torch.equal(policy(batch[[7, 2]], [(0, 7), (0, 2)]), varied[[7, 2]])
    assert not torch.equal(TensorPolicy(seed=4)(batch, keys(12)), varied)


def test_all_at_once_is_one_after_the_other(batch):
    """The way of a GPU and the way of a CPU through the same draws."""
    draws = [TensorPolicy().draw(1, index) for index in range(12)]
    singles = torch.cat([apply_draws(batch[[i]].float(), [draws[i]]) for i in range(12)])
    together = apply_draws(batch.float(), draws)
    apart = (singles - together).abs()
    assert (apart > 0).double().mean() < 0.001
    assert apart.mean() < 0.001


def test_nothing_is_read_back_from_the_device(batch):
    """A tensor without data has nothing to read, and nothing to mix with tensors elsewhere."""
    images = batch.to("meta")
    varied = TensorPolicy()(images, keys(12))
    assert (varied.shape, varied.dtype, varied.device.type) == (batch.shape, torch.uint8, "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_same_pictures(batch):
    here, there = TensorPolicy()(batch, keys(12)), TensorPolicy()(batch.cuda(), keys(12)).cpu()
    assert ((here.int() - there.int()).abs() > 1).double().mean() < 0.001


def test_never_twice_the_same(picture):
    images = to_batch([picture]).expand(8, -1, -1, -1)
    varied = torch.cat([TensorPolicy()(images, keys(8, epoch)) for epoch in range(6)])
    assert len({image.numpy().tobytes() for image in varied}) == 48


def test_strength_zero_only_mirrors(batch):
    varied = TensorPolicy(0)(batch, keys(12))
    mirrored = [torch.equal(v, image.flip(2)) for v, image in zip(varied, batch, strict=True)]
    kept = [torch.equal(v, image) for v, image in zip(varied, batch, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 12


@settings(max_examples=15)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 1000))
def test_any_size(height, width, index):
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    assert TensorPolicy()(images, [(0, index), (1, index)]).shape == images.shape


@pytest.mark.parametrize(
    ("images", "n", "message"),
    [
        (torch.zeros(3, 8, 8), 3, r"must be \(B, 3, H, W\)"),
        (torch.zeros(2, 1, 8, 8), 2, r"must be \(B, 3, H, W\)"),
        (torch.zeros(2, 3, 8, 8), 3, r"2 images need as many .* not 3"),
        (torch.zeros(2, 3, 8, 8), 2, r"must be uint8, not torch\.float32"),
    ],
)
def test_misuse(images, n, message):
    with pytest.raises(ValueError, match=message):
        TensorPolicy()(images, keys(n))


# ------------------------------------------------------------ in training


@pytest.mark.parametrize("kind", [TrainTransform, TensorTransform])
def test_the_label_never_changes_what_is_drawn(couples, kind):
    train = CoupleFolder(couples, transform=kind(SIZE, seed=2))
    flipped = copy.copy(train)
    flipped.samples = [(path, 1 - label) for path, label in train.samples]
    for key in [(0, 0), (0, 20), (3, 7)]:
        (image, label), (again, other) = train[key], flipped[key]
        assert label != other
        undo = train.transform.undo
        assert torch.equal(undo(image), undo(again))


@pytest.mark.parametrize("kind", [TrainTransform, TensorTransform])
def test_both_labels_are_varied_alike(kind):
    """Of one grey picture: 250 draws at the places of happy pictures, 250 at those of unhappy."""
    transform, grey = kind(16, seed=2), Image.new("RGB", (16, 16), (128, 128, 128))
    means = [transform.undo(transform(grey, 0, index)).mean().item() for index in range(N)]
    for first, second in [(means[: N // 2], means[N // 2 :]), (means[::2], means[1::2])]:
        assert ks_2samp(first, second).statistic < far(N // 2)


def test_the_loader_resizes_and_finish_does_the_rest(couples):
    train = CoupleFolder(couples, transform=TensorTransform(SIZE, strength=0.5, seed=2))
    wanted = [(4, index) for index in (3, 9, 1)]
    loader = DataLoader(train, 3, sampler=wanted, num_workers=1)
    (pixels, seen), _ = next(iter(loader))
    assert (pixels.dtype, seen.tolist()) == (torch.uint8, [list(key) for key in wanted])
    images = train.transform.finish((pixels, seen), "cpu")
    plain = EvalTransform(SIZE)
    varied = TensorPolicy(0.5, seed=2)(pixels, wanted)
    expected = torch.stack([plain.to_tensor(v.permute(1, 2, 0).numpy()) for v in varied])
    assert torch.allclose(images, expected, atol=1e-5)
    shown = train.transform.undo(train[wanted[0]][0])
    assert torch.allclose(shown, plain.undo(expected[0]), atol=1e-5)
