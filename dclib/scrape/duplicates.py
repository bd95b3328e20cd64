"""Find the same picture again: the same bytes, the same pixels, or nearly so, mirrored or not."""

import hashlib
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageOps
from scipy.fft import dct

from dclib.pictures import PictureError, read_picture

# Bits of 64 in which phash and dhash may both differ in two files of one picture. Measured on 1,000
# photographed and 600 drawn couples, 200 edits of each kind: JPEG of quality 30, half size, grey,
# brighter or darker by 30 %, mirrored, cut by 1 % on every side: all are found; cut by 2 % on two
# sides 96 % or more, by 2.5 % on every side 94 %, by 5 % on two sides only 20 %; with large letters
# across 80 %. Taken for one picture by mistake: none of 499,500 pairs of photographs (the nearest
# differ in 12), 4 of 718,800 pairs of drawings.
NEAR = 10
CHUNK = 256  # rows compared at a time: a few MB against some thousands
# Grey levels: standard deviation of a picture of 32 x 32 pixels; 1,000 photographs had 14 or more.
# Faded to 6, 99 % of them are near themselves after JPEG of quality 30, faded to 3 87 %, to 1 26 %.
LEAST_CONTRAST = 6.0
MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}  # and WebP: RIFF....WEBP
OTHERS = {b"GIF8": "GIF", b"%PDF": "PDF", b"%!PS": "EPS", b"BM": "BMP", b"II*\x00": "TIFF"}
OTHERS |= {b"MM\x00*": "TIFF", b"PK\x03\x04": "ZIP", b"{": "JSON", b"<": "HTML or SVG"}
LEAST_SIDE = 200  # pixels
LARGEST_ASPECT = 3.0  # long side / short side
KEPT_SIDE, KEPT_QUALITY = 1024, 92


def fingerprints(image: Image.Image) -> dict[str, str]:
    """Keys by which a picture (RGB Pillow image) is known again.

    pixel_sha256 of its size and pixels; phash, dhash and those of its mirror image, 64 bit as 16
    hexadecimal digits, equal to those that the package ImageHash finds in a picture of mode L.
    """
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    grey = image.convert("L")
    mirrored = ImageOps.mirror(grey)
    hashes = {"phash": phash(grey), "dhash": dhash(grey)}
    hashes |= {"phash_mirrored": phash(mirrored), "dhash_mirrored": dhash(mirrored)}
    return {"pixel_sha256": pixels} | hashes


def phash(grey: Image.Image) -> str:
    """Perceptual hash: which of the 8 x 8 lowest frequencies are above their median.

    Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
    """
    pixels = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = dct(dct(pixels, axis=0), axis=1)[:8, :8]
    return _hexadecimal(low > np.median(low))


def dhash(grey: Image.Image) -> str:
    """Difference hash: where it gets brighter from left to right, on 9 x 8 pixels (Krawetz)."""
    pixels = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS))
    return _hexadecimal(pixels[:, 1:] > pixels[:, :-1])


def _hexadecimal(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()  # (8, 8) -> 16 digits


def is_flat(image: Image.Image) -> bool:
    """Whether there is so little in a picture that its hashes mean nothing."""
    return bool(np.asarray(image.convert("L").resize((32, 32))).std() < LEAST_CONTRAST)


def near_pairs(rows: Sequence[dict], limit: int = NEAR) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of rows at most `limit` apart (`distances`), in rising order.

    Rows are dicts with the keys of `fingerprints`; those without hashes are near nothing.
    """
    known = [i for i, row in enumerate(rows) if row.get("phash")]
    hashed, found = [rows[i] for i in known], []
    for start in range(0, len(known), CHUNK):
        apart = distances(hashed[start : start + CHUNK], hashed)
        for i, j in zip(*np.nonzero(apart <= limit)):
            if start + i < j:
                found.append((known[start + i], known[j]))
    return found


def distances(rows: Sequence[dict], others: Sequence[dict]) -> np.ndarray:
    """How far rows are from others, in bits, 0 to 64: (len(rows), len(others)), uint8.

    The larger of what phash and dhash say; the smallest of the pictures as they are, the one
    mirrored and the other mirrored (those differ by rounding), so that it is the same both ways.
    """
    sides = []
    for side, other in (("", ""), ("_mirrored", ""), ("", "_mirrored")):
        differ = [
            _differ(_signs(rows, name + side), _signs(others, name + other))
            for name in ("phash", "dhash")
        ]
        sides.append(np.maximum(*differ))
    return np.minimum.reduce(sides)


def _signs(rows: Sequence[dict], name: str) -> np.ndarray:
    """The bits of hashes as -1 and 1: (len(rows), 64)."""
    numbers = np.array([int(row[name], 16) for row in rows], ">u8")
    return np.unpackbits(numbers.view(np.uint8)).reshape(-1, 64) * np.float32(2) - 1


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In how many bits each of a differs from each of b, by one matrix product (exact)."""
    return ((64 - a @ b.T) / 2).astype(np.uint8)


def duplicate_groups(rows: Sequence[dict]) -> list[list[int]]:
    """Lists of indices of rows that show the same picture; those alone are left out.

    Same sha256 (of the file), same pixel_sha256, or near (`near_pairs`); what is linked by a third
    belongs together too.
    """
    union = UnionFind(len(rows))
    for name in ("sha256", "pixel_sha256"):
        union.join_equal([row.get(name, "") for row in rows])
    for i, j in near_pairs(rows):
        union.join(i, j)
    return [group for group in union.groups() if len(group) > 1]


class UnionFind:
    """Which of `n` things belong together."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        """The one of a group that stands for it, its lowest."""
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one group of those of two things."""
        first, second = sorted((self.find(i), self.find(j)))
        self.parent[second] = first

    def join_equal(self, keys: Iterable[str]) -> None:
        """Join things with the same key; "" is no key."""
        seen: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key:
                self.join(seen.setdefault(key, i), i)

    def groups(self) -> list[list[int]]:
        """Lists of indices, each in rising order, in the order of their first member."""
        found: dict[int, list[int]] = {}
        for i in range(len(self.parent)):
            found.setdefault(self.find(i), []).append(i)
        return list(found.values())


class Unsuitable(ValueError):
    """A file that is not kept: `reason` in a few words, the message says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def examine(content: bytes) -> tuple[dict, bytes]:
    """What is known of a downloaded file (bytes), and the picture to keep.

    Returns (facts, jpeg): a dict of sha256, width, height and bytes of the original, red, green and
    blue (means of the kept picture, 0 to 255) and its fingerprints; and the bytes of an upright RGB
    JPEG, at most 1024 px a side, without metadata, so that neither a camera's or site's encoder
    nor the place where a photo was taken comes along. Raises Unsuitable.
    """
    kind = sniff(content)
    if kind not in ("JPEG", "PNG", "WEBP"):
        raise Unsuitable("not a picture", f"it begins like {kind}")
    try:
        image, notes = read_picture(content)  # checks the pixels before decoding, then decodes all
    except PictureError as error:
        raise Unsuitable("damaged or too large", str(error)) from error
    if notes:
        raise Unsuitable("animated")
    width, height = image.size
    if min(width, height) < LEAST_SIDE:
        raise Unsuitable("too small", f"{width} x {height}, less than {LEAST_SIDE} px")
    if max(width, height) > LARGEST_ASPECT * min(width, height):
        raise Unsuitable("too long", f"{width} x {height}")
    image.thumbnail((KEPT_SIDE, KEPT_SIDE), Image.Resampling.LANCZOS)
    if is_flat(image):
        raise Unsuitable("nothing in it", "one colour or close to it")
    facts: dict[str, object] = {"sha256": hashlib.sha256(content).hexdigest()}
    facts |= {"width": width, "height": height, "bytes": len(content)}
    means = np.asarray(image).mean((0, 1)).round(2).tolist()
    facts |= dict(zip(("red", "green", "blue"), means, strict=True))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=KEPT_QUALITY, subsampling=0)
    return facts | fingerprints(image), buffer.getvalue()


def sniff(content: bytes) -> str:
    """The kind of a file by its first bytes, whatever its name and its server say."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    start = content.lstrip()[:16] if content[:1].isspace() else content[:16]
    for magic, kind in (MAGIC | OTHERS).items():
        if start.startswith(magic):
            return kind
    return "an unknown kind of file" if content else "an empty file"
