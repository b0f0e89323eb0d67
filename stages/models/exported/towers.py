"""The two halves of a network of one vector, each a module by itself: what a graph is made of."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.nn.utils.parametrize import register_parametrization

from ..clip.tokens import without_padding
from ..common.network import VideoTextNetwork

type Precision = Literal["float32", "float16", "int8"]

OUTPUT = "vectors"
SENTENCES = (
    "a dog runs on the beach",
    "two teams play football in the rain while a crowd under umbrellas watches them and sings",
    "red",
)
_SEED = 0


@dataclass(frozen=True)
class Tower:
    """Half a network.

    Attributes:
        name: `text` or `video`; whole: the network itself, in float32, on the CPU.
        inputs: their names, in order; dims: per input a name for each dimension that varies, by its place.
    """

    name: str
    module: nn.Module
    whole: VideoTextNetwork
    inputs: tuple[str, ...]
    dims: tuple[dict[int, str], ...]

    def traced(self) -> ExportedProgram:
        """The module as a graph, without what it does not compute with and without where its code lies."""
        given = next(self.samples())
        most = {"words": self.whole.trunk.context_length}
        made = {name: Dim(name, max=most.get(name)) for dims in self.dims for name in dims.values()}
        shapes = tuple({place: made[name] for place, name in dims.items()} for dims in self.dims)
        _drop_unused(self.module, given)
        with torch.no_grad():
            program = torch.export.export(self.module, given, dynamic_shapes=shapes)
        program.example_inputs = None
        for part in program.graph_module.modules():
            for node in part.graph.nodes if isinstance(part, GraphModule) else ():
                node.meta.pop("stack_trace", None)
        return program

    def samples(self) -> Iterator[tuple[Tensor, ...]]:
        """Inputs of several sizes, the same ones always; no size of the first is 1."""
        return _texts(self.whole) if self.name == "text" else _clips(self.whole)

    def expected(self, given: Sequence[Tensor]) -> Tensor:
        """What the network itself makes of an input, float32 [N, D]."""
        encode = self.whole.encode_texts if self.name == "text" else self.whole.encode_videos
        with torch.no_grad():
            return encode(*given)["vector"]


def towers_of(network: VideoTextNetwork, precision: Precision) -> tuple[Tower, Tower]:
    """The text and the video tower of a network in float32 on the CPU; its weights are copied."""
    words: dict[int, str] = {0: "texts"} if network.reads_padding else {0: "texts", 1: "words"}
    clips = {0: "videos", 1: "frames"}
    return (
        Tower("text", _Text(_copied(network, precision)), network, ("ids",), (words,)),
        Tower("video", _Video(_copied(network, precision)), network, ("frames", "mask"), (clips, clips)),
    )


class _Widened(nn.Module):
    """A weight that is kept in float16 and computed with in float32."""

    def forward(self, kept: Tensor) -> Tensor:
        """In float32."""
        return kept.float()


class _Text(nn.Module):
    """Token ids int64 [T, W] -> unit vectors float32 [T, D]."""

    def __init__(self, network: VideoTextNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor) -> Tensor:
        return self.network.encode_texts(ids)["vector"]


class _Video(nn.Module):
    """Frames uint8 [V, F, 3, S, S], in RGB, and which of them there are [V, F] -> unit vectors float32 [V, D]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: VideoTextNetwork) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(network.trunk.pixels, name)).view(3, 1, 1))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        pixels = (frames.float() / 255 - self.mean) / self.std
        pixels = (pixels * mask[:, :, None, None, None]).flatten(0, 1)  # a padded frame is blank after normalisation
        trunk = self.network.trunk
        tokens = trunk.class_tokens(pixels)
        tokens = tokens.view(*frames.shape[:2], tokens.shape[-1])
        return self.network.encode_videos(tokens, mask)["vector"]


def _copied(network: VideoTextNetwork, precision: Precision) -> VideoTextNetwork:
    copied = deepcopy(network).requires_grad_(False)
    if precision != "float16":  # int8 is made of what is written
        return copied
    matrices = [
        (module, name, weight)
        for module in copied.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 1
    ]
    for module, name, weight in matrices:
        setattr(module, name, nn.Parameter(weight.half()))
        register_parametrization(module, name, _Widened(), unsafe=True)
    return copied


def _drop_unused(module: nn.Module, given: Sequence[Tensor]) -> None:
    """Empty the parameters that the result does not depend on: the other tower's."""
    parameters = list(module.requires_grad_(True).parameters())
    with torch.enable_grad():
        reached: Sequence[Tensor | None] = torch.autograd.grad(module(*given).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, reached, strict=True):
        if gradient is None and parameter.ndim:  # of a scalar, the logit scale, the precision is asked
            parameter.data = parameter.new_empty(0)
    module.requires_grad_(False)


def _texts(network: VideoTextNetwork) -> Iterator[tuple[Tensor]]:
    """Token ids of sentences of several lengths, as the network reads them."""
    for count in (len(SENTENCES), 1, 2):
        ids = network.tokenize(SENTENCES[:count])
        yield (ids,)
        if not network.reads_padding:
            yield (without_padding(ids),)


def _clips(network: VideoTextNetwork) -> Iterator[tuple[Tensor, Tensor]]:
    """Noise, with frames in padded slots too, of as many frames as the network takes, of more, fewer and one."""
    drawn, slots, size = torch.Generator().manual_seed(_SEED), network.config.frames, network.trunk.image_size
    for videos, count in ((2, max(slots, 2)), (1, 1), (3, max(slots - 1, 1)), (1, slots + 1)):
        frames = torch.randint(0, 256, (videos, count, 3, size, size), dtype=torch.uint8, generator=drawn)
        lengths = torch.randint(1, count + 1, (videos, 1), generator=drawn)
        yield frames, torch.arange(count) < lengths
