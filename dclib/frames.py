"""Frames of a video, in and out: what is on screen at regular times, and H.264 that browsers play.

Times are the file's own time stamps, never a count of frames: phones film at a variable rate.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dclib.files import extra, write_whole
from dclib.pictures import MAX_PIXELS

with extra("video"):
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VideoSource = str | Path | bytes | bytearray | memoryview
LONGEST_HOLD = 60.0  # seconds that one frame may stay; a longer gap is a fault of the time stamps
LENIENT: dict[str, Any] = {}
if int(av.__version__.split(".")[0]) < 19:  # later ones read titles in any encoding, unasked
    LENIENT["metadata_errors"] = "replace"
TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


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
        self.container, self.stream = _open(source, self.name)
        self.duration = (self.container.duration or 0) / av.time_base
        self.damaged, self.turned, self.gaps = 0, 0, 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what had to be done to read it; often none."""
        notes = []
        if self.turned:
            notes.append(f"The film was turned by {self.turned} degrees, as it asks for.")
        if self.damaged:
            parts = "1 damaged part" if self.damaged == 1 else f"{self.damaged} damaged parts"
            notes.append(f"{parts} of the film could not be read.")
        if self.gaps:
            notes.append(f"A jump of more than {LONGEST_HOLD:g} s in its time stamps was skipped.")
        return tuple(notes)

    def __iter__(self) -> Iterator[Frame]:
        tick = 0
        with self.container:
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
            except av.FFmpegError:
                self.damaged += 1
                if self.damaged > 10_000:
                    return

    def to_image(self, frame: av.VideoFrame) -> Image.Image:
        """RGB, upright: a file may ask to be turned when shown (phones held upright do)."""
        image = frame.to_image()
        turn = round(frame.rotation / 90) * 90 % 360
        if turn:
            self.turned = turn
            image = image.transpose(TURNS[turn // 90 - 1])
        return image


def frames_at(source: VideoSource, times: Sequence[float]) -> list[Image.Image]:
    """The frames on screen at these times (seconds, any order), as Pillow images.

    Decodes once, up to the last of them; a time after the end gets the last frame.
    """
    wanted, images = sorted(set(times)), {}
    clip = Clip(source)
    with clip.container:
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


def _open(source: VideoSource, name: str) -> tuple[InputContainer, VideoStream]:
    """The open file and its first video track, or one sentence why not."""
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"There is no video at {source}.")
        file: str | io.BytesIO = str(source)
    else:
        file = io.BytesIO(source)
    try:
        container = av.open(file, "r", **LENIENT)
    except (av.FFmpegError, ValueError) as error:
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
        container.close()
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
