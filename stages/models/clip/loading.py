"""A trunk from its configuration, with its weights."""

from pathlib import Path

import torch

from ....configs.schema import TrunkConfig
from ....errors import CheckpointError
from ..weights.files import load_into, read_weights
from .base import Trunk
from .catalog import resolved, weights_file
from .pixels import CLIP_PIXELS
from .towers import OpenClipTrunk
from .trunk import ClipTrunk, trunk_tensors


def build_trunk(config: TrunkConfig) -> Trunk:
    """The trunk that `config` describes, with its weights; without any, drawn from torch's global generator.

    Weights may be an open_clip tag, a file of open_clip's or OpenAI's (TorchScript), or any checkpoint that holds a
    trunk of this make: ours, a run folder's, of a plain ViT also a published student's or X-CLIP's.

    Raises:
        ConfigError: the model is unknown, or a library that it needs is not there.
        CheckpointError: the weights cannot be had, or are of another network.
    """
    config = resolved(config)
    path = weights_file(config)
    trunk = _without_weights(config)
    if path is not None:
        _load(trunk, path, from_tag=config.tag is not None)
    return trunk


def _without_weights(config: TrunkConfig) -> Trunk:
    pixels = config.pixels or CLIP_PIXELS
    if config.sizes is not None:
        return ClipTrunk(config.sizes, pixels)
    assert config.towers is not None
    if torch.get_default_device().type != "meta":
        return OpenClipTrunk(config.towers, pixels)
    # What timm and transformers compute when they are built (positions, masks) is in no file of weights.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return OpenClipTrunk(config.towers, pixels)


def _load(trunk: Trunk, path: Path, *, from_tag: bool) -> None:
    weights = read_weights(path)
    if isinstance(trunk, OpenClipTrunk):
        load_into(trunk, trunk.tensors_of(weights.tensors, resize=from_tag), str(path))
        return
    assert isinstance(trunk, ClipTrunk)
    if weights.torchscript and not trunk.sizes.quick_gelu:
        raise CheckpointError(
            "OpenAI's weights were trained with QuickGELU, which this trunk does not use",
            where=str(path),
            hint="use a -quickgelu model, or sizes.quick_gelu: true",
        )
    load_into(trunk, trunk_tensors(weights.tensors, str(path)) or weights.tensors, str(path))
