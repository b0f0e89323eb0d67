"""Memory of a training step: counted from the modules anywhere, and measured on a GPU.

Counted: parameters, gradients, optimiser state, and what autograd saves for the backward pass, every storage once, on
fake tensors (no weights, no time). That is what has to be in memory at once; what an allocator adds, buffers of single
kernels and a framework's own megabytes are not in it, and a GPU's kernels may save somewhat other tensors than a CPU's.
Measured: `torch.cuda.max_memory_allocated` over a whole step.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ....cache.scores.reading.labels import Labels
from ....configs.schema import TrainConfig
from ...models.build import build_network
from ...models.common.network import VideoTextNetwork
from ...runtime.device import autocast
from ...train.losses.combined import Losses
from ...train.step.optimizer import build_optimizer, freeze
from ...train.step.speed import prepare_for_speed
from .network import encode_fake_videos, fake_network, fake_score, longest

STATES = 2  # numbers that AdamW, Adam and BertAdam each keep of a parameter that trains
FLOAT = 4
Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one step with `batch` texts and their videos.

    Attributes:
        network: its name; parameters: how many, trained: how many of them train.
        unlabelled: further videos without texts, as `train.unlabelled` says.
        precision: of the forward pass; weights, gradients and optimiser state are float32.
        weights, gradients, optimiser, saved: bytes, counted; counted: their sum.
        measured: the largest allocation of a real step; None without a GPU, and where the step does not fit on it.
    """

    network: str
    parameters: int
    trained: int
    batch: int
    precision: Precision
    weights: int
    gradients: int
    optimiser: int
    saved: int
    counted: int
    measured: int | None
    unlabelled: int = 0


def training_memory(name: str, settings: TrainConfig, precision: Precision, device: torch.device) -> TrainingMemory:
    """Count one step of `settings`, its videos without captions too, and measure it where `device` is a GPU.

    The soft labels of `settings.teachers` are there, as if read from the cache. The whole batch is encoded at once:
    `settings.chunk` is not looked at, a chunk counts like a batch of its size. With `settings.recompute`, what one
    block at a time keeps once more while it is computed again is not counted.
    """
    with FakeTensorMode():
        network = _prepared(fake_network(settings.network), settings)
        parameters = list(network.parameters())
        saved = _Saved(parameters)
        with torch.autograd.graph.saved_tensors_hooks(saved.keep, _back), longest(network.config.words - 1):
            _loss(network, settings, precision, None)
    numbers = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    counted = {"weights": FLOAT * numbers, "gradients": FLOAT * trained, "optimiser": FLOAT * STATES * trained}
    counted["saved"] = saved.bytes
    return TrainingMemory(
        network=name,
        parameters=numbers,
        trained=trained,
        batch=settings.batch_size,
        precision=precision,
        **counted,
        counted=sum(counted.values()),
        measured=_measured(settings, precision, device) if device.type == "cuda" else None,
        unlabelled=settings.unlabelled,
    )


class _Saved:
    """Bytes of the storages that autograd saves, each once, without the parameters' own."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._known = {_key(parameter): parameter.untyped_storage() for parameter in parameters}
        self.bytes = 0

    def keep(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._known:
            self._known[key] = tensor.untyped_storage()  # held, so that no other gets its place
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _back(tensor: Tensor) -> Tensor:
    return tensor


def _loss(
    network: VideoTextNetwork, settings: TrainConfig, precision: Precision, device: torch.device | None
) -> Tensor:
    """The loss of one batch; on fake tensors without a device, else of random frames and words."""
    batch, config = settings.batch_size, network.config
    columns = batch + settings.unlabelled
    where = device or torch.device("cpu")
    with autocast(where, precision):
        if device is None:
            texts = network.encode_texts(torch.zeros(batch, config.words, dtype=torch.long))
            videos = encode_fake_videos(network, columns, tokens=settings.trunk == "frozen")
        else:
            vocabulary = network.trunk.vocab_size
            ids = torch.randint(vocabulary - 1, (batch, config.words), device=device)
            ids[:, -1] = vocabulary - 1  # the largest one ends a text: all slots are in use
            mask = torch.ones(columns, config.frames, dtype=torch.bool, device=device)
            texts, videos = network.encode_texts(ids), network.encode_videos(_frames(network, settings, device), mask)
    with torch.autocast(where.type, enabled=False):
        scores = fake_score(network, texts, videos) if device is None else network.score(texts, videos)
        logits = network.logit_scale.exp() * scores
        labels = [
            Labels(torch.rand(batch, columns, device=device), torch.rand(batch, config.frames, device=device), 1.0)
            for _ in settings.teachers
        ]
        raw_weights = videos.get("raw_weights")
        own = None if raw_weights is None else raw_weights[:batch]
        parts = Losses(settings.loss, settings.teachers)(logits, own, labels)
        # DRL's own loss picks words and frames by their values, which fake tensors have none of; it is not counted.
        auxiliary = None if device is None else network.auxiliary_loss(texts, videos)
    return parts.total if auxiliary is None else parts.with_auxiliary(auxiliary).total


def _frames(network: VideoTextNetwork, settings: TrainConfig, device: torch.device) -> Tensor:
    """Random uint8 frames, or class tokens of a frozen trunk."""
    slots, size = (settings.batch_size + settings.unlabelled, network.config.frames), network.trunk.image_size
    if settings.trunk == "frozen":
        return torch.randn(*slots, network.trunk.width, device=device)
    return torch.randint(256, (*slots, 3, size, size), dtype=torch.uint8, device=device)


def _measured(settings: TrainConfig, precision: Precision, device: torch.device) -> int | None:
    """Bytes of the second of two real steps: from then on the optimiser's state is there. None: it does not fit."""
    try:
        return _largest_allocation(settings, precision, device)
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


def _largest_allocation(settings: TrainConfig, precision: Precision, device: torch.device) -> int:
    trunk = settings.network.trunk.model_copy(update={"weights": None})
    network = build_network(settings.network.model_copy(update={"trunk": trunk})).to(device)
    network = _prepared(network, settings)
    optimiser = build_optimizer(network, settings.optim, total_steps=2)
    before = torch.cuda.memory_allocated(device) - _bytes_of(network)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats(device)
        optimiser.zero_grad()
        _loss(network, settings, precision, device).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return torch.cuda.max_memory_allocated(device) - before


def _prepared(network: VideoTextNetwork, settings: TrainConfig) -> VideoTextNetwork:
    """In training mode; what does not train is frozen."""
    freeze(network, settings.optim)
    if settings.trunk == "frozen":
        network.freeze_class_tokens()
    prepare_for_speed(network, recompute=settings.recompute)
    return network.train()


def _bytes_of(network: VideoTextNetwork) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())
