"""Which of several processes this one is, as torchrun says; imports nothing, so that the command line can ask."""

import os
from typing import NamedTuple

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Launch(NamedTuple):
    """The place of a process: `rank` of `ranks` in all, `local_rank` on its machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0


def launch() -> Launch:
    """This process's place; a single one when torchrun did not start it."""
    if not all(name in os.environ for name in _SET_BY_TORCHRUN):
        return Launch()
    return Launch(*(int(os.environ[name]) for name in _SET_BY_TORCHRUN[:3]))
