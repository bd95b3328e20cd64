"""Colours as ordinary screens show them (sRGB), by an ICC profile or the numbers of a coding."""

import io
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageFilter

# x and y of red, green and blue, by number in ITU-T H.273; white is D65. Others are near BT.709.
BT709, BT2020, P3, ADOBE, PQ, HLG = 1, 9, 12, -1, 16, 18  # Adobe RGB has no number there
PRIMARIES = {
    BT709: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    BT2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    P3: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    ADOBE: (0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
}
WHITE = np.array([0.3127, 0.3290, 0.3583]) / 0.3290
KNEE = 0.75  # of an ordinary screen's light: what is brighter is pressed together, not cut off
SAME = 2  # levels of 255 that a profile of sRGB may differ from sRGB, by its rounding
SPACES = {"GRAY": "L", "CMYK": "CMYK", "Lab": "LAB", "RGB": "RGB"}  # of profiles -> Pillow's modes
SRGB = ImageCms.createProfile("sRGB")


def by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """L, RGB, CMYK or LAB -> RGB by an ICC profile; `image` itself may be written over.

    Raises ImageCms.PyCMSError, OSError or ValueError for a profile that is damaged or of another
    kind of picture.
    """
    mode, change = _transform(profile)
    if mode != image.mode and (mode, image.mode) != ("RGB", "L"):
        raise ValueError(f"the profile is of {mode} pictures")
    image = image if image.mode == mode else image.convert(mode)
    if change is None:
        return image.convert("RGB") if mode == "L" else image
    if mode != "RGB":
        return change.apply(image)
    change.apply_in_place(image)  # a large picture is not there twice
    return image


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile is of, and the way to sRGB: None where there is nothing to do."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = SPACES.get(source.profile.xcolor_space.strip(), "none")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    change = ImageCms.buildTransform(source, SRGB, mode, "RGB", intent, flags)
    if mode in ("L", "RGB"):
        probe = Image.fromarray(np.uint8(255 * np.indices((6, 6, 6)).reshape(3, 1, -1).T / 5))
        probe = probe.convert(mode)  # six levels of each
        seen, stored = change.apply(probe), probe.convert("RGB")
        if np.abs(np.asarray(seen, int) - np.asarray(stored, int)).max() <= SAME:
            return mode, None
    return mode, change


@cache
def by_coding(primaries: int, transfer: int) -> ImageFilter.Color3DLUT | None:
    """A filter from RGB of these primaries and this curve to sRGB; None for what is nearly sRGB.

    HLG and PQ (ITU-R BT.2100): white of 203 cd/m2, 75 % in HLG (BT.2408), becomes white, and what
    is brighter is pressed into what is left above `KNEE`. HLG is shown as on a screen of 334 cd/m2,
    where its system gamma is 1 (BT.2390).
    """
    if primaries not in (BT2020, P3, ADOBE) and transfer not in (PQ, HLG):
        return None
    blue, green, red = np.indices((65, 65, 65)) / 64
    light = _light(np.stack([red, green, blue], -1), primaries, transfer)  # (65, 65, 65, 3)
    own, screen = (_to_xyz(PRIMARIES.get(p, PRIMARIES[BT709])) for p in (primaries, BT709))
    light = np.clip(light @ (np.linalg.inv(screen) @ own).T, 0, None)
    if transfer in (PQ, HLG):
        light = np.where(light < KNEE, light, 1 - (1 - KNEE) * np.exp((KNEE - light) / (1 - KNEE)))
    light = light.clip(0, 1)
    signal = np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return ImageFilter.Color3DLUT(65, signal.ravel().tolist())


def _light(signal: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """From values of 0 to 1 to light, where 1 is white."""
    if transfer == PQ:
        power = signal ** (1 / 78.84375)
        return (np.clip(power - 0.8359375, 0, None) / (18.8515625 - 18.6875 * power)) ** (
            1 / 0.1593017578125
        ) * (10_000 / 203)
    if transfer == HLG:
        bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(signal <= 0.5, signal**2 / 3, bright) / 0.2649
    if primaries == ADOBE:
        return signal ** (563 / 256)
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _to_xyz(primaries: tuple[float, ...]) -> np.ndarray:
    """The matrix (3, 3) from light in red, green and blue to CIE XYZ."""
    x, y = np.array(primaries).reshape(3, 2).T
    columns = np.array([x, y, 1 - x - y])
    return columns * np.linalg.solve(columns, WHITE)
