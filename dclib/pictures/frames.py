"""Frames of a video, in and out: what is on screen at regular times, and H.264 that browsers play.

Times are the file's own time stamps, never a count of frames: phones film at a variable rate.
"""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dclib.files import extra, write_whole
from dclib.pictures import MAX_PIXELS, TURNS, find_file
from dclib.pictures.colour import by_coding

with extra("video"):
    import av
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

VideoSource = str | Path | bytes | bytearray | memoryview
LONGEST_HOLD = 60.0  # seconds that one frame may stay; a longer gap is a fault of the time stamps
# Containers only: no playlist, list or address that leads to other files. The last three for sound.
KINDS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,h264,hevc,ivf,gif,apng,wav,mp3,flac"
LENIENT: dict[str, Any] = {}
if int(av.__version__.split(".")[0]) < 19:  # later ones read titles in any encoding, unasked
    LENIENT["metadata_errors"] = "replace"
# What a film's matrix asks for, as EXIF counts, by (a, b, c, d): x' = ax + cy, y' = bx + dy.
WAYS = {
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
}
WAYS |= {(0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8}
ASKED = {3: "turned by 180 degrees", 6: "turned by 90 degrees", 8: "turned by 270 degrees"}


class VideoError(ValueError):
    """A video that cannot be used; the message is one sentence for the person who chose it."""


class Frame(NamedTuple):
    """What is on screen `time` seconds after the first frame: an upright RGB Pillow image."""

    time: float
    image: Image.Image


class Clip:
    """What is on screen `rate` times a second: an iterable of `Frame`s at times 0, 1 / rate, ...

    Iterate once: it closes the file. `duration` (seconds, 0 if unknown) is what the file says, and
    after reading what was found; `notes` are complete then. Raises FileNotFoundError or VideoError,
    the latter while reading too.
    """

    def __init__(self, source: VideoSource, rate: float = 4.0) -> None:
        if not 0 < rate <= 60:
            raise ValueError(f"rate must be above 0 and at most 60 frames a second, not {rate}.")
        self.name = Path(source).name if isinstance(source, (str, Path)) else "the video"
        self.rate = rate
        self.files = ExitStack()
        self.container, self.stream = _open(source, self.name, self.files)
        self.duration = (self.container.duration or 0) / av.time_base
        self.damaged, self.way, self.gaps, self.wide = 0, 0, 0, False
        self.scaler = VideoReformatter()  # a frame by itself would set up one of its own

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what had to be done to read it; often none."""
        notes = []
        if self.way:
            notes.append(f"The film was {ASKED.get(self.way, 'mirrored')}, as it asks for.")
        if self.wide:
            notes.append("Its colours (HDR or wide) were brought into those of ordinary screens.")
        if self.damaged:
            parts = "1 damaged part" if self.damaged == 1 else f"{self.damaged} damaged parts"
            notes.append(f"{parts} of the film could not be read.")
        if self.gaps:
            notes.append(f"A jump of more than {LONGEST_HOLD:g} s in its time stamps was skipped.")
        return tuple(notes)

    def __iter__(self) -> Iterator[Frame]:
        tick = 0
        with self.files:
            frames = self.timed()
            _, end, shown = next(frames)
            for time, span, frame in frames:
                while tick / self.rate < time:
                    yield Frame(tick / self.rate, self.to_image(shown))
                    tick += 1
                shown, end = frame, time + span
            while tick / self.rate < end or tick == 0:
                yield Frame(tick / self.rate, self.to_image(shown))
                tick += 1
        self.duration = end

    def timed(self) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """(seconds since the first frame, seconds it lasts, frame) in order, without long gaps."""
        start: float | None = None
        last, jumped = -1.0, 0.0
        usual = float(1 / self.stream.average_rate) if self.stream.average_rate else 0.04
        for frame in self.decoded():
            time = last + usual + (start or 0.0) + jumped if frame.time is None else frame.time
            start = time if start is None else start
            time -= start + jumped
            if time <= last:
                continue  # out of order: damaged
            if last >= 0 and time - last > LONGEST_HOLD:
                self.gaps += 1
                jumped += time - last - usual
                time = last + usual
            last = max(time, 0.0)
            span = usual
            if frame.duration and frame.time_base:
                span = float(frame.duration * frame.time_base)
            yield last, min(span, LONGEST_HOLD), frame
        if start is None:
            raise VideoError(f"{self.name} has a video track, but no frame of it can be read.")

    def decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be read; parts that cannot are counted."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                yield from packet.decode()
            except (StopIteration, av.error.EOFError):
                return
            except (av.FFmpegError, ValueError, OSError):
                self.damaged += 1
                if self.damaged > 10_000:
                    return

    def to_image(self, frame: av.VideoFrame) -> Image.Image:
        """RGB as a screen shows it: upright, pixels as high as wide, ordinary colours."""
        image = self.scaler.reformat(frame, format="rgb24").to_image()
        if table := by_coding(frame.color_primaries, frame.color_trc):
            self.wide, image = True, image.filter(table)
        shape = self.stream.sample_aspect_ratio or 1
        if shape != 1 and 0.2 < shape < 5:
            image = image.resize((round(image.width * shape), image.height))
        if matrix := frame.side_data.get("DISPLAYMATRIX"):
            a, b, _, c, d, *_ = struct.unpack("9i", matrix)  # type: ignore[arg-type]
            largest = max(map(abs, (a, b, c, d))) or 1
            self.way = WAYS.get(tuple(round(v / largest) for v in (a, b, c, d)), 0)
        return image.transpose(TURNS[self.way]) if self.way else image


def frames_at(source: VideoSource, times: Sequence[float]) -> list[Image.Image]:
    """The frames on screen at these times (seconds, any order), as Pillow images.

    Decodes once, up to the last of them; a time after the end gets the last frame.
    """
    wanted, images = sorted(set(times)), {}
    clip = Clip(source)
    with clip.files:
        frames = clip.timed()
        _, _, shown = next(frames)
        for time, _, frame in frames:
            while wanted and wanted[0] < time:
                images[wanted.pop(0)] = clip.to_image(shown)
            if not wanted:
                break
            shown = frame
        images |= {time: clip.to_image(shown) for time in wanted}
    return [images[time] for time in times]


def _open(source: VideoSource, name: str, files: ExitStack) -> tuple[InputContainer, VideoStream]:
    """The open file and its first video track, which `files` closes, or one sentence why not."""
    if isinstance(source, (str, Path)):  # opened here: FFmpeg would take a name for an address
        file: Any = files.enter_context(find_file(source, "video").open("rb"))
    else:
        file = io.BytesIO(source)
    try:
        options = {"format_whitelist": KINDS}
        container = av.open(file, "r", container_options=options, buffer_size=2**18, **LENIENT)
        files.enter_context(container)
    except (av.FFmpegError, ValueError, OSError) as error:  # of Python's: a seek before the start
        files.close()
        sentence = f"{name} is not a video that can be read; MP4 with H.264 works."
        raise VideoError(sentence) from error
    streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    problem = ""
    if not streams:
        problem = "no video track"
    elif streams[0].codec_context is None:
        problem = "a format that cannot be decoded here; MP4 with H.264 works"
    elif streams[0].width * streams[0].height > MAX_PIXELS:
        problem = f"frames of more than {MAX_PIXELS // 10**6} million pixels"
    if problem:
        files.close()
        raise VideoError(f"{name} has {problem}.")
    streams[0].thread_type = "AUTO"
    return container, streams[0]


def write_mp4(path: str | Path, images: Iterable[Image.Image], rate: float) -> Path:
    """Write Pillow images of one size as H.264 in MP4 that any browser plays; returns the path.

    `rate` frames a second; an odd row or column at the end is cut off.
    """
    pace = Fraction(rate).limit_denominator(1001)
    with (
        write_whole(path) as unfinished,
        av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream("libx264", rate=pace, options={"crf": "20", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for image in images:
            width, height = (side // 2 * 2 for side in image.size)
            if not stream.codec_context.is_open:
                stream.width, stream.height = width, height
            frame = av.VideoFrame.from_image(image.crop((0, 0, width, height)))
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return Path(path)
