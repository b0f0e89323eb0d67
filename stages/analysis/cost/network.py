"""What a network costs to search with, counted from its own modules: operations, and bytes kept per video.

Nothing is computed: the modules run on fake tensors, which have shapes and no memory, so that networks of full size
are counted in about a second and without weights. torch's `flop_counter` sees matrix products, convolutions and
attention, at 2 FLOPs per multiply-add; softmax, maxima, normalisation, sums and everything else that goes element by
element it does not see.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ....configs.schema import NetworkConfig
from ...models.build import build_clip_network
from ...models.common.network import Features, VideoTextNetwork
from ...models.teachers.drl import Drl

FLOPS_PER_MULTIPLY_ADD = 2
TWO_SIZES = (2, 6)  # videos: what one more of them costs is told by two searches


@dataclass(frozen=True)
class Stored:
    """One tensor that is kept per video: its name, its shape, whether it is made of floating-point numbers."""

    name: str
    shape: tuple[int, ...]
    floating: bool

    def bytes(self, number: int) -> int:
        """Bytes with floating-point numbers of `number` bytes; anything else takes one."""
        return prod(self.shape) * (number if self.floating else 1)


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs. Operations are multiply-adds; FLOPs are twice as many.

    Attributes:
        parameters: all of them.
        pair: multiply-adds to score one more video for a text that is searched with.
        query: once per search, however many videos (what is left of a search without videos).
        video, text: to encode one video of F frames, one text of W words.
        stored: what is kept per video, as little as `score` needs; bytes_float32, bytes_float16: of it.
    """

    parameters: int
    pair: int
    query: int
    video: int
    text: int
    stored: tuple[Stored, ...]
    bytes_float32: int
    bytes_float16: int


def count_network(config: NetworkConfig, *, published_form: bool = False) -> NetworkCost:
    """Count the network that `config` describes, whatever its weights.

    Args:
        published_form: X-Pool as published, which pools the frames anew for every pair; it keeps keys and values.

    Raises:
        ConfigError: there is no such network.
    """
    with FakeTensorMode():
        network = fake_network(config).train(published_form)
        video, videos = _counted(lambda: _fake_video(network), last=0)
        words = network.config.words
        ids = torch.zeros(1, words, dtype=torch.long)
        text, texts = _counted(lambda: network.encode_texts(ids), last=words)
        videos = needed(partial(fake_score, network), texts, videos)
        small, large = (_search(network, texts, videos, count) for count in TWO_SIZES)
        pair = (large - small) // (TWO_SIZES[1] - TWO_SIZES[0])
        stored = tuple(Stored(key, tuple(v.shape[1:]), v.is_floating_point()) for key, v in videos.items())
        return NetworkCost(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            pair=pair,
            query=small - pair * TWO_SIZES[0],
            video=video,
            text=text,
            stored=stored,
            bytes_float32=sum(each.bytes(4) for each in stored),
            bytes_float16=sum(each.bytes(2) for each in stored),
        )


def fake_network(config: NetworkConfig) -> VideoTextNetwork:
    """The network in evaluation mode, without weights; call it inside a FakeTensorMode."""
    trunk = config.trunk.model_copy(update={"weights": None})
    with longest(0):  # timm reads rates of drop path off a tensor
        return build_clip_network(config.model_copy(update={"trunk": trunk})).eval()


def _fake_video(network: VideoTextNetwork) -> Features:
    """Features of a video whose frames are all there, inside a FakeTensorMode."""
    size, frames = network.trunk.image_size, network.config.frames
    mask = torch.ones(1, frames, dtype=torch.bool)
    pixels = torch.empty(1, frames, 3, size, size)
    if network.config.kind != "ts2net":
        return network.encode_videos(pixels, mask)
    sizes = network.trunk.sizes
    assert sizes is not None
    special, patches = network.config.ts2net, (size // sizes.patch_size) ** 2
    noise = torch.empty(1, frames, special.samples if special.sigma else 1, patches)
    # Its own noise is seeded by the pixels, which fake frames have none of.
    return network.encode_videos(pixels, mask, noise)  # type: ignore[call-arg]


def fake_score(network: VideoTextNetwork, texts: Features, videos: Features) -> Tensor:
    """Scores of fake features."""
    # DRL leaves out the padding of a caption by its length, which a fake one has not; a full caption's products are
    # those of the plain form.
    return network.plain_score(texts, videos) if isinstance(network, Drl) else network.score(texts, videos)


def needed(score: Callable[[Features, Features], Tensor], texts: Features, videos: Features) -> Features:
    """The features of videos that `score` cannot do without."""
    kept = dict(videos)
    for key in videos:
        without = {other: value for other, value in kept.items() if other != key}
        try:
            score(texts, without)
        except KeyError:
            continue
        kept = without
    return kept


@contextmanager
def longest(value: int) -> Iterator[None]:
    """Inside, a number that a network reads off a fake tensor is `value`: how many words the longest text has."""
    with _Reads(value):
        yield


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, value: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value = value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return self.value
        return func(*args, **(kwargs or {}))


def _counted[T](run: Callable[[], T], last: int) -> tuple[int, T]:
    """Multiply-adds of `run`, and what it returns.

    Gradients stay on: without them torch's attention takes a path that the counter does not see.
    """
    with FlopCounterMode(display=False, custom_mapping=VECTORS) as counter, longest(last):
        result = run()
    return counter.get_total_flops() // FLOPS_PER_MULTIPLY_ADD, result


def _flops_of_vectors(a: Any, b: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """FLOPs of a matrix (or vector) times a vector, which torch does not count by itself."""
    flops: int = FLOPS_PER_MULTIPLY_ADD * prod(a)
    return flops


VECTORS = {torch.ops.aten.mv: _flops_of_vectors, torch.ops.aten.dot: _flops_of_vectors}


def _search(network: VideoTextNetwork, texts: Features, videos: Features, count: int) -> int:
    many = {key: value.detach().expand(count, *value.shape[1:]).clone() for key, value in videos.items()}
    return _counted(lambda: fake_score(network, texts, many), last=0)[0]
