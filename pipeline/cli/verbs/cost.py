"""`teachclip cost`: what searching and training cost, network by network."""

import json as jsonlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....plurals import counted
from ...wording import operations, reasons, size
from ..shell.paths import out_file
from ..shell.running import AsJson, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ....stages.analysis.cost.table import CostReport, MethodCost, PaperCost

EXAMPLES = examples(
    "teachclip cost",
    "teachclip cost own_videos.yaml --set train.network.trunk.model=ViT-B-16-quickgelu",
    "teachclip cost --measure --videos 1000 --videos 100000 --out cost.json",
    "teachclip cost --checkpoint runs/student --checkpoint teacher.bin --json",
)


def cost(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]", help="Count this configuration's networks; by default every method at ViT-B/32."
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="Count this network; a run folder will do. May be repeated."),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time searches, too.")] = False,
    videos: Annotated[
        list[int] | None,
        typer.Option(
            "--videos", metavar="N", min=1, help="Time searches among N videos, instead of the usual. May be repeated."
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", min=1, help="Repeats of a search; the median counts.")
    ] = 5,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the numbers as JSON, too.")] = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Count what a search, a video and a training step cost with each network; nothing has to be there.

    Operations are counted from the networks' own modules, without weights. With --measure searches are timed: among
    1,000 and 10,000 videos, and for a student 100,000.
    """
    if sets and config is None:
        raise typer.BadParameter("--set changes a CONFIG, and none is given")
    with running("cost", json, quiet, debug, config, sets) as output:
        out_file(out)
        settings = None if config is None else load_config(config, sets or ())
        with output.waiting("counting"):
            from ....stages.analysis.cost.table import cost as run

        report = run(
            settings,
            checkpoint or (),
            measure=measure or bool(videos),
            videos=tuple(videos or ()),
            repeats=repeats,
            reporter=output,
        )
        if out is not None:
            from ....cache.storage.publish import publish

            publish(out, (jsonlib.dumps(asdict(report), indent=1) + "\n").encode())
        output.result(report, *shown(report, out))


def shown(report: "CostReport", out: Path | None = None) -> Iterator[RenderableType]:
    """What a person sees of costs."""
    heads = ("per pair", "paper", "KB f16", "f32", "paper", "per video", "paper", "per text")
    yield table("network", *heads, rows=[*map(_row, report.methods), *map(_other_row, report.not_counted)])
    if report.not_counted:
        yield f"not counted: {', '.join(each.row for each in report.not_counted)}: teachclip has no such network"
    yield from reasons((each.name, each.unlike, each.paper.why) for each in report.methods if each.paper)
    if report.training:
        yield ""
        parts = ("states", "saved", "together", "measured")
        yield table("training step", "precision", "batch", "parameters", *parts, rows=_training(report))
        yield "states: weights, gradients, optimiser; saved: for the backward pass; measured: on a GPU alone"
        yield from _added_by_afa(report)
        paper = ", ".join(f"{size(count)} {what}" for what, count in report.paper_training.items())
        if paper:
            yield f"the paper's training step: {paper}"
    if report.speed:
        yield ""
        yield f"milliseconds per search, {report.machine}"
        yield from _speed(report)
    yield ""
    yield report.convention
    if out is not None:
        yield facts(("written", out))


def _row(method: "MethodCost") -> tuple[str, ...]:
    found, paper = method.cost, method.paper
    float16, float32 = (f"{count / 1024:.1f}" for count in (found.bytes_float16, found.bytes_float32))
    pair, kept, video = _paper(paper) if paper else ("-", "-", "-")
    ours = operations(found.video)
    return (method.name, operations(found.pair), pair, float16, float32, kept, ours, video, operations(found.text))


def _paper(paper: "PaperCost") -> tuple[str, str, str]:
    """The paper's cells: per pair, KB, per video."""
    return operations(paper.pair, printed=True), f"{paper.bytes / 1024:.0f}", operations(paper.video)


def _other_row(paper: "PaperCost") -> tuple[str, ...]:
    """A row of the paper's whose network is not counted here."""
    pair, kept, video = _paper(paper)
    return (paper.row, "-", pair, "-", "-", kept, "-", video, "-")


def _training(report: "CostReport") -> Iterator[tuple[object, ...]]:
    for each in report.training:
        fixed = size(each.weights + each.gradients + each.optimiser)
        measured = "-" if each.measured is None else size(each.measured)
        sizes = (fixed, size(each.saved), size(each.counted), measured)
        batch = f"{each.batch} + {each.unlabelled}" if each.unlabelled else each.batch
        yield (each.network, each.precision, batch, f"{each.parameters:,}", *sizes)


def _added_by_afa(report: "CostReport") -> Iterator[str]:
    by_name = {(each.network, each.precision): each for each in report.training}
    for precision in dict.fromkeys(each.precision for each in report.training):
        afa, mean = by_name.get(("afa", precision)), by_name.get(("mean", precision))
        if afa and mean:
            bytes_more = afa.counted - mean.counted
            share = f"{100 * bytes_more / mean.counted:.3f}%"
            more = f"{afa.parameters - mean.parameters:,} parameters, {size(bytes_more)} ({share})"
            yield f"AFA takes {more} more than mean pooling in {precision}"


def _speed(report: "CostReport") -> Iterator[RenderableType]:
    sizes = sorted({each.videos for each in report.speed})
    found = {(each.name, each.videos): each for each in report.speed}
    rows = []
    for name in dict.fromkeys(each.name for each in report.speed):
        cells = [found.get((name, count)) for count in sizes]
        shown = [f"{c.milliseconds:,.2f}{'*' * (c.held < c.videos)}" if c else "-" for c in cells]
        rows.append((name, *shown))
    yield table("among", *(counted(count, "video") for count in sizes), rows=rows)
    if any(each.held < each.videos for each in report.speed):
        yield "* features of so many videos are not held in memory: blocks of fewer are scored again and again"
