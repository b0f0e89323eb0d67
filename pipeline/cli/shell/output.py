"""The one place that writes: results to stdout, everything else to stderr.

On a terminal through rich, in colours and with progress bars; elsewhere as plain lines. `--json` puts exactly one JSON
document on stdout, `--quiet` leaves results and errors only.
"""

import io
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ....errors import printable, visible
from ...wording import duration

PLAIN_WIDTH = 1000  # not a terminal: nothing is wrapped or cut
PLAIN_EVERY = 10.0
SHORT = 2.0


def _visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


class ReaderGone(Exception):
    """Whoever reads stdout or stderr has closed it."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise ReaderGone


class Output:
    """Results, messages, progress and failures of one verb; a `stages.runtime.reporting.Reporter`.

    Args:
        json: results and failures as one JSON document on stdout.
        quiet: no messages, no warnings, no progress.
        clock: seconds that only go up.
        stdout, stderr: where results and messages go; by default the process's own.
    """

    def __init__(
        self,
        json: bool = False,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.clock = clock
        self.results = _console(stdout or sys.stdout)
        self.messages = _console(stderr or sys.stderr)
        self._bars: Progress | None = None
        self._lock = threading.RLock()

    def info(self, message: str) -> None:
        """A line for whoever watches."""
        if not self.quiet:
            self._say(Text(_visible_lines(message)))

    def warn(self, message: str) -> None:
        """A line that should be seen, though work goes on."""
        if not self.quiet:
            self._say(Text.assemble(("warning: ", "yellow"), _visible_lines(message)))

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> "Counting":
        """A bar on a terminal, elsewhere a line every ten seconds; a closing line if it took longer than two."""
        return Counting(self, title, total, unit, done)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Shows on a terminal that something goes on which cannot be counted."""
        row = self.bar(title, None, 0)
        try:
            yield
        finally:
            if row is not None:
                self.end_bar(*row)

    def result(self, result: object, *shown: RenderableType) -> None:
        """What the verb was asked for: `result` (a dataclass or plain data) as JSON, else `shown` for people."""
        if self.json:
            self._write_document(result)
            return
        with self.results.capture() as captured:
            for item in shown:
                self.results.print(_visible_lines(item) if isinstance(item, str) else item, soft_wrap=True)
        text = captured.get()
        if not self.results.is_terminal:  # tables come padded to their width
            text = "\n".join(line.rstrip() for line in text.split("\n"))
        self._write(text)

    def failure(self, kind: str, lines: Sequence[str], hint: str | None, facts: Mapping[str, object] | None) -> None:
        """Why the verb ends without its result: for people on stderr, with `--json` also `facts` as a document on
        stdout, unless the result that is there already says so."""
        self.close()
        first, *others = lines or [""]
        self._say(Text.assemble((f"{kind}: " if kind else "", "bold red"), _visible_lines(first)))
        for line in others:
            self._say(Text(_visible_lines(f"  {line}")))
        if hint:
            self._say(Text(_visible_lines(hint)))
        if self.json and facts is not None:
            with suppress(OSError):  # stdout cannot be written, and stderr has said so
                self._write_document({"error": facts})

    def close(self) -> None:
        """Take progress bars off the terminal and flush."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
        for stream in (self.results.file, self.messages.file):
            try:
                stream.flush()
            except BrokenPipeError:
                raise ReaderGone from None

    def bar(self, title: str, total: int | None, done: int) -> tuple[Progress, TaskID] | None:
        """A row of the live display; None when there is no terminal to show it."""
        if self.quiet or not self.messages.is_terminal:
            return None
        with self._lock:
            if self._bars is None:
                columns = (
                    TextColumn("{task.description}", markup=False),
                    BarColumn(bar_width=24),
                    TextColumn("{task.fields[status]}", markup=False),
                    TimeElapsedColumn(),
                )
                self._bars = Progress(*columns, console=self.messages, transient=True)
                self._bars.start()
            return self._bars, self._bars.add_task(title, total=total, completed=done, status="")

    def end_bar(self, bars: Progress, task: TaskID) -> None:
        """Take a row off; with the last one the display ends, so that results are not drawn into it."""
        with self._lock:
            bars.remove_task(task)
            if not bars.tasks:
                bars.stop()
                self._bars = None

    def _say(self, text: Text) -> None:
        self.messages.print(text, soft_wrap=True)

    def _write_document(self, value: object) -> None:
        """JSON has escapes of its own for what the terminal or file cannot show."""
        text = document(value)
        self._write(text if _shown(text, self.results.file) == text else document(value, ascii_alone=True))

    def _write(self, text: str) -> None:
        try:
            self.results.file.write(_shown(text, self.results.file))
            self.results.file.flush()
        except BrokenPipeError:
            raise ReaderGone from None


class Counting:
    """One running count: see `Output.progress`."""

    def __init__(self, output: Output, title: str, total: int | None, unit: str, done: int) -> None:
        self.output = output
        self.title = title
        self.total = total
        self.unit = unit
        self.done = self.before = done
        self.fields: dict[str, float | str] = {}

    def __enter__(self) -> Self:
        self.started = self.spoken = self.output.clock()
        self.row = self.output.bar(self.title, self.total, self.done)
        return self

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """Count `n` more; `fields` are shown beside the count."""
        self.done += n
        self.fields.update(fields)
        now = self.output.clock()
        if self.row is not None:
            bars, task = self.row
            bars.update(task, completed=self.done, status=self.status(now))
        elif now - self.spoken >= PLAIN_EVERY:
            self.spoken = now
            self.output.info(f"{self.title}: {self.status(now)}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now = self.output.clock()
        if self.row is not None:
            self.output.end_bar(*self.row)
        if now - self.started >= SHORT:
            end = "stopped at " if error is not None else ""
            self.output.info(f"{self.title}: {end}{self.status(now, closing=True)}")

    def status(self, now: float, closing: bool = False) -> str:
        """`120/1000 videos, 12.3 videos/s, 1 min 12 s left, loss 1.23`."""
        elapsed, here = now - self.started, self.done - self.before
        units = self.unit if self.unit.endswith("s") else f"{self.unit}s"
        parts = [f"{self.done}{'' if self.total is None else f'/{self.total}'} {units}"]
        if here > 0 and elapsed > 0:
            parts.append(f"{here / elapsed:.3g} {units}/s")
            if not closing and self.total is not None:
                parts.append(f"{duration(max(self.total - self.done, 0) * elapsed / here)} left")
        if closing:
            parts.append(duration(elapsed))
        for name, value in self.fields.items():
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
        return ", ".join(parts)


def _console(stream: TextIO) -> Console:
    terminal = stream.isatty()
    return _Console(file=stream, width=None if terminal else PLAIN_WIDTH, highlight=False, emoji=False, markup=False)


def plain(shown: Iterable[RenderableType]) -> str:
    """What a person would see, as plain lines."""
    text = io.StringIO()
    console = _console(text)
    for item in shown:
        console.print(item, soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().split("\n"))


def _shown(text: str, stream: IO[str]) -> str:
    """`text` as `stream` can show it."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


def document(value: object, ascii_alone: bool = False) -> str:
    """Results (dataclasses, plain data) as one JSON document."""
    return json.dumps(_plain(value), ensure_ascii=ascii_alone, indent=1, allow_nan=False) + "\n"


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
