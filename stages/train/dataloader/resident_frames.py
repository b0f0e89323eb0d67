"""The frames of all training videos at once: on the GPU, or in host memory that the processes of a machine share."""

import mmap
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ....cache.frames.cache import FrameCache
from ....errors import ConfigError
from ....remedies import Change, Remedy
from ...data.video_inputs import DeviceFrames, FrameInputs, MemoryInputs, VideoInputs
from ...runtime.launch import rank_rows
from ...runtime.processes import World
from ...runtime.reporting import Reporter

SHARE = 0.25
"""Of the free host memory, what `auto` gives to frames."""
MARGIN = 1.15
"""Of a step's counted bytes, what `auto` leaves on a GPU: allocators and single kernels take some more."""
_VIDEOS = 64  # read at a time

type Where = Literal["auto", "stream", "host", "device"]


def frame_inputs(
    where: Where,
    cache: FrameCache,
    videos: Sequence[str],
    device: torch.device,
    world: World,
    reporter: Reporter,
    step_bytes: Callable[[], int] = lambda: 0,
) -> VideoInputs | DeviceFrames:
    """The frames of `videos`: read batch by batch, or all of them now. Every process of `world` must call it.

    Args:
        where: `train.frames`. `auto` keeps them on a GPU where they fit beside a step, or JPEG files decoded in host
            memory, where that takes at most a quarter of what is free; else it reads them batch by batch.
        step_bytes: what a step takes, counted; asked for with `auto` and a GPU.

    Raises:
        ConfigError: they do not fit, or there is no GPU to keep them on.
        CacheError: frames cannot be read.
    """
    shape = len(videos), *cache.clip_shape
    size = int(np.prod(shape))
    if where == "auto":
        where = _choice(size, cache, device, world, step_bytes)
    elif where != "stream":
        _refuse_too_large(where, size, device)
    if where == "stream":
        return FrameInputs(cache, videos, pin=device.type == "cuda")
    times = cache.times(videos)
    mask = ~np.isnan(times)
    inputs = FrameInputs(cache, videos)
    if where == "device":
        frames = torch.empty(shape, dtype=torch.uint8, device=device)
        _load(inputs, range(len(videos)), frames, "frames onto the GPU", reporter)
        return DeviceFrames(frames, mask, times)
    shared = _SharedMemory(size, world)
    frames = torch.frombuffer(shared.memory, dtype=torch.uint8).view(shape)
    own = rank_rows(len(videos), shared.position, shared.processes)
    _load(inputs, range(own.start, own.stop), frames, "frames into memory", reporter)
    shared.complete()
    return MemoryInputs(videos, frames.numpy(), mask, times)


def _choice(size: int, cache: FrameCache, device: torch.device, world: World, step_bytes: Callable[[], int]) -> Where:
    """What `auto` means; the same in every process."""
    if device.type == "cuda" and not world.agree(size + MARGIN * step_bytes() > _free(device)):
        return "device"
    decoded = cache.identity["storage"] == "jpeg"
    return "host" if decoded and not world.agree(size > SHARE * _free(torch.device("cpu"))) else "stream"


def _free(device: torch.device) -> int:
    """Bytes that can be had; none where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    facts = Path("/proc/meminfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    available = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    return min(available, _left_in_container())


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that a container or job may still take (control groups, version 2); very many where nothing limits it."""
    own = Path("/proc/self/cgroup").read_text().splitlines() if Path("/proc/self/cgroup").exists() else []
    names = [line.removeprefix("0::/") for line in own if line.startswith("0::/")]
    folders = [root, *(root / name for name in names)]
    left = [sys.maxsize]
    for limit, used in ((folder / "memory.max", folder / "memory.current") for folder in folders):
        with suppress(OSError, ValueError):  # no such file, or "max": no limit
            left.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(left)


def _refuse_too_large(where: Where, size: int, device: torch.device) -> None:
    hint = Remedy("read them batch by batch", Change({"train.frames": "stream"}))
    if where == "device" and device.type != "cuda":
        raise ConfigError("train.frames is device, but there is no GPU", hint=hint)
    free = _free(device if where == "device" else torch.device("cpu"))
    if size > free > 0:
        raise ConfigError(
            f"train.frames is {where}: all frames take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free", hint=hint
        )


def _load(inputs: FrameInputs, videos: range, frames: torch.Tensor, title: str, reporter: Reporter) -> None:
    """Read the frames of these videos into theirs of `frames` [V, F, 3, S, S]."""
    with reporter.progress(title, len(videos), "video") as progress:
        for start in range(videos.start, videos.stop, _VIDEOS):
            stop = min(start + _VIDEOS, videos.stop)
            frames[start:stop] = inputs.read(np.arange(start, stop))[0].to(frames.device)
            progress.advance(stop - start)


class _SharedMemory:
    """Bytes that the processes of a run share, as far as they run on one machine; freed when the last of them ends.

    Attributes:
        memory: the bytes.
        position, processes: of this process among those that share them.
    """

    def __init__(self, size: int, world: World) -> None:
        self._world, self._handle = world, -1
        self.position, self.processes = 0, 1
        if world.ranks == 1 or sys.platform != "linux":
            self.memory = mmap.mmap(-1, size)
            return
        mates = torch.nonzero(world.gather(torch.tensor([_machine()]), world.ranks) == _machine()).flatten().tolist()
        self.position, self.processes = mates.index(world.rank), len(mates)
        if self.position == 0:
            self._handle = os.memfd_create("teachclip-frames")
            os.ftruncate(self._handle, size)
        told = world.gather(torch.tensor([[os.getpid(), self._handle]]), world.ranks)
        process, handle = told[mates[0]].tolist()
        with Path(f"/proc/{process}/fd/{handle}").open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size)
        world.barrier()  # all have it: no handle is needed any more
        if self.position == 0:
            os.close(self._handle)

    def complete(self) -> None:
        """Wait until every process has filled its part."""
        self._world.barrier()


def _machine() -> int:
    """The same number for processes that can see each other's files below /proc."""
    seen = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    return int.from_bytes(blake2b(seen.encode(), digest_size=7).digest(), "little")
