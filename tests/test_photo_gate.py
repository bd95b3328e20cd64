"""Light, sharpness and two faces, on photographs that come with scikit-image and drawn ones."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data
from skimage.measure import blur_effect

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.photo import gate
from dclib.photo.gate import blur, why_not


def test_photographs_and_drawings_that_are_fine_have_no_reason(astronaut):
    for image in (astronaut, Image.fromarray(data.coffee()), Image.fromarray(data.chelsea())):
        assert why_not(image) == ()
    for index in range(20):
        assert why_not(draw_scene(sample_scene(0, index)[0], 256)) == ()


def test_blur_grows_with_blurring_whatever_the_contrast(astronaut):
    grey = astronaut.convert("L").resize((256, 256))
    effects = [blur(np.asarray(grey.filter(ImageFilter.GaussianBlur(s)))) for s in (0, 1, 2, 4)]
    assert effects == sorted(effects)
    faint = grey.filter(ImageFilter.GaussianBlur(2)).point(lambda v: 100 + v // 3)
    assert blur(np.asarray(faint)) == pytest.approx(effects[2], abs=0.06)


def test_a_sharp_couple_before_a_blurred_background_is_sharp(astronaut):
    image = astronaut.filter(ImageFilter.GaussianBlur(16))
    assert any("blurred" in reason for reason in why_not(image))
    image.paste(astronaut.crop((150, 40, 330, 220)), (150, 40))
    assert why_not(image) == ()


def test_reasons_follow_the_faces(astronaut):
    assert why_not(astronaut, None) == why_not(astronaut, (1, 2)) == ()
    assert "No face" in why_not(astronaut, ())[0]
    assert "Only one face" in why_not(astronaut, (1,))[0]


@pytest.mark.parametrize("sigma", [0, 1, 4])
@pytest.mark.parametrize("name", ["astronaut", "brick", "coffee"])
def test_the_blur_effect_is_that_of_scikit_image(name, sigma):
    image = Image.fromarray(getattr(data, name)()).convert("L").resize((90, 70))
    grey = np.asarray(image.filter(ImageFilter.GaussianBlur(sigma)))
    assert gate._blur_effect(grey) == pytest.approx(blur_effect(grey), abs=1e-9)


def test_what_has_no_edges_is_no_sharp_picture():
    stripes = np.tile(np.arange(40) % 2 * 255, (40, 1)).astype(np.uint8)  # none from row to row
    assert gate._blur_effect(stripes) == blur_effect(stripes) == 1
