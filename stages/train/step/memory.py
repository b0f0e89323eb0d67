"""Bytes of a training step, counted from the modules as a GPU would have them; none is needed for that.

Counted: parameters, gradients, optimiser state, and what autograd saves for the backward pass, every storage once, on
fake tensors of a GPU (no weights, no time): by CUDA's rules of autocast, under which LayerNorm's input is kept in
float32 too, and with attention that keeps no weights. That is what has to be in memory at once; what an allocator adds,
buffers of single kernels, batches that wait and a framework's own megabytes are not in it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ....cache.scores.reading.labels import Labels
from ....configs.schema import TrainConfig
from ...models.build import build_clip_network
from ...models.common.network import VideoTextNetwork
from ..losses.combined import Losses
from ..losses.own import is_own
from .optimizer import freeze
from .speed import prepare_for_speed

STATES = 2  # numbers that AdamW, Adam and BertAdam each keep of a parameter that trains
FLOAT = 4


@dataclass(frozen=True)
class StepBytes:
    """Counted bytes of one step.

    Attributes:
        parameters: how many; trained: how many of them train.
        weights, gradients, optimiser, saved: bytes; weights, gradients and optimiser state are float32.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimiser: int
    saved: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimiser + self.saved


def count_step(settings: TrainConfig, precision: Literal["float32", "bf16"]) -> StepBytes:
    """Count one step of `settings`, its videos without captions too, all encoded at once.

    The soft labels of `settings.teachers` are there, as if read from the cache. `settings.chunk` is not looked at
    (`encoded_at_once`). With `settings.recompute`, what one block at a time keeps once more while it is computed again
    is not counted.
    """
    with FakeTensorMode(), torch.device("cuda"), efficient_attention():
        trunk = settings.network.trunk.model_copy(update={"weights": None})
        network = prepared(build_clip_network(settings.network.model_copy(update={"trunk": trunk})), settings)
        parameters = list(network.parameters())
        saved = Saved(parameters)
        with torch.autograd.graph.saved_tensors_hooks(saved.keep, _back):
            with _cuda_autocast(precision):
                features = (
                    network.encode_texts(_words(settings, network)),
                    network.encode_videos(*_fake(settings, network)),
                )
            loss_of(network, settings, *features)
    numbers = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return StepBytes(numbers, trained, FLOAT * numbers, FLOAT * trained, FLOAT * STATES * trained, saved.bytes)


def encoded_at_once(settings: TrainConfig, ranks: int) -> TrainConfig:
    """The same settings for as many pairs and further videos as one of `ranks` processes encodes at a time."""
    pairs, further = (math.ceil(count / ranks) for count in (settings.batch_size, settings.unlabelled))
    most = settings.chunk or pairs + further
    pairs, further = min(pairs, most), min(further, most - min(pairs, most))
    return settings.model_copy(update={"batch_size": pairs, "unlabelled": further})


class Saved:
    """Bytes of the storages that autograd saves, each once, without the parameters' own."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._known = {_key(parameter): parameter.untyped_storage() for parameter in parameters}
        self.bytes = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """A hook of `saved_tensors_hooks`."""
        key = _key(tensor)
        if key not in self._known:
            self._known[key] = tensor.untyped_storage()  # held, so that no other gets its place
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _back(tensor: Tensor) -> Tensor:
    return tensor


def prepared(network: VideoTextNetwork, settings: TrainConfig) -> VideoTextNetwork:
    """In training mode; what does not train is frozen."""
    freeze(network, settings.optim)
    if settings.trunk == "frozen":
        network.freeze_class_tokens()
    prepare_for_speed(network, recompute=settings.recompute)
    return network.train()


def loss_of(
    network: VideoTextNetwork, settings: TrainConfig, texts: dict[str, Tensor], videos: dict[str, Tensor]
) -> Tensor:
    """The loss of a batch's features, with random soft labels."""
    batch, device = settings.batch_size, network.logit_scale.device
    columns = batch + settings.unlabelled
    logits = network.logit_scale.exp() * network.score(texts, videos)
    labels = [
        Labels(torch.rand(batch, columns, device=device), torch.rand(batch, network.config.frames, device=device), 1.0)
        for _ in settings.teachers
    ]
    videos = {name: value[:batch] for name, value in videos.items()}
    # A loss of the user's own might ask for numbers, which fake tensors have not; losses hardly take any memory.
    given = {key: kind for key in ("coarse_kind", "fine_kind") if not is_own(kind := getattr(settings.loss, key))}
    loss = settings.loss.model_copy(update={"coarse_kind": "pearson", "fine_kind": "ce", **given})
    parts = Losses(loss, settings.teachers)(logits, videos.get("raw_weights"), labels)
    auxiliary = network.auxiliary_loss(texts, videos)
    total: Tensor = (parts if auxiliary is None else parts.with_auxiliary(auxiliary)).total
    return total


def _words(settings: TrainConfig, network: VideoTextNetwork) -> Tensor:
    """Full captions."""
    return torch.zeros(settings.batch_size, network.config.words, dtype=torch.long)


def _fake(settings: TrainConfig, network: VideoTextNetwork) -> tuple[Tensor, Tensor]:
    """Pixels of videos whose frames are all there, or class tokens of a frozen trunk, and the mask."""
    slots, size = (settings.batch_size + settings.unlabelled, network.config.frames), network.trunk.image_size
    shape = (network.trunk.width,) if settings.trunk == "frozen" else (3, size, size)
    return torch.empty(*slots, *shape), torch.ones(slots, dtype=torch.bool)


@contextmanager
def efficient_attention() -> Iterator[None]:
    """Inside, attention takes the memory-efficient kernel; which one there is would be asked of a GPU."""
    functional: Any = torch.nn.functional
    usual = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = usual


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> Tensor:
    bias = None
    if attn_mask is not None:
        bias = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    attended: Tensor = attend(query, key, value, bias, torch.is_grad_enabled(), dropout_p)[0]
    return attended


@contextmanager
def _cuda_autocast(precision: str) -> Iterator[None]:
    """torch.autocast("cuda"), which is off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", precision == "bf16")
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
