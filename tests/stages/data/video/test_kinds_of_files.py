"""Containers and bare streams by their extensions: which are found in folders and shards, and that they decode."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from teachclip.configs.schema import DataConfig, PrepareConfig
from teachclip.errors import DataError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.readers.video_folder import VIDEO_SUFFIXES
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.data.video.source import TarPart

type Shown = Callable[[np.ndarray], int]

COUNT = 12
KINDS = [  # extension, FFmpeg's format, codec
    *[("y4m", "yuv4mpegpipe", "wrapped_avframe"), ("mjpeg", "mjpeg", "mjpeg"), ("mjpg", "mjpeg", "mjpeg")],
    *[(end, "h264", "libx264") for end in ("h264", "264", "avc")],
    *[(end, "hevc", "libx265") for end in ("h265", "265", "hevc")],
    *[(end, "mpegts", "libx264") for end in ("mts", "m2ts", "m2t", "ts", "trp")],
    *[("3gp", "3gp", "libx264"), ("3gpp", "3gp", "mpeg4"), ("3g2", "3g2", "mpeg4"), ("f4v", "f4v", "libx264")],
    *[("ogv", "ogg", "libvpx"), ("ogm", "ogg", "libvpx"), ("gif", "gif", "gif"), ("ivf", "ivf", "libvpx-vp9")],
    *[("m1v", "mpeg1video", "mpeg1video"), ("m2v", "mpeg2video", "mpeg2video"), ("mpe", "mpeg", "mpeg1video")],
    *[("vob", "vob", "mpeg2video"), ("mod", "vob", "mpeg2video"), ("tod", "mpegts", "libx264")],
    *[("mxf", "mxf", "mpeg2video"), ("nut", "nut", "mpeg4"), ("wtv", "wtv", "mpeg2video")],
    *[("mk3d", "matroska", "libx264"), ("mp4v", "mp4", "mpeg4")],
    *[("wmv", "asf", "wmv2"), ("divx", "avi", "mpeg4"), ("qt", "mov", "mpeg4"), ("obu", "obu", "libsvtav1")],
]  # fmt: skip


def written(path: Path, form: str, codec: str, frames: np.ndarray) -> Path:
    rate = 25 if codec.startswith("mpeg") and codec != "mpeg4" else 10
    quiet = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"svtav1-params": "lp=1"}}.get(codec, {})
    with av.open(str(path), "w", format=form) as file:
        stream = file.add_stream(codec, rate=rate, options={"threads": "1", **quiet})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for image in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize(("end", "form", "codec"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_kind_is_found_and_decoded_in_a_folder_and_in_a_shard(
    tmp_path: Path, numbered: Any, shown_number: Shown, every_frame: PrepareConfig, end: str, form: str, codec: str
) -> None:
    (tmp_path / "clips").mkdir()
    path = written(tmp_path / f"clips/film.{end}", form, codec, numbered(COUNT))
    assert end in VIDEO_SUFFIXES
    (tmp_path / "test_list.txt").write_text("film\n")
    (tmp_path / "captions_msvd.json").write_text(json.dumps({"film": ["x"]}))
    msvd = DataConfig(set="msvd", annotations=tmp_path, videos=tmp_path / "clips", splits=("test",))
    (in_folder,) = read_dataset(msvd).videos
    assert in_folder.source == path

    (tmp_path / "film.txt").write_text("x")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "film.txt", "film.txt")
        tar.add(path, f"film.{end.upper()}")
    (in_shard,) = read_dataset(DataConfig(set="webdataset", videos=tmp_path, val_fraction=0.0)).videos
    assert isinstance(in_shard.source, TarPart)

    for source in (in_folder.source, in_shard.source):
        record = read_video("film", source, every_frame)
        assert (record.status.status, record.status.frames) == ("ok", COUNT), record.status
        assert [shown_number(image) for image in record.images] == list(range(COUNT))


@pytest.mark.parametrize("beside", ["gif", "ogg"])
def test_a_preview_beside_the_video_is_not_the_video(tmp_path: Path, beside: str) -> None:
    (tmp_path / "test_list.txt").write_text("film\n")
    (tmp_path / "captions_msvd.json").write_text(json.dumps({"film": ["x"]}))
    (tmp_path / "clips").mkdir()
    msvd = DataConfig(set="msvd", annotations=tmp_path, videos=tmp_path / "clips", splits=("test",))
    (tmp_path / f"clips/film.{beside}").write_bytes(b"preview")
    assert read_dataset(msvd).videos[0].path.suffix == f".{beside}"  # there is nothing else
    (tmp_path / "clips/film.mp4").write_bytes(b"video")
    assert read_dataset(msvd).videos[0].path.suffix == ".mp4"
    (tmp_path / "clips/film.mkv").write_bytes(b"video")
    with pytest.raises(DataError) as caught:
        read_dataset(msvd)
    assert "has 2 files: film.mkv and film.mp4" in caught.value.details[0]

    (tmp_path / "film.txt").write_text("x")
    for names in ((beside, "mp4"), ("mp4", beside)):
        with tarfile.open(tmp_path / "s.tar", "w") as tar:
            tar.add(tmp_path / "film.txt", "film.txt")
            for end in names:
                tar.add(tmp_path / f"clips/film.{end}", f"film.{end}")
        (video,) = read_dataset(DataConfig(set="webdataset", videos=tmp_path, val_fraction=0.0)).videos
        assert isinstance(video.source, TarPart)
        assert video.source.size == len(b"video")


@pytest.mark.parametrize("end", ["y4m", "mjpeg", "h264"])
def test_a_stream_that_was_cut_off_keeps_what_is_whole(
    tmp_path: Path, numbered: Any, shown_number: Shown, every_frame: PrepareConfig, end: str
) -> None:
    form, codec = next(kind[1:] for kind in KINDS if kind[0] == end)
    path = written(tmp_path / f"a.{end}", form, codec, numbered(COUNT))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    record = read_video("a", path, every_frame)
    shown = [shown_number(image) for image in record.images]
    assert record.status.status in ("ok", "corrupt")
    assert shown == list(range(len(shown)))
    assert len(shown) < COUNT


@pytest.mark.parametrize("name", ["a.mjpeg", "a.mp4", "a.y4m"])
def test_a_photograph_is_still_no_video(tmp_path: Path, every_frame: PrepareConfig, name: str) -> None:
    from PIL import Image

    Image.fromarray(np.full((96, 96, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / name)
    status = read_video("a", tmp_path / name, every_frame).status
    assert (status.status, status.reason) == ("corrupt", "an image, not a video")
