"""`teachclip sweep`: many students on one cache, one table."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....errors import ConfigError, TeachclipError
from ....plurals import counted
from ....stages.runtime.stopping import StopRequest
from ...wording import duration
from ..shell.output import Output, document, plain
from ..shell.paths import out_file
from ..shell.remedies import Given
from ..shell.running import AsJson, Debug, Overrides, Quiet, examples, running
from ..shell.tables import table
from .weights import shown as weights_shown

if TYPE_CHECKING:
    from ....configs.sweeps import Sweep
    from ...sweep.paper import Ground
    from ...sweep.plan import DryRun
    from ...sweep.table import SweepResult

Seeds = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", min=1, help="Runs of each row: train.seed and the next ones."),
]
Tests = Annotated[
    list[Path] | None,
    typer.Option("--test", metavar="CONFIG", help="Measure every row on this test split, too; may be repeated."),
]
Partial = Annotated[bool, typer.Option("--partial", help="Leave out rows whose scores are missing; run the others.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="List the runs, what is finished and what is left; run nothing.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the table, too: Markdown, or JSON for *.json.")
]

EXAMPLES = examples(
    "teachclip sweep losses.yaml",
    "teachclip sweep losses.yaml --seeds 3 --out losses.md",
    "teachclip sweep losses.yaml --dry-run --set train.max_steps=500",
)


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="SWEEP", help="A YAML file: base, grid, runs; see docs/guide/reproduce.md.")
    ],
    seeds: Seeds = None,
    tests: Tests = None,
    partial: Partial = False,
    dry_run: Dry = False,
    out: Out = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train many students on one cache and compare them in one table.

    SWEEP names a configuration (base), and how runs differ from it: `grid`, every combination of some values, or
    `runs`, by name. Runs share frames and scores. What is finished is only read, a changed override makes another run,
    and a run that fails stops no other; stopped and given again, it goes on. --set changes the base.
    """
    with running("sweep", json, quiet, debug) as output:
        from ....configs.sweeps import load_sweep

        out_file(out)
        read = load_sweep(file)
        if read.base is None:
            raise ConfigError("base: is missing; it names the configuration that runs start from", where=str(file))
    stop = StopRequest()
    with running("sweep", json, quiet, debug, read.base, sets, stop) as output:
        with output.waiting("loading"):
            from ...sweep.paper import Ground, named_tests

        ground = Ground(read.base, tuple(sets or ()), named_tests([*read.settings.tests, *(tests or ())]))
        go(output, read, [ground], stop, seeds=seeds, partial=partial, dry_run=dry_run, out=out)


def go(
    output: Output,
    read: "Sweep",
    grounds: "Sequence[Ground]",
    stop: StopRequest,
    *,
    seeds: int | None,
    partial: bool,
    dry_run: bool,
    out: Path | None,
    packaged: bool = False,
    check: bool = True,
) -> None:
    """Plan a sweep on each of the grounds, and run it or only list it; `packaged` for a table of the paper's.

    Raises:
        ConfigError: more seeds than a sweep may have.
        typer.Exit: a run failed.
    """
    from ....configs.sweeps import MOST_SEEDS
    from ...sweep.paper import others_note
    from ...sweep.plan import dry_run as look
    from ...sweep.plan import plan_sweep, refuse_unready
    from ...sweep.run import run_sweep, weigh_frames
    from ...sweep.table import joined, make_table

    if seeds is not None and seeds > MOST_SEEDS:
        raise ConfigError(f"--seeds {seeds}: at most {MOST_SEEDS:,}")
    plans = [
        plan_sweep(read, ground.base, ground.overrides, seeds=seeds, tests=ground.tests, check=check)
        for ground in grounds
    ]
    said = others_note(read, plans) if packaged else []
    if dry_run:
        planned = look(*plans, notes=[*(note for ground in grounds for note in ground.notes), *said])
        output.result(planned, *_listed(planned))
        return
    tells = [Given(ground.base, ground.overrides).tell for ground in grounds]
    if not partial:
        refuse_unready(plans, shlex.join(["teachclip", *sys.argv[1:], "--partial"]), tells)
    made = [
        make_table(plan, run_sweep(plan, output, stop, tell), (*ground.notes, *said))
        for plan, ground, tell in zip(plans, grounds, tells, strict=True)
    ]
    result = joined(read, made)
    problem = None
    if read.settings.show == "frame-weights":
        try:
            result = replace(result, frame_weights=weigh_frames(plans[0], result.runs, output))
        except TeachclipError as error:  # the table comes first
            problem = error
    if out is not None:
        write(result, shown(result), out)
    output.result(result, *shown(result))
    if problem is not None:
        raise problem
    if result.failed:
        raise typer.Exit(1)


def shown(result: "SweepResult") -> Iterator[RenderableType]:
    """The table for people."""
    from ...sweep.text import legend, not_run, parts, problems

    yield result.title
    for number, part in enumerate(parts(result)):
        if number:
            yield ""
        if part.heading:
            yield part.heading
        yield table(*part.columns, rows=part.lines)
    yield from legend(result)
    yield from (f"! {line}" for line in problems(result))
    yield from not_run(result)
    if result.frame_weights is not None:
        yield from weights_shown(result.frame_weights)
    yield from result.notes


def _listed(planned: "DryRun") -> Iterator[RenderableType]:
    from ...sweep.text import dry_parts, waiting

    yield planned.title
    for number, part in enumerate(dry_parts(planned)):
        if number:
            yield ""
        if part.heading:
            yield part.heading
        yield table(*part.columns, rows=part.lines)
    time = "no run is finished yet, so nothing is known of the time" if planned.seconds is None else ""
    if planned.seconds is not None:
        time = f"some {duration(planned.seconds)}, if they take as long as those that are finished"
    left = f"{planned.left} of {counted(planned.total, 'run is', 'runs are')} left"
    yield f"{left}: {time}" if planned.left else left
    yield from waiting(planned)
    yield from planned.notes


def write(result: object, shown: Iterable[RenderableType], out: Path) -> None:
    """A result to a file: JSON, or else Markdown; what is no table of a sweep as it is shown."""
    from ....cache.storage.publish import publish
    from ...sweep.table import SweepResult
    from ...sweep.text import markdown

    if out.suffix == ".json":
        text = document(result)
    elif isinstance(result, SweepResult) and result.frame_weights is None:
        text = markdown(result)
    else:
        text = f"```\n{plain(shown)}```\n"
    publish(out, text.encode())
