"""What makes a network train faster or in less memory without changing what it computes."""

import torch

from ....errors import TrainingError
from ....remedies import Change, Remedy
from ...models.clip.base import Trunk
from ...models.common.network import VideoTextNetwork

# All blocks share one code object, and each tower, training or not, in chunks or at once, is a variant of it.
VARIANTS = 32


def prepare_for_speed(
    network: VideoTextNetwork, *, recompute: bool = False, channels_last: bool = False, compile: bool = False
) -> None:
    """Set up `network`, on its device already, in place; names and values of its weights stay.

    Args:
        recompute: keep of each block of both towers only its input, and compute the rest again in the backward pass
            (gradient checkpointing, Chen et al. 2016); the same bits.
        channels_last: the trunk's convolutions with channels innermost, as tensor cores want it.
        compile: torch.compile for every transformer block, each kind once, for any number of images and words; for a
            trunk that is no plain ViT, for each of its towers.

    Raises:
        TrainingError: this machine cannot compile.
    """
    if recompute:
        network.trunk.recompute()
    if channels_last:
        network.trunk.channels_last()
    if compile:
        _compile(network)


def _compile(network: VideoTextNetwork) -> None:
    temporal = network.temporal
    blocks = [*network.trunk.compiled(), *(() if temporal is None else temporal.resblocks)]
    from torch import _dynamo  # slow to load, and hardly ever needed

    _dynamo.config.recompile_limit = max(_dynamo.config.recompile_limit, VARIANTS)
    for block in blocks:
        block.compile(dynamic=True)
    _try(network.trunk)


def _try(trunk: Trunk) -> None:
    """Compile one part now: a machine that cannot should say so before a run begins."""
    try:
        with torch.no_grad():
            trunk.run_compiled()
    except Exception as error:  # whatever a missing compiler or driver leads to
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"torch.compile does not work here: {said[0]}",
            hint=Remedy(
                "install a C++ compiler (CPU) or triton (GPU), or train without", Change({"train.compile": False})
            ),
        ) from error
