"""Numbered steps that say what they are, whether there was anything to do, and how long it took."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..stages.runtime.reporting import Progress, Reporter, Silent
from .wording import duration


@dataclass(frozen=True)
class Step:
    """A step that ended: whether everything was there already, and the seconds it took."""

    title: str
    found: bool
    seconds: float


class Steps:
    """Runs steps in order; `done` are those that ended.

    A step that finds everything done is one line. Any other is announced before its stage says or shows something.
    """

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.reporter, self.total = reporter, total
        self.done: list[Step] = []

    def run[R](self, title: str, work: Callable[[Reporter], R], found: Callable[[R], bool] = lambda _: False) -> R:
        """The result of `work`, which is given the reporter to use; `found` tells whether there was nothing to do."""
        heading = f"{len(self.done) + 1}/{self.total} {title}"
        announcing = _Announcing(heading, self.reporter)
        began = time.perf_counter()
        result = work(announcing)
        step = Step(title, found(result), time.perf_counter() - began)
        if step.found and not announcing.announced:
            self.reporter.info(f"{heading}: found, {duration(step.seconds)}")
        else:
            announcing.announce()
            self.reporter.info(f"    done in {duration(step.seconds)}")
        self.done.append(step)
        return result


class _Announcing:
    """A reporter that names the step before it shows anything; messages wait until there turns out to be work."""

    def __init__(self, heading: str, reporter: Reporter) -> None:
        self.heading, self.reporter = heading, reporter
        self.announced = False
        self.waiting: list[str] = []

    def announce(self) -> None:
        if not self.announced:
            self.announced = True
            self.reporter.info(self.heading)
        for message in self.waiting:
            self.reporter.info(f"    {message}")
        self.waiting.clear()

    def info(self, message: str) -> None:
        self.waiting.append(message)
        if self.announced:
            self.announce()

    def warn(self, message: str) -> None:
        self.announce()
        self.reporter.warn(message)

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        if total is not None and done >= total:
            return Silent().progress(title, total, unit, done)
        self.announce()
        return self.reporter.progress(f"    {title}", total, unit, done)
