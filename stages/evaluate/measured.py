"""Metrics of a run on one or several test sets, measured once and kept beside the run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.storage.identity import digest_of
from ...cache.storage.publish import publish
from ...configs.schema import Config
from ...errors import TeachclipError
from ..data.usable_split import usable_split
from ..data.views import student_view, texts_of
from ..labels.caption_mask import captions_digest
from ..runtime.reporting import Reporter
from .stage import evaluate_sets

_CAME_LATER = ("captions", "text")  # of `evaluate`: with their defaults, names are those that files have had before
NOT_IDENTITY = {"run", "split", "device", "block"}  # of `evaluate`: where and how fast, not what


@dataclass(frozen=True)
class TestSet:
    """Test data beside a run's own: its name in tables and files, and the configuration whose split it is."""

    name: str
    config: Config


@dataclass(frozen=True)
class Measured:
    """A run's metrics by test set, its own first.

    Attributes:
        metrics: `t2v` and `v2t` of `evaluate`.
        marks: why they do not compare with others.
        failed: test sets that it could not be measured on, and why.
        found: whether all were there already.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    marks: tuple[str, ...]
    failed: tuple[tuple[str, TeachclipError], ...]
    found: bool


def own_name(config: Config) -> str:
    """What tables call a configuration's own data."""
    return "own data" if config.data.set == "own" else config.data.set


class Measurer:
    """Measures runs; what stands for a test split is worked out once, however many runs are measured on it."""

    def __init__(self, tests: Sequence[TestSet] = ()) -> None:
        self.tests = tuple(tests)
        self._digests: dict[tuple[object, ...], str] = {}

    def __call__(self, config: Config, folder: Path, reporter: Reporter) -> Measured:
        """Metrics of `config.evaluate.run`, read where they are there.

        Args:
            folder: where they are kept.

        Raises:
            TeachclipError: it cannot be measured on its own test set.
        """
        own = own_name(config)
        paths = {own: folder / self._file(config, config)}
        failed: dict[str, TeachclipError] = {}
        for test in self.tests:
            try:
                paths[test.name] = folder / self._file(config, test.config)
            except TeachclipError as error:
                failed[test.name] = error
        found = all(map(_read, paths.values())) and not failed
        if not found:
            others = {test.name: test.config for test in self.tests if test.name in paths}
            done = evaluate_sets(config, others, reporter=reporter, name=own)
            for result in done.results:
                kept = {
                    "test": result.data,
                    "run": result.run,
                    "marks": result.marks,
                    "t2v": result.t2v,
                    "v2t": result.v2t,
                }
                publish(paths[result.data], json.dumps(kept, indent=1).encode())
            failed |= {name: error for _, name, error in done.failed}
            if own in failed:
                raise failed[own]
        read = {name: there for name, path in paths.items() if (there := _read(path)) is not None}
        marks = tuple(dict.fromkeys(mark for there in read.values() for mark in there["marks"]))
        metrics = {name: {way: there[way] for way in ("t2v", "v2t")} for name, there in read.items()}
        return Measured(metrics, marks, tuple(failed.items()), found)

    def _file(self, config: Config, of: Config) -> str:
        """A name that stands for the test split, and for how `config` counts ranks."""
        fields = type(config.evaluate).model_fields
        unchanged = {key for key in _CAME_LATER if getattr(config.evaluate, key) == fields[key].default}
        settings = config.evaluate.model_dump_json(exclude=NOT_IDENTITY | unchanged)
        seen = (of.frames_folder, of.features.model_dump_json(), config.train.network.model_dump_json())
        key = (of.data, of.evaluate.split, settings, *seen)
        if key not in self._digests:
            dataset = texts_of(of)
            view = student_view(of.model_copy(update={"train": config.train}), dataset)
            split = usable_split(dataset, [of.evaluate.split], view)
            pixels = digest_of(view.digest(video) for video in split.videos)
            self._digests[key] = digest_of([settings, of.evaluate.split, captions_digest(split.texts), pixels])
        return f"measured-{self._digests[key][:12]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or damaged: measured again
        return None
    return found if isinstance(found, dict) and {"marks", "t2v", "v2t"} <= found.keys() else None
