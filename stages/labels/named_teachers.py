"""A teacher whose scores are asked for, but which `score.teachers` does not name: what helps is said by its name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

from ...cache.scores.store import ScoreStore
from ...cache.storage.identity import JSON
from ...configs.schema import Config
from ...errors import CacheError
from ...remedies import Change, Hint, Remedy, Score


def made_from(store: ScoreStore, names: Sequence[str]) -> dict[str, Mapping[str, JSON]]:
    """What the scores of those teachers were made from that have any; what cannot be read is told where it is read."""
    found: dict[str, Mapping[str, JSON]] = {}
    for name in names:
        with suppress(CacheError):
            found[name] = store.teacher(name).identity
    return found


@contextmanager
def told_how_to_score(config: Config, store: ScoreStore, key: str, names: Sequence[str], name: str) -> Iterator[None]:
    """Reading the scores of the teacher `name`, one of the `names` that the setting `key` holds.

    Raises:
        CacheError: as the body; where scoring would help and `score.teachers` does not name the teacher, with what
            helps instead: the others, or the entry that scoring needs.
    """
    try:
        yield
    except CacheError as error:
        if name in {teacher.name for teacher in config.score.teachers} or not _scoring_helps(error.hint):
            raise
        hint = _hint(config, store, key, names, name)
        raise type(error)(error.what, where=error.where, hint=hint, details=error.details) from error


def _scoring_helps(hint: Hint | None) -> bool:
    """Not into another store: scores are there then, of something else, and the hint says what there is to do."""
    actions = hint.actions if isinstance(hint, Remedy) else ()
    return any(isinstance(action, Score) and "score.store" not in (action.settings or {}) for action in actions)


def _hint(config: Config, store: ScoreStore, key: str, names: Sequence[str], name: str) -> Remedy:
    settings = config.score.teachers
    run = Path("runs") / name
    checkpoint = str(run) if (config.work / run / "best.safetensors").is_file() else "FILE"
    entry = Remedy(
        f"score.teachers names {', '.join(each.name for each in settings) or 'nobody'}, not {name}: give its entry",
        Score({"score.teachers": f"[{{name: {name}, checkpoint: {checkpoint}}}]"}),
    )
    scored = [other for other in store.teachers if other != name]
    if not scored:
        return entry
    near = get_close_matches(name, scored, n=1)
    others = [other for other in names if other in scored] or near or scored[:1]
    return Remedy("go on with a teacher that has scores", Change({key: f"[{', '.join(others)}]"}), otherwise=entry)
