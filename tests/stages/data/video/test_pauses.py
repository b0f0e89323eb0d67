"""A pause is no damage; packets that are missing are, when something behind them shows it."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video import missing
from teachclip.stages.data.video.decode import read_video

COUNT = 60
REALTIME = {"deadline": "realtime", "cpu-used": "8"}
LOOKAHEAD = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
HEVC = {"x265-params": "log-level=none:keyint=100:pools=none"}
REFRESHED = {"x264-params": "intra-refresh=1:keyint=40"}
RECORDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "h264 in mkv": ("a.mkv", "libx264", {}),
    "h264 in mkv, no delay": ("a.mkv", "libx264", {"options": {"tune": "zerolatency"}}),
    "h264 in mkv, no key frames": ("a.mkv", "libx264", {"options": REFRESHED, "gop": None}),
    "h264 in ts": ("a.ts", "libx264", {}),
    "h264 in flv": ("a.flv", "libx264", {}),
    "hevc in mkv": ("a.mkv", "libx265", {"options": HEVC, "gop": None}),
    "hevc in ts": ("a.ts", "libx265", {"options": HEVC, "gop": None}),
    "vp8 in webm": ("a.webm", "libvpx", {"options": REALTIME}),
    "vp8 in webm, hidden pictures": ("a.webm", "libvpx", {"options": LOOKAHEAD}),
    "vp9 in webm": ("a.webm", "libvpx-vp9", {"options": REALTIME}),
    "vp9 in webm, hidden pictures": ("a.webm", "libvpx-vp9", {"options": LOOKAHEAD}),
    "av1 in webm": ("a.webm", "libsvtav1", {"options": {"preset": "12", "svtav1-params": "lp=1"}}),
    "mpeg4 in mkv": ("a.mkv", "mpeg4", {}),
    "flash's own": ("a.flv", "flv", {}),
    "windows media": ("a.wmv", "wmv2", {}),
    "gif": ("a.gif", "gif", {}),
}
SHOW_A_LOSS = [kind for kind in RECORDERS if kind.split()[0] in ("h264", "hevc", "vp8", "vp9")]


def written(path: Path, kind: str, encode: Any, numbered: Any, times: list[int] | None = None) -> Path:
    name, codec, how = RECORDERS[kind]
    try:
        return encode(path / name, numbered(COUNT), codec, **{"gop": 250, **how}, times=times)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg cannot write {codec}")


@pytest.mark.parametrize("kind", RECORDERS)
@pytest.mark.parametrize("stills", [{27: 3000}, {10: 1500, 27: 7000}, {58: 4000}])
def test_a_still_moment_of_a_recording_is_no_damage(
    tmp_path: Path, kind: str, stills: dict[int, int], every_frame: PrepareConfig, numbered: Any, shown_number: Any,
    encode: Any,
) -> None:  # fmt: skip
    times = [100 * k + sum(length for at, length in stills.items() if k > at) for k in range(COUNT)]
    path = written(tmp_path, kind, encode, numbered, times)
    record = read_video("a", path, every_frame)
    assert (record.status.status, record.status.reason) == ("ok", "")
    assert [shown_number(image) for image in record.images] == list(range(COUNT))
    np.testing.assert_allclose(record.times, np.array(times) / 1000, atol=2e-2)
    assert read_video("a", path, PrepareConfig(image_size=96, max_frames=12)).status.status == "ok"


@pytest.mark.parametrize("kind", SHOW_A_LOSS)
@pytest.mark.parametrize(("first", "behind"), [(8, 18), (33, 45)])
def test_a_loss_of_as_many_seconds_is_found(
    tmp_path: Path, kind: str, first: int, behind: int, every_frame: PrepareConfig, numbered: Any, shown_number: Any,
    encode: Any,
) -> None:  # fmt: skip
    source = written(tmp_path, kind, encode, numbered)
    path = tmp_path / f"holed{source.suffix}"
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for k, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            if not first <= k < behind:
                packet.stream = stream
                write.mux(packet)
    assert read_video("a", path, every_frame).status.status == "corrupt"
    ahead = read_video("a", path, every_frame.model_copy(update={"max_frames": first - 4, "choice": "head"}))
    assert [shown_number(image) for image in ahead.images] == list(range(first - 4))  # what comes before it is sound


@pytest.mark.parametrize("fps", [1, 2, 3, 5, 8, 12, 25])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_slow_avis_with_b_frames_are_read(
    tmp_path: Path, fps: int, codec: str, every_frame: PrepareConfig, numbered: Any, shown_number: Any, encode: Any
) -> None:
    path = encode(
        tmp_path / "a.avi", numbered(COUNT), codec, fps=fps, options={"bf": "3" if codec == "libx264" else "2"}
    )
    record = read_video("a", path, every_frame)
    assert (record.status.status, record.status.reason) == ("ok", "")
    assert [shown_number(image) for image in record.images] == list(range(COUNT))


@pytest.mark.parametrize("held", [0, 10, 40])
def test_a_gif_may_hold_a_picture(tmp_path: Path, held: int, every_frame: PrepareConfig, numbered: Any) -> None:
    delays = [100] * held + [4000] + [100] * (40 - held)
    pictures = [Image.fromarray(image) for image in numbered(41)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=delays)
    record = read_video("a", tmp_path / "a.gif", every_frame)
    assert (record.status.status, record.status.frames) == ("ok", 41)
    np.testing.assert_allclose(record.times, np.cumsum([0, *delays[:-1]]) / 1000)


def test_what_ffmpeg_says_is_heard_only_meanwhile() -> None:
    before = av.logging.get_level()
    with missing.overheard() as said:
        av.logging.log(av.logging.DEBUG, "x", "Frame num gap 1 2")
    assert [message for _, _, message in said] == ["Frame num gap 1 2"]
    assert av.logging.get_level() == before
