"""Gradients that the processes of a run share: each has the mean of all when its backward pass is done."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...runtime.processes import World


class SharedGradients:
    """Runs computations with a network, so that their backward pass shares the gradients of its parameters.

    Those that earlier backward passes left in the process, of computations elsewhere, are shared with them.

    Args:
        losses: what is minimised, which may have parameters.
        in_parts: computations are parts of a step, in which not all parameters that train take part.
    """

    def __init__(self, network: nn.Module, losses: nn.Module, world: World, in_parts: bool = False) -> None:
        self.world, self.in_parts = world, in_parts
        self._computation = _Computation(network, losses)
        self._shared: DistributedDataParallel | None = None

    def __call__[R: tuple[Tensor, ...]](self, compute: Callable[[], R]) -> R:
        """The computation's result, whose first tensor is what the gradients are of."""
        if self.world.ranks == 1:
            return compute()
        if self._shared is None:
            # Parameters that never get a gradient must be looked for in each step, which has its price, and is told to
            # be unnecessary where there are none.
            some_unused = self.in_parts or self.world.agree(self._leaves_some_out(compute()[0]))
            self._shared = DistributedDataParallel(
                self._computation, gradient_as_bucket_view=True, find_unused_parameters=some_unused
            )
        result: R = self._shared(compute)
        return result

    def _leaves_some_out(self, total: Tensor) -> bool:
        reached = _reached(total)
        return any(p.requires_grad and id(p) not in reached for p in self._computation.parameters())


class _Computation(nn.Module):
    """A network, and as its forward pass anything that is computed with it, the losses too.

    DistributedDataParallel has to see all parameters that lead to the losses, those outside the encoders as well.
    """

    def __init__(self, network: nn.Module, losses: nn.Module) -> None:
        super().__init__()
        self.network, self.losses = network, losses

    def forward(self, compute: Callable[[], Any]) -> Any:
        return compute()


def _reached(total: Tensor) -> set[int]:
    """Ids of the parameters that a backward pass from `total` reaches."""
    found, seen, waiting = set[int](), set[Any](), [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        waiting += [following for following, _ in node.next_functions]
    return found
