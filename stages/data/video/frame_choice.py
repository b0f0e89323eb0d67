"""Which frames of a video are kept: the published rule (specs/teachclip.md section 6)."""

import math
from typing import Literal

import numpy as np

Choice = Literal["uniform", "head", "tail"]


def sampled_numbers(
    count: int, fps: float, sample_fps: int = 1, start: int | None = None, end: int | None = None
) -> list[int]:
    """Numbers of the frames that are looked at, before `max_frames` of them are chosen.

    A second of video is int(fps) frames (so 29.97 fps drifts, as published); in each, `sample_fps` frames are taken at
    offsets 0, step, 2 step ... with step = int(fps) // sample_fps. `sample_fps` 0 takes every frame.

    The published code fails on videos slower than 1 fps, and on those slower than `sample_fps`; here every frame of
    them is taken, the nearest there is to the rate asked for.

    Args:
        count: N, frames that can be read.
        fps: frames per second, as the container says.
        sample_fps: frames taken per second.
        start: first second, 0 by default; end: last second, inclusive, the video's last by default.

    Raises:
        ValueError: a rate that is not positive and finite, or a negative second.
    """
    if not 0 < fps < math.inf or min(sample_fps, start or 0, end or 0) < 0:
        until = "" if end is None else f" to {end}"
        raise ValueError(f"cannot sample {sample_fps} frames a second from {fps} fps, second {start or 0} on{until}")
    second = max(1, int(fps))
    step = max(1, second // sample_fps) if sample_fps else 1
    offsets = range(0, second, step)[: sample_fps or None]
    seconds = range(start or 0, -(-count // second) + 1 if end is None else end + 1)
    numbers = (k * second + offset for k in seconds for offset in offsets)
    return [number for number in numbers if number < count]


def chosen(count: int, max_frames: int, choice: Choice = "uniform") -> list[int]:
    """Positions of the at most `max_frames` frames kept of `count` sampled ones, ascending.

    uniform: linspace(0, count - 1, max_frames) cut to integers; head, tail: the first, the last ones.
    """
    if count <= max_frames:
        return list(range(count))
    if choice == "head":
        return list(range(max_frames))
    if choice == "tail":
        return list(range(count - max_frames, count))
    return [int(position) for position in np.linspace(0, count - 1, max_frames)]


def frame_numbers(
    count: int, fps: float, sample_fps: int, max_frames: int, choice: Choice, last_second: int | None = None
) -> list[int]:
    """Numbers of the frames that are kept of a video of `count` frames, up to `last_second`, inclusive."""
    sampled = sampled_numbers(count, fps, sample_fps, end=last_second)
    return [sampled[position] for position in chosen(len(sampled), max_frames, choice)]
