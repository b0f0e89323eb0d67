"""`teachclip report`: any number of runs on one HTML page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ...wording import size
from ..shell.paths import out_file, refuse_configs
from ..shell.running import AsJson, Debug, Quiet, examples, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ...report.collect.report import ReportResult

EXAMPLES = examples(
    "teachclip report work/runs/student",
    "teachclip report work/runs/alone work/runs/student --out comparison.html",
    'teachclip report work/runs/alone work/runs/student --split val --title "What teaching brings" --json',
)
METRICS = {"R@1": "r1", "R@5": "r5", "R@10": "r10", "SumR": "sumr", "MdR": "mdr"}


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; the others are compared with the first.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PAGE", help="The page.")] = Path("report.html"),
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="The evaluation that is compared; by default test, if there is."),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The page's heading.")] = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page of any number of runs, finished or not.

    It holds metrics with 95 % intervals, paired differences, ranks, the queries that are worth a look with their
    frames, training curves, the teachers' report card, what a search costs, and what was trained on what. One file, to
    be opened, sent or printed: it needs no server and no network. What is missing or damaged is named on it.

    Evaluate the runs before (`teachclip evaluate`): what the report compares is what evaluation has written there.
    """
    with running("report", json, quiet, debug) as output:
        out_file(out)
        refuse_configs(runs)
        with output.waiting("loading"):
            from ...report.collect.report import report as run

        result = run(runs, out, split=split, title=title, reporter=output)
        output.result(result, *_shown(result))


def _shown(result: "ReportResult") -> Iterator[RenderableType]:
    from ...report.page.teacher_worth import told

    measured = [(run, run.t2v) for run in result.runs if run.t2v is not None]
    if measured:
        yield f"Text to video, {result.evaluation}:"
        yield table("", *METRICS, rows=[(run.name, *_cells(t2v)) for run, t2v in measured])
    for gain in result.differences:
        less = gain.sumr
        yield f"{gain.model} less {gain.against}: SumR {less.value:+.1f} ({less.low:+.1f} to {less.high:+.1f})"
    if result.teachers is not None:
        yield from told(result.teachers)
    yield from result.notices
    if result.left_out:
        yield f"not on the page: {len(result.left_out)}, listed at its end"
    yield facts(("page", f"{result.page} ({size(result.bytes)})"))


def _cells(t2v: Mapping[str, float]) -> Iterator[object]:
    return (t2v.get(key, "-") for key in METRICS.values())
