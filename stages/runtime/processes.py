"""The processes that train one network together, one a GPU, started by torchrun.

    torchrun --nproc-per-node=4 -m teachclip train CONFIG

Tensors on a GPU travel by NCCL, those on a CPU by gloo. A process alone is a world too, in which everything here costs
nothing.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ...errors import ConfigError, StoppedEarly, TrainingError
from ...remedies import Remedy, StartProcesses
from .device import own_gpu
from .launch import Launch, launch, rank_rows

PATIENCE = timedelta(minutes=10)  # with a process that is alive and says nothing; one that died is noticed at once
TELLING = timedelta(seconds=5)
SETTLING = 0.2
"""Seconds for gloo's threads to let go of their last tensors. They need the interpreter for it: if it ends meanwhile,
they abort the process, and a group that is destroyed meanwhile waits for them for ever."""


class World:
    """All processes of a run. Every process must call its methods, except the properties, in the same order.

    Attributes:
        rank: of this process, from 0; ranks: how many there are.
    """

    _current: "World | None" = None
    _joined = 0

    def __init__(self, rank: int = 0, ranks: int = 1) -> None:
        self.rank, self.ranks = rank, ranks

    @classmethod
    def current(cls) -> "World":
        """The world inside `joined`; elsewhere that of a process alone."""
        return cls._current or cls()

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes files and reports."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This process's share of `total` rows."""
        return rank_rows(total, self.rank, self.ranks)

    def some_rows(self, total: int) -> slice:
        """`rows`, or where this process has none, the last one, which `gather` cuts off again."""
        rows = self.rows(total)
        return rows if rows.start < rows.stop else slice(total - 1, total)

    def gather(self, own: Tensor, total: int) -> Tensor:
        """The rows [total, ...] of all processes, in order, of which this one has `rows(total)`.

        Its backward pass sums the gradients that reach the rows in all processes. Where every process computes the same
        losses of what it gathered, gradients are therefore `ranks` times those of a single process, and their mean over
        processes (DistributedDataParallel's) equals them.

        Args:
            own: this process's rows [r, ...]; further ones behind them are cut off, and get gradients of zero.
        """
        if self.ranks == 1:
            return own[:total]
        gathered: Tensor = _Gather.apply(own, total, self)
        return gathered

    def agree(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.ranks == 1:
            return flag
        value = torch.tensor([int(flag)])
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def broadcast(self, value: Any) -> Any:
        """The main process's value, plain JSON, in every process; others' values are not looked at."""
        if self.ranks == 1:
            return value
        told = torch.tensor(list(json.dumps(value).encode()) if self.main else [], dtype=torch.uint8)
        size = torch.tensor([len(told)])
        dist.broadcast(size, 0)
        if not self.main:
            told = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(told, 0)
        return json.loads(bytes(told.tolist()))

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        self.agree(False)


class _Gather(torch.autograd.Function):
    """See `World.gather`."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor, total: int, world: World) -> Tensor:
        ctx.world, ctx.rows, ctx.given = world, world.rows(total), len(own)  # type: ignore[attr-defined]
        return _gathered(own[: ctx.rows.stop - ctx.rows.start], total, world)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # others may have been given the same tensor
        dist.all_reduce(gradient)
        own = gradient.new_zeros((ctx.given, *gradient.shape[1:]))
        own[: ctx.rows.stop - ctx.rows.start] = gradient[ctx.rows]
        return own, None, None


def _gathered(own: Tensor, total: int, world: World) -> Tensor:
    if own.dtype == torch.bool:
        return _gathered(own.view(torch.uint8), total, world).view(torch.bool)
    largest = math.ceil(total / world.ranks)
    padded = own.new_zeros((largest, *own.shape[1:]))
    padded[: len(own)] = own
    whole = own.new_empty((world.ranks * largest, *own.shape[1:]))
    dist.all_gather_into_tensor(whole, padded)
    shares = [rank_rows(total, rank, world.ranks) for rank in range(world.ranks)]
    parts = [whole[rank * largest :][: rows.stop - rows.start] for rank, rows in enumerate(shares)]
    return whole if largest * world.ranks == total else torch.cat(parts)


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[World]:
    """This process among those that torchrun started, connected until the body ends; alone without torchrun.

    Args:
        device: where they compute; `choose_device` then gives each a GPU of its own.

    Raises:
        ConfigError: more processes than GPUs.
        TrainingError: another process of the run ended.
    """
    place = launch()
    if place.ranks == 1 or World._current is not None:
        yield World.current()
        return
    try:
        _connect(place, device)
        World._current = World(place.rank, place.ranks)
        with _gpus_let_go():
            yield World._current
        World._current.barrier()
        _leave()
    except StoppedEarly:  # which all have agreed on
        _leave()
        raise
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise TrainingError(
            "another process of this run ended, so this one does too",
            details=[f"process {place.rank} of {place.ranks} noticed: {str(error).splitlines()[0].split('. ')[0]}"],
            hint="what ended it stands above, or in torchrun's report below; the last checkpoint is kept, and the same "
            "command goes on from it, with any number of processes",
        ) from error
    finally:
        World._current = None


@contextmanager
def _gpus_let_go() -> Iterator[None]:
    """An error ends what a GPU waits for: a collective whose other processes are gone never ends by itself, nor does
    whoever waits for the GPU."""
    try:
        yield
    except StoppedEarly:
        raise
    except BaseException:
        if "nccl" in dist.get_backend_config() and (group := dist.group.WORLD) is not None:
            group.abort()
        raise


def _leave() -> None:
    time.sleep(SETTLING)
    dist.destroy_process_group()


def _connect(place: Launch, device: str) -> None:
    backend, gpu = "gloo", None
    if device != "cpu" and torch.cuda.is_available():
        own = own_gpu(place)
        if own >= torch.cuda.device_count():
            raise ConfigError(
                f"there is no GPU for process {own + 1} of this machine, which has {torch.cuda.device_count()}",
                hint=Remedy("start as many as there are GPUs", StartProcesses(torch.cuda.device_count())),
            )
        torch.cuda.set_device(own)
        backend, gpu = "cpu:gloo,cuda:nccl", torch.device("cuda", own)
    World._joined += 1
    store, rank, ranks = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
    # A name of its own: addresses that processes left when they were connected before must not be found again.
    meeting = dist.PrefixStore(f"teachclip-{World._joined}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=meeting, rank=rank, world_size=ranks, timeout=PATIENCE, device_id=gpu)


def _is_of_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def first_to_tell() -> bool:
    """Whether no other process of the run has told of a failure; where nobody can be asked, it is told again."""
    place = launch()
    if place.ranks == 1:
        return True
    try:
        port = int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], port, is_master=False, timeout=TELLING
        )
        attempt = [os.environ.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "RESTART_COUNT")]
        return bool(store.add("/".join(["teachclip-told", *attempt]), 1) == 1)
    except RuntimeError:
        return True
