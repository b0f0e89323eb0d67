"""The table of a sweep: mean and spread over seeds, the paper's numbers, and how far apart they are."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...configs.sweeps import PublishedNumbers, SweepRow
from ...stages.analysis.cost.network import count_network
from ...stages.analysis.frame_weights import FrameWeights
from ...stages.evaluate.measured import own_name
from ...stages.models.checkpoints.files import load_network
from .plan import Plan
from .run import RunResult

METRICS = {"R@1": "r1", "R@5": "r5", "R@10": "r10", "SumR": "sumr"}
NOT_AVAILABLE = "not available here"


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
    """Multiply-adds to score one more video for a text, and bytes kept per video (float32); KB are 1,024 of them."""

    pair: int
    bytes: int


@dataclass(frozen=True)
class TableRow:
    """A row on one test set.

    Attributes:
        tested_on: the test set; seeds: that there are metrics of.
        t2v, v2t: by metric.
        over: SumR minus that of the row `against`, seed by seed.
        paper: the paper's numbers; paper_on: of which data set; source: where they are taken from.
        difference: ours minus the paper's, by metric; where both are of the same data set.
        cost: what its network costs to search with, where the sweep shows it.
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


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        paper: whether there is a column of the paper's numbers.
        frame_weights: of the rows with AFA, first seed, where the sweep shows them.
        failed: runs that failed; left_out: for want of scores.
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


def make_table(
    plan: Plan, results: Sequence[RunResult], notes: Sequence[str] = (), *, paper: bool = False
) -> SweepResult:
    """The table of a plan's results.

    Args:
        notes: stand below it, before those of the sweep.
        paper: a column of the paper's numbers also where none is known.
    """
    by_run = {result.run: result for result in results}
    settings = plan.sweep.settings
    costs = _costs(plan, by_run) if settings.show == "cost" else {}
    rows = tuple(row for test in _tests(plan) for row in _rows(plan, by_run, test, costs))
    return SweepResult(
        name=plan.sweep.name,
        title=settings.title or plan.sweep.name,
        notes=(*notes, *_remarks(rows, results), *settings.notes),
        against=settings.against,
        paper=paper or any(row.paper for row in rows),
        rows=rows,
        runs=tuple(results),
        failed=sum(result.state == "failed" for result in results),
        left_out=sum(result.state == "left out" for result in results),
    )


def columns(result: SweepResult) -> list[str]:
    """Headings of the table."""
    several = len({row.tested_on for row in result.rows}) > 1
    on = sorted({row.paper_on for row in result.rows if row.paper_on})
    return [
        *("", *(["tested on"] if several else []), "seeds", *METRICS),
        *([f"SumR over {result.against}"] if result.against else []),
        *(["multiply-adds per pair", "KB per video"] if _with_cost(result) else []),
        *([f"paper ({', '.join(on)})" if on else "paper", "SumR minus paper's"] if result.paper else []),
    ]


def cells(result: SweepResult) -> list[list[str]]:
    """The table's text, a list a row."""
    several = "tested on" in columns(result)
    return [
        [
            *(row.label, *([row.tested_on] if several else []), str(len(row.seeds)) if row.seeds else "-"),
            *(str(row.t2v[key]) if key in row.t2v else "-" for key in METRICS.values()),
            *(([_signed(row.over)] if row.over else ["-"]) if result.against else []),
            *(_cost(row) if _with_cost(result) else []),
            *([_paper(row), _difference(row)] if result.paper else []),
        ]
        for row in result.rows
    ]


def problems(result: SweepResult) -> list[str]:
    """One line for every row that lacks a run: why, and what to do."""
    lines = [
        f"{row.label}: {row.problem}" + (f"; {row.hint}" if row.hint else "") for row in result.rows if row.problem
    ]
    return list(dict.fromkeys(lines))


def markdown(result: SweepResult) -> str:
    """The table as Markdown, with its notes."""
    lines = [f"### {result.title}", ""]
    lines += [f"| {' | '.join(columns(result))} |", f"|{'---|' * len(columns(result))}"]
    lines += [f"| {' | '.join(row)} |" for row in cells(result)]
    lines += ["", "Text to video, in percent; mean ± sample deviation over seeds."]
    lines += [f"- {line}" for line in (*problems(result), *result.notes)]
    return "\n".join(lines) + "\n"


def _tests(plan: Plan) -> list[str]:
    return [own_name(plan.config), *(test.name for test in plan.tests)]


def _costs(plan: Plan, by_run: Mapping[str, RunResult]) -> dict[str, RowCost]:
    """By label; a teacher's network is what its checkpoint holds."""
    costs = {}
    for row, runs in plan.rows:
        run = next((run for run in runs if by_run[str(run.folder)].measured), None)
        if run is not None:
            network = run.config.train.network if run.trained else load_network(run.config.evaluate_run).config
            counted = count_network(network)
            costs[row.label] = RowCost(counted.pair, counted.bytes_float32)
    return costs


def _rows(plan: Plan, by_run: Mapping[str, RunResult], test: str, costs: Mapping[str, RowCost]) -> Iterator[TableRow]:
    control = next((runs for row, runs in plan.rows if row.label == plan.sweep.settings.against), ())
    before = {run.seed: _sumr(by_run[str(run.folder)], test) for run in control}
    for row, runs in plan.rows:
        results = [by_run[str(run.folder)] for run in runs]
        found = [result for result in results if result.measured and test in result.measured]
        t2v, v2t = (_spreads([(result.measured or {})[test][way] for result in found]) for way in ("t2v", "v2t"))
        over = [
            after - start
            for result in found
            if (after := _sumr(result, test)) is not None and (start := before.get(result.seed)) is not None
        ]
        lacking = next((result for result in results if result.problem), None)
        data_set = plan.config.data.set if test == own_name(plan.config) else test
        on, published = _published(row, data_set)
        yield TableRow(
            label=row.label,
            tested_on=test,
            seeds=tuple(result.seed for result in found if result.seed is not None),
            t2v=t2v,
            v2t=v2t,
            over=_spread(over) if over and row.label != plan.sweep.settings.against else None,
            paper=published.numbers if published else {},
            paper_on=on,
            source=published.source if published else None,
            difference=_differences(t2v, published) if published and on == data_set else {},
            cost=costs.get(row.label),
            problem=lacking.problem if lacking else None,
            hint=lacking.hint if lacking else None,
            runs=tuple(str(run.folder) for run in runs),
        )


def _published(row: SweepRow, data_set: str) -> tuple[str | None, PublishedNumbers | None]:
    """The paper's numbers on this data set, else on the first that there are numbers of."""
    paper: Mapping[str, PublishedNumbers] = {str(name): each for name, each in row.settings.paper.items()}
    name = data_set if data_set in paper else next(iter(paper), None)
    return name, None if name is None else paper[name]


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


def _signed(spread: Spread) -> str:
    return f"{spread.mean:+.1f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.1f}")


def _with_cost(result: SweepResult) -> bool:
    return any(row.cost for row in result.rows)


def _cost(row: TableRow) -> list[str]:
    return ["-", "-"] if row.cost is None else [f"{row.cost.pair:,}", f"{row.cost.bytes / 1024:.1f}"]


def _paper(row: TableRow) -> str:
    if not row.paper:
        return NOT_AVAILABLE
    return " / ".join(f"{row.paper[key]:.1f}" if key in row.paper else "-" for key in METRICS.values())


def _difference(row: TableRow) -> str:
    return f"{row.difference['sumr']:+.1f}" if "sumr" in row.difference else "-"


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
