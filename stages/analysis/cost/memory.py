"""Memory of a training step: counted from the modules anywhere, as a GPU would have it, and measured on a GPU.

Counted: `train.step.memory`. Measured: `torch.cuda.max_memory_allocated` over a whole step.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ....configs.schema import TrainConfig
from ...models.build import build_network
from ...models.common.network import VideoTextNetwork
from ...runtime.device import autocast
from ...train.step.memory import count_step, loss_of, prepared
from ...train.step.optimizer import build_optimizer

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
    """Count one step of `settings` (`count_step`), and measure it where `device` is a GPU.

    `settings.chunk` is not looked at: a chunk counts like a batch of its size.
    """
    found = count_step(settings, precision)
    return TrainingMemory(
        network=name,
        parameters=found.parameters,
        trained=found.trained,
        batch=settings.batch_size,
        precision=precision,
        weights=found.weights,
        gradients=found.gradients,
        optimiser=found.optimiser,
        saved=found.saved,
        counted=found.total,
        measured=_measured(settings, precision, device) if device.type == "cuda" else None,
        unlabelled=settings.unlabelled,
    )


def _loss(network: VideoTextNetwork, settings: TrainConfig, precision: Precision, device: torch.device) -> Tensor:
    """The loss of one batch of random frames and words."""
    batch, config, vocabulary = settings.batch_size, network.config, network.trunk.vocab_size
    ids = torch.randint(vocabulary - 1, (batch, config.words), device=device)
    ids[:, -1] = vocabulary - 1  # the largest one ends a text: all slots are in use
    mask = torch.ones(batch + settings.unlabelled, config.frames, dtype=torch.bool, device=device)
    with autocast(device, precision):
        texts, videos = network.encode_texts(ids), network.encode_videos(_frames(network, settings, device), mask)
    return loss_of(network, settings, texts, videos)


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
    network = prepared(network, settings)
    optimiser = build_optimizer(network, settings.optim, total_steps=2)
    before = torch.cuda.memory_allocated(device) - _bytes_of(network)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats(device)
        optimiser.zero_grad()
        _loss(network, settings, precision, device).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return torch.cuda.max_memory_allocated(device) - before


def _bytes_of(network: VideoTextNetwork) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())
