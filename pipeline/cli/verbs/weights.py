"""`teachclip weights`: the frames that students look at, beside their teacher's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType

from ....plurals import counted
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import table

if TYPE_CHECKING:
    from ....stages.analysis.frame_weights import FrameWeights, QueryWeights

EXAMPLES = examples(
    "teachclip weights own_videos.yaml runs/student runs/untaught",
    "teachclip weights own_videos.yaml runs/student --split train --query dog.mp4 --json",
)


def weights(
    config: ConfigFile,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders or checkpoints: the student, the untaught one, others."),
    ],
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="NAME", help="Compare with this one; by default the first that taught."),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"], typer.Option("--split", help="Whose captions and videos.")
    ] = "test",
    query: Annotated[
        list[str] | None,
        typer.Option("--query", metavar="ID", help="Show this caption or video, by its id. May be repeated."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=0, help="Without --query, show so many that differ most.")
    ] = 4,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare the weights that students give to frames with a teacher's frame-text scores (figure 3).

    For the whole split: correlation, Kullback-Leibler divergence, and how often both find the same frame the most
    important; equal weights beside them. For a few queries: frame by frame. On a split that is scored the teacher's
    weights come from the score store, else the teacher is loaded and asked.
    """
    with running("weights", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.analysis.frame_weights import frame_weights

        found = frame_weights(
            settings, runs, teacher=teacher, split=split, queries=query or (), count=count, reporter=output
        )
        output.result(found, *shown(found))


def shown(found: "FrameWeights") -> Iterator[RenderableType]:
    """What a person sees of frame weights."""
    whence = "from the score store" if found.source == "store" else "asked now"
    yield (
        f"{found.split}: {counted(found.compared, 'caption')} of "
        f"{counted(found.videos, 'video')}; {found.teacher}, {whence}"
    )
    rows = [
        (each.name, _number(each.pearson), _number(each.spearman), f"{each.kl:.4g}", f"{100 * each.top1:.1f}%")
        for each in found.closeness
    ]
    yield table(f"beside {found.teacher}", "Pearson", "Spearman", "KL (nats)", "same first frame", rows=rows)
    for query in found.queries:
        yield ""
        yield f'{query.text}: "{query.caption}"'
        yield table("second", *_seconds(query), rows=_strips(found.teacher, query))


def _seconds(query: "QueryWeights") -> list[str]:
    return [f"{time:.0f}" if there else "pad" for time, there in zip(query.times, query.valid, strict=True)]


def _strips(teacher: str, query: "QueryWeights") -> Iterator[tuple[str, ...]]:
    """A row per network, its weights in percent."""
    for name, row in {teacher: query.teacher, **query.runs}.items():
        yield (name, *(f"{100 * weight:.0f}" for weight in row))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
