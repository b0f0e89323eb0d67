"""Single videos: the frames that are kept are the ones asked for, and nothing else is ever kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from teachclip.cache.frames.record import VideoRecord
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.demo.write_h264 import write_h264

COUNT = 60
OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-pyramid=normal:scenecut=0"}
HEVC = {"x265-params": "log-level=none:keyint=10:pools=none"}
VP9 = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "h264 in mp4": ("a.mp4", "libx264", {}),
    "index in front": ("a.mp4", "libx264", {"container": {"movflags": "faststart"}}),
    "fragmented": ("a.mp4", "libx264", {"container": {"movflags": "frag_keyframe+empty_moov"}}),
    "open gop": ("a.mp4", "libx264", {"options": OPEN_GOP, "gop": None}),
    "one key frame": ("a.mp4", "libx264", {"options": {"x264-params": "keyint=infinite"}, "gop": None}),
    "no key frame": ("a.mkv", "libx264", {"options": {"x264-params": "intra-refresh=1:keyint=10"}, "gop": None}),
    "mov": ("a.mov", "libx264", {}),
    "matroska": ("a.mkv", "libx264", {}),
    "h264 in avi": ("a.avi", "libx264", {}),
    "mpeg4 in avi": ("a.avi", "mpeg4", {"options": {"bf": "2"}}),
    "mpeg4 in mp4": ("a.mp4", "mpeg4", {"options": {"bf": "2"}}),
    "motion jpeg": ("a.avi", "mjpeg", {}),
    "transport stream": ("a.ts", "libx264", {}),
    "mpeg-1": ("a.mpg", "mpeg1video", {"fps": 25}),
    "flash": ("a.flv", "libx264", {}),
    "windows media": ("a.wmv", "wmv2", {}),
    "vp8": ("a.webm", "libvpx", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    "vp9": ("a.webm", "libvpx-vp9", {"options": VP9}),
    "av1": ("a.mp4", "libsvtav1", {"options": {"preset": "12", "svtav1-params": "lp=1"}}),
    "hevc": ("a.mp4", "libx265", {"options": HEVC, "gop": None}),
    "gif": ("a.gif", "gif", {"gop": None}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_the_one_its_number_says(
    tmp_path: Path, kind: str, every_frame: PrepareConfig, numbered: Any, shown_number: Any, encode: Any
) -> None:
    name, codec, options = KINDS[kind]
    try:
        path = encode(tmp_path / name, numbered(COUNT), codec, **options)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    record = read_video("a", path, every_frame)
    assert record.status.status == "ok", record.status
    assert record.status.reason == ""
    assert [shown_number(image) for image in record.images] == list(range(COUNT))
    fps = options.get("fps", 10)
    # AVI gives times in decoding order, off by the pictures that are reordered
    np.testing.assert_allclose(record.times, np.arange(COUNT) / fps, atol=2.1 / fps if name == "a.avi" else 1e-2)
    assert record.status.duration == pytest.approx(COUNT / fps, abs=0.11)


def test_the_kept_frames_follow_the_published_choice(
    tmp_path: Path, numbered: Any, shown_number: Any, encode: Any
) -> None:
    path = encode(tmp_path / "a.mp4", numbered(95), fps=10)
    shown = {}
    for choice in ("uniform", "head", "tail"):
        config = PrepareConfig(image_size=96, max_frames=4, choice=choice)
        record = read_video("a", path, config)
        shown[choice] = [shown_number(image) for image in record.images]
        np.testing.assert_allclose(record.times, np.array(shown[choice]) / 10)
    assert shown == {"uniform": [0, 30, 60, 90], "head": [0, 10, 20, 30], "tail": [60, 70, 80, 90]}


@pytest.mark.parametrize("side", [16, 48, 90, 98])
def test_frames_of_any_width(tmp_path: Path, side: int, numbered: Any, shown_number: Any, encode: Any) -> None:
    path = encode(tmp_path / "a.mp4", numbered(20, side), gop=5)
    record = read_video("a", path, PrepareConfig(image_size=side, sample_fps=0, max_frames=20))
    assert [shown_number(image) for image in record.images] == list(range(20))


def test_variable_rate_keeps_the_real_times(
    tmp_path: Path, every_frame: PrepareConfig, numbered: Any, encode: Any
) -> None:
    times = np.cumsum([0, *np.random.default_rng(0).choice([40, 40, 80, 250], 49)]).tolist()
    record = read_video("a", encode(tmp_path / "a.mp4", numbered(50), times=times), every_frame)
    np.testing.assert_allclose(record.times, np.array(times) / 1000, atol=1e-3)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_phone_clips_are_turned_upright(
    tmp_path: Path, turn: int, every_frame: PrepareConfig, numbered: Any, shown_number: Any, encode: Any
) -> None:
    """A phone writes frames as its sensor sees them and says by how much players must turn them."""
    upright = numbered(10)
    path = encode(tmp_path / "a.mp4", np.rot90(upright, -turn // 90, axes=(1, 2)).copy(), rotation=turn)
    record = read_video("a", path, every_frame)
    assert [shown_number(image) for image in record.images] == list(range(10))


def test_slow_and_fast_videos_give_every_frame_at_most(tmp_path: Path, numbered: Any, encode: Any) -> None:
    config = PrepareConfig(image_size=96, max_frames=50, sample_fps=5)
    slow = encode(tmp_path / "a.mkv", numbered(6), times=[0, 2000, 4000, 6000, 8000, 10000])
    np.testing.assert_allclose(read_video("a", slow, config).times, np.arange(6) * 2.0)
    assert read_video("a", encode(tmp_path / "b.mp4", numbered(9), fps=3), config).status.frames == 9


def test_write_h264_is_read_back(tmp_path: Path, every_frame: PrepareConfig, numbered: Any) -> None:
    frames = numbered(30)
    for name in ("a.mp4", "b.mkv"):
        write_h264(tmp_path / name, frames, 7.5)
        record = read_video("a", tmp_path / name, every_frame)
        # 4:2:0 colour blurs the edges of the cells
        assert np.abs(record.images.transpose(0, 2, 3, 1).astype(int) - frames).mean() < 6
        np.testing.assert_allclose(record.times, np.arange(30) / 7.5, atol=1e-3)
    with pytest.raises(ValueError, match="even sides"):
        write_h264(tmp_path / "c.mp4", frames[:, :95], 5)
    with pytest.raises(ValueError, match="uint8"):
        write_h264(tmp_path / "c.mp4", frames / 255, 5)
    assert not (tmp_path / "c.mp4").exists()


def test_jpeg_frames_are_the_raw_ones_but_for_compression(tmp_path: Path, numbered: Any, encode: Any) -> None:
    from io import BytesIO

    from PIL import Image

    path = encode(tmp_path / "a.mp4", numbered(20))
    raw = read_video("a", path, PrepareConfig(image_size=64, max_frames=2))
    jpeg = read_video("a", path, PrepareConfig(image_size=64, max_frames=2, storage="jpeg", jpeg_quality=98))
    assert jpeg.images.ndim == 1
    parts = np.split(jpeg.images, np.cumsum(jpeg.lengths)[:-1])
    decoded = [np.asarray(Image.open(BytesIO(part))).transpose(2, 0, 1) for part in parts]
    assert np.abs(np.stack(decoded).astype(int) - raw.images).mean() < 2
    assert jpeg.digest != raw.digest


def sound_only(path: Path, format: str, codec: str, cover: bool = False) -> None:
    with av.open(str(path), "w", format=format) as file:
        stream = file.add_stream(codec, rate=44100)
        picture = file.add_stream("mjpeg", rate=1) if cover else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        for k in range(8):
            frame = av.AudioFrame(format=stream.codec_context.format.name, layout="stereo", samples=1152)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts = 44100, 1152 * k
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if picture is not None:
            file.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
            file.mux(picture.encode())


def html(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>\n" * 30)


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.mp4\n#EXT-X-ENDLIST\n")


def concatenation(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile good.mp4\n")


def image(path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path, "PNG")


ONLY_SOUND = "holds only sound, no video"
MADE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "html": (html, "corrupt", "an HTML page, not a video"),
    "text": (lambda path: path.write_text("hello\n" * 500), "corrupt", "text, not a video"),
    "empty": (lambda path: path.touch(), "corrupt", "the file is empty"),
    "zeros": (lambda path: path.write_bytes(bytes(50_000)), "corrupt", "nothing but zeros"),
    "noise": (lambda path: path.write_bytes(os.urandom(50_000)), "corrupt", "not a video that can be read"),
    "playlist": (playlist, "corrupt", "text, not a video"),
    "concatenation": (concatenation, "corrupt", "text, not a video"),
    "image": (image, "corrupt", "an image, not a video"),
    "sound in mp4": (lambda path: sound_only(path, "mp4", "aac"), "corrupt", ONLY_SOUND),
    "mp3": (lambda path: sound_only(path, "mp3", "libmp3lame"), "corrupt", ONLY_SOUND),
    "mp3 with cover": (
        lambda path: sound_only(path, "mp3", "libmp3lame", True),
        "corrupt",
        "holds only sound, no video",
    ),
    "nothing": (lambda path: None, "missing", "no such file"),
    "folder": (lambda path: path.mkdir(), "missing", "is a folder"),
    "pipe": (lambda path: os.mkfifo(path), "missing", "is no regular file"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "missing", "no such file"),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_is_no_video_is_a_status_with_its_reason(tmp_path: Path, kind: str, numbered: Any, encode: Any) -> None:
    make, status, reason = MADE[kind]
    encode(tmp_path / "good.mp4", numbered(10))
    path = tmp_path / "bad.mp4"
    make(path)
    found = read_video("bad.mp4", path, PrepareConfig())
    assert (found.status.status, found.status.reason) == (status, reason)
    assert found.status.frames == len(found.times) == found.images.size == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    assert read_video("a", path, PrepareConfig()).status.reason == "cannot be opened: Permission denied"


CUT = {
    "index at the end": ("a.mp4", {}, "corrupt", "moov"),
    "index in front": ("a.mp4", {"container": {"movflags": "faststart"}}, "short", "of 6.0 seconds"),
    "matroska": ("a.mkv", {}, "short", "of 6.0 seconds"),
    "avi": ("a.avi", {}, "short", "of 6.0 seconds"),
    "flash": ("a.flv", {}, "short", "of 6.2 seconds"),
}


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.15])
@pytest.mark.parametrize("kind", CUT)
def test_files_that_were_cut_off_are_not_used(
    tmp_path: Path, kind: str, kept: float, numbered: Any, encode: Any
) -> None:
    name, options, status, reason = CUT[kind]
    path = encode(tmp_path / name, numbered(COUNT), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    found = read_video("a", path, PrepareConfig()).status
    assert found.status == status
    assert reason in found.reason
    assert found.frames == 0


def test_a_cut_that_takes_nothing_that_counts_is_no_loss(tmp_path: Path, numbered: Any, encode: Any) -> None:
    path = encode(tmp_path / "a.mp4", numbered(COUNT), container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-10])
    assert read_video("a", path, PrepareConfig(image_size=96)).status.status == "ok"


def copied(source: Path, target: Path, keep: Callable[[int], bool]) -> Path:
    """The packets of `source` whose number `keep` accepts."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for k, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            if keep(k):
                packet.stream = stream
                write.mux(packet)
    return target


def test_a_cut_from_the_middle_of_a_longer_video_is_whole(tmp_path: Path, numbered: Any, encode: Any) -> None:
    """Clips cut by copying packets begin late, on a key frame, and claim the original's end."""
    source = encode(tmp_path / "a.mp4", numbered(COUNT), options=OPEN_GOP, gop=None)
    with av.open(str(source)) as file:
        keys = [k for k, packet in enumerate(file.demux(video=0)) if packet.is_keyframe]
    for name in ("b.mp4", "b.mkv"):
        record = read_video("b", copied(source, tmp_path / name, lambda k: k >= keys[2]), PrepareConfig(image_size=96))
        assert record.status.status == "ok", record.status
        assert record.times[0] == 0


def check_kept(record: VideoRecord, shown_number: Callable[[np.ndarray], int], whole: VideoRecord) -> None:
    """Whatever is kept of a damaged file is a frame of the whole one, once, in order."""
    shown = [shown_number(image) for image in record.images]
    assert shown == sorted(set(shown))
    for number, image in zip(shown, record.images, strict=True):
        assert np.abs(image.astype(int) - whole.images[number]).mean() < 8


@pytest.mark.parametrize("kind", ["open gop", "h264 in mp4", "h264 in avi", "mpeg4 in mp4", "windows media", "mpeg-1"])
def test_no_damaged_black_or_repeated_frame_is_kept(
    tmp_path: Path, kind: str, every_frame: PrepareConfig, numbered: Any, shown_number: Any, encode: Any
) -> None:
    """Bytes are overwritten or cut out at random places. (Some damage inside a packet no decoder can notice.)"""
    name, codec, options = KINDS[kind]
    path = encode(tmp_path / name, numbered(COUNT), codec, **options)
    data, whole = path.read_bytes(), read_video("a", path, every_frame)
    config = every_frame.model_copy(update={"sample_fps": 1, "max_frames": 12})
    statuses = []
    for seed in range(48):
        rng = np.random.default_rng(seed)
        start, length = int(len(data) * rng.uniform(0.1, 0.9)), int(rng.choice([20, 1500]))
        filling = [rng.bytes(length), bytes(length), b""][seed % 3]
        path.write_bytes(data[:start] + filling + data[start + length :])
        record = read_video("a", path, config)
        statuses.append(record.status.status)
        check_kept(record, shown_number, whole)
    assert {"ok", "corrupt"} <= set(statuses)  # some hits do not matter, others do


def test_frames_after_lost_packets_are_not_used_until_the_next_key_frame(
    tmp_path: Path, numbered: Any, shown_number: Any, encode: Any
) -> None:
    source = encode(tmp_path / "a.webm", numbered(COUNT), "libvpx", options={"deadline": "realtime"}, gop=30)
    holed = copied(source, tmp_path / "b.webm", lambda k: not 8 <= k < 18)
    config = PrepareConfig(image_size=96, sample_fps=1, max_frames=12)
    record = read_video("b", holed, config)
    assert record.status.status == "corrupt"
    assert "pictures are damaged" in record.status.reason
    first = read_video("b", holed, config.model_copy(update={"max_frames": 1}))
    assert [shown_number(image) for image in first.images] == [0]
    variable = encode(tmp_path / "c.mkv", numbered(20), times=[100 * k + 900 * (k // 5) for k in range(20)])
    assert read_video("c", variable, config).status.status == "ok"


def test_a_few_damaged_pictures_do_no_harm_where_none_is_chosen(
    tmp_path: Path, numbered: Any, shown_number: Any, encode: Any
) -> None:
    path = encode(tmp_path / "a.avi", numbered(COUNT), "mjpeg")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    config = PrepareConfig(image_size=96, max_frames=12)
    start, size = packets[13]
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    record = read_video("a", path, config)
    assert record.status.reason == "1 of 52 pictures are damaged, none of them kept"
    assert [shown_number(image) for image in record.images] == [0, 10, 21, 31, 41, 51]
    for start, size in packets[1:8]:
        data[start : start + size] = bytes(size)
    path.write_bytes(data)
    assert read_video("a", path, config).status.reason == "8 of 59 pictures are damaged"


def test_frames_that_are_absurdly_long_are_refused(tmp_path: Path, encode: Any) -> None:
    path = encode(tmp_path / "a.mkv", np.zeros((3, 16, 1600, 3), np.uint8))
    found = read_video("a", path, PrepareConfig()).status
    assert (found.status, found.reason) == ("corrupt", "frames of 1600x16 pixels")
