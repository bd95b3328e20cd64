"""A film's timeline to take away: tables, and an annotated film. Written only when asked."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dclib.data import CLASSES, NOT_ASSESSABLE
from dclib.files import write_whole
from dclib.pictures.frames import Clip, VideoSource, write_mp4
from dclib.plots import COLOURS, overlay, to_rgb
from dclib.predict import percent, sigmoid
from dclib.video import NOT_SURE, VideoResult
from dclib.web.html import to_image

WIDTH, HEIGHT = 640, 480  # pixels of the film in the annotated one, at most
TEXT, STRIP = 30, 40  # pixels of the line of text below it, and of the timeline below that
load_font = cache(ImageFont.load_default)


def save_csv(result: VideoResult, folder: str | Path) -> list[Path]:
    """Write seconds.csv and frames.csv into a folder, which is made; returns their paths."""
    tables = {"seconds.csv": result.seconds, "frames.csv": result.frames}
    for name, table in tables.items():
        with write_whole(Path(folder, name)) as unfinished:
            table.to_csv(unfinished, index=False)
    return [Path(folder, name) for name in tables]


def save_mp4(result: VideoResult, source: VideoSource, path: str | Path, rate: float = 12) -> Path:
    """Write the film with its label, timeline and evidence map, as H.264 that browsers play.

    `source` is the film that was judged, `rate` in frames a second. Without sound.
    """
    return write_mp4(path, annotate(result, source, rate), rate)


def annotate(result: VideoResult, source: VideoSource, rate: float = 12) -> Iterator[Image.Image]:
    """The annotated pictures, `rate` a second: film beside map, text and timeline below."""
    scale = result.scale
    line: Image.Image | None = None
    for time, image in Clip(source, rate):
        if line is None:  # the first frame says how large all are
            ratio = min(1, WIDTH / image.width, HEIGHT / image.height)
            width, height = (max(2, round(side * ratio / 2) * 2) for side in image.size)
            line = to_image(strip(result, 2 * width))
        image = image.resize((width, height))
        seen = to_image(film_map(result, image, time, scale))
        top = height + TEXT  # of the timeline
        sheet = Image.new("RGB", (2 * width, top + line.height), "white")
        sheet.paste(image, (0, 0))
        sheet.paste(seen, (width, 0))
        sheet.paste(line, (0, top))
        draw = ImageDraw.Draw(sheet)
        text = caption(result, time)
        draw.text((6, height + 5), text, fill="black", font=fit(text, 2 * width - 12))
        at = round(2 * width * min(1, time / result.duration))
        draw.line((at, top, at, sheet.height), fill="black", width=2)
        yield sheet


def film_map(result: VideoResult, image: Image.Image, time: float, scale: float) -> np.ndarray:
    """The evidence of the frame judged last at a time (seconds) over it: (H, W, 3), 0 to 1.

    `scale`: log-odds of full colour. Grey where nobody looked.
    """
    k = result.at(time)
    frame = result.looks[k]
    if not frame:
        return np.asarray(image.convert("L").convert("RGB")) / 255
    return overlay(image, result.maps[k], scale, frame.image.width, frame=frame)


def caption(result: VideoResult, time: float) -> str:
    """The line of text below the frame at a time in seconds."""
    row = result.frames.iloc[result.at(time)]
    label = result.label(row["smooth"])
    if label == NOT_ASSESSABLE:
        return f"{time:5.1f} s  {NOT_ASSESSABLE}. {row['reason'] or NOT_SURE}"
    low, high = (sigmoid(row[end]) for end in ("low", "high"))
    share = f"unhappy {percent(sigmoid(row['smooth']))} ({percent(low)} to {percent(high)})"
    return f"{time:5.1f} s  network: {label}; {share}"


def fit(text: str, room: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font, of 16 pixels at most, in which a text has room, in pixels."""
    for size in range(16, 4, -1):
        font = load_font(size)
        if font.getlength(text) <= room:
            break
    return font


def strip(result: VideoResult, width: int) -> np.ndarray:
    """The timeline as a narrow picture (40, width, 3), 0 to 1: colour by label and strength."""
    middle = STRIP // 2
    line = np.full((STRIP, width, 3), 0.85)
    for row in result.seconds.itertuples():
        ends = [round(width * t / result.duration) for t in (row.second, row.second + 1)]
        if row.label == NOT_ASSESSABLE:
            line[:, ends[0] : ends[1]][::4] = 0.6
            continue
        tall = max(2, round(middle * min(1, abs(row.margin) / 4)))
        top = middle - tall if row.label == CLASSES[1] else middle
        line[top : top + tall, ends[0] : ends[1]] = to_rgb(COLOURS[row.label])
    return line
