"""Steps on tensors of a GPU that is not there: which kernels they take, what they keep, where the CPU would wait."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from teachclip.stages.models.clip import pixels
from teachclip.stages.train.step.memory import Saved, efficient_attention
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
NO_KERNELS = {
    *(aten.detach.default, aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default),
    *(aten.new_empty.default, aten.new_empty_strided.default, aten.lift_fresh.default),
    *(aten._local_scalar_dense.default, aten.is_pinned.default, aten._unsafe_view.default),
}
BY_INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class Watched(TorchDispatchMode):
    """Counts what tensors take, and answers what fake ones cannot: their numbers, and indexing by masks, all of it set.

    Args:
        number: what a number of a fake tensor is.
        pinned: tensors in page-locked memory.

    Attributes:
        kernels: operations on a GPU that are no views.
        stalls: what the CPU would wait for, by name: a number it reads, a mask it counts, a copy that blocks or comes
            from memory that nobody pinned.
    """

    def __init__(self, number: int = 0, pinned: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.number, self.kernels, self.stalls = number, 0, Counter[str]()
        self._pinned = pinned

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        fake = any(isinstance(tensor, torch._subclasses.FakeTensor) for tensor in tensors)
        where = {tensor.device.type for tensor in tensors}
        waits = "cuda" in where or not fake
        if func is aten._local_scalar_dense.default:
            self.stalls["a number"] += waits
            return self.number if fake else func(*args, **kwargs)
        if func in BY_INDEX and any(value is not None and value.dtype == torch.bool for value in args[1]):
            self.stalls["a mask"] += waits
            if fake:
                args = (args[0], [part for index in args[1] for part in _places(index)], *args[2:])
        if func is aten.nonzero.default:
            self.stalls["a mask"] += waits
            if fake:
                return args[0].new_zeros((args[0].numel(), args[0].ndim), dtype=torch.int64)
        result = func(*args, **kwargs)
        made = {value.device.type for value in tree_leaves(result) if isinstance(value, Tensor)}
        where |= made
        if func in (aten._to_copy.default, aten.copy_.default) and where == {"cpu", "cuda"}:
            ahead = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            source = args[1] if func is aten.copy_.default else args[0]
            self.stalls["a copy"] += not ahead or not (source.device.type == "cuda" or self._is_pinned(source))
        views = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        self.kernels += not views and func not in NO_KERNELS and "cuda" in made
        return result

    def _is_pinned(self, tensor: Tensor) -> bool:
        """Whether it lies in page-locked memory, or is a view of what does."""
        return any(tensor.untyped_storage()._cdata == each.untyped_storage()._cdata for each in self._pinned)


def _places(index: Tensor | None) -> list[Tensor | None]:
    """A mask as the places where it is set, as if it were everywhere."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [torch.zeros(index.numel(), dtype=torch.int64, device=index.device) for _ in range(index.ndim)]


class FakeCuda:
    """A GPU whose tensors have shapes alone; made by `gpu_that_is_not_there`."""

    device = CUDA

    def __init__(self) -> None:
        self._pinned: list[Tensor] = []

    def pin(self, tensor: Tensor) -> Tensor:
        """As `Tensor.pin_memory`: a copy, which counts as page-locked."""
        self._pinned.append(tensor.clone())
        return self._pinned[-1]

    @contextmanager
    def made(self) -> Iterator[None]:
        """Inside, what is made without naming a device lies on the GPU: for networks."""
        with FakeTensorMode(allow_non_fake_inputs=True) as self._mode, CUDA:
            pixels._constants(pixels.MEAN, pixels.STD, torch.float32, CUDA)  # copied once in a process
            yield

    @contextmanager
    def used(self, network: torch.nn.Module, number: int = 0) -> Iterator[tuple[Watched, Saved]]:
        """Inside, the network that was made is used: what is counted meanwhile."""
        saved, watched = Saved(list(network.parameters())), Watched(number, self._pinned)
        hooks = torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor)
        with self._mode, efficient_attention(), watched, hooks:
            yield watched, saved


def gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Autocast and pinned memory are as if there were a GPU. Backward passes do not run on it: zeros are gradients."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(pixels, "_constants", cache(pixels._constants.__wrapped__))  # no fake ones shall stay
    made = FakeCuda()
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: made.pin(tensor))
    return made


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """`gpu_that_is_not_there`."""
    return gpu_that_is_not_there(monkeypatch)


@pytest.fixture
def watched() -> Callable[[], Watched]:
    """What counts on real tensors, too."""
    return Watched
