"""decord decodes what it decodes as PyAV does, and whatever it says or cannot do, PyAV decides."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from teachclip.cache.frames.record import ReadBy, VideoRecord
from teachclip.configs.schema import PrepareConfig
from teachclip.errors import DataError
from teachclip.stages.data.video import by_decord
from teachclip.stages.data.video.by_decord import complaint, read_frames, refuse_old
from teachclip.stages.data.video.decode import READER, read_video
from teachclip.stages.data.video.source import TarPart, VideoSource
from teachclip.stages.data.video.workers import decode_videos

COUNT = 60
X264 = "libx264"
OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-pyramid=normal:scenecut=0"}
HEVC = {"x265-params": "log-level=none:keyint=10:pools=none"}
VP8 = {"deadline": "realtime", "cpu-used": "8"}
VP9 = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
AV1 = {"preset": "12", "svtav1-params": "lp=1"}
MPEG4_B = {"bf": "2"}

# what, file, encoder, how, who decodes under auto
KINDS: list[tuple[str, str, str, dict[str, Any], str]] = [
    *(("h264", f"a.{end}", X264, {}, "decord") for end in ("mp4", "mov", "mkv", "flv")),
    *(("h264", f"a.{end}", X264, {}, "pyav") for end in ("avi", "ts")),
    ("h264, no B-frames", "a.avi", X264, {"options": {"bf": "0"}}, "pyav"),
    ("h264, index in front", "a.mp4", X264, {"container": {"movflags": "faststart"}}, "decord"),
    ("h264, fragmented", "a.mp4", X264, {"container": {"movflags": "frag_keyframe+empty_moov"}}, "decord"),
    ("h264, one key frame", "a.mp4", X264, {"options": {"x264-params": "keyint=infinite"}, "gop": None}, "decord"),
    ("h264, only key frames", "a.mp4", X264, {"gop": 1}, "decord"),
    ("h264, variable rate", "a.mkv", X264, {"times": [40 * k + 200 * (k // 7) for k in range(COUNT)]}, "decord"),
    ("h264, turned", "a.mp4", X264, {"rotation": 90}, "decord"),
    ("h264, turned over", "a.mp4", X264, {"rotation": 180}, "decord"),
    ("h264, turned back", "a.mov", X264, {"rotation": 270}, "decord"),
    ("h264, 4:4:4", "a.mp4", X264, {"pixels": "yuv444p"}, "decord"),
    ("h264, full range", "a.mp4", X264, {"pixels": "yuvj420p"}, "decord"),
    ("h264, 10 bits", "a.mp4", X264, {"pixels": "yuv420p10le"}, "pyav"),
    ("h264, interlaced", "a.mp4", X264, {"options": {"x264-params": "interlaced=1:tff=1"}}, "pyav"),
    *(("h264, open gop", f"a.{end}", X264, {"options": OPEN_GOP, "gop": None}, "pyav") for end in ("mp4", "mkv")),
    *(("hevc", f"a.{end}", "libx265", {"options": HEVC, "gop": None}, "pyav") for end in ("mp4", "mkv", "ts", "flv")),
    *(("mpeg4", f"a.{end}", "mpeg4", {}, "decord") for end in ("mp4", "mov", "mkv", "avi")),
    *(("mpeg4, B-frames", f"a.{end}", "mpeg4", {"options": MPEG4_B}, "pyav") for end in ("mp4", "mkv", "avi")),
    *(("vp8", f"a.{end}", "libvpx", {"options": VP8}, "decord") for end in ("webm", "mkv")),
    *(("vp9", f"a.{end}", "libvpx-vp9", {"options": VP9}, "decord") for end in ("webm", "mp4", "mkv", "flv")),
    *(("av1", f"a.{end}", "libsvtav1", {"options": AV1}, "decord") for end in ("mp4", "webm", "mkv", "flv")),
    *(("motion jpeg", f"a.{end}", "mjpeg", {}, "decord") for end in ("avi", "mov", "mkv")),
    ("gif", "a.gif", "gif", {"gop": None}, "pyav"),
    ("windows media", "a.wmv", "wmv2", {}, "pyav"),
    ("mpeg-1", "a.mpg", "mpeg1video", {"fps": 25}, "pyav"),
    ("mpeg-2", "a.ts", "mpeg2video", {"fps": 25}, "pyav"),
]


def made(encode: Any, path: Path, codec: str, frames: np.ndarray, **how: Any) -> Path:
    try:
        written: Path = encode(path, frames, codec, **how)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    return written


def by_both(source: VideoSource, config: PrepareConfig) -> tuple[VideoRecord, VideoRecord]:
    """What PyAV makes of it, and `auto`."""
    settings = [config.model_copy(update={"decoder": decoder}) for decoder in ("pyav", "auto")]
    pyav, auto = (read_video("a", source, setting) for setting in settings)
    assert pyav.read_by == ReadBy("pyav", READER)
    return pyav, auto


def check_same(pyav: VideoRecord, auto: VideoRecord) -> None:
    assert auto.status == pyav.status
    np.testing.assert_array_equal(auto.images, pyav.images)
    np.testing.assert_array_equal(auto.times, pyav.times)
    assert auto.digest == pyav.digest
    assert auto.stamp == pyav.stamp


@pytest.mark.parametrize(("what", "name", "codec", "how", "who"), KINDS, ids=[f"{k[0]} in {k[1][2:]}" for k in KINDS])
def test_every_codec_and_container_gives_the_same_bits(
    tmp_path: Path, what: str, name: str, codec: str, how: dict[str, Any], who: str, every_frame: Any, numbered: Any,
    encode: Any,
) -> None:  # fmt: skip
    path = made(encode, tmp_path / name, codec, numbered(COUNT), **how)
    for config in (every_frame, PrepareConfig(image_size=64, max_frames=4)):
        pyav, auto = by_both(path, config)
        check_same(pyav, auto)
        assert auto.status.status == "ok"
        assert auto.read_by == ReadBy(who, READER)  # type: ignore[arg-type]


def test_real_clips_give_the_same_bits(shared: Path) -> None:
    who = {}
    for path in sorted((shared / "data/videos").iterdir()):
        if path.suffix in (".mp4", ".avi", ".mkv"):
            pyav, auto = by_both(path, PrepareConfig(image_size=112))
            check_same(pyav, auto)
            who[path.name] = auto.read_by.decoder
    assert len(who) == 29
    assert list(who.values()).count("decord") >= 20


@pytest.mark.parametrize("side", [16, 24, 32, 48, 64, 90, 96, 98, 144, 146])
def test_pictures_of_any_width(tmp_path: Path, side: int, numbered: Any, encode: Any) -> None:
    """decord gives narrow ones with their rows filled up."""
    path = encode(tmp_path / "a.mp4", numbered(12, side))
    pyav, auto = by_both(path, PrepareConfig(image_size=side, sample_fps=0))
    check_same(pyav, auto)
    assert auto.read_by.decoder == "decord"


def test_odd_sides_are_read_by_pyav(tmp_path: Path, numbered: Any, encode: Any) -> None:
    path = made(encode, tmp_path / "a.webm", "libvpx", numbered(12, 90)[:, :89, :87].copy(), options=VP8)
    pyav, auto = by_both(path, PrepareConfig(image_size=87, sample_fps=0))
    check_same(pyav, auto)
    assert auto.read_by.decoder == "pyav"


def test_a_clip_inside_a_tar(tmp_path: Path, every_frame: Any, numbered: Any, encode: Any) -> None:
    clip = encode(tmp_path / "a, b,,:.mp4", numbered(20))
    data = clip.read_bytes()
    (tmp_path / "c,,:d.tar").write_bytes(b"x" * 777 + data + b"y" * 999)
    part = TarPart(tmp_path / "c,,:d.tar", 777, len(data))
    pyav, auto = by_both(part, every_frame)
    check_same(pyav, auto)
    assert auto.read_by.decoder == "decord"
    assert auto.digest == by_both(clip, every_frame)[1].digest


def test_where_most_of_a_file_is_not_looked_at_pyav_decodes(tmp_path: Path, numbered: Any, encode: Any) -> None:
    path = encode(tmp_path / "a.mp4", numbered(COUNT))
    for change, who in (
        ({"choice": "head"}, "pyav"),
        ({"choice": "tail"}, "decord"),
        ({"last_second": 1}, "pyav"),
        ({"last_second": 4}, "decord"),
    ):
        pyav, auto = by_both(path, PrepareConfig(image_size=64, max_frames=3, **change))
        check_same(pyav, auto)
        assert auto.read_by.decoder == who, change


def rewritten(source: Path, target: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """The packets of `source` with other bytes, or without those that `change` makes None."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for k, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            data = change(k, bytes(packet))
            if data is not None:
                new = av.Packet(data)
                new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
                new.is_keyframe, new.stream = packet.is_keyframe, stream
                write.mux(new)
    return target


@pytest.mark.parametrize("hidden", [{3}, {14, 33}, {58}])
def test_packets_that_show_nothing_shift_no_frame(
    tmp_path: Path, hidden: set[int], every_frame: Any, numbered: Any, encode: Any
) -> None:
    """VP8 has pictures that are only referred to."""
    source = made(encode, tmp_path / "a.webm", "libvpx", numbered(COUNT), options=VP8)

    def hide(k: int, data: bytes) -> bytes:
        return bytes([data[0] & ~0x10]) + data[1:] if k in hidden else data

    path = rewritten(source, tmp_path / "b.webm", hide)
    for config in (every_frame, PrepareConfig(image_size=96, max_frames=12)):
        pyav, auto = by_both(path, config)
        assert pyav.status.status == "ok"
        check_same(pyav, auto)
        assert auto.read_by.decoder == "pyav"


def test_pictures_that_change_their_size_are_read_by_pyav(
    tmp_path: Path, numbered: Any, shown_number: Any, encode: Any
) -> None:
    """decord would stretch them all to the size of the first."""
    first = made(encode, tmp_path / "a.webm", "libvpx", numbered(20, 96), options=VP8, gop=5)
    second = made(encode, tmp_path / "b.webm", "libvpx", numbered(20, 160)[:, 20:116], options=VP8, gop=5)
    with av.open(str(second)) as file:
        others = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    path = rewritten(first, tmp_path / "c.webm", lambda k, data: others[k] if k >= 10 else data)
    pyav, auto = by_both(path, PrepareConfig(image_size=96, sample_fps=0, max_frames=20))
    check_same(pyav, auto)
    assert pyav.status.status == "ok"
    assert auto.read_by.decoder == "pyav"


def test_a_cut_from_a_longer_video_gives_the_same(tmp_path: Path, every_frame: Any, numbered: Any, encode: Any) -> None:
    """Beginning between two key frames, or with pictures missing in the middle."""
    for name, codec, how in (("a.mp4", X264, {}), ("a.mkv", X264, {}), ("a.webm", "libvpx", {"options": VP8})):
        source = made(encode, tmp_path / name, codec, numbered(COUNT), **how)
        for k, keep in enumerate((lambda k: k >= 4, lambda k: k >= 10, lambda k: not 25 <= k < 33, lambda k: k != 57)):
            path = rewritten(source, tmp_path / f"{k}{name}", lambda k, data, keep=keep: data if keep(k) else None)
            check_same(*by_both(path, every_frame))


def damaged(data: bytes, seed: int) -> bytes:
    """Some bytes overwritten, cleared, cut out or put in, one bit turned, or the end cut off."""
    rng = np.random.default_rng(seed)
    start, length = int(len(data) * rng.uniform(0, 1)), int(rng.choice([1, 4, 20, 200, 1500]))
    ways = [
        data[:start] + rng.bytes(length) + data[start + length :],
        data[:start] + bytes(length) + data[start + length :],
        data[:start] + data[start + length :],
        data[:start] + rng.bytes(length) + data[start:],
        data[:start] + bytes([data[start] ^ 1 << int(rng.integers(8))]) + data[start + 1 :],
        data[: max(start, 1)],
    ]
    return ways[seed % len(ways)]


DAMAGED = ["h264 in mp4", "h264, index in front in mp4", "h264, fragmented in mp4", "h264 in mkv", "h264 in flv",
           "h264 in avi", "h264 in ts", "hevc in mp4", "mpeg4 in mp4", "mpeg4 in avi", "vp8 in webm", "vp9 in webm",
           "vp9 in mp4", "av1 in mp4", "av1 in mkv", "motion jpeg in avi"]  # fmt: skip


def check_damage(folder: Path, seeds: range, numbered: Any, encode: Any) -> tuple[int, int]:
    """Clips that are no longer usable, and those that decord decoded."""
    config = PrepareConfig(image_size=96, max_frames=12)
    kinds = {f"{what} in {name[2:]}": (name, codec, how) for what, name, codec, how, _ in KINDS}
    clips = {}
    for number, kind in enumerate(DAMAGED):
        name, codec, how = kinds[kind]
        clips[kind] = made(encode, folder / f"{number}{name}", codec, numbered(30), **how).read_bytes()
    bad = by_decord = 0
    for seed, kind in zip(seeds, itertools.cycle(DAMAGED), strict=False):
        path = folder / kinds[kind][0]
        path.write_bytes(damaged(clips[kind], seed // len(DAMAGED) + 1000 * (seed % len(DAMAGED))))
        pyav, auto = by_both(path, config)
        assert auto.status == pyav.status, (kind, seed)
        assert auto.digest == pyav.digest, (kind, seed)
        bad += auto.status.status != "ok"
        by_decord += auto.read_by.decoder == "decord"
    return bad, by_decord


def test_damage_gets_the_verdict_that_pyav_alone_gives(tmp_path: Path, numbered: Any, encode: Any) -> None:
    bad, by_decord = check_damage(tmp_path, range(200), numbered, encode)
    assert bad > 60
    assert by_decord > 10


@pytest.mark.slow
def test_much_damage_gets_the_verdict_that_pyav_alone_gives(tmp_path: Path, numbered: Any, encode: Any) -> None:
    check_damage(tmp_path, range(200, 3000), numbered, encode)


def test_damage_that_decord_only_tells_as_filled_in_is_heard(tmp_path: Path, numbered: Any, encode: Any) -> None:
    """FFmpeg does not count some of it as an error, or as a warning."""
    clip = encode(tmp_path / "a.mp4", numbered(COUNT), "mpeg4", container={"movflags": "faststart"}).read_bytes()
    config, path = PrepareConfig(image_size=96, max_frames=12), tmp_path / "b.mp4"
    told = []
    for seed in range(4, 240, 6):  # a bit is turned
        path.write_bytes(damaged(clip, seed))
        pyav, auto = by_both(path, config)
        check_same(pyav, auto)
        told.append(read_video("a", path, config.model_copy(update={"decoder": "decord"})).status.reason)
    assert any("concealing" in reason for reason in told)


def test_decord_alone_says_what_it_heard(tmp_path: Path, every_frame: Any, numbered: Any, encode: Any) -> None:
    config = every_frame.model_copy(update={"decoder": "decord"})
    sound = read_video("a", encode(tmp_path / "a.mp4", numbered(COUNT)), config)
    assert (sound.status.status, sound.status.reason, sound.read_by) == ("ok", "", ReadBy("decord", READER))
    hevc = made(encode, tmp_path / "b.mp4", "libx265", numbered(COUNT), options=HEVC, gop=None)
    doubted = read_video("b", hevc, config)
    assert doubted.read_by.decoder == "decord"
    assert (
        "decord may give other frames: the codec is hevc" in doubted.status.reason
        or doubted.status.reason.startswith("decord: ")
    )
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(data[:9000] + bytes(1500) + data[10500:])
    broken = read_video("c", tmp_path / "c.mp4", config)
    assert (broken.status.status, broken.read_by.decoder) == ("corrupt", "decord")
    assert broken.status.reason.startswith("decord: ")


def test_what_was_said_before_and_behind_is_not_heard(
    tmp_path: Path, every_frame: Any, numbered: Any, encode: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = encode(tmp_path / "a.mp4", numbered(12))
    os.write(2, b"before\n")
    record = read_video("a", path, every_frame)
    os.write(2, b"behind\n")
    assert record.read_by.decoder == "decord"
    assert capfd.readouterr() == ("", "before\nbehind\n")


def test_what_is_said_meanwhile_makes_pyav_decide(
    tmp_path: Path, every_frame: Any, numbered: Any, encode: Any, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = encode(tmp_path / "a.mp4", numbered(12))
    walk = by_decord._walk

    def talkative(*args: Any) -> None:
        walk(*args)
        os.write(2, b"[h264 @ 0x1] something of a kind never heard before\n")

    monkeypatch.setattr(by_decord, "_walk", talkative)
    pyav, auto = by_both(path, every_frame)
    check_same(pyav, auto)
    assert auto.read_by.decoder == "pyav"
    assert capfd.readouterr() == ("", "")


def test_no_descriptor_is_left_open(tmp_path: Path, every_frame: Any, numbered: Any, encode: Any) -> None:
    good = encode(tmp_path / "a.mp4", numbered(12))
    bad = tmp_path / "b.mp4"
    bad.write_bytes(good.read_bytes()[:-3000] + bytes(3000))
    read_video("a", good, every_frame)
    before = sorted(os.listdir("/proc/self/fd"))
    for path in (good, bad, good):
        read_video("a", path, every_frame)
    assert sorted(os.listdir("/proc/self/fd")) == before


CLOSED = """
import os, sys
from pathlib import Path
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.decode import read_video
os.close(2)
for _ in range(2):
    record = read_video("a", Path(sys.argv[1]), PrepareConfig(image_size=32))
    print(record.read_by.decoder, record.status.status)
"""


def test_a_process_without_standard_error(tmp_path: Path, numbered: Any, encode: Any) -> None:
    path = encode(tmp_path / "a.mp4", numbered(12))
    done = subprocess.run([sys.executable, "-c", CLOSED, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout == 2 * "decord ok\n"


HARMLESS = [
    "[in @ 0x55d8fdb716c0] Changing video frame properties on the fly is not supported by all filters.",
    "[in @ 0x5596b19bce40] filter context - w: 96 h: 96 fmt: 12 csp: unknown range: unknown alpha: unspecified, "
    "incoming frame - w: 96 h: 96 fmt: 12 csp: bt709 range: pc alpha: unspecified pts_time: 0",
    "[swscaler @ 0x7f80840721c0] deprecated pixel format used, make sure you did set range correctly",
]
TELLING = [
    HARMLESS[1].replace("frame - w: 96", "frame - w: 98"),
    HARMLESS[1].replace("csp: unknown range: unknown", "csp: bt709 range: tv"),
    HARMLESS[0] + " Or so.",
    "[h264 @ 0x1] concealing 22 DC, 22 AC, 22 MV errors in I frame",
    "x",
]


def test_harmless_lines_are_known_to_the_letter() -> None:
    assert complaint("\n".join([*HARMLESS, "", ""]).encode()) == ""
    for line in TELLING:
        assert complaint("\n".join([*HARMLESS, line, "y"]).encode()) == line
    assert complaint(b"\xff\xfe") == "\ufffd\ufffd"


def test_a_reader_that_fails_is_a_complaint(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(os.urandom(9000))
    for path in (tmp_path / "a.mp4", tmp_path / "none.mp4", tmp_path / "\udce4.mp4"):
        with pytest.raises(by_decord.Complaint):
            read_frames(path, {0}, 1, 1.0, lambda number, image: None)


IMPORTED = """
import ctypes, importlib.util, sys
before = ctypes.RTLD_GLOBAL, importlib.util.find_spec("nvidia") is None
from teachclip.stages.data.video.by_decord import decord
decord()
print(hasattr(ctypes.CDLL(None), "avcodec_version"), "/nvidia/" in open("/proc/self/maps").read())
print((ctypes.RTLD_GLOBAL, importlib.util.find_spec("nvidia") is None) == before)
"""


def test_decords_library_is_for_decord_alone() -> None:
    """Else PyAV's FFmpeg would take codecs from it; and every worker would open all of CUDA that torch brings."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_the_abandoned_package_is_refused_by_its_version() -> None:
    with pytest.raises(DataError, match=r"decord 0\.6\.0 is the abandoned package") as caught:
        refuse_old("0.6.0")
    assert "pip install decord2" in str(caught.value.hint)
    refuse_old("3.4.0")
    refuse_old("3.4.0+cu132")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ('__version__ = "0.6.0"', "decord 0.6.0 is the abandoned package"),
        ('raise ImportError("no libdecord.so")', "decord cannot be imported: no libdecord.so"),
        ("import none_of_ours", "decord cannot be imported"),
    ],
)
def test_a_wrong_or_missing_decord_is_told_before_anything_is_decoded(
    tmp_path: Path, module: str, message: str, numbered: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site/decord").mkdir(parents=True)
    (tmp_path / "site/decord/__init__.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    jobs = [("a", encode(tmp_path / "a.mp4", numbered(6)))]
    for decoder in ("auto", "decord"):
        config = PrepareConfig(image_size=32, workers=1, decoder=decoder)
        with pytest.raises(DataError, match=message) as caught:
            list(decode_videos(jobs, config, 1))
        assert "pip" in str(caught.value.hint)
    (found,) = decode_videos(jobs, PrepareConfig(image_size=32, workers=1, decoder="pyav"), 1)
    assert found.record.status.status == "ok"


def test_a_decord_that_hangs_or_crashes_leaves_the_video_to_pyav(
    tmp_path: Path, spawned: Callable[[str], Any], numbered: Any, encode: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["hang.mp4", "segfault.mp4", "exit.mp4", "a.mp4"]
    jobs = [(name, encode(tmp_path / name, numbered(6), fps=2)) for name in names]
    config = PrepareConfig(image_size=32, max_frames=2, workers=2, timeout=3.0)
    for ahead in (1, 10):
        found = {
            decoded.index: decoded.record for decoded in decode_videos(jobs, config, ahead, spawned("unless_pyav"))
        }
        assert [found[k].status.status for k in range(4)] == ["ok"] * 4
        assert [found[k].read_by.decoder for k in range(4)] == ["pyav", "pyav", "pyav", "decord"]
    alone = config.model_copy(update={"decoder": "decord"})
    found = {decoded.index: decoded.record for decoded in decode_videos(jobs, alone, 10, spawned("unless_pyav"))}
    assert [found[k].status.status for k in range(4)] == ["timeout", "corrupt", "corrupt", "ok"]
    assert {found[k].read_by for k in range(4)} == {ReadBy("decord", READER)}
    assert capfd.readouterr() == ("", "")
