"""The numbers of metrics.jsonl for a logger of the user's own: wandb, trackio, whatever takes numbers by step.

A class of the user's own, `Logger(folder, settings, start)` with `log(step, numbers)` and `close()`: `folder` is the
run's, `settings` the section `train` as plain values, `start` the steps done before this process.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ....configs.schema import TrainConfig
from ....errors import PluginError, TeachclipError
from ...runtime.plugins import load_plugin, users_code
from ...runtime.reporting import Reporter
from .numbers import numbers

GROUP = "teachclip.loggers"  # of entry points
KEY = "train.logger"


class OwnLogger:
    """A logger of the user's own; used as a context manager. Once it fails that is told, and the run goes on without.

    Args:
        spec: `module:Class`, or the name of an entry point in `teachclip.loggers`.
        folder: of the run.
        start: steps done when the run was left.
        reporter: is told when it fails.

    Raises:
        ConfigError: there is no such class, or it cannot be imported.
        PluginError: it cannot be made.
    """

    def __init__(self, spec: str, folder: Path, settings: TrainConfig, start: int, reporter: Reporter) -> None:
        self._title, self._reporter = f"{KEY}: {spec}", reporter
        self._class = load_plugin(spec, GROUP, KEY)
        with users_code(self._title, self._class):
            self._logger: Any = self._class(folder, settings.model_dump(mode="json"), start)
        for name in ("log", "close"):
            if not callable(getattr(self._logger, name, None)):
                raise PluginError(f"{self._title} has no method {name}", hint="it needs log(step, numbers) and close()")

    def add(self, line: Mapping[str, Any]) -> None:
        """Hand over the numbers of a line of metrics.jsonl, `t2v/r1` for one inside another."""
        self._call("log", line["step"], dict(numbers(line)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        if self._logger is None:
            return
        try:
            with users_code(self._title, self._class):
                getattr(self._logger, method)(*arguments)
        except TeachclipError as error:
            self._logger = None
            said = "; ".join((error.what, *error.details))
            self._reporter.warn(f"{said}: training goes on without it, metrics.jsonl has all numbers")
