"""Every odd file is either seen upright and judged, or gets one sentence; the table says which."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from odd_pictures import CASES, JPEG, NAMES, SCENE, given
from PIL import Image

from dclib.photo.gate import why_not
from dclib.pictures import PictureError, read_picture
from dclib.pictures.mark import kept_mark

TABLE = Path(__file__).with_suffix(".md").with_name("odd_pictures.md")
HEAD = "| --- | --- |\n"
WORDS = {  # of the sentence, in the table
    "it is a damaged": "damaged, or of a rare kind",
    "is not a picture that can be read": "not a picture that can be read",
    "a camera's raw file": "a camera's raw file: export it as JPEG",
    "is a JPEG XL picture": "JPEG XL: export it as JPEG",
    "is damaged or cut off": "damaged or cut off",
    "million pixels": "too many pixels",
    "floating-point pixels": "floating-point pixels",
    "An array": "not such an array",
    "A floating-point array": "not such an array",
    "A picture is a path": "not a picture",
}
NOTES = {
    "the first was used": "the first picture",
    "the first of full size": "the first picture of full size",
    "at half its size": "read at half its size",
    "profile makes no sense": "its profile was passed over",
}


def outcome(source):
    """What the table says of it; anything but a picture or a PictureError gets through."""
    try:
        image, notes = read_picture(source)
    except PictureError as error:
        sentence = str(error)
        assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 250, sentence
        return "refused: " + next(words for part, words in WORDS.items() if part in sentence)
    assert image.mode == "RGB" and image.info == kept_mark(image.info) and not image.getexif()
    said = f"seen at {image.width} x {image.height}"
    if reasons := why_not(image):
        said = f"not assessable: {' '.join(reasons)}"
    for part, words in NOTES.items():
        said += f"; {words}" * any(part in note for note in notes)
    return said


def likeness(image):
    """Correlation of grey thumbnails with the drawn couple: 1 is the same picture."""
    thumbnails = [np.asarray(i.convert("L").resize((16, 16), Image.BOX)) for i in (image, SCENE)]
    return np.corrcoef(*(thumbnail.ravel() for thumbnail in thumbnails))[0, 1]


def test_the_scene_tells_upright_from_turned():
    turned = [SCENE.transpose(turn).resize(SCENE.size) for turn in Image.Transpose]
    assert max(map(likeness, turned)) < 0.85 < 0.99 < likeness(SCENE)


def test_outcomes_are_those_of_the_table():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [f"| {name} | {outcome(given(name))} |" for name in CASES]
    assert found == TABLE.read_text().split(HEAD)[1].splitlines()
    assert len(found) >= 130


@pytest.mark.parametrize("name", [name for name, (_, seen) in CASES.items() if seen])
def test_the_couple_stands_upright(name):
    assert likeness(read_picture(given(name)).image) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_change_nothing(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(JPEG)
    assert read_picture(path).image == read_picture(str(path)).image == read_picture(JPEG).image
    path.write_bytes(JPEG[:-99])
    with pytest.raises(PictureError, match="is damaged or cut off") as caught:
        read_picture(path)
    assert str(caught.value).startswith(name)


def test_a_folder_and_nothing_at_all(tmp_path):
    for path in (tmp_path, tmp_path / "none.jpg"):
        with pytest.raises(FileNotFoundError, match="There is no picture at"):
            read_picture(path)


if __name__ == "__main__":
    rows = [f"| {name} | {outcome(given(name))} |\n" for name in CASES]
    TABLE.write_text(TABLE.read_text().split(HEAD)[0] + HEAD + "".join(rows))
