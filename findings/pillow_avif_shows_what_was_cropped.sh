#!/usr/bin/env bash
# Pillow 13.0.0: an AVIF file that was cropped in its container (property `clap`) is shown whole.
#
# Telephones and editors crop without encoding anew: they write the box to be shown as a clean aperture
# (ISO/IEC 14496-12, 12.1.4), marked as essential, so that what a person cut away is still in the file.
# pillow-heif, reading HEIC, shows the box only; Pillow's own AVIF reader shows all, with no sign in
# `info`. Who converts such files publishes what was cut away. Both files below are written by these
# libraries; a profile of 28 bytes in them then makes room for the 40 bytes of the property. The
# output seen stands at the end; the script fails if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 pillow-heif==1.8.1
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import io
import struct

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
WIDTH, HEIGHT, BOX = 96, 64, (24, 8, 64, 48)  # left, top, right, bottom


def cropped(kind):
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(file, kind, icc_profile=b"x" * 28)
    data = bytearray(file.getvalue())
    uses = data.index(b"ipma") + 14  # how many properties the picture has, then one byte for each
    for place in range(uses + 1, uses + 1 + data[uses]):
        data[place] |= 0x80  # essential
    left, top, right, bottom = BOX
    middle = (left + right - WIDTH, 2, top + bottom - HEIGHT, 2)  # from the picture's, as fractions
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", right - left, 1, bottom - top, 1, *middle)
    place = data.index(b"colrprof") - 4
    data[place : place + 40] = clap
    return io.BytesIO(data)


for kind in ("HEIF", "AVIF"):
    with Image.open(cropped(kind)) as image:
        image.load()
        print(f"{kind}: {image.format} of {image.size}")
PYTHON
diff "$folder/seen" - <<'SEEN'
HEIF: HEIF of (40, 40)
AVIF: AVIF of (96, 64)
SEEN
