"""Files that people and programs call a picture; for tests only.

Each case is (what is given to `read_picture`, whether the drawn couple must be seen in it). What
takes long to make is a function, called by `given`: every worker of the tests imports this file.
"""

import io
import struct
import zlib
from functools import partial

import numpy as np
import pillow_heif
import profiles
import torch
from PIL import ExifTags, Image

from dclib import pictures
from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures.colour import ADOBE, P3, PRIMARIES

SCENE = draw_scene(sample_scene(3, 4)[0], 240).resize((240, 160))  # upright is told from turned
UPRIGHT_TO_STORED = {  # by EXIF's mark; 6: the camera lay on its side, turn it clockwise to see it
    **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
    **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
    **{6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270},
}


def encode(kind="JPEG", image=SCENE, **options):
    return pictures.encode(image.copy(), kind, **options)  # saving leaves marks on an image


def several(kind):
    """The couple, then twice the same upside down."""
    others = [SCENE.transpose(Image.Transpose.ROTATE_180) for _ in range(2)]
    return encode(kind, save_all=True, append_images=others)


def mode(name, kind="PNG", **options):
    return encode(kind, SCENE.convert(name), **options)


def stored(mark):
    """The couple as a camera that was held differently has it."""
    return SCENE.transpose(UPRIGHT_TO_STORED[mark]) if mark in UPRIGHT_TO_STORED else SCENE


def exif(mark, kind="JPEG", broken=None):
    """The couple as a camera held differently writes it, with the mark that says so."""
    marks = Image.Exif()
    marks[ExifTags.Base.Orientation] = mark
    return encode(kind, stored(mark), exif=broken or marks.tobytes())


def private():
    """A place, a comment and a small copy, as telephones write them."""
    marks = Image.Exif()
    marks[ExifTags.Base.ImageDescription] = "our garden"
    marks.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (49.0, 0.0, 0.0)
    return encode("JPEG", exif=marks, comment=b"our garden")


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width, height, *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def text_bomb():
    return png(240, 160, chunk(b"zTXt", b"comment\0\0" + zlib.compress(b" " * 70_000_000, 1)))


def turned_channel_order():
    return np.ascontiguousarray(np.asarray(SCENE)[:, :, ::-1])[:, :, ::-1]


def noisy(data, start, stop):
    noise = np.random.default_rng(0).bytes(stop - start)
    return data[:start] + noise + data[stop:]


def pages(*marks):
    """A TIFF with these marks on each page: all but the last are small and upside down."""
    images = [TURNED.resize((60, 40)) for _ in marks[1:]] + [SCENE.copy()]
    for image, own in zip(images, marks, strict=True):
        image.encoderinfo = {"tiffinfo": own}  # of the pages after the first
    return encode("TIFF", images[0], save_all=True, append_images=images[1:], tiffinfo=marks[0])


def heic(*images, exif=None, **options):
    """A HEIC file of these pictures, in which the first has an EXIF mark."""
    file = pillow_heif.from_pillow(images[0])
    for other in images[1:]:
        file.add_from_pillow(other)
    buffer = io.BytesIO()
    file.save(buffer, quality=80, **options | ({"exif": exif} if exif else {}))
    return buffer.getvalue()


def turned_heic(mark):
    """As a telephone held differently writes it: turned in the container, and marked in EXIF."""
    marks = Image.Exif()
    marks[ExifTags.Base.Orientation] = mark
    return heic(stored(mark), exif=marks.tobytes())


def first_half(data):
    return data[: len(data) // 2]


def enlarged(*size):
    return encode("JPEG", SCENE.resize(size))


def progressive():
    return encode("JPEG", Image.new("L", (12_000, 8_000)), progressive=True)


def closed():
    image = Image.open(io.BytesIO(encode()))
    image.close()
    return image


TURNED = SCENE.transpose(Image.Transpose.ROTATE_180)
AVIF = encode("AVIF")
RAWS = {"ORF": b"IIRO", "RW2": b"IIU\0", "RAF": b"FUJIFILMCCD-RAW", "CR3": b"\0\0\0\x18ftypcrx "}
PROFILES = {"Adobe RGB": profiles.rgb(PRIMARIES[ADOBE], 563 / 256)}
PROFILES["P3"] = profiles.rgb(PRIMARIES[P3], 2.2)
JPEG, PNG, GIF, WEBP = encode(), encode("PNG"), encode("GIF"), encode("WEBP")
TIFF = encode("TIFF")
HALVED = {"GIF": GIF, "WebP": WEBP, "TIFF": TIFF}
GREY = np.asarray(SCENE.convert("L"))
MODES = {"1 bit": "1", "grey": "L", "grey with alpha": "LA", "palette": "P", "alpha": "RGBA"}
CLEAR = Image.new("RGBA", SCENE.size, (0, 0, 0, 0))

CASES = {
    "JPEG": (JPEG, True),
    "JPEG, progressive": (encode(progressive=True), True),
    "JPEG, quality 1": (encode(quality=1), True),
    "JPEG, grey": (mode("L", "JPEG"), True),
    "JPEG, CMYK": (mode("CMYK", "JPEG"), True),
    "JPEG, a broken colour profile": (encode(icc_profile=b"nonsense"), True),
    "JPEG, a place and a comment": (private(), True),
    "JPEG, a script behind it": (JPEG + b"<script>alert(1)</script>" * 99, True),
    "JPEG, zeros behind it": (JPEG + bytes(2**20), True),
    "MPO of a telephone, two views": (several("MPO"), True),
    "PNG": (PNG, True),
    **{f"PNG, {name}": (mode(letters), True) for name, letters in MODES.items()},
    "PNG, all transparent": (encode("PNG", CLEAR), False),
    "PNG, 16 bit grey": (encode("PNG", Image.fromarray(GREY.astype(np.uint16) * 257)), True),
    "PNG, a text of 70 MB": (text_bomb, False),
    "PNG, a transparent colour": (mode("P", transparency=0), True),
    "WebP": (WEBP, True),
    "WebP, lossless with alpha": (mode("RGBA", "WEBP", lossless=True), True),
    "GIF": (GIF, True),
    "BMP": (encode("BMP"), True),
    "BMP, palette": (mode("P", "BMP"), True),
    "TIFF": (TIFF, True),
    "TIFF, LZW": (encode("TIFF", compression="tiff_lzw"), True),
    "TIFF, JPEG inside": (encode("TIFF", compression="jpeg"), True),
    "TIFF, CMYK": (mode("CMYK", "TIFF"), True),
    "TIFF, Lab": (mode("LAB", "TIFF"), True),
    "TIFF, floating point": (mode("F", "TIFF"), False),
    "TIFF, 32 bit": (mode("I", "TIFF"), False),
    "TIFF, three pages": (several("TIFF"), True),
    "TIFF, first a small copy": (pages({254: 1}, {254: 0}), True),
    "TIFF, first a mask": (pages({254: 4}, {254: 0}), True),
    "TIFF, a small copy only": (pages({254: 1}), False),
    "DNG, seen as its small copy": (pages({254: 1, 50706: b"\1\4\0\0"}), False),
    "CR2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(400), False),
    **{kind: (start + bytes(400), False) for kind, start in RAWS.items()},
    "HEIC": (partial(heic, SCENE), True),
    "HEIC, grey": (partial(heic, SCENE.convert("L")), True),
    "HEIC, alpha": (partial(heic, SCENE.convert("RGBA")), True),
    "HEIC, tiles": (partial(heic, SCENE.resize((640, 420)), tile_size=256), True),
    "HEIC, a burst, the second is its main picture": (
        partial(heic, TURNED, SCENE, primary_index=1),
        True,
    ),
    "HEIC, its first half": (lambda: first_half(heic(SCENE)), False),
    "HEIC, its head only": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), False),
    "AVIF": (AVIF, True),
    "AVIF, alpha": (mode("RGBA", "AVIF"), True),
    "AVIF, its first half": (first_half(AVIF), False),
    "AVIF, its head only": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(400), False),
    **{f"{name} as a profile": (encode(icc_profile=icc), True) for name, icc in PROFILES.items()},
    "JPEG, a print's profile": (mode("CMYK", "JPEG", icc_profile=profiles.cmyk()), True),
    "JPEG, grey with a screen's profile": (mode("L", "JPEG", icc_profile=PROFILES["P3"]), True),
    "JPEG 2000": (encode("JPEG2000"), False),
    "JPEG XL": (b"\xff\x0a" + bytes(400), False),
    "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(400), False),
    **{kind: (encode(kind), False) for kind in ("PPM", "TGA", "ICO", "PDF", "EPS")},
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>', False),
    "HTML": (b"<!doctype html><title>Not found</title>", False),
    "ZIP": (b"PK\x03\x04" + bytes(400), False),
    "MP4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(400), False),
    "empty": (b"", False),
    "one byte": (b"\xff", False),
    "a million zeros": (bytes(10**6), False),
    "noise": (np.random.default_rng(1).bytes(10**5), False),
    "JPEG, its first half": (first_half(JPEG), False),
    "JPEG, two bytes short": (JPEG[:-2], False),
    "JPEG, its head only": (JPEG[:400], False),
    "JPEG, noise in the middle": (noisy(JPEG, 3000, 3400), False),
    "PNG, its first half": (first_half(PNG), False),
    "PNG, noise in the middle": (noisy(PNG, 5000, 5100), False),
    "PNG, no pixels": (png(100, 100), False),
    **{f"{k}, its first half": (first_half(v), False) for k, v in HALVED.items()},
    "TIFF, its list of marks is a ring": (TIFF[:4] + struct.pack("<I", 4) + TIFF[8:], False),
    "bomb: 100,000 x 100,000 PNG in 66 bytes": (png(100_000, 100_000), False),
    "bomb: 9,000 x 9,000 PNG": (lambda: encode("PNG", Image.new("1", (9000, 9000))), False),
    "bomb: 60,000 x 60,000 GIF": (GIF[:6] + struct.pack("<HH", 60_000, 60_000) + GIF[10:], False),
    "1 x 1": (encode("PNG", Image.new("RGB", (1, 1))), False),
    "4,000 x 2": (encode("PNG", SCENE.resize((4000, 2))), False),
    "63 x 64": (encode("PNG", SCENE.resize((63, 64))), True),
    "12,000 x 8,000 JPEG": (partial(enlarged, 12_000, 8_000), True),
    "12,000 x 8,000 JPEG, progressive": (progressive, False),
    "6,000 x 4,000": (partial(enlarged, 6000, 4000), True),
    "one colour": (encode("PNG", Image.new("RGB", (200, 200), "teal")), False),
    **{f"EXIF orientation {mark}": (exif(mark), True) for mark in (*range(1, 9), 0, 9)},
    "EXIF orientation 6 in a PNG": (exif(6, "PNG"), True),
    "EXIF orientation 6 in a WebP": (exif(6, "WEBP"), True),
    **{f"AVIF, orientation {mark}": (exif(mark, "AVIF"), True) for mark in range(2, 9)},
    **{f"HEIC, orientation {mark}": (partial(turned_heic, mark), True) for mark in range(2, 9)},
    "EXIF cut off": (exif(1, broken=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"), True),
    "EXIF of nonsense": (exif(1, broken=b"Exif\0\0" + b"\xee" * 50), True),
    **{f"animated {k}": (several(k.upper()), True) for k in ("GIF", "WebP", "PNG", "AVIF")},
    "an array (H, W, 3)": (np.asarray(SCENE), True),
    "an array (H, W) of floats": (GREY / 255, True),
    "an array with strides turned round": (turned_channel_order(), True),
    "an array of NaN": (np.full((9, 9), np.nan), False),
    "an array (3, H, W)": (np.asarray(SCENE).transpose(2, 0, 1), False),
    "an array of nothing": (np.zeros((0, 5, 3), np.uint8), False),
    "a Pillow image that was closed": (closed(), False),
    "a memoryview": (memoryview(JPEG), True),
    "a tensor (3, H, W)": (torch.from_numpy(np.array(SCENE)).movedim(-1, 0), True),
    "a tensor (H, W)": (torch.from_numpy(GREY.copy()), False),
    "a list of rows": (GREY.tolist(), False),
    "a number": (7, False),
}


def given(name):
    """What `read_picture` gets in a case."""
    source = CASES[name][0]
    return source() if callable(source) else source


NAMES = (
    "two words.jpg",
    "we 👩‍❤️‍👨 & you.jpg",
    "Müller_日本.jpeg",
    "no extension",
    "-rf.jpg",
    "100%25.jpg",
    "'\"<b>.jpg",
    "a\nb.jpg",
    "photo.txt",
    "photo.jpg.exe",
    "x" * 251 + ".jpg",
)
