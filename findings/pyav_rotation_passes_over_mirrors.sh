#!/usr/bin/env bash
# PyAV 18.1.0: frame.rotation is the same for a film that is turned by 180 degrees and for one that is
# only mirrored; and 0 for one that is shown upside down as in a pond.
#
# A film's display matrix may mirror, as front cameras and editors write it; FFmpeg's own player and
# browsers obey. `rotation` comes from av_display_rotation_get, which is defined for matrices that turn
# and do not mirror; PyAV gives no sign of the difference. Who turns frames by `rotation` stands the
# mirrored film on its head and leaves the flipped one as it is. The matrix itself, in
# `frame.side_data`, tells them apart: its determinant is negative where it mirrors. The output seen
# stands at the end; the script fails if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 imageio-ffmpeg==0.6.0 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import subprocess

import av
import imageio_ffmpeg
import numpy as np


def ffmpeg(*options):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-y", "-loglevel", "error", *options], check=True)


ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-pix_fmt", "yuv420p", "0.mp4")
ways = {
    "turned by 90 degrees": ["-display_rotation", "90"],
    "turned by 180 degrees": ["-display_rotation", "180"],
    "mirrored, left is right": ["-display_hflip"],
    "mirrored, top is bottom": ["-display_vflip"],
}
for name, options in ways.items():
    ffmpeg(*options, "-i", "0.mp4", "-c", "copy", "1.mp4")
    with av.open("1.mp4") as film:
        frame = next(film.decode(video=0))
    (side,) = (part for part in frame.side_data if part.type.name == "DISPLAYMATRIX")
    a, b, _, c, d, *_ = np.frombuffer(bytes(side), np.int32).astype(float) / 65536
    print(f"{name}: rotation {frame.rotation}, determinant {a * d - b * c:+.0f}")
PYTHON
diff "$folder/seen" - <<'SEEN'
turned by 90 degrees: rotation 90, determinant +1
turned by 180 degrees: rotation -180, determinant +1
mirrored, left is right: rotation -180, determinant -1
mirrored, top is bottom: rotation 0, determinant -1
SEEN
