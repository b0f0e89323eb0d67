"""Which videos without captions stand beside the pairs of each step: only seed and step decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_OWN = 1  # apart from what else is drawn of seed and step


@dataclass(frozen=True)
class UnlabelledSampler:
    """Draws videos that have no captions, each at most once a step, all of them as likely.

    Attributes:
        count: u, drawn a step; seed: of the draws.
        candidates: by group of texts, ascending places of the videos to draw from, at least u.
        groups: the group of each text [T], as in `BatchSampler`; None for one group.
    """

    count: int
    seed: int
    candidates: Sequence[np.ndarray]
    groups: np.ndarray | None = None

    def draw(self, step: int, texts: np.ndarray) -> np.ndarray:
        """Places of the videos [u] beside the texts of step number `step`, which are all of one group."""
        group = 0 if self.groups is None else int(self.groups[texts[0]])
        rng = np.random.default_rng([self.seed, step, _OWN])
        return rng.choice(self.candidates[group], self.count, replace=False)
