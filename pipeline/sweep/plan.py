"""The plan of a sweep: its rows, the runs of each, how far they are, and which cannot be made."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...configs.schema import Config
from ...configs.sweeps import PublishedNumbers, Sweep, SweepRow
from ...errors import CacheError, ConfigError, TeachclipError
from ...plurals import counted
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
        rows: with the runs of each; rows that are only quoted have none, nor have those whose cell the paper leaves
            empty in a table of several data sets.
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

    @property
    def own(self) -> str:
        """What tables call the runs' own test set."""
        return own_name(self.config)

    @property
    def tested(self) -> tuple[tuple[str, str], ...]:
        """Every test set, the runs' own first: what tables call it, and the data set that it is of."""
        return (self.own, self.config.data.set), *((test.name, test.config.data.set) for test in self.tests)

    def missing(self, row: SweepRow) -> str | None:
        """Why a row has no runs."""
        if row.settings.quoted:
            return row.settings.missing
        return "the paper has no number of it on this data set" if _left_empty(self.sweep, row, self.config) else None

    def published(self, row: SweepRow, data_set: str) -> tuple[str | None, PublishedNumbers | None]:
        """The paper's numbers of a row, and the data set that they are of: this one, else, where the table does not
        tell data sets apart, the first that there are numbers of."""
        paper: Mapping[str, PublishedNumbers] = {str(name): each for name, each in self.sweep.paper(row.label).items()}
        if data_set in paper:
            return data_set, paper[data_set]
        settings = self.sweep.settings
        if settings.elsewhere or data_set in settings.each_of or not paper:
            return None, None
        return next(iter(paper.items()))


@dataclass(frozen=True)
class Planned:
    """A run of a plan, or a row without one: how far it is, what it waits for or what is missing to run it.

    Attributes:
        data: the data set that it is trained and tested on.
        paper: the paper's numbers of the row, by metric; paper_on: of which data set.
    """

    label: str
    seed: int | None
    run: str | None
    state: RunState
    problem: str | None
    data: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    paper_on: str | None = None


@dataclass(frozen=True)
class MeanRow:
    """SumR of a row by data set, ours where it is measured and the paper's; and the means over all of them."""

    label: str
    ours: Mapping[str, float]
    paper: Mapping[str, float]
    mean: float | None
    paper_mean: float | None


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do.

    Attributes:
        runs: row by row.
        left: runs that are not finished; a run that is several rows' counts once.
        seconds: for what is left, at the mean of the finished runs; None when none is finished.
        mean_over, means: the paper's SumR on the data sets of the table side by side, where it has several.
    """

    name: str
    title: str
    runs: tuple[Planned, ...]
    left: int
    total: int
    seconds: float | None
    notes: tuple[str, ...] = ()
    mean_over: tuple[str, ...] = ()
    means: tuple[MeanRow, ...] = ()


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
        check: look whether frames and scores are there for what is not finished; otherwise only at the configuration.

    Raises:
        ConfigError: the sweep or the configuration is wrong.
    """
    common, configured = sweep.configs(base, overrides)
    if own_name(common) in (test.name for test in tests):
        raise ConfigError(f"{own_name(common)} is the runs' own test set: it need not be named again")
    counted = range(seeds or sweep.settings.seeds)
    rows: list[tuple[SweepRow, tuple[SweepRun, ...]]] = []
    unfit: dict[Path, TeachclipError] = {}
    for row, config in configured:
        if row.settings.quoted or _left_empty(sweep, row, common):
            runs: tuple[SweepRun, ...] = ()
        elif config is None:
            runs = (teacher_run(sweep.name, row, common),)
        else:
            runs = tuple(student_run(sweep.name, row, config, config.train.seed + k) for k in counted)
            if (error := _other_trunk(common, config)) is not None:
                unfit |= {run.folder: error for run in runs if not run.finished}
        rows.append((row, runs))
    every = [run for _, runs in rows for run in runs]
    problems = dict(problems_of([run for run in every if run.folder not in unfit], look=check))
    return Plan(sweep, common, tuple(rows), tuple(tests), problems | unfit)


def _left_empty(sweep: Sweep, row: SweepRow, common: Config) -> bool:
    """Whether the paper's table of several data sets has no number of this row on this one."""
    return common.data.set in sweep.settings.each_of and common.data.set not in sweep.paper(row.label)


def _other_trunk(common: Config, config: Config) -> TeachclipError | None:
    """A row that names a trunk says nothing where the configuration gives its sizes."""
    trunk = config.train.network.trunk
    if trunk.sizes is None or trunk.model == common.train.network.trunk.model:
        return None
    return ConfigError(f"it needs the trunk {trunk.model}, and train.network.trunk.sizes sets another")


def refuse_unready(plans: Sequence[Plan], command: str, tells: Sequence[Callable[[Hint], str]] = ()) -> None:
    """Stop before anything trains when a run cannot be made.

    Args:
        command: how to go on without these rows.
        tells: of each plan, what helps in the words of whoever reads it.

    Raises:
        CacheError: names every problem with the rows it concerns, and the command that mends it.
    """
    waiting = [
        (plan, run, tell)
        for plan, tell in zip(plans, tells or [str] * len(plans), strict=True)
        for run in plan.runs
        if run.folder in plan.problems
    ]
    if not waiting:
        return
    labels: dict[str, dict[str, None]] = {}
    hints: dict[str, None] = {}
    missing: dict[str, None] = {}
    for plan, run, tell in waiting:
        problem = plan.problems[run.folder]
        labels.setdefault(problem.what, {})[run.label if len(plans) == 1 else f"{run.label} on {plan.own}"] = None
        if isinstance(problem, MissingTeacherError):
            missing |= dict.fromkeys(problem.teachers)
        elif problem.hint:
            hints[tell(problem.hint)] = None
    if missing:
        first, _, tell = waiting[0]
        hints[tell(score_hint(first.config, list(missing)))] = None
    rows = len({(plan.own, run.label) for plan, run, _ in waiting})
    raise CacheError(
        f"{rows} of {counted(sum(len(plan.rows) for plan in plans), 'row')} cannot be run yet; nothing was trained",
        details=[f"{', '.join(rows)}: {what}" for what, rows in labels.items()],
        hint="\n".join([*hints, f"or run the other rows: {command}"]),
    )


def dry_run(*plans: Plan, notes: Sequence[str] = ()) -> DryRun:
    """How far each run is, and how long the rest will take.

    Args:
        notes: stand below.
    """
    planned = tuple(each for plan in plans for row, runs in plan.rows for each in _planned(plan, row, runs))
    took = [_seconds(run) for plan in plans for run in plan.runs if run.trained and run.finished]
    folders = {each.run: each.state for each in planned if each.run is not None}
    left = sum(state != "finished" for state in folders.values())
    settings = plans[0].sweep.settings
    return DryRun(
        name=plans[0].sweep.name,
        title=settings.title or plans[0].sweep.name,
        runs=planned,
        left=left,
        total=len(folders),
        seconds=statistics.mean(took) * left if took else None,
        notes=tuple(notes),
        mean_over=settings.mean_over,
        means=side_by_side(plans[0].sweep, {}),
    )


def side_by_side(sweep: Sweep, measured: Mapping[str, Mapping[str, float]]) -> tuple[MeanRow, ...]:
    """SumR of every row on the data sets of `mean_over`, the paper's beside ours.

    Args:
        measured: ours by label and data set.
    """
    names = sweep.settings.mean_over
    return tuple(_mean_row(sweep, label, measured.get(label, {})) for label in _labels(sweep) if names)


def _labels(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(row.label for row in sweep.rows))


def _mean_row(sweep: Sweep, label: str, measured: Mapping[str, float]) -> MeanRow:
    names = sweep.settings.mean_over
    ours = {str(name): measured[name] for name in names if name in measured}
    paper = {str(name): each.sumr for name, each in sweep.paper(label).items() if each.sumr is not None}
    printed = next((row.settings.paper_mean for row in sweep.rows if row.label == label), None)
    mean = statistics.mean(ours.values()) if names and len(ours) == len(names) else None
    return MeanRow(label, ours, paper, mean, printed)


def _planned(plan: Plan, row: SweepRow, runs: Sequence[SweepRun]) -> Iterator[Planned]:
    on, published = plan.published(row, plan.config.data.set)
    paper = published.numbers if published else {}
    if not runs:
        yield Planned(row.label, None, None, "not run", plan.missing(row), plan.own, paper, on)
    for run in runs:
        problem = plan.problems.get(run.folder)
        state = "waiting" if problem is not None else run.state
        what = problem.what if problem else None
        yield Planned(row.label, run.seed, str(run.folder), state, what, plan.own, paper, on)


def _seconds(run: SweepRun) -> float:
    result = RunFolder(run.folder).result
    assert result is not None
    return float(result["seconds"])
