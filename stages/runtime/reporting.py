"""What a stage tells whoever runs it, without knowing how it is shown."""

from types import TracebackType
from typing import Protocol, Self


class Progress(Protocol):
    """A running count, used as a context manager."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Count `n` more units; `fields` are shown beside the count (loss, images/s)."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Reporter(Protocol):
    """Receives a stage's messages. The command line's is `pipeline.cli.shell.output.Output`."""

    def info(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        """A progress display over `total` units (None: unknown), `done` of which were finished earlier."""
        ...


class NoProgress:
    """A count that nobody sees."""

    def advance(self, n: int = 1, **fields: float | str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Silent:
    """A reporter that shows nothing."""

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        return NoProgress()


class Remembered(Silent):
    """A reporter that keeps what it is told, and shows nothing.

    Attributes:
        infos, warnings: that were told, in order.
    """

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []

    def info(self, message: str) -> None:
        self.infos.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def taken(self) -> tuple[list[str], list[str]]:
        """The infos and warnings since this was last asked."""
        taken = self.infos, self.warnings
        self.infos, self.warnings = [], []
        return taken
