"""The run folder: what a training run was made from, its log, its checkpoints.

run.json            identity: configuration and data; a run is resumed only by the same
config.yaml         the whole configuration, for people
metrics.jsonl       one line a step, one a validation
last.state          weights, optimiser and position: what a killed run goes on from
best.safetensors    the chosen network
result.json         written last: the run is finished
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cache.files import publish
from ..cache.identity import flatten, refuse_difference
from ..cache.state import load_state, save_state
from ..configs.loading import dump_config
from ..configs.schema import Config
from ..errors import CacheError
from .device import choose_device, resolved

# Fields that change where and how fast a run is, not what it computes, and those whose effect is in `data`: the mask's
# digest, the scores made of other pixels.
NOT_IDENTITY = {
    *("run", "device", "compile", "channels_last", "recompute", "prefetch", "checkpoint_seconds"),
    *("captions_mask", "accept"),
}


class RunFolder:
    """One training run on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"
        self._last = folder / "last.state"
        self._log = folder / "metrics.jsonl"
        self._result = folder / "result.json"

    def claim(self, config: Config, data: Mapping[str, str]) -> None:
        """Take the folder for this configuration and data.

        Raises:
            CacheMismatchError: the folder holds a run of another configuration or data; names what differs.
        """
        train = config.train.model_dump(mode="json", exclude=NOT_IDENTITY)
        train["precision"] = resolved(config.train.precision, choose_device(config.train.device))
        identity = flatten({"train": train, "data": dict(data)})
        path = self.folder / "run.json"
        # A run that failed before its first checkpoint holds nothing: its configuration may still be mended.
        if path.exists() and any(file.exists() for file in (self.best, self._last, self._result)):
            refuse_difference(
                identity,
                _read_json(path),
                where=str(self.folder),
                hint=f"name another run (--set train.run=...) or start this one again: rm -r {self.folder}",
            )
            return
        publish(self.folder / "config.yaml", dump_config(config).encode())
        publish(path, json.dumps(identity, indent=1).encode())

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run reported, or None while it is not finished."""
        return _read_json(self._result) if self._result.exists() else None

    def finish(self, result: Mapping[str, Any]) -> None:
        publish(self._result, json.dumps(result, indent=1).encode())
        self._last.unlink(missing_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        """Publish what a killed run goes on from."""
        save_state(self._last, state)

    def resume(self) -> dict[str, Any] | None:
        """The last saved state, its log cut back to it; None for a fresh run."""
        if not self._last.exists():
            publish(self._log, b"")
            return None
        state = load_state(self._last)
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= state["step"]]
        publish(self._log, "".join(kept).encode())
        return state

    def log(self, line: Mapping[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl."""
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True) if self._log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(
            "this file is damaged", where=str(path), hint=f"start the run again: rm -r {path.parent}"
        ) from error
    assert isinstance(value, dict)
    return value
