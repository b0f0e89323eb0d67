"""The table of a sweep: mean and spread over seeds, the paper's numbers, and how far apart they are."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...configs.schema import NetworkConfig
from ...configs.sweeps import PublishedCost, PublishedNumbers, Sweep, SweepRow
from ...stages.analysis.cost.network import NetworkCost, count_network
from ...stages.analysis.cost.table import is_the_papers, unlike
from ...stages.analysis.frame_weights import FrameWeights
from ...stages.models.checkpoints.files import load_network
from .plan import MeanRow, Plan, side_by_side
from .run import RunResult
from .runs import SweepRun

METRICS = {"R@1": "r1", "R@5": "r5", "R@10": "r10", "SumR": "sumr"}


@dataclass(frozen=True)
class Spread:
    """Values over seeds, their mean and sample deviation (None for one seed)."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


@dataclass(frozen=True)
class RowCost:
    """Multiply-adds to score one more video for a text and to encode a video, and bytes kept per video (float32); KB
    are 1,024 of them. `unlike`: the costs (pair, kb, video) that the paper prints otherwise, of a network of its
    sizes."""

    pair: int
    bytes: int
    video: int
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """A row on one test set.

    Attributes:
        tested_on: the test set; seeds: that there are metrics of.
        t2v, v2t: by metric.
        over: SumR minus that of the row `against`, seed by seed; paper_over: the same of the paper's numbers.
        paper: the paper's numbers; paper_on: of which data set; source: where they are taken from.
        difference: ours minus the paper's, by metric; where both are of the same data set.
        cost: what its network costs to search with, where the sweep shows it; paper_cost: what the paper prints.
        missing: why the row is not run at all.
        problem, hint: why seeds are missing, and what to do.
    """

    label: str
    tested_on: str
    seeds: tuple[int, ...]
    t2v: Mapping[str, Spread]
    v2t: Mapping[str, Spread]
    over: Spread | None
    paper: Mapping[str, float]
    paper_on: str | None
    source: str | None
    difference: Mapping[str, float]
    cost: RowCost | None
    problem: str | None
    hint: str | None
    runs: tuple[str, ...]
    against: str | None = None
    paper_over: float | None = None
    paper_cost: Mapping[str, object] | None = None
    missing: str | None = None
    data_set: str | None = None


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        paper: whether there are numbers of the paper.
        frame_weights: of the rows with AFA, first seed, where the sweep shows them.
        failed: runs that failed; left_out: for want of scores.
        mean_over: data sets of `means`, where the sweep shows them side by side.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    against: str | None
    paper: bool
    rows: tuple[TableRow, ...]
    runs: tuple[RunResult, ...]
    failed: int
    left_out: int
    frame_weights: FrameWeights | None = None
    mean_over: tuple[str, ...] = ()
    means: tuple[MeanRow, ...] = ()


def make_table(plan: Plan, results: Sequence[RunResult], notes: Sequence[str] = ()) -> SweepResult:
    """The table of a plan's results; runs without a result show nothing.

    Args:
        notes: stand below it, before those of the sweep.
    """
    by_run = {result.run: result for result in results}
    settings = plan.sweep.settings
    networks = _networks(plan, by_run) if settings.show == "cost" else {}
    rows = tuple(row for name, data_set in plan.tested for row in _Rows(plan, by_run, name, data_set, networks).made())
    return SweepResult(
        name=plan.sweep.name,
        title=settings.title or plan.sweep.name,
        notes=(*notes, *_remarks(rows, results), *settings.notes),
        against=settings.against,
        paper=any(row.paper for row in rows),
        rows=rows,
        runs=tuple(results),
        failed=sum(result.state == "failed" for result in results),
        left_out=sum(result.state == "left out" for result in results),
    )


def joined(sweep: Sweep, tables: Sequence[SweepResult]) -> SweepResult:
    """One table of a sweep's tables on several data sets, and the data sets side by side."""
    rows = tuple(row for table in tables for row in table.rows)
    first = tables[0]
    measured: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.data_set is not None and "sumr" in row.t2v:
            measured.setdefault(row.label, {})[row.data_set] = row.t2v["sumr"].mean
    return SweepResult(
        name=first.name,
        title=first.title,
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
        against=first.against,
        paper=any(table.paper for table in tables),
        rows=rows,
        runs=tuple(run for table in tables for run in table.runs),
        failed=sum(table.failed for table in tables),
        left_out=sum(table.left_out for table in tables),
        mean_over=sweep.settings.mean_over,
        means=side_by_side(sweep, measured),
    )


def _networks(plan: Plan, by_run: Mapping[str, RunResult]) -> dict[str, NetworkConfig]:
    """The network of every row that is run, by label."""
    found = {}
    for row, runs in plan.rows:
        if runs and (network := _network(plan, runs[0], by_run)) is not None:
            found[row.label] = network
    return found


def _network(plan: Plan, run: SweepRun, by_run: Mapping[str, RunResult]) -> NetworkConfig | None:
    """A teacher's network is what its checkpoint holds; where none was measured, that of its kind."""
    network = plan.config.train.network
    if run.teacher is None:
        return run.config.train.network
    if str(run.folder) in by_run and by_run[str(run.folder)].measured:
        return load_network(run.config.evaluate_run).config
    if run.teacher not in ("xclip", "ts2net", "xpool", "drl"):
        return None
    return NetworkConfig.model_validate(network.model_dump() | {"kind": run.teacher})


class _Rows:
    """The rows of a plan on one test set."""

    def __init__(
        self,
        plan: Plan,
        by_run: Mapping[str, RunResult],
        test: str,
        data_set: str,
        networks: Mapping[str, NetworkConfig],
    ) -> None:
        self.plan, self.by_run, self.test, self.data_set, self.networks = plan, by_run, test, data_set, networks
        self.runs = {row.label: runs for row, runs in plan.rows}

    def made(self) -> Iterator[TableRow]:
        for row, runs in self.plan.rows:
            yield self._row(row, runs)

    def _row(self, row: SweepRow, runs: Sequence[SweepRun]) -> TableRow:
        results = self._results(row.label)
        found = [result for result in results if result.measured and self.test in result.measured]
        t2v, v2t = (_spreads([(result.measured or {})[self.test][way] for result in found]) for way in ("t2v", "v2t"))
        lacking = next((result for result in results if result.problem), None)
        on, published = self.plan.published(row, self.data_set)
        base = self._base(row)
        source = (published.source or self.plan.sweep.settings.source) if published else None
        printed = row.settings.paper_cost
        return TableRow(
            label=row.label,
            tested_on=self.test,
            seeds=tuple(result.seed for result in found if result.seed is not None),
            t2v=t2v,
            v2t=v2t,
            over=self._over(base, found) if base else None,
            paper=published.numbers if published else {},
            paper_on=on,
            source=source,
            difference=_differences(t2v, published) if published and on == self.data_set else {},
            cost=self._cost(row.label, printed),
            problem=lacking.problem if lacking else None,
            hint=lacking.hint if lacking else None,
            runs=tuple(str(run.folder) for run in runs),
            against=base,
            paper_over=self._paper_over(base, published) if base else None,
            paper_cost=printed.model_dump() if printed else None,
            missing=None if runs else self.plan.missing(row),
            data_set=self.data_set,
        )

    def _results(self, label: str) -> list[RunResult]:
        folders = [str(run.folder) for run in self.runs.get(label, ())]
        return [self.by_run[folder] for folder in folders if folder in self.by_run]

    def _base(self, row: SweepRow) -> str | None:
        """The row that this one is compared with."""
        base = row.settings.against or self.plan.sweep.settings.against
        return None if base == row.label or row.settings.quoted else base

    def _over(self, base: str, found: Sequence[RunResult]) -> Spread | None:
        before = {result.seed: _sumr(result, self.test) for result in self._results(base)}
        over = [
            after - start
            for result in found
            if (after := _sumr(result, self.test)) is not None and (start := before.get(result.seed)) is not None
        ]
        return _spread(over) if over else None

    def _paper_over(self, base: str, published: PublishedNumbers | None) -> float | None:
        row = next((row for row, _ in self.plan.rows if row.label == base), None)
        before = self.plan.published(row, self.data_set)[1] if row else None
        if published is None or before is None or published.sumr is None or before.sumr is None:
            return None
        return published.sumr - before.sumr

    def _cost(self, label: str, printed: PublishedCost | None) -> RowCost | None:
        if (network := self.networks.get(label)) is None:
            return None
        found: NetworkCost = count_network(network)
        other = unlike(found, printed) if printed and is_the_papers(network) else ()
        return RowCost(found.pair, found.bytes_float32, found.video, other)


def _spreads(found: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    keys = [key for key in (*METRICS.values(), "mdr", "mnr") if found and key in found[0]]
    return {key: _spread([each[key] for each in found]) for key in keys}


def _spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.mean(values), deviation, tuple(values))


def _sumr(result: RunResult, test: str) -> float | None:
    return result.measured[test]["t2v"]["sumr"] if result.measured and test in result.measured else None


def _differences(t2v: Mapping[str, Spread], published: PublishedNumbers) -> dict[str, float]:
    return {key: t2v[key].mean - value for key, value in published.numbers.items() if key in t2v}


def _remarks(rows: Sequence[TableRow], results: Sequence[RunResult]) -> Iterator[str]:
    """What must be said of the numbers."""
    others = sorted({row.paper_on for row in rows if row.paper_on and not row.difference and row.t2v})
    if others:
        yield f"The paper's numbers are of {', '.join(others)}: no difference is taken to other data."
    for mark in dict.fromkeys(mark for result in results for mark in result.marks):
        labels = dict.fromkeys(result.label for result in results if mark in result.marks)
        yield f"{', '.join(labels)}: {mark}."
    if any(len(row.seeds) == 1 for row in rows):
        yield "One seed alone can move SumR by a point or more: --seeds 3 shows the spread."
    if any(len(row.seeds) > 1 for row in rows):
        yield "Seeds vary the student; the teachers and their scores are the same."
