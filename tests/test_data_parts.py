"""Parts of a folder of couples: what is kept, chosen by lot, and in which fold."""

import numpy as np
import pytest
import torch
from PIL import Image

from dclib.data import CLASSES
from dclib.data.loading import CoupleFolder, EvalTransform, choose_pictures, keep
from dclib.evaluate.probe import grouped_folds


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


@pytest.mark.parametrize("seed", range(5))
def test_folds_hold_whole_groups_and_equal_shares_of_the_classes(seed):
    groups = np.arange(200) // 2
    labels = groups % 2
    for rest, fold in grouped_folds(labels, groups, 5, np.random.default_rng(seed)):
        assert not set(groups[rest]) & set(groups[fold])
        assert labels[fold].sum() == 20 == len(fold) - labels[fold].sum()
