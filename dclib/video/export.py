"""A film's timeline to take away: tables, subtitles, an annotated film. Written only when asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from dclib.data import CLASSES, NOT_ASSESSABLE
from dclib.files import write_whole
from dclib.frames import VideoSource, read_frames, write_mp4
from dclib.plots import overlay
from dclib.predict import percent, sigmoid
from dclib.video.plots import map_scale, strip
from dclib.web.html import to_image

if TYPE_CHECKING:
    from dclib.video import VideoResult

WIDTH, HEIGHT = 640, 480  # pixels of the film in the annotated one, at most
TEXT = 30  # pixels of the line of text below it


def save_csv(result: "VideoResult", folder: str | Path) -> list[Path]:
    """Write seconds.csv and frames.csv into a folder, which is made; returns their paths."""
    paths = [Path(folder, "seconds.csv"), Path(folder, "frames.csv")]
    for path, table in zip(paths, (result.seconds, result.frames), strict=True):
        with write_whole(path) as unfinished:
            table.to_csv(unfinished, index=False)
    return paths


def save_vtt(result: "VideoResult", path: str | Path) -> Path:
    """Write the labels as WebVTT, a cue a stretch; players show it as subtitles. Returns the path.

    Format: W3C WebVTT. Texts say what the network's label is, not what people feel.
    """
    cues = ["WEBVTT\n", "NOTE Labels of a neural network; not a finding about anybody.\n"]
    for number, span in enumerate(result.spans, 1):
        end = min(span["end"], result.duration)
        if end > span["start"]:
            times = f"{stamp(span['start'])} --> {stamp(end)}"
            cues.append(f"{number}\n{times}\n{escape(describe(result, span))}\n")
    with write_whole(path) as unfinished:
        unfinished.write_text("\n".join(cues), encoding="utf-8")
    return Path(path)


def describe(result: "VideoResult", span: dict[str, Any]) -> str:
    """A stretch, one of `result.spans`, in words."""
    if span["label"] == NOT_ASSESSABLE:
        return f"{NOT_ASSESSABLE}: {span['reason']}"
    table = result.seconds
    margin = table["margin"][int(span["start"]) : int(span["end"])].mean()
    share = sigmoid(margin if span["label"] == CLASSES[1] else -margin)
    return f"network: {span['label']} (mean {percent(share)})"


def stamp(seconds: float) -> str:
    """Seconds as WebVTT writes them.

    >>> stamp(3725.5)
    '01:02:05.500'
    """
    whole = round(seconds * 1000)
    return (
        f"{whole // 3600000:02}:{whole // 60000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"
    )


def escape(text: str) -> str:
    """Text as it may stand in a cue."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def save_mp4(
    result: "VideoResult", source: VideoSource, path: str | Path, rate: float = 12
) -> Path:
    """Write the film with its label, timeline and evidence map, as H.264 that browsers play.

    `source` is the film that was judged, `rate` in frames a second. Without sound. The map has one
    scale for the whole film. Returns the path; raises what `dclib.frames.read_frames` does.
    """
    return write_mp4(path, annotate(result, source, rate), rate)


def annotate(result: "VideoResult", source: VideoSource, rate: float = 12) -> Iterator[Image.Image]:
    """The annotated pictures, `rate` a second: film beside map, text and timeline below."""
    scale, font = map_scale(result), ImageFont.load_default(16)
    line: Image.Image | None = None
    for time, image in read_frames(source, rate):
        if line is None:  # the first frame says how large all are
            ratio = min(1, WIDTH / image.width, HEIGHT / image.height)
            width, height = (max(2, round(side * ratio / 2) * 2) for side in image.size)
            line = to_image(strip(result, 2 * width))
        image = image.resize((width, height))
        seen = to_image(overlay(image, result.maps[result.at(time)], scale, result.size))
        top = height + TEXT  # of the timeline
        sheet = Image.new("RGB", (2 * width, top + line.height), "white")
        sheet.paste(image, (0, 0))
        sheet.paste(seen, (width, 0))
        sheet.paste(line, (0, top))
        draw = ImageDraw.Draw(sheet)
        draw.text((6, height + 5), said(result, time), fill="black", font=font)
        at = round(2 * width * min(1, time / result.duration))
        draw.line((at, top, at, sheet.height), fill="black", width=2)
        yield sheet


def said(result: "VideoResult", time: float) -> str:
    """The line of text below the frame at a time in seconds."""
    row = result.frames.iloc[result.at(time)]
    label = result.label(row["smooth"])
    if label == NOT_ASSESSABLE:
        return f"{time:5.1f} s  {NOT_ASSESSABLE}. {row['reason']}"
    low, high = (sigmoid(row[end]) for end in ("low", "high"))
    share = f"unhappy {percent(sigmoid(row['smooth']))} ({percent(low)} to {percent(high)})"
    return f"{time:5.1f} s  network: {label}; {share}"
