"""Class tokens of a frozen trunk, computed once and kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....cache.features import FeatureShards
from ....cache.frames.cache import FrameCache
from ....errors import CacheError
from ...data.video_inputs import VIDEOS_AT_ONCE, FrameInputs, MemoryInputs, encoded
from ...models.checkpoints.files import class_token_digest
from ...models.common.network import VideoTextNetwork
from ...runtime.device import plain_float32
from ...runtime.processes import World
from ...runtime.reporting import Reporter


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

    def encode(frames: Tensor, mask: Tensor, times: Tensor) -> dict[str, np.ndarray]:
        with plain_float32(device):
            tokens = network.class_tokens(frames, mask).float()
        return {name: each.cpu().numpy() for name, each in (("tokens", tokens), ("mask", mask), ("times", times))}

    parts = [part for _, part in encoded(inputs, index, encode, device, VIDEOS_AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
