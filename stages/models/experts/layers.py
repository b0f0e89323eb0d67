"""Layers of TeachText's networks: NetVLAD, gated units, and what a pair of experts says (specs: experts 2-5)."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[Literal["mish", "relu"], Callable[[Tensor], Tensor]] = {
    "mish": functional.mish,
    "relu": functional.relu,
}


def unit(values: Tensor) -> Tensor:
    """Values of length 1 along the last dimension; zero stays zero."""
    return functional.normalize(values, dim=-1)


class NetVlad(nn.Module):
    """A sequence pooled to one vector [width * clusters], by its differences from learned centres (specs: experts 2).

    Every row takes part, padding too. Ghost clusters take rows away: what is assigned to them is in no sum.
    """

    def __init__(self, width: int, clusters: int, ghosts: int = 0) -> None:
        super().__init__()
        spread = 1 / math.sqrt(width)
        self.clusters = nn.Parameter(spread * torch.randn(width, clusters + ghosts))
        self.centres = nn.Parameter(spread * torch.randn(1, width, clusters))
        self.norm = nn.BatchNorm1d(clusters + ghosts)
        self.numbers = width * clusters

    def assignment(self, values: Tensor) -> Tensor:
        """How much of each row [B, N, width] belongs to each cluster [B, N, clusters], ghosts left out."""
        scores: Tensor = self.norm((values @ self.clusters).flatten(0, 1)).view(*values.shape[:2], -1)
        return scores.softmax(dim=-1)[..., : self.centres.shape[-1]]

    def forward(self, values: Tensor) -> Tensor:
        """Unit vectors [B, width * clusters] of sequences [B, N, width], clusters innermost."""
        assigned = self.assignment(values)
        differences = torch.einsum("bnk,bnd->bdk", assigned, values) - assigned.sum(dim=1)[:, None] * self.centres
        return unit(functional.normalize(differences, dim=1).flatten(1))


class Gate(nn.Module):
    """A vector gated by itself and by what others say: unit(x * sigmoid(norm(others) + norm(linear x)))."""

    def __init__(self, width: int, with_others: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.others_norm = nn.BatchNorm1d(width) if with_others else None

    def forward(self, values: Tensor, others: Tensor | None = None) -> Tensor:
        """Unit vectors [B, width] of vectors [B, width]; `others`: the signal of the other experts, where it gates."""
        signal = self.norm(self.linear(values))
        if self.others_norm is not None:
            assert others is not None
            signal = self.others_norm(others) + signal
        return unit(values * signal.sigmoid())


class GatedUnit(nn.Module):
    """A vector taken to another width and gated by itself (specs: experts 3 and 5)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width)
        self.gate = Gate(width)

    def forward(self, values: Tensor) -> Tensor:
        """Unit vectors [B, width] of vectors [B, width_in]."""
        gated: Tensor = self.gate(self.linear(values))
        return gated


class Pairs(nn.Module):
    """What one expert says of another: an MLP shared by all pairs (specs: experts 4.2).

    In training every pair is normalised by itself, in order, as if the pairs came one after the other.
    """

    def __init__(self, width: int, layers: int, norm: bool, activation: Literal["mish", "relu"]) -> None:
        super().__init__()
        widths = (2 * width, *[width] * layers)
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers - 1) if norm)
        self._activation = ACTIVATIONS[activation]

    def forward(self, own: Tensor, partners: Tensor) -> Tensor:
        """What each of P partners [P, B, width] says of `own` [B, width]: [P, B, width]."""
        values: Tensor = self.linears[0](torch.cat([own.expand_as(partners), partners], dim=-1))
        for number, linear in enumerate(self.linears[1:]):
            if self.norms:
                values = _each_alone(self.norms[number], values)
            values = linear(self._activation(values))
        return values


def _each_alone(norm: nn.Module, values: Tensor) -> Tensor:
    """[P, B, width], of which each [B, width] is normalised by itself."""
    if norm.training:
        return torch.stack([norm(each) for each in values])
    together: Tensor = norm(values.flatten(0, 1)).view_as(values)
    return together
