"""One worker's part of work that several share, as in a SLURM array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import ConfigError
from ...remedies import Again, Option, Remedy
from ..runtime.launch import Launch


@dataclass(frozen=True)
class WorkerPart:
    """Of units that are counted from 0, worker `index` of `count` does index, index + count, index + 2 count, ..."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str, where: str | None = None) -> "WorkerPart":
        """The part that `text` names: "0/8" to "7/8"; `where` says in errors where it was given.

        Raises:
            ConfigError: it names none.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or part.index >= part.count:
            raise ConfigError(
                f"{text}: not one of 0/n to n-1/n, such as 0/8 to 7/8",
                where=where,
                hint=Remedy("in a SLURM array of 0-7", Again(Option.ARRAY_TASK)),
            )
        return part

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of_process(self, place: Launch) -> "WorkerPart":
        """The part of this part that one of several processes does, which were started together: all of them together
        do what one alone would."""
        return WorkerPart(self.index + self.count * place.rank, self.count * place.ranks)

    def has(self, unit: int) -> bool:
        """Whether this worker does unit number `unit`."""
        return unit % self.count == self.index

    def first[T](self, units: Sequence[T]) -> list[T]:
        """All units, one's own before the others': workers who begin together share what each of them needs."""
        return [unit for turn in range(self.count) for unit in units[(self.index + turn) % self.count :: self.count]]


WHOLE = WorkerPart(0, 1)
