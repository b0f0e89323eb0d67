"""What a container says of its pictures is applied whole: how they are turned and mirrored, times that begin again."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.record import Decoder
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.decode import read_video

# display matrices (a, b, c, d), and what they make of a picture [H, W, 3]
MATRICES: dict[str, tuple[tuple[int, int, int, int], Any]] = {
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "a quarter right": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "a half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "a quarter left": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "mirrored, a quarter left": ((0, 1, 1, 0), lambda image: np.rot90(image[:, ::-1], 1)),
    "mirrored, a quarter right": ((0, -1, -1, 0), lambda image: np.rot90(image[:, ::-1], -1)),
    "nothing": ((0, 0, 0, 0), lambda image: image),
}


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("kind", MATRICES)
def test_display_matrices_are_applied_whole(
    tmp_path: Path, kind: str, decoder: Decoder, every_frame: PrepareConfig, numbered: Any, encode: Any
) -> None:
    matrix, shown = MATRICES[kind]
    config = every_frame.model_copy(update={"decoder": decoder})
    path = encode(tmp_path / "a.mp4", numbered(10), rotation=90)
    plain = read_video("a", encode(tmp_path / "b.mp4", numbered(10)), config)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # behind version, times, track, duration, layer, volume
    assert struct.unpack(">9i", data[at : at + 36])[8] == 1 << 30
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    record = read_video("a", path, config)
    assert (record.status.status, record.status.reason) == ("ok", "")
    expected = [shown(image.transpose(1, 2, 0)) for image in plain.images]
    np.testing.assert_array_equal(record.images.transpose(0, 2, 3, 1), np.stack(expected))


@pytest.mark.parametrize(("name", "codec", "fps"), [("a.ts", "libx264", 10), ("a.ts", "mpeg2video", 25),
                                                    ("a.mpg", "mpeg1video", 25)])  # fmt: skip
def test_times_that_begin_again_are_added_up(
    tmp_path: Path, name: str, codec: str, fps: int, every_frame: PrepareConfig, numbered: Any, shown_number: Any,
    encode: Any,
) -> None:  # fmt: skip
    """Recordings that were joined end to end."""
    frames = numbered(150)
    parts = [encode(tmp_path / f"{k}{name}", frames[50 * k : 50 * k + 50], codec, fps=fps) for k in range(3)]
    joined = tmp_path / name
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    record = read_video("a", joined, every_frame)
    assert (record.status.status, record.status.reason) == ("ok", "its times begin again: they are added up")
    assert [shown_number(image) for image in record.images] == list(range(150))
    np.testing.assert_allclose(record.times, np.arange(150) / fps, atol=0.6)
    assert (np.diff(record.times) > 0).all()
    assert record.status.duration == pytest.approx(150 / fps, abs=0.6)
    kept = read_video("a", joined, PrepareConfig(image_size=96, max_frames=64))
    assert [shown_number(image) for image in kept.images] == list(range(0, 150, fps))
