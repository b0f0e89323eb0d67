"""Which of several processes this one is, as torchrun or the process that started it says, and what is its share;
imports nothing heavy, so that the command line can ask."""

import os
from typing import NamedTuple

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Launch(NamedTuple):
    """The place of a process: `rank` of `ranks` in all, `local_rank` on its machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0


_taken: Launch | None = None


def take_place(place: Launch) -> None:
    """From now on this process is one of several that were started together, though not by torchrun."""
    global _taken
    _taken = place


def launch() -> Launch:
    """This process's place; a single one when nobody started it with others."""
    if _taken is not None:
        return _taken
    if not all(name in os.environ for name in _SET_BY_TORCHRUN):
        return Launch()
    return Launch(*(int(os.environ[name]) for name in _SET_BY_TORCHRUN[:3]))


def rank_rows(size: int, rank: int, ranks: int) -> slice:
    """The rows of a batch of `size` that are one rank's: sizes differ by at most one, the larger ones come first."""
    each, larger = divmod(size, ranks)
    start = rank * each + min(rank, larger)
    return slice(start, start + each + (rank < larger))
