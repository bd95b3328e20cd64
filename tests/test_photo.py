from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from dclib.checkpoint import DRAWINGS_ONLY, load_checkpoint
from dclib.data import NOT_ASSESSABLE
from dclib.data.loading import CoupleFolder
from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.gradcam import grad_cam
from dclib.framing import KINDS, frame_picture
from dclib.framing.faces import Face
from dclib.photo import IN_PROFILE, predict_photo
from dclib.photo.__main__ import main
from dclib.pictures import PictureError, read_picture
from dclib.predict import extract_features, percent

FACES = ((10, 10, 30, 30), (40, 10, 60, 30))


@pytest.fixture
def photo(couples):
    return CoupleFolder(couples, "val").samples[0][0]


@pytest.fixture(scope="module")
def loaded(photo_checkpoint):
    return load_checkpoint(photo_checkpoint)


@pytest.fixture
def trained(loaded):
    """A checkpoint that says it has seen photographs; each test may change its own config."""
    return replace(loaded, config=dict(loaded.config))


def test_equals_the_model_on_the_prepared_picture(checkpoint, drawn_checkpoint, photo):
    prediction = predict_photo(photo, checkpoint)
    images = checkpoint.transform(Image.open(photo))[None]
    with torch.inference_mode():
        logits = checkpoint.model(images)[0]
    assert list(prediction.probs.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    assert prediction.margin == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)
    assert prediction == predict_photo(photo.read_bytes(), drawn_checkpoint)


def test_label_follows_names_and_threshold_not_order(trained, photo, monkeypatch):
    prediction = predict_photo(photo, trained, FACES)
    assert prediction.label == max(prediction.probs, key=prediction.probs.get)
    monkeypatch.setattr(trained.model, "classes", ("unhappy", "happy"))
    swapped = predict_photo(photo, trained, FACES)
    assert swapped.margin == pytest.approx(-prediction.margin)
    assert swapped.label != prediction.label
    for threshold, label in ((0.0, "unhappy"), (1.0, "happy")):
        trained.config["threshold"] = threshold
        assert predict_photo(photo, trained, FACES).label == label


def test_temperature_softens(trained, photo):
    sharp = predict_photo(photo, trained)
    trained.config["temperature"] = 4.0
    soft = predict_photo(photo, trained)
    assert soft.margin == pytest.approx(sharp.margin / 4, rel=1e-4)
    assert soft.margin_sd == pytest.approx(sharp.margin_sd / 4, rel=1e-4)


def test_a_network_of_drawings_answers_drawings_with_a_warning(checkpoint, trained, photo):
    prediction = predict_photo(photo, checkpoint)
    assert DRAWINGS_ONLY in prediction.warnings and DRAWINGS_ONLY in str(prediction)
    assert prediction.label in ("happy", "unhappy")
    assert len(prediction.faces) == 2  # where they were drawn: nobody had to look
    assert DRAWINGS_ONLY not in predict_photo(photo, trained).warnings


@pytest.mark.parametrize("faces", [None, FACES])
def test_a_network_of_drawings_gives_no_verdict_on_a_photograph(checkpoint, pair, faces):
    prediction = predict_photo(pair, checkpoint, faces)
    assert (prediction.label, prediction.reasons) == (NOT_ASSESSABLE, (DRAWINGS_ONLY,))
    assert str(prediction) == f"{NOT_ASSESSABLE}\n{DRAWINGS_ONLY}"


def test_warns_about_small_and_several_pictures(trained, tmp_path):
    trained.config["image_size"] = 256
    noise = Image.effect_noise((100, 70), 60)
    enlarged = "The picture is small: enlarged 2.6 times for the network."
    assert enlarged in predict_photo(noise, trained, FACES).warnings
    trained.config.update(frame="faces", frame_margin=0.0)  # faces of 20 pixels
    enlarged = "The faces are small: enlarged 6.4 times for the network."
    assert enlarged in predict_photo(noise, trained, FACES).warnings
    frames = [noise, Image.new("L", noise.size)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "several pictures" in predict_photo(tmp_path / "a.gif", trained, FACES).warnings[-1]


def test_errors_pass_through(checkpoint, tmp_path, photo):
    with pytest.raises(PictureError):
        predict_photo(b"text", checkpoint)
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        predict_photo(photo, tmp_path / "nothing")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda pair: pair.crop((0, 0, 400, 512)), "Only one face was found"),
        (lambda pair: pair.crop((0, 200, 100, 512)), "No face was found"),
        (lambda pair: pair.point(lambda v: v * 0.1), "too dark"),
        (lambda pair: pair.filter(ImageFilter.GaussianBlur(20)), "too blurred"),
        (lambda pair: pair.resize((80, 51)), "too small (80 x 51 pixels; 64 are the least)"),
        (lambda pair: Image.new("RGB", pair.size, "teal"), "one colour"),
    ],
)
def test_what_cannot_be_judged_gets_a_reason_and_no_number(trained, pair, change, reason):
    prediction = predict_photo(change(pair), trained)
    assert any(reason in text for text in prediction.reasons)
    assert all(text in str(prediction) for text in prediction.reasons)
    assert_no_verdict(prediction)


def assert_no_verdict(prediction):
    """Nothing of it says what the network would have said."""
    assert (prediction.label, prediction.probs, prediction.words) == (NOT_ASSESSABLE, {}, "")
    numbers = ("margin", "margin_sd", "band", "evidence", "grad_cam", "frame", "size")
    assert [getattr(prediction, name) for name in numbers] == [None] * len(numbers)
    assert "happy" not in str(prediction)


def test_abstains_below_the_confidence_of_the_checkpoint(trained, pair):
    sure = max(predict_photo(pair, trained).probs.values())
    for abstain, reasons in ((sure - 1e-6, 0), (min(sure + 1e-6, 1), 1)):
        trained.config["abstain"] = abstain
        prediction = predict_photo(pair, trained)
        assert len(prediction.reasons) == reasons
        assert not any("however unsure" in text for text in prediction.warnings)
    assert "not sure enough" in str(prediction)
    assert_no_verdict(prediction)
    trained.config["abstain"] = None
    assert any("however unsure" in text for text in predict_photo(pair, trained).warnings)


@pytest.fixture
def crowd(pair):
    image = Image.new("RGB", (800, 1024))
    for top in (0, 512):
        image.paste(pair, (0, top))
    return image


def test_of_a_crowd_two_are_taken_or_chosen(trained, crowd):
    assert any("There are 4 faces, and" in t for t in predict_photo(crowd, trained).warnings)
    trained.config.update(frame="couple", frame_margin=0.4)
    first = predict_photo(crowd, trained)
    assert any("4 faces; the largest and" in text for text in first.warnings)
    two = tuple({0, 1, 2, 3} - set(first.two))
    other = predict_photo(crowd, trained, first.faces, two)
    assert (other.two, other.faces) == (two, first.faces)
    assert not any("4 faces" in text for text in other.warnings)
    assert other.frame.pieces != first.frame.pieces


def test_faces_by_hand_get_an_answer_where_none_was_found(trained, pair):
    landscape = pair.crop((0, 200, 100, 512))
    assert_no_verdict(predict_photo(landscape, trained))
    by_hand = predict_photo(landscape, trained, [[10, 10, 40, 40], [60, 20, 95, 55]])
    assert by_hand.label in ("happy", "unhappy") and by_hand.two == (0, 1)


@pytest.mark.parametrize("faces", [[(1, 2, 3)], [(9, 0, 5, 5)], [(0, 0, float("nan"), 5)]])
def test_impossible_boxes_are_refused(trained, pair, faces):
    with pytest.raises(ValueError, match="A face is a box"):
        predict_photo(pair, trained, faces)


@pytest.mark.parametrize("two", [(0, 0), (0, 2), (1,), (-1, 0)])
def test_two_are_two_of_the_faces(trained, pair, two):
    with pytest.raises(ValueError, match="two different numbers of the 2 faces"):
        predict_photo(pair, trained, FACES, two)


def test_a_face_from_the_side_is_said_if_it_is_of_the_couple(trained, pair, monkeypatch):
    front, side = (
        ((0, 0), (9, 0), (5, 5), (1, 9), (8, 9)),
        ((0, 0), (9, 0), (-5, 5), (1, 9), (8, 9)),
    )
    boxes = ((50, 50, 250, 250), (450, 50, 650, 250), (0, 0, 20, 20))
    for looks, said in (((front, side, front), True), ((front, front, side), False)):
        found = tuple(Face(box, 0.9, points) for box, points in zip(boxes, looks))
        monkeypatch.setattr("dclib.framing.faces.find_faces", lambda image, found=found: found)
        assert (IN_PROFILE in predict_photo(pair, trained).warnings) == said
        chosen = predict_photo(pair, trained, faces=boxes[::-1], two=(0, 1))  # the last two
        assert (IN_PROFILE in chosen.warnings) == (looks[1:] != (front, front))


@pytest.mark.parametrize("frame", KINDS)
def test_the_frame_is_what_the_network_looks_at(trained, pair, frame):
    trained.config["frame"] = frame
    prediction = predict_photo(pair, trained)
    assert prediction.size == 64
    assert prediction.evidence.margin_map.shape[1:] == (2, 2)
    expected = frame_picture(pair, prediction.faces, frame, 64)
    assert prediction.frame.pieces == expected.pieces
    assert prediction.frame.image.tobytes() == expected.image.tobytes()


def test_maps_and_spread_are_those_of_the_explanations(trained, photo):
    prediction = predict_photo(photo, trained, FACES)
    image = read_picture(photo).image
    feature_map = extract_features(trained.model, trained.transform(image)[None])
    evidence = find_evidence(fold_head(trained.model, 1.0), feature_map)
    cams = grad_cam(trained.model, feature_map)
    torch.testing.assert_close(prediction.evidence.margin_map, evidence.margin_map)
    torch.testing.assert_close(prediction.grad_cam.maps, cams.maps)
    assert prediction.margin_sd == pytest.approx(evidence.margin_sd.item())
    assert prediction.grad_cam.targets[:2] == trained.model.classes
    assert (prediction.size, prediction.image.size) == (64, image.size)


def test_the_band_lies_around_the_probability_it_speaks_of(checkpoint, photo):
    given = {"probs": {"happy": 0.8807970779778823, "unhappy": 0.12}, "margin": -2.0}
    prediction = replace(predict_photo(photo, checkpoint), **given, margin_sd=0.5)
    low, high = prediction.band  # sigmoid(-2 -+ 1.96 / 2)
    assert (low, high) == pytest.approx((1 / (1 + np.exp(2.98)), 1 / (1 + np.exp(1.02))))
    assert f"between {percent(1 - high)} and {percent(1 - low)}" in prediction.words
    assert "fairly sure" in prediction.words


def test_the_command_answers_each_photo_and_says_what_it_could_not_read(
    photo_checkpoint, pair, tmp_path, monkeypatch, capsys
):
    good, bad = tmp_path / "us.png", tmp_path / "half.jpg"
    pair.save(good)
    bad.write_bytes(b"\xff\xd8\xff half")
    command = ["photo", "--checkpoint", str(photo_checkpoint)]
    for photos, status in (([good], 0), ([bad, good, tmp_path / "none.jpg"], 1)):
        monkeypatch.setattr("sys.argv", [*command, *map(str, photos)])
        with pytest.raises(SystemExit) as end:
            main()
        out = capsys.readouterr().out
        assert end.value.code == status
        assert f"{photo_checkpoint}: resnet18" in out and "The network gives" in out
    assert "half.jpg: half.jpg is not a picture that can be read" in out
    assert "none.jpg: There is no picture at" in out
    monkeypatch.setattr("sys.argv", ["photo", "--checkpoint", str(tmp_path), str(good)])
    with pytest.raises(SystemExit, match="is no checkpoint"):
        main()
