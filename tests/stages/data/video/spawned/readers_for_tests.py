"""Decoders that misbehave, for worker processes to import."""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from teachclip.cache.frames.record import VideoRecord, VideoStatus
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.content import read_again
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.data.video.workers import Part


def misbehave(id: str, path: Path, config: PrepareConfig) -> VideoRecord:
    """What the file's name says, else decode it."""
    if id.startswith("hang"):
        time.sleep(1000)
    if id.startswith("exit"):
        os._exit(3)
    if id.startswith("segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if id.startswith("slow"):
        time.sleep(0.4)
    return read_video(id, path, config)


def unless_pyav(id: str, path: Path, config: PrepareConfig) -> VideoRecord:
    """Misbehave where decord may decode."""
    return (read_video if config.decoder == "pyav" else misbehave)(id, path, config)


def troubled(id: str, path: Path, config: PrepareConfig) -> VideoRecord:
    """Fail as a machine does: `what-times.mp4`, so many times; each turn writes a line, when it began and ended.

    `together-` waits until another of that name has begun.
    """
    what, _, times = id.removesuffix(".mp4").partition("-")
    turns, begun = path.with_suffix(".turns"), time.monotonic()
    with turns.open("a") as file:
        file.write(".")
    if len(turns.read_text()) <= int(times or 0):
        if what in ("kill", "term"):
            os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)
        if what == "memory":
            raise MemoryError
        if what == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    while what == "together" and len(list(path.parent.glob("together-*.turns"))) < 2 and time.monotonic() < begun + 120:
        time.sleep(0.01)
    record = read_video(id, path, config)
    with (path.parent / "turns.txt").open("a") as file:
        file.write(f"{id} {begun} {time.monotonic()}\n")
    return record


def never_the_last(id: str, path: Path, config: PrepareConfig) -> VideoRecord:
    """Misbehave, and never return from `slow7.mp4`."""
    if id == "slow7.mp4":
        time.sleep(1000)
    return misbehave(id, path, config)


def unreadable_0(id: str, path: Path, config: PrepareConfig) -> VideoRecord:
    """Compare files; one cannot be read."""
    if id == "0.mp4":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return read_again(id, path, config)


def hang_after_telling(id: str, path: Path, config: PrepareConfig) -> VideoRecord:
    """Write this process's number beside the video, then never return."""
    path.with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(1000)
    return read_video(id, path, config)


if __name__ == "__main__":
    # a parent that a test kills while its workers hang
    from teachclip.stages.data.video.workers import decode_videos

    folder = Path(sys.argv[1])
    jobs = [(f"{k}.mp4", folder / f"{k}.mp4") for k in range(2)]
    list(decode_videos(jobs, PrepareConfig(workers=2, timeout=900), 2, hang_after_telling))


def in_parts(id: str, path: Path, config: PrepareConfig, hand_over: Callable[[Part], None]) -> VideoRecord:
    """Three parts of two frames; the file's name says what happens after the first: once, or each time."""
    turns = path.with_suffix(".turns")
    with turns.open("a") as file:
        file.write(".")
    turn = len(turns.read_text())
    for part in range(3):
        frames = np.full((2, 3, config.image_size, config.image_size), 10 * turn + part, np.uint8)
        hand_over(Part(frames, part == 0))
        if part == 0 and ("always" in id or turn == 1):
            if "kill" in id:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in id:
                time.sleep(1000)
        if "slow" in id:
            time.sleep(1.1)
    return VideoRecord(VideoStatus(id, "ok", "", 6), times=np.arange(6.0))
