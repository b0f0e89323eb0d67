"""Whether runs can be made: frames, scores and teachers are looked for before anything trains."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...cache.frames.cache import FrameCache
from ...cache.scores.store import ScoreStore, store_there
from ...configs.schema import Config, TeacherConfig
from ...errors import CacheError, CheckpointError, ConfigError, TeachclipError
from ...remedies import Remedy, Score
from ...stages.data.views import View, network_experts, texts_of
from ...stages.evaluate.one_model import measured_split
from ...stages.labels.teacher_view import teacher_experts
from ...stages.models.checkpoints.files import checkpoint_file
from ...stages.runtime.reporting import Silent
from ...stages.train.training_data import open_training_data
from .runs import SweepRun


class MissingTeacherError(CacheError):
    """Teachers that are not configured, or have no scores in the store."""

    def __init__(self, what: str, config: Config, teachers: Sequence[str]) -> None:
        super().__init__(what, where=str(config.score_store), hint=score_hint(config, teachers))
        self.teachers = tuple(teachers)


def score_hint(config: Config, missing: Sequence[str]) -> Remedy:
    """How these teachers come to be scored."""
    known = {teacher.name for teacher in config.score.teachers}
    unknown = [name for name in missing if name not in known]
    first = f"name {', '.join(unknown)} among score.teachers, then " if unknown else ""
    return Remedy(f"{first}score", Score())


def problems_of(runs: Sequence[SweepRun], *, look: bool = True) -> Iterator[tuple[Path, TeachclipError]]:
    """Runs that cannot be made, and why; what several have in common is looked at once.

    Args:
        look: for frames, scores and checkpoints; otherwise only whether the configuration names the teachers.
    """
    asked: dict[tuple[object, ...], TeachclipError | None] = {}
    for run in runs:
        if not look:
            if not run.finished and (unnamed := _unnamed(run)) is not None:
                yield run.folder, unnamed
            continue
        if not run.trained:
            if (unmeasurable := _unmeasurable(run)) is not None:
                yield run.folder, unmeasurable
            continue
        if run.finished:
            continue
        key = _data_key(run.config)
        if key not in asked:
            asked[key] = _unready(run.config)
        if (error := asked[key]) is not None:
            yield run.folder, error


def _data_key(config: Config) -> tuple[object, ...]:
    """What `open_training_data` and `measured_split` look at."""
    settings, experts = config.train, tuple[str, ...]()
    if settings.network.on_experts:
        experts = config.features.model_dump_json(), settings.network.model_dump_json()
    return (
        config.data,
        config.evaluate.split,
        config.frames_folder,
        config.score_store,
        *(settings.teachers, settings.teaching, settings.accept, settings.captions_mask, settings.init),
        settings.unlabelled,
        *(settings.loss.fine > 0, settings.network.mask_padding, settings.network.trunk.weights),
        *experts,
    )


def _unnamed(run: SweepRun) -> TeachclipError | None:
    """Teachers of a run that score.teachers does not name; None when it names all."""
    known = [each.name for each in run.config.score.teachers]
    wanted = run.config.train.teachers if run.teacher is None else (run.teacher,)
    if not (missing := [name for name in wanted if name not in known]):
        return None
    what = f"score.teachers names {', '.join(known) or 'nobody'}, not {', '.join(missing)}"
    return MissingTeacherError(what, run.config, missing)


def _unmeasurable(run: SweepRun) -> TeachclipError | None:
    """Why a teacher cannot be measured; None when it can."""
    settings = next((each for each in run.config.score.teachers if each.name == run.teacher), None)
    if settings is None:
        return _unnamed(run)
    if (path := run.config.teacher_checkpoint(settings)) is None:
        return ConfigError(f"{run.teacher} has no checkpoint that could be measured here")
    try:
        if not (file := checkpoint_file(path)).is_file():
            return CheckpointError(f"the checkpoint of {run.teacher} is not there: {file}")
        measured_split(run.config, _seen_by(run.config, settings))
    except TeachclipError as error:
        return error
    return None


def _seen_by(config: Config, teacher: TeacherConfig) -> View:
    """What a teacher sees where `evaluate` measures it."""
    experts = teacher_experts(config, teacher)
    if experts is None:
        return FrameCache.open(config.frames_folder)
    return network_experts(config, experts, texts_of(config), config.evaluate.text)


def _unready(config: Config) -> TeachclipError | None:
    """Why a run cannot be trained; None when it can."""
    try:
        missing = _unscored(config)
    except TeachclipError as error:
        return error
    if missing:
        return MissingTeacherError(f"not scored yet: {', '.join(missing)}", config, missing)
    try:
        measured_split(config, open_training_data(config, Silent()).frames)
    except TeachclipError as error:
        return error
    return None


def _unscored(config: Config) -> list[str]:
    """The teachers whose scores a run reads that have none in the store.

    Raises:
        CacheError: this is no score store, or a damaged one.
    """
    store = config.score_store
    if config.train.teaching == "online" or not config.train.teachers:
        return []
    there = ScoreStore.open(store).teachers if store_there(store) else ()
    return [name for name in config.train.teachers if name not in there]
