"""What the networks see of videos: uint8 frames, or class tokens of a frozen trunk cached once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..cache.features import FeatureShards
from ..cache.frames import FrameCache
from ..errors import CacheError
from .device import plain_float32
from .models.checkpoints import class_token_digest
from .models.network import VideoTextNetwork
from .reporting import Reporter
from .world import World

ENCODE_VIDEOS = 16


class VideoInputs(Protocol):
    """Frames or class tokens of videos, by index."""

    videos: Sequence[str]

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(frames or class tokens [V, F, ...], mask [V, F] bool, times [V, F] seconds, NaN in padding)."""
        ...


class FrameInputs:
    """uint8 frames [V, F, 3, S, S] straight from the frame cache; with `pin`, into page-locked memory."""

    def __init__(self, cache: FrameCache, videos: Sequence[str], pin: bool = False) -> None:
        self.cache, self.videos, self.pin = cache, videos, pin

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        frames = torch.empty(len(index), *self.cache.clip_shape, dtype=torch.uint8, pin_memory=self.pin)
        clips = self.cache.read([self.videos[k] for k in index], frames.numpy())
        return frames, torch.from_numpy(clips.mask), torch.from_numpy(clips.times)


class MemoryInputs:
    """Class tokens [V, F, width] of a frozen trunk, or uint8 frames [V, F, 3, S, S], of all videos in memory."""

    def __init__(self, videos: Sequence[str], values: np.ndarray, mask: np.ndarray, times: np.ndarray) -> None:
        self.videos = videos
        self.values, self.mask, self.times = (torch.from_numpy(array) for array in (values, mask, times))

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.from_numpy(np.asarray(index, np.int64))
        return self.values[chosen], self.mask[chosen], self.times[chosen]

    def part(self, start: int, stop: int) -> "MemoryInputs":
        """The inputs of videos start <= index < stop."""
        arrays = (tensor[start:stop].numpy() for tensor in (self.values, self.mask, self.times))
        return MemoryInputs(self.videos[start:stop], *arrays)


class DeviceFrames:
    """uint8 frames [V, F, 3, S, S] of all videos on a GPU: `read` leaves them there, `take` gives a batch's."""

    def __init__(self, frames: Tensor, mask: np.ndarray, times: np.ndarray) -> None:
        self.frames, self.mask, self.times = frames, torch.from_numpy(mask), torch.from_numpy(times)

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(no frames [V, 0], mask [V, F] bool, times [V, F] seconds, NaN in padding)."""
        chosen = torch.from_numpy(np.asarray(index, np.int64))
        return torch.empty(len(chosen), 0, dtype=torch.uint8), self.mask[chosen], self.times[chosen]

    def take(self, index: np.ndarray) -> Tensor:
        """Frames [V, F, 3, S, S] of these videos, on their device."""
        return self.frames[torch.from_numpy(np.asarray(index, np.int64)).to(self.frames.device)]


def check_fits(network: VideoTextNetwork, cache: FrameCache, folder: Path) -> None:
    """Refuse frames of another number or size than the network takes.

    Raises:
        CacheError: naming the two settings that disagree.
    """
    wanted = {"prepare.max_frames": network.config.frames, "prepare.image_size": network.trunk.sizes.image_size}
    found = {"prepare.max_frames": cache.max_frames, "prepare.image_size": cache.image_size}
    differing = [
        f"{key}: the network takes {wanted[key]}, the frames have {found[key]}"
        for key in wanted
        if wanted[key] != found[key]
    ]
    if differing:
        raise CacheError(
            "these frames do not fit the network",
            where=str(folder),
            details=differing,
            hint="prepare frames for it in a folder of their own, and name that: teachclip prepare "
            + " ".join(f"--set {key}={value}" for key, value in {**wanted, "prepare.frames": "frames-for-it"}.items()),
        )


def frozen_inputs(
    network: VideoTextNetwork, cache: FrameCache, videos: Sequence[str], folder: Path, reporter: Reporter
) -> MemoryInputs:
    """Class tokens of all `videos`, computed once per trunk and kept in `folder`; every slot, padded ones too.

    Of several processes each computes its share and reads the others'.
    """
    world = World.current()
    digests = [cache.digest(video) for video in videos]
    shards = FeatureShards(folder, {"kind": "class-tokens", "trunk": class_token_digest(network)})
    groups = list(shards.groups(digests))
    own = groups[world.rank :: world.ranks]
    made = {}
    total = sum(group.stop - group.start for group in own)
    with reporter.progress("class tokens of the frozen trunk", total, "video") as progress:
        for group in own:
            part = shards.read(digests[group])
            if part is None:
                part = _encode(network, FrameInputs(cache, videos), np.arange(group.start, group.stop))
                shards.write(digests[group], part)
            made[group.start] = part
            progress.advance(group.stop - group.start)
    world.barrier()
    parts = []
    for group in groups:
        part = made.get(group.start) or shards.read(digests[group])
        if part is None:
            raise CacheError(
                "class tokens that another process of this run computed are not here",
                where=str(folder),
                hint="`work` has to lie on a disk that all machines of the run share",
            )
        parts.append(part)
    tokens, mask, times = (np.concatenate([part[key] for part in parts]) for key in ("tokens", "mask", "times"))
    return MemoryInputs(videos, tokens, mask, times)


@torch.no_grad()
def _encode(network: VideoTextNetwork, inputs: FrameInputs, index: np.ndarray) -> dict[str, np.ndarray]:
    device = network.logit_scale.device
    tokens, masks, times = [], [], []
    for start in range(0, len(index), ENCODE_VIDEOS):
        frames, mask, when = inputs.read(index[start : start + ENCODE_VIDEOS])
        with plain_float32(device):
            tokens.append(network.class_tokens(frames.to(device), mask.to(device)).float().cpu().numpy())
        masks.append(mask.numpy())
        times.append(when.numpy())
    return {"tokens": np.concatenate(tokens), "mask": np.concatenate(masks), "times": np.concatenate(times)}
