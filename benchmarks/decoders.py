"""Who decodes which codec in which container, how far decord's frames are from PyAV's, and what either costs.

    python benchmarks/decoders.py [--videos folder] [--out decoders.json]

Clips of 70 frames are made of each kind that this PyAV can write. For each: who decodes under `prepare.decoder: auto`
and why not decord; the largest difference of a pixel, of 0 to 255, between `auto` and PyAV, when every frame is kept;
the same for `get_batch`, decord as it is usually called, on every third frame, and how many of those differ at all.
Then real clips (`data/videos` in the folder that TEACHCLIP_SHARED names, by default `shared` beside the repository):
who decodes, whether all bits are PyAV's, seconds of processor and of waiting, each the least of several. Every clip is
read by a process of its own, since a decoder may hang or crash.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from _machine import machine
from teachclip.cache.frames.record import VideoRecord
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.by_decord import decord
from teachclip.stages.data.video.container import inspect
from teachclip.stages.data.video.decode import read_video

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder tells its settings otherwise
SHARED = Path(os.environ.get("TEACHCLIP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
FRAMES, SIDE, FPS = 70, 160, 25
LIMIT = 60.0
REPEATS = 6
OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-pyramid=normal:scenecut=0"}
HEVC = {"x265-params": "log-level=none:keyint=10:pools=none"}
VP8 = {"deadline": "realtime", "cpu-used": "8"}
VP9 = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
AV1 = {"preset": "12", "svtav1-params": "lp=1"}
INTERLACED = {"x264-params": "interlaced=1:tff=1"}

# name, encoder, options, pixels, containers
KINDS: tuple[tuple[str, str, dict[str, str], str, str], ...] = (
    ("H.264", "libx264", {}, "yuv420p", "mp4 mov mkv flv avi ts mpg"),
    ("H.264, no B-frames", "libx264", {"bf": "0"}, "yuv420p", "mp4 avi ts"),
    ("H.264, open GOP", "libx264", OPEN_GOP, "yuv420p", "mp4 mkv avi"),
    ("H.264, interlaced", "libx264", INTERLACED, "yuv420p", "mp4 mkv"),
    ("H.264, 4:4:4", "libx264", {}, "yuv444p", "mp4 mkv"),
    ("H.264, 10 bits", "libx264", {}, "yuv420p10le", "mp4 mkv"),
    ("HEVC", "libx265", HEVC, "yuv420p", "mp4 mov mkv flv ts"),
    ("MPEG-4", "mpeg4", {}, "yuv420p", "mp4 mov mkv avi"),
    ("MPEG-4, B-frames", "mpeg4", {"bf": "2"}, "yuv420p", "mp4 mkv avi"),
    ("VP8", "libvpx", VP8, "yuv420p", "webm mkv"),
    ("VP9", "libvpx-vp9", VP9, "yuv420p", "webm mp4 mkv flv"),
    ("AV1", "libsvtav1", AV1, "yuv420p", "mp4 webm mkv flv"),
    ("Motion JPEG", "mjpeg", {}, "yuvj420p", "avi mov mkv"),
    ("GIF", "gif", {}, "rgb8", "gif"),
    ("MPEG-1", "mpeg1video", {}, "yuv420p", "mpg avi ts"),
    ("MPEG-2", "mpeg2video", {}, "yuv420p", "mpg ts mkv"),
    ("Windows Media", "wmv2", {}, "yuv420p", "wmv avi"),
)


def drawn() -> np.ndarray:
    """Moving blocks of noise, uint8 [N, S, S, 3]."""
    blocks = np.random.default_rng(0).integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    image = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(image, (3 * k, 2 * k), axis=(0, 1)) for k in range(FRAMES)])


def write(path: Path, encoder: str, options: dict[str, str], pixels: str) -> None:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(encoder, rate=FPS, options={"threads": "1", **options})
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixels
        if encoder not in ("libx265", "gif") and options is not OPEN_GOP:
            stream.gop_size = 10
        for image in drawn():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def compared(path: Path) -> dict[str, Any]:
    """What becomes of a made clip."""
    records = {}
    for decoder in ("pyav", "auto"):
        config = PrepareConfig(image_size=SIDE, sample_fps=0, max_frames=FRAMES, decoder=decoder)
        records[decoder] = read_video("a", path, config)
    whole = records["pyav"].images
    found = {
        "status": records["pyav"].status.status,
        "by": records["auto"].read_by.decoder,
        "why": inspect(path).doubt,
        "same": same(*records.values()),
        "largest": largest(records["auto"].images, whole),
    }
    return found | get_batch(path, whole)


def get_batch(path: Path, whole: np.ndarray) -> dict[str, Any]:
    numbers = list(range(0, len(whole), 3))
    try:
        images = decord().VideoReader(str(path), num_threads=1).get_batch(numbers).asnumpy().transpose(0, 3, 1, 2)
    except Exception as error:
        return {"get_batch": type(error).__name__}
    differing = [number for k, number in enumerate(numbers) if (images[k] != whole[number]).any()]
    return {"get_batch": largest(images, whole[numbers]), "differing": len(differing), "of": len(numbers)}


def largest(images: np.ndarray, others: np.ndarray) -> int | None:
    """Of the differences; None when there are more or fewer images."""
    return int(np.abs(images.astype(int) - others).max()) if images.shape == others.shape else None


def same(one: VideoRecord, other: VideoRecord) -> bool:
    return one.status == other.status and one.digest == other.digest


def timed(path: Path) -> dict[str, Any]:
    """Who decodes a real clip, and what it takes as it is prepared by default."""
    records, costs = {}, {}
    for decoder in ("pyav", "auto"):
        config = PrepareConfig(decoder=decoder)
        taken = []
        for _ in range(REPEATS):
            busy, waited = time.process_time(), time.perf_counter()
            records[decoder] = read_video("a", path, config)
            taken.append((time.process_time() - busy, time.perf_counter() - waited))
        costs[decoder] = [min(column) for column in zip(*taken, strict=True)]
    by = records["auto"].read_by.decoder
    return {"status": records["auto"].status.status, "by": by, "same": same(*records.values()), "seconds": costs}


def child(what: str, path: Path) -> dict[str, Any]:
    """`compared` or `timed`, in a process of its own."""
    command = [sys.executable, __file__, f"--{what}", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {LIMIT:.0f} seconds"}
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": f"exit code {done.returncode}"}


def made_clips(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for number, (name, encoder, options, pixels, containers) in enumerate(KINDS):
        for container in containers.split():
            path = folder / f"{number}.{container}"
            try:
                write(path, encoder, options, pixels)
            except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError):
                continue
            yield name, container, child("compared", path)


def table(rows: list[dict[str, Any]]) -> None:
    print("| codec | container | decodes | largest difference | of `get_batch` | why not decord |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        usual = row.get("get_batch", "-")
        if isinstance(usual, int):
            usual = f"{usual} ({row['differing']} of {row['of']} frames)" if usual else "0"
        cells = row["codec"], row["container"], row.get("by", row.get("failed")), row.get("largest", "-"), usual
        print("|", *(f"{cell} |" for cell in cells), row.get("why") or "", "|")


def clips_table(rows: list[dict[str, Any]]) -> None:
    head = f"{'clip':46} {'status':8} {'decodes':8} {'same':5} {'processor s, PyAV':>18}"
    print(f"{head} {'auto':>6} {'wait':>6} {'auto':>6}")
    for row in rows:
        if "failed" in row:
            print(f"{row['clip']:46} {row['failed']}")
            continue
        pyav, auto = row["seconds"]["pyav"], row["seconds"]["auto"]
        told = f"{row['clip']:46} {row['status']:8} {row['by']:8} {row['same']!s:5}"
        print(f"{told} {pyav[0]:18.3f} {auto[0]:6.3f} {pyav[1]:6.3f} {auto[1]:6.3f}")
    read = [row["seconds"] for row in rows if "seconds" in row]
    sums = {way: [sum(row[way][k] for row in read) for k in (0, 1)] for way in ("pyav", "auto")}
    print(f"together: PyAV {sums['pyav'][0]:.2f} s of processor, {sums['pyav'][1]:.2f} s; ", end="")
    print(f"auto {sums['auto'][0]:.2f} s, {sums['auto'][1]:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=SHARED / "data/videos")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--compared", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--timed", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.compared or given.timed:
        print(json.dumps(compared(given.compared) if given.compared else timed(given.timed)))
        return
    versions = f"PyAV {av.__version__}, decord2 {decord().__version__}"
    print(f"{machine()}; {versions}\n")
    with tempfile.TemporaryDirectory() as folder:
        made = [{"codec": name, "container": end, **row} for name, end, row in made_clips(Path(folder))]
    table(made)
    paths = sorted(path for path in given.videos.glob("*") if path.suffix in (".mp4", ".avi", ".mkv", ".webm"))
    clips = [{"clip": path.name, **child("timed", path)} for path in paths]
    print()
    if clips:
        clips_table(clips)
    else:
        print(f"no real clips at {given.videos}")
    if given.out:
        given.out.write_text(json.dumps({"machine": machine(), "versions": versions, "made": made, "clips": clips}))


if __name__ == "__main__":
    main()
