"""Asking a run to stop where it can go on later, from a signal handler."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SAME = 1.0
"""Seconds: launchers pass on signals that every process got already; what comes so soon after is the same request."""


class StopRequest:
    """Whether somebody asked the run to stop.

    Args:
        clock: seconds that only go up.

    Attributes:
        signal: by which signal; None while nobody has.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.signal: int | None = None
        self._clock = clock
        self._asked = -SAME
        self._heeded = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """In the body somebody looks at `signal` again and again, and stops."""
        self._heeded = True
        try:
            yield
        finally:
            self._heeded = False

    def ask(self, signal: int) -> bool:
        """Ask it to stop; False where it has to be ended at once: nobody heeds this, or it was asked before."""
        now = self._clock()
        if self.signal is not None:
            return self._heeded and now - self._asked < SAME
        if self._heeded:
            self.signal, self._asked = signal, now
        return self._heeded
