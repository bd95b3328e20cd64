"""Films as phones, editors and bad luck make them; each is written here with PyAV."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from dclib.pictures import frames
from dclib.pictures.frames import Clip, VideoError, frames_at, write_mp4

COLOURS = "Its colours (HDR or wide) were brought into those of ordinary screens."


def shade(level, size=(64, 48)):
    return Image.new("RGB", size, (level,) * 3)


def level(image):
    return round(float(np.asarray(image).mean()) / 10) * 10


def write(path, times, codec="libx264", pixels="yuv420p", images=(), context=None, **options):
    """`images`, or grey ones of 10, 20, 30, ..., shown from these times (milliseconds)."""
    images = images or [shade(10 * (k + 1)) for k in range(len(times))]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_image(image)
            if (context or {}).get("colorspace", 2) != 2:  # else FFmpeg chooses
                frame = frame.reformat(format=pixels, dst_colorspace=context["colorspace"])
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_times_are_those_of_the_file_not_a_count_of_frames(tmp_path):
    """A variable rate: what is on screen at each half second is what was shown last."""
    path = write(tmp_path / "a.mkv", [0, 100, 200, 1400, 1600, 2900, 3000])
    seen = [(frame.time, level(frame.image)) for frame in Clip(path, rate=2)]
    assert seen[:6] == [(0, 10), (0.5, 30), (1.0, 30), (1.5, 40), (2.0, 50), (2.5, 50)]
    assert seen[6] == (3.0, 70)


@pytest.mark.parametrize("start", [0, 5000])
def test_time_begins_with_the_first_frame(tmp_path, start):
    path = write(tmp_path / "a.mkv", [start + 250 * k for k in range(8)])
    assert [f.time for f in Clip(path, rate=4)][:8] == [k / 4 for k in range(8)]


def test_a_rate_above_that_of_the_film_repeats_its_frames(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", [shade(50), shade(150)], 2)
    assert [level(f.image) for f in Clip(path, rate=6)] == [50] * 3 + [150] * 3


@pytest.mark.parametrize(
    "matrix, mark",
    [
        ((1, 0, 0, 1), 1),
        ((-1, 0, 0, 1), 2),
        ((-1, 0, 0, -1), 3),
        ((1, 0, 0, -1), 4),
        ((0, 1, 1, 0), 5),
        ((0, 1, -1, 0), 6),
        ((0, -1, -1, 0), 7),
        ((0, -1, 1, 0), 8),
        ((0.001, 2, -2, 0.001), 6),
        ((0, 0, 0, 0), 1),
    ],
)
def test_turned_and_mirrored_as_it_asks_for(tmp_path, matrix, mark):
    """The matrix in an MP4 that phones write, as Pillow sees EXIF's mark of the same meaning."""
    stored = Image.new("L", (64, 48))
    stored.paste(255, (0, 0, 32, 24))
    stored.paste(120, (32, 0, 64, 24))
    write_mp4(tmp_path / "a.mp4", [stored.convert("RGB")] * 3, 3)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # of its version 0
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    clip = Clip(bytes(data), rate=1)
    image = np.asarray(next(iter(clip)).image.convert("L"), float)
    stored.getexif()[0x0112] = mark
    expected = np.asarray(ImageOps.exif_transpose(stored), float)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 8
    words = {1: (), 3: "turned by 180", 6: "turned by 90", 8: "turned by 270"}.get(mark, "mirrored")
    assert all(f"The film was {words}" in note for note in clip.notes)
    assert bool(clip.notes) == (mark > 1)


@pytest.mark.parametrize("shape, width", [((4, 3), 85), ((1, 2), 32), ((999, 1), 64)])
def test_pixels_that_are_not_square(tmp_path, shape, width):
    path = write(tmp_path / "a.mp4", [0, 250], context={"sample_aspect_ratio": Fraction(*shape)})
    assert next(iter(Clip(path))).image.size == (width, 48)
    assert frames_at(path, [0])[0].size == (width, 48)


HLG_RED, P3_RED = (149, 56, 36), (200, 90, 60)


@pytest.mark.parametrize(
    "coding, stored, seen",
    [
        ((9, 18, 9), HLG_RED, (220, 30, 30)),
        ((9, 18, 9), (180,) * 3, (231,) * 3),
        ((9, 16, 9), (97,) * 3, (100,) * 3),
        ((12, 1, 1), P3_RED, (217, 82, 49)),
        ((1, 1, 1), (200, 90, 60), (200, 90, 60)),
        ((6, 6, 5), (200, 90, 60), (200, 90, 60)),
        ((2, 2, 2), (180,) * 3, (180,) * 3),
    ],
)
def test_colours_of_hdr_and_of_ordinary_films(tmp_path, coding, stored, seen):
    """By ITU-T H.273: BT.2020 with HLG or PQ, P3; BT.709 and BT.601 stay as they are."""
    names = dict(zip(("color_primaries", "color_trc", "colorspace"), coding, strict=True))
    image = Image.new("RGB", (64, 48), stored)
    path = write(tmp_path / "a.mp4", [0, 250], images=[image] * 2, context=names)
    clip = Clip(path)
    assert next(iter(clip)).image.getpixel((30, 20)) == pytest.approx(seen, abs=14)
    assert clip.notes == (() if stored == seen else (COLOURS,))


def test_damaged_parts_are_skipped_and_counted(tmp_path):
    path = write(tmp_path / "a.mkv", [40 * k for k in range(20)], g="5")
    whole = len(list(Clip(path, rate=25)))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 3, len(data) * 2 // 3, 60):
        data[at] = rng.integers(256)
    clip = Clip(bytes(data), rate=25)
    assert whole // 3 < len(list(clip)) <= whole
    cut_off = path.read_bytes()[: len(data) * 9 // 10]
    assert len(list(Clip(cut_off, rate=25))) >= 3


def test_a_jump_in_the_time_stamps_is_no_hour_of_the_same_frame(tmp_path):
    path = write(tmp_path / "a.mkv", [0, 40, 80, 3_600_000, 3_600_040])
    clip = Clip(path, rate=25)
    assert len(list(clip)) < 12
    assert "jump of more than 60 s" in clip.notes[0]


@pytest.mark.parametrize(
    "codec, name", [("mpeg4", "a.avi"), ("libx264", "ä 🎬.mov"), ("mjpeg", "a.mkv")]
)
def test_other_kinds_and_names_are_read(tmp_path, codec, name):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    write(tmp_path / name, [0, 333, 666], codec=codec, pixels=pixels)
    assert len(list(Clip(tmp_path / name, rate=3))) >= 3


def test_a_title_in_another_encoding(tmp_path):
    path = write(tmp_path / "a.mp4", [0, 250])
    with av.open(str(path)) as old, av.open(str(tmp_path / "b.mp4"), "w") as out:
        out.metadata["title"] = "MARKER"
        stream = out.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = (tmp_path / "b.mp4").read_bytes()
    assert b"MARKER" in content
    assert len(list(Clip(content.replace(b"MARKER", b"M\xfcller")))) == 2


def test_odd_sides_and_one_frame(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", [shade(80, (65, 49))], 4)
    (frame,) = Clip(path, rate=4)
    assert (frame.image.size, level(frame.image)) == ((64, 48), 80)


@pytest.mark.parametrize(
    "name", ["pipe:0", "concat:a|b", "file:a/b.mp4", "12:30 party.mp4", "%d.mp4", "-i.mp4"]
)
def test_names_are_no_addresses(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert write_mp4(name, [shade(80)], 4) == Path(name)
    assert (tmp_path / name).is_file()
    assert level(next(iter(Clip(name))).image) == 80
    with pytest.raises(FileNotFoundError, match="There is no video at"):
        Clip(f"file:{name}")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile {}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>{}</BaseURL></Period></MPD>',
        "[playlist]\nFile1={}\n",
        "v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 {}\n",
    ],
)
def test_a_list_of_films_is_none(tmp_path, text):
    film = write_mp4(tmp_path / "a.mp4", [shade(80)], 4)
    (tmp_path / "list.mp4").write_text(text.format(film))
    for source in (tmp_path / "list.mp4", text.format(film).encode()):
        with pytest.raises(VideoError, match="not a video that can be read"):
            Clip(source)


def audio(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("content", [b"", b"milk, bread" * 100, b"\0\0\0\x18ftypmp42" + bytes(200)])
def test_what_is_no_video_gets_a_sentence(tmp_path, content):
    (tmp_path / "list.mp4").write_bytes(content)
    for source in (tmp_path / "list.mp4", content):
        with pytest.raises(VideoError, match="not a video"):
            list(Clip(source))


def test_sound_alone_and_no_file_get_a_sentence(tmp_path):
    with pytest.raises(VideoError, match=r"a\.wav has no video track"):
        Clip(audio(tmp_path / "a.wav"))
    with pytest.raises(FileNotFoundError, match="There is no video at"):
        Clip(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="rate must be above 0"):
        Clip(tmp_path / "none.mp4", rate=0)


def test_a_format_without_a_decoder_gets_a_sentence(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", [shade(80)], 4)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(VideoError, match="has a format that cannot be decoded here"):
        Clip(path)


def test_no_frame_and_frames_that_are_too_large(tmp_path, monkeypatch):
    path = write_mp4(tmp_path / "a.mp4", [shade(80)], 4)
    monkeypatch.setattr(frames, "MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match="has frames of more than"):
        Clip(path)
    monkeypatch.undo()
    monkeypatch.setattr(frames.Clip, "decoded", lambda self: iter(()))
    with pytest.raises(VideoError, match="no frame of it can be read"):
        list(Clip(path))
    with pytest.raises(VideoError, match="no frame of it can be read"):
        frames_at(path, [0.0])


def test_frames_at_times_in_any_order(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", [shade(10 * k) for k in range(1, 11)], 5)
    assert [level(i) for i in frames_at(path, [1.0, 0.0, 0.5, 99.0])] == [60, 10, 30, 100]


def test_browsers_can_play_what_is_written(tmp_path):
    path = write_mp4(tmp_path / "a.mp4", [shade(10), shade(90)], 12)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # the index comes first
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
