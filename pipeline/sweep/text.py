"""The table of a sweep as text: what stands in which line and column, and what is said below."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...configs.published_sets import PUBLISHED
from ..wording import operations, reasons
from .plan import DryRun, MeanRow
from .table import METRICS, Spread, SweepResult, TableRow

IN_PERCENT = "Text to video, in percent; mean ± sample deviation over seeds."
KB = 1024


@dataclass(frozen=True)
class Part:
    """A part of the table as text: a heading, or none; columns; a list a line."""

    heading: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def parts(result: SweepResult) -> Iterator[Part]:
    """The table's text: costs, metrics on each test set, data sets side by side."""
    tests = list(dict.fromkeys(row.tested_on for row in result.rows))
    if any(row.cost or row.paper_cost for row in result.rows):
        yield _cost_part([row for row in result.rows if row.tested_on == tests[0]])
    for test in tests:
        rows = [row for row in result.rows if row.tested_on == test]
        heading = f"tested on {_title(rows[0].data_set, test)}" if len(tests) > 1 else ""
        yield _beside_paper(rows, heading) if any(row.paper for row in rows) else _metrics_part(rows, heading)
    if result.means:
        yield _means_part(result.mean_over, result.means)


def legend(result: SweepResult) -> Iterator[str]:
    """What columns and lines mean."""
    yield IN_PERCENT
    bases: dict[str, dict[str, None]] = {}
    for row in result.rows:
        if row.against is not None:
            bases.setdefault(row.against, {})[row.label] = None
    for base, labels in bases.items():
        yield f"gain{f' of {"; ".join(labels)}' if len(bases) > 1 else ''}: SumR over {base}, seed by seed"
    if any(row.difference for row in result.rows):
        yield "diff: ours minus the paper's"
    costs = [(row, row.cost, row.paper_cost) for row in result.rows]
    yield from reasons(
        (row.label, cost.unlike, why) for row, cost, paper in costs
        if cost and paper and isinstance(why := paper["why"], Mapping)
    )  # fmt: skip


def problems(result: SweepResult) -> list[str]:
    """One line for every row that lacks a run: why, and what to do."""
    lines = [
        f"{row.label}: {row.problem}" + (f"; {row.hint}" if row.hint else "") for row in result.rows if row.problem
    ]
    return list(dict.fromkeys(lines))


def not_run(result: SweepResult) -> list[str]:
    """One line for every reason why rows are not run at all, with the rows."""
    return _grouped("not run", [(row.label, row.tested_on, row.missing) for row in result.rows])


def dry_parts(planned: DryRun) -> Iterator[Part]:
    """What a dry run lists, by data set: runs, how far they are, and the paper's numbers where there are some."""
    sets = list(dict.fromkeys(run.data for run in planned.runs))
    paper = any(run.paper for run in planned.runs)
    for name in sets:
        lines = tuple(
            (
                *(run.label, "-" if run.seed is None else str(run.seed), run.state),
                *(f"{run.paper[key]:.1f}" if key in run.paper else "-" for key in METRICS.values() if paper),
            )
            for run in planned.runs
            if run.data == name
        )
        heads = [f"paper {head}" if not number else head for number, head in enumerate(METRICS)] if paper else []
        yield _right(Part(name if len(sets) > 1 else "", ("run", "seed", "state", *heads), lines), texts=3)
    if planned.means:
        yield _means_part(planned.mean_over, planned.means)


def waiting(planned: DryRun) -> Iterator[str]:
    """What the paper's numbers are of; a line for everything that runs wait for, or that is missing to run rows."""
    on = dict.fromkeys(run.paper_on for run in planned.runs if run.paper_on)
    if on:
        yield f"the paper's numbers are of {', '.join(_title(name, name) for name in on)}"
    for what in ("waiting", "not run"):
        rows = [(run.label, run.data, run.problem if run.state == what else None) for run in planned.runs]
        yield from _grouped(what, rows)


def _grouped(what: str, rows: Sequence[tuple[str, str, str | None]]) -> list[str]:
    """Reasons with the rows that they hold for, `not run: A; B (on msvd): why`.

    Args:
        rows: label, test set, and reason; None is no reason.
    """
    tests = {test for _, test, _ in rows}
    found: dict[str, dict[str, dict[str, None]]] = {}
    for label, test, why in rows:
        if why is not None:
            found.setdefault(why, {}).setdefault(label, {})[test] = None
    return [
        f"{what}: "
        + "; ".join(name if len(on) == len(tests) else f"{name} (on {', '.join(on)})" for name, on in labels.items())
        + f": {why}"
        for why, labels in found.items()
    ]


def markdown(result: SweepResult) -> str:
    """The table as Markdown, with its notes."""
    lines = [f"### {result.title}"]
    for part in parts(result):
        lines += ["", *([f"#### {part.heading}", ""] if part.heading else [])]
        lines += [f"| {' | '.join(part.columns)} |", f"|{'---|' * len(part.columns)}"]
        lines += [f"| {' | '.join(cell.strip() for cell in line)} |" for line in part.lines]
    lines += ["", *(f"- {line}" for line in (*legend(result), *problems(result), *not_run(result), *result.notes))]
    return "\n".join(lines) + "\n"


def _metrics_part(rows: Sequence[TableRow], heading: str) -> Part:
    """A line a row, where there are no numbers of the paper."""
    gain = any(row.against for row in rows)
    return Part(
        heading,
        ("", "seeds", *METRICS, *(["gain"] if gain else [])),
        tuple(
            (
                *(row.label, str(len(row.seeds)) if row.seeds else "-"),
                *(str(row.t2v[key]) if key in row.t2v else "-" for key in METRICS.values()),
                *([_signed(row.over)] if gain else []),
            )
            for row in rows
        ),
    )


def _beside_paper(rows: Sequence[TableRow], heading: str) -> Part:
    """Lines for every row: ours, its deviation over seeds, the paper's, and the difference."""
    gain = any(row.against for row in rows)
    columns = ("", "", "seeds", *METRICS, *(["gain"] if gain else []))
    lines = tuple((*texts, *numbers[: len(columns) - 3]) for row in rows for texts, numbers in _lines(row))
    return _right(Part(heading, columns, lines), texts=3)


def _right(part: Part, texts: int) -> Part:
    """Numbers to the right: all columns but the first `texts`."""
    rows = [part.columns, *part.lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = (
        (*row[:texts], *(cell.rjust(width) for cell, width in zip(row[texts:], widths[texts:], strict=True)))
        for row in rows
    )
    return Part(part.heading, first, tuple(others))


def _lines(row: TableRow) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    """Label, whose and seeds; four metrics and the gain."""
    label, spreads = row.label, [*(row.t2v.get(key) for key in METRICS.values()), row.over]
    if row.runs:
        yield (
            (label, "ours", str(len(row.seeds) or "-")),
            [_mean(spread) for spread in spreads[:-1]] + [_gain(row.over)],
        )
        label = ""
    if any(spread is not None and spread.deviation is not None for spread in spreads):
        yield (
            ("", "±", ""),
            ["" if each is None or each.deviation is None else f"{each.deviation:.1f}" for each in spreads],
        )
    paper = [f"{row.paper[key]:.1f}" if key in row.paper else "-" for key in METRICS.values()]
    yield (label, "paper", ""), [*paper, "" if row.paper_over is None else f"{row.paper_over:+.1f}"]
    if row.difference:
        told = (f"{row.difference[key]:+.1f}" if key in row.difference else "" for key in METRICS.values())
        gain = _apart(row.over.mean if row.over else None, row.paper_over)
        yield ("", "diff", ""), [*told, "" if gain is None else f"{gain:+.1f}"]


def _cost_part(rows: Sequence[TableRow]) -> Part:
    lines = []
    for row in rows:
        cost, paper = row.cost, row.paper_cost or {}
        lines.append(
            (
                row.label,
                *(operations(cost.pair if cost else None), operations(_number(paper, "pair"), printed=True)),
                *(f"{cost.bytes / KB:.1f}" if cost else "-", _kilobytes(_number(paper, "kb"))),
                *(operations(cost.video if cost else None), operations(_number(paper, "video"))),
            )
        )
    return _right(Part("", ("", "per pair", "paper", "KB", "paper", "per video", "paper"), tuple(lines)), texts=1)


def _means_part(names: Sequence[str], means: Sequence[MeanRow]) -> Part:
    lines = []
    for row in means:
        lines.append((row.label, *_numbers(row.paper, row.paper_mean, names)))
        if row.ours:
            lines.append(("  ours", *_numbers(row.ours, row.mean, names)))
            apart = {name: value - row.paper[name] for name, value in row.ours.items() if name in row.paper}
            lines.append(("  diff", *_numbers(apart, _apart(row.mean, row.paper_mean), names, "+.1f")))
    heading = "SumR on every data set: the paper's, ours below it where it is measured"
    return _right(Part(heading, ("", *(_title(name, name) for name in names), "mean"), tuple(lines)), texts=1)


def _numbers(found: Mapping[str, float], mean: float | None, names: Sequence[str], form: str = ".1f") -> list[str]:
    values = [*(found.get(name) for name in names), mean]
    return ["-" if value is None else f"{value:{form}}" for value in values]


def _title(data_set: str | None, name: str) -> str:
    """What the paper calls a data set; `name` where it does not."""
    known = {str(key): each.paper for key, each in PUBLISHED.items()}
    return known.get(data_set or "") or name


def _signed(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:+.1f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.1f}")


def _apart(ours: float | None, paper: float | None) -> float | None:
    return None if ours is None or paper is None else ours - paper


def _mean(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.mean:.1f}"


def _gain(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.mean:+.1f}"


def _number(paper: Mapping[str, object], key: str) -> float | None:
    value = paper.get(key)
    return value if isinstance(value, float) else None


def _kilobytes(number: float | None) -> str:
    return "-" if number is None else f"{number:.0f}"
