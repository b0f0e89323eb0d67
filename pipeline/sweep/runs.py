"""The runs of a sweep: their configurations, and the folders that keep them."""

import itertools
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...cache.storage.identity import canonical, digest_of
from ...configs.changed_defaults import CHANGED_DEFAULTS, is_named, value_of, with_values
from ...configs.schema import Config
from ...configs.sweeps import SweepRow
from ...errors import CheckpointError
from ...stages.models.checkpoints.files import checkpoint_digest
from ...stages.runtime.run_folder import NOT_IDENTITY, RunFolder

RunState = Literal["finished", "begun", "to do", "waiting", "not run"]
RUNS = Path("runs")  # below `work`
MEASURED = "measured-*.json"


@dataclass(frozen=True)
class SweepRun:
    """One network of a row: trained with one seed, or a teacher that is only measured.

    Attributes:
        config: its own, `train.run` and `evaluate.run` included.
        folder: what is kept of it.
        teacher: the name of a teacher that is only measured.
    """

    label: str
    seed: int | None
    config: Config
    folder: Path
    teacher: str | None = None

    @property
    def trained(self) -> bool:
        return self.teacher is None

    @property
    def title(self) -> str:
        return self.label if self.seed is None else f"{self.label}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether it is trained; of a teacher, whether it was measured on anything."""
        if not self.trained:
            return any(self.folder.glob(MEASURED))
        return RunFolder(self.folder).result is not None

    @property
    def state(self) -> RunState:
        """How far training is, by what lies in the folder."""
        return "finished" if self.finished else "begun" if RunFolder(self.folder).metrics() else "to do"


def student_run(name: str, row: SweepRow, config: Config, seed: int) -> SweepRun:
    train_ = config.train.model_copy(update={"seed": seed})
    config = config.model_copy(update={"train": train_})
    run = _begun_before(config) or _folder(config.work, name, f"{_slug(row.label)}-seed{seed}", _run_digest(config))
    update = {
        "train": train_.model_copy(update={"run": run}),
        "evaluate": config.evaluate.model_copy(update={"run": run}),
    }
    return SweepRun(row.label, seed, config.model_copy(update=update), config.work / run)


def teacher_run(name: str, row: SweepRow, config: Config) -> SweepRun:
    """A teacher of score.teachers, measured on its own frames."""
    teacher = next((each for each in config.score.teachers if each.name == row.settings.teacher), None)
    checkpoint = None if teacher is None else config.teacher_checkpoint(teacher)
    folder = config.work / _folder(config.work, name, _slug(row.label), _teacher_digest(row, checkpoint))
    if teacher is not None and checkpoint is not None:
        update: dict[str, Any] = {"evaluate": config.evaluate.model_copy(update={"run": checkpoint})}
        if teacher.prepared is not None:
            update["prepare"] = config.prepare.model_copy(update={"frames": teacher.prepared})
        config = config.model_copy(update=update)
    return SweepRun(row.label, None, config, folder, row.settings.teacher)


def _teacher_digest(row: SweepRow, checkpoint: Path | None) -> str:
    """Stands for the teacher's weights; for its row where there is no checkpoint, which is told before it runs."""
    if checkpoint is not None:
        with suppress(CheckpointError):
            return checkpoint_digest(checkpoint)
    return digest_of([row.label])


def _run_digest(config: Config) -> str:
    """Stands for what makes a run another run. Defaults are left out, so that a new setting of a later release
    renames nothing, and a default that changes counts as what it was at first, which a run has, named or not."""
    unread = "annotations" if config.data.set == "own" else "captions"
    data = {
        key: os.path.relpath(value, config.work) if isinstance(value, Path) else value
        for key, value in config.data.model_dump(exclude_defaults=True, exclude={unread}).items()
    }
    document = {
        "train": _trained(config),
        "data": data,
        "frames": str(config.prepare.frames),
        "scores": str(config.score.store),
        "mask": str(config.train.captions_mask),
    }
    return digest_of([canonical(json.loads(json.dumps(document)))])


def _trained(config: Config) -> dict[str, Any]:
    """Settings of `train` that are not what the first release had by default."""
    found = {"train": config.train.model_dump(mode="json", exclude=NOT_IDENTITY, exclude_defaults=True)}
    for key, (first, *_) in CHANGED_DEFAULTS.items():
        _set(found, key, value_of(config, key), first)
    return found.get("train", {})


def _set(section: dict[str, Any], key: str, value: Any, default: Any) -> None:
    """Set a value by dotted key, or take it out where it is the default; sections without values are left out."""
    name, _, rest = key.partition(".")
    if rest:
        _set(section.setdefault(name, {}), rest, value, default)
    elif value != default:
        section[name] = value
    else:
        section.pop(name, None)
    if section.get(name) == {}:
        del section[name]


def _begun_before(config: Config) -> Path | None:
    """Below `work`: the run of these settings that was begun when an unnamed one had another default; None without."""
    unnamed = {key: values for key, values in CHANGED_DEFAULTS.items() if not is_named(config, key)}
    for values in itertools.product(*unnamed.values()):
        former = dict(zip(unnamed, values, strict=True))
        for run in _there(config.work, _run_digest(with_values(config, former))):
            if former and RunFolder(config.work / run).former_defaults(config) == former:
                return run
    return None


def _folder(work: Path, name: str, slug: str, digest: str) -> Path:
    """Below `work`: the folder that has this run already, whatever asked for it, else one of this sweep."""
    there = _there(work, digest)
    return there[0] if there else RUNS / _slug(name) / f"{slug}-{digest[:8]}"


def _there(work: Path, digest: str) -> list[Path]:
    """Below `work`: folders whose name says that they have a run of this digest."""
    return [folder.relative_to(work) for folder in sorted((work / RUNS).glob(f"*/*-{digest[:8]}"))]


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.") or "run"
