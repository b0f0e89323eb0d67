"""The plan of a sweep: its rows, the runs of each, how far they are, and which cannot be made."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...configs.schema import Config
from ...configs.sweeps import Sweep, SweepRow
from ...errors import CacheError, ConfigError, TeachclipError
from ...remedies import Hint
from ...stages.evaluate.measured import TestSet, own_name
from ...stages.runtime.run_folder import RunFolder
from .ready import MissingTeacherError, problems_of, score_hint
from .runs import RunState, SweepRun, student_run, teacher_run


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep.

    Attributes:
        config: what the rows have in common.
        rows: with the runs of each; rows that are only quoted have none.
        tests: the test sets that every run is measured on beside its own.
        problems: by run folder, why a run cannot be made.
    """

    sweep: Sweep
    config: Config
    rows: tuple[tuple[SweepRow, tuple[SweepRun, ...]], ...]
    tests: tuple[TestSet, ...]
    problems: Mapping[Path, TeachclipError]

    @property
    def runs(self) -> list[SweepRun]:
        """Every run once, the first seed of all rows before the second."""
        turns = max((len(runs) for _, runs in self.rows), default=0)
        ordered = [runs[turn] for turn in range(turns) for _, runs in self.rows if turn < len(runs)]
        return list({run.folder: run for run in reversed(ordered)}.values())[::-1]


@dataclass(frozen=True)
class Planned:
    """A run of a plan: how far it is, and what it waits for."""

    label: str
    seed: int | None
    run: str
    state: RunState
    problem: str | None


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do.

    Attributes:
        seconds: for what is left, at the mean of the finished runs; None when none is finished.
    """

    name: str
    runs: tuple[Planned, ...]
    left: int
    seconds: float | None


def plan_sweep(
    sweep: Sweep,
    base: Path | None,
    overrides: Sequence[str] = (),
    *,
    seeds: int | None = None,
    tests: Sequence[TestSet] = (),
    check: bool = True,
) -> Plan:
    """The runs of a sweep, and which of them cannot be made; trains nothing.

    Args:
        base: the configuration to start from; overrides: `--set` arguments, which change it.
        seeds: how many of each row; by default what the sweep says.
        tests: test sets beside each run's own.
        check: look whether frames and scores are there for what is not finished.

    Raises:
        ConfigError: the sweep or the configuration is wrong.
    """
    common, configured = sweep.configs(base, overrides)
    if own_name(common) in (test.name for test in tests):
        raise ConfigError(f"{own_name(common)} is the runs' own test set: it need not be named again")
    counted = range(seeds or sweep.settings.seeds)
    rows: list[tuple[SweepRow, tuple[SweepRun, ...]]] = []
    for row, config in configured:
        if config is not None:
            runs = tuple(student_run(sweep.name, row, config, config.train.seed + k) for k in counted)
        else:
            runs = () if row.settings.quoted else (teacher_run(sweep.name, row, common),)
        rows.append((row, runs))
    every = [run for _, runs in rows for run in runs]
    return Plan(sweep, common, tuple(rows), tuple(tests), dict(problems_of(every)) if check else {})


def refuse_unready(plan: Plan, command: str, tell: Callable[[Hint], str] = str) -> None:
    """Stop before anything trains when a run cannot be made.

    Args:
        command: how to go on without these rows.
        tell: what helps in the words of whoever reads it.

    Raises:
        CacheError: names every problem with the rows it concerns, and the command that mends it.
    """
    waiting = [run for run in plan.runs if run.folder in plan.problems]
    if not waiting:
        return
    labels: dict[str, dict[str, None]] = {}
    hints: dict[str, None] = {}
    missing: dict[str, None] = {}
    for run in waiting:
        problem = plan.problems[run.folder]
        labels.setdefault(problem.what, {})[run.label] = None
        if isinstance(problem, MissingTeacherError):
            missing |= dict.fromkeys(problem.teachers)
        elif problem.hint:
            hints[tell(problem.hint)] = None
    if missing:
        hints[tell(score_hint(plan.config, list(missing)))] = None
    raise CacheError(
        f"{len({run.label for run in waiting})} of {len(plan.rows)} rows cannot be run yet; nothing was trained",
        details=[f"{', '.join(rows)}: {what}" for what, rows in labels.items()],
        hint="\n".join([*hints, f"or run the other rows: {command}"]),
    )


def dry_run(plan: Plan) -> DryRun:
    """How far each run is, and how long the rest will take."""
    planned = tuple(_planned(run, plan.problems.get(run.folder)) for run in plan.runs)
    took = [_seconds(run) for run in plan.runs if run.trained and run.finished]
    left = sum(each.state != "finished" for each in planned)
    return DryRun(plan.sweep.name, planned, left, statistics.mean(took) * left if took else None)


def _planned(run: SweepRun, problem: TeachclipError | None) -> Planned:
    state = "waiting" if problem is not None else run.state
    return Planned(run.label, run.seed, str(run.folder), state, problem.what if problem else None)


def _seconds(run: SweepRun) -> float:
    result = RunFolder(run.folder).result
    assert result is not None
    return float(result["seconds"])
