"""Metrics of a run on one or several test sets, measured once and kept beside the run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.files import publish
from ..cache.frames import FrameCache
from ..cache.identity import digest_of
from ..configs.schema import Config
from ..stages.caption_mask import captions_digest
from ..stages.data.captions import read_dataset
from ..stages.evaluate import evaluate
from ..stages.reporting import Reporter
from ..stages.splits import usable_split

NOT_IDENTITY = {"run", "device", "block"}  # of `evaluate`: where and how fast, not what


@dataclass(frozen=True)
class TestSet:
    """Test data beside a run's own: what the table calls it, and the configuration whose split it is."""

    name: str
    config: Config


def own_name(config: Config) -> str:
    """What the table calls a configuration's own data."""
    return "own data" if config.data.set == "own" else config.data.set


class Measurer:
    """Measures runs; what stands for a test split is worked out once, however many runs are measured on it."""

    def __init__(self, tests: Sequence[TestSet] = ()) -> None:
        self.tests = tuple(tests)
        self._digests: dict[tuple[object, ...], str] = {}

    def __call__(self, config: Config, folder: Path, reporter: Reporter) -> tuple[dict[str, Mapping[str, Any]], bool]:
        """`t2v` and `v2t` of `config.evaluate.run` by test set, and whether all were there already.

        Args:
            config: names the run; folder: where its metrics are kept.

        Raises:
            TeachclipError: see `evaluate`.
        """
        own = TestSet(own_name(config), config)
        kept: dict[str, Mapping[str, Any]] = {}
        found = True
        for test in (*self.tests, own):  # its own last: what `evaluate` leaves in the run folder is of that
            path = folder / f"measured-{self._digest(test.config)[:12]}.json"
            if (there := _read(path)) is None:
                settings = test.config.evaluate.model_copy(update={"run": config.evaluate_run})
                result = evaluate(test.config.model_copy(update={"evaluate": settings}), reporter)
                there = {"test": test.name, "run": result.run, "t2v": result.t2v, "v2t": result.v2t}
                publish(path, json.dumps(there, indent=1).encode())
                found = False
            kept[test.name] = {"t2v": there["t2v"], "v2t": there["v2t"]}
        return {name: kept[name] for name in (own.name, *kept)}, found

    def _digest(self, config: Config) -> str:
        """Stands for the test split, and for how ranks are counted."""
        settings = config.evaluate.model_dump_json(exclude=NOT_IDENTITY)
        key = (config.data, config.frames_folder, settings)
        if key not in self._digests:
            frames = FrameCache.open(config.frames_folder)
            split = usable_split(read_dataset(config.data), [config.evaluate.split], frames)
            pixels = digest_of(frames.digest(video) for video in split.videos)
            self._digests[key] = digest_of([settings, captions_digest(split.texts), pixels])
        return self._digests[key]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or damaged: measured again
        return None
    return found if isinstance(found, dict) and {"t2v", "v2t"} <= found.keys() else None
