"""What makes a network train faster or in less memory without changing what it computes."""

import torch
from torch import nn

from ....errors import TrainingError
from ....remedies import Change, Remedy
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
        channels_last: the patch convolution with channels innermost, as tensor cores want it.
        compile: torch.compile for every transformer block, each kind once, for any number of images and words.

    Raises:
        TrainingError: this machine cannot compile.
    """
    trunk = network.trunk
    if recompute:
        trunk.recompute()
    if channels_last:
        trunk.visual.conv1.to(memory_format=torch.channels_last)
    if compile:
        _compile(network)


def _compile(network: VideoTextNetwork) -> None:
    trunk, temporal = network.trunk, network.temporal
    lists = [trunk.visual.transformer.resblocks, trunk.transformer.resblocks]
    lists += [] if temporal is None else [temporal.resblocks]
    from torch import _dynamo  # slow to load, and hardly ever needed

    _dynamo.config.recompile_limit = max(_dynamo.config.recompile_limit, VARIANTS)
    for block in (block for blocks in lists for block in blocks):
        block.compile(dynamic=True)
    _try(trunk.transformer.resblocks[0], trunk.sizes.text_width, network.logit_scale.device)


def _try(block: nn.Module, width: int, device: torch.device) -> None:
    """Compile one block now: a machine that cannot should say so before a run begins."""
    try:
        with torch.no_grad():
            block(torch.zeros(2, 3, width, device=device))
    except Exception as error:  # whatever a missing compiler or driver leads to
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"torch.compile does not work here: {said[0]}",
            hint=Remedy(
                "install a C++ compiler (CPU) or triton (GPU), or train without", Change({"train.compile": False})
            ),
        ) from error
