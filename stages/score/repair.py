"""Only what is damaged, made again: damaged shards are taken out, and the teachers asked for them once more."""

from dataclasses import dataclass

from ...cache.scores.store import ScoreStore
from ...cache.scores.upkeep.check import Check, Finding, take_out
from ...configs.schema import Config, TeacherConfig
from ...errors import CacheError, ConfigError
from ...remedies import Remedy, RemoveScores, Score
from ..runtime.reporting import Reporter
from .stage import score


@dataclass(frozen=True)
class RepairResult:
    """What was damaged and is whole again, per teacher; checked: shards and files of features looked at."""

    store: str
    checked: int
    repaired: tuple[Finding, ...]


def repair(config: Config, reporter: Reporter, teacher: str | None = None) -> RepairResult:
    """Check every byte of the configured teachers' scores (or of one's), take out what is damaged and score it again.

    Features of videos that are damaged are only taken out: they are made again when something needs them.

    Raises:
        ConfigError: no such teacher in `score.teachers`.
        CacheError: damage that cannot be repaired in place (nothing is changed then); or what `stages.score` raises.
    """
    store = ScoreStore.open(config.score_store)
    chosen = [each for each in _chosen(config, teacher) if each.name in store.teachers]
    findings: list[Finding] = []
    checked = 0
    for each in chosen:
        found, units = _check(config, each, reporter)
        findings += found
        checked += units
    if beyond := [finding for finding in findings if not finding.repairable]:
        raise _beyond_repair(config, beyond)
    if findings:
        for finding in findings:
            reporter.info(f"{finding.path}: {finding.why}; taken out")
            take_out(store.teacher(finding.teacher), finding)
        harmed = {finding.teacher for finding in findings}
        _score_again(config, [each for each in chosen if each.name in harmed], reporter)
        if left := [finding for each in chosen if each.name in harmed for finding in _check(config, each, reporter)[0]]:
            lines = [f"{finding.path}: {finding.why}" for finding in left]
            raise CacheError(
                "still damaged after scoring again",
                where=str(store.path),
                details=lines,
                hint="check the disk, or the server",
            )
    return RepairResult(str(store.path), checked, tuple(findings))


def _chosen(config: Config, teacher: str | None) -> list[TeacherConfig]:
    chosen = [each for each in config.score.teachers if teacher in (None, each.name)]
    if not chosen:
        names = ", ".join(each.name for each in config.score.teachers) or "none"
        what = "score.teachers is empty" if teacher is None else f"no teacher {teacher!r} in score.teachers"
        raise ConfigError(f"{what}: who should score again?", hint=f"configured: {names}")
    return chosen


def _check(config: Config, teacher: TeacherConfig, reporter: Reporter) -> tuple[tuple[Finding, ...], int]:
    check = Check(config.score_store, teacher.name, full=True)
    with reporter.progress(f"checking {teacher.name}", check.units, "file") as progress:
        result = check.run(progress.advance)
    for stranger in (finding for finding in result.findings if finding.foreign):
        reporter.warn(f"{stranger.path}: {stranger.why}; left alone")
    return result.damage, check.units


def _score_again(config: Config, teachers: list[TeacherConfig], reporter: Reporter) -> None:
    only = config.score.model_copy(update={"teachers": tuple(teachers)})
    score(config.model_copy(update={"score": only}), reporter)


def _beyond_repair(config: Config, findings: list[Finding]) -> CacheError:
    name = findings[0].teacher
    return CacheError(
        "damaged where it cannot be repaired in place: what rows and columns are, or what the scores were made from",
        where=str(config.score_store),
        details=[f"{finding.path}: {finding.why}" for finding in findings],
        hint=Remedy(
            "restore these files from a copy, or begin again",
            RemoveScores(str(config.score_store), name),
            then=Score(),
        ),
    )
