"""Every odd file is either seen upright and judged, or gets one sentence; the table says which."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from odd_pictures import CASES, JPEG, NAMES, SCENE
from PIL import Image

from dclib.data import NOT_ASSESSABLE
from dclib.photo import predict_photo
from dclib.pictures import PictureError, read_picture

TABLE = Path(__file__).with_suffix(".md").with_name("odd_pictures.md")
WORDS = {  # of the sentence, in the table
    "is not a picture that can be read": "not a picture that can be read",
    "is a HEIC photo": "HEIC: export it as JPEG",
    "is damaged or cut off": "damaged or cut off",
    "million pixels": "too many pixels",
    "floating-point pixels": "floating-point pixels",
    "An array": "not such an array",
    "A floating-point array": "not such an array",
    "A picture is a path": "not a picture",
}


def outcome(source, checkpoint):
    """What the table says of it; anything but a prediction or a PictureError gets through."""
    try:
        prediction = predict_photo(source, checkpoint)
    except PictureError as error:
        sentence = str(error)
        assert "\n" not in sentence and sentence.endswith((".", "again.")), sentence
        return "refused: " + next(words for part, words in WORDS.items() if part in sentence)
    assert prediction.image.mode == "RGB" and not prediction.image.info
    said = f"judged at {prediction.image.width} x {prediction.image.height}"
    if prediction.label == NOT_ASSESSABLE:
        said = f"not assessable: {' '.join(prediction.reasons)}"
    several = any("several pictures" in text for text in prediction.warnings)
    return said + "; the first picture" * several


def likeness(image):
    """Correlation of grey thumbnails with the drawn couple: 1 is the same picture."""
    thumbnails = [np.asarray(i.convert("L").resize((16, 16), Image.BOX)) for i in (image, SCENE)]
    return np.corrcoef(*(thumbnail.ravel() for thumbnail in thumbnails))[0, 1]


def test_the_scene_tells_upright_from_turned():
    turned = [SCENE.transpose(turn).resize(SCENE.size) for turn in Image.Transpose]
    assert max(map(likeness, turned)) < 0.85 < 0.99 < likeness(SCENE)


def test_outcomes_are_those_of_the_table(checkpoint):
    lines = [line.strip("| ").split(" | ") for line in TABLE.read_text().splitlines()]
    written = {line[0]: line[1] for line in lines[lines.index(["---", "---"]) + 1 :]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {name: outcome(source, checkpoint) for name, (source, _) in CASES.items()}
    assert found == written
    assert len(found) >= 60


@pytest.mark.parametrize("name", [name for name, (_, seen) in CASES.items() if seen])
def test_the_couple_stands_upright(name):
    assert likeness(read_picture(CASES[name][0]).image) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_change_nothing(name, tmp_path, checkpoint):
    path = tmp_path / name
    path.write_bytes(JPEG)
    assert predict_photo(path, checkpoint) == predict_photo(str(path), checkpoint)
    path.write_bytes(JPEG[:-99])
    with pytest.raises(PictureError, match="is damaged or cut off") as caught:
        read_picture(path)
    assert str(caught.value).startswith(name)


def test_a_folder_and_nothing_at_all(tmp_path):
    for path in (tmp_path, tmp_path / "none.jpg"):
        with pytest.raises(FileNotFoundError, match="There is no picture at"):
            read_picture(path)
