import numpy as np
import pytest
import torch
from conftest import make_checkpoint
from PIL import Image

from dclib.checkpoint import load_checkpoint
from dclib.data import CoupleFolder
from dclib.photo import DRAWINGS_ONLY, predict_photo
from dclib.pictures import PictureError

PHOTOS = {"kind": "photographs", "name": "mine", "n": {"train": 10}, "sha256": "0" * 64}


@pytest.fixture
def photo(couples):
    return CoupleFolder(couples, "val").samples[0][0]


def test_equals_the_model_on_the_prepared_picture(drawn_checkpoint, photo):
    checkpoint = load_checkpoint(drawn_checkpoint)
    prediction = predict_photo(photo, checkpoint)
    images = checkpoint.transform(Image.open(photo))[None]
    with torch.inference_mode():
        logits = checkpoint.model(images)[0]
    assert list(prediction.probs.values()) == pytest.approx(logits.softmax(0).tolist())
    assert prediction.margin == pytest.approx((logits[1] - logits[0]).item(), abs=1e-6)
    assert prediction == predict_photo(photo.read_bytes(), drawn_checkpoint)


def test_label_follows_names_and_threshold_not_order(tmp_path, photo):
    checkpoint = load_checkpoint(make_checkpoint(tmp_path / "c", PHOTOS))
    prediction = predict_photo(photo, checkpoint)
    assert prediction.label == max(prediction.probs, key=prediction.probs.get)
    checkpoint.model.classes = ("unhappy", "happy")
    swapped = predict_photo(photo, checkpoint)
    assert swapped.margin == pytest.approx(-prediction.margin)
    assert swapped.label != prediction.label
    for threshold, label in ((0.0, "unhappy"), (1.0, "happy")):
        checkpoint.config["threshold"] = threshold
        assert predict_photo(photo, checkpoint).label == label


def test_temperature_softens(tmp_path, photo):
    checkpoint = load_checkpoint(make_checkpoint(tmp_path / "c", PHOTOS))
    sharp = predict_photo(photo, checkpoint)
    checkpoint.config["temperature"] = 4.0
    assert predict_photo(photo, checkpoint).margin == pytest.approx(sharp.margin / 4, rel=1e-4)


def test_warns_when_it_only_knows_drawings(drawn_checkpoint, tmp_path, photo):
    assert DRAWINGS_ONLY in predict_photo(photo, drawn_checkpoint).warnings
    assert DRAWINGS_ONLY in str(predict_photo(photo, drawn_checkpoint))
    assert predict_photo(photo, make_checkpoint(tmp_path / "c", PHOTOS)).warnings == ()


def test_warns_about_small_and_animated_pictures(drawn_checkpoint, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "c", PHOTOS)
    small = np.zeros((20, 300, 3), np.uint8)
    assert predict_photo(small, checkpoint).warnings == (
        "The picture (300 x 20) was enlarged to 64 pixels.",
    )
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "first frame" in predict_photo(tmp_path / "a.gif", checkpoint).warnings[0]


def test_probabilities_sum_to_one(drawn_checkpoint):
    for seed in range(5):
        noise = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8)
        assert sum(predict_photo(noise, drawn_checkpoint).probs.values()) == pytest.approx(1)


def test_errors_pass_through(drawn_checkpoint, tmp_path, photo):
    with pytest.raises(PictureError):
        predict_photo(b"text", drawn_checkpoint)
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        predict_photo(photo, tmp_path / "nothing")
