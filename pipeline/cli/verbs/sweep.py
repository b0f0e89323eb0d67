"""`teachclip sweep`: many students on one cache, one table."""

import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....configs.sweeps import MOST_SEEDS, Sweep, load_sweep
from ....errors import ConfigError, TeachclipError
from ....stages.runtime.stopping import StopRequest
from ...wording import duration
from ..shell.output import Output, document, plain, table
from ..shell.remedies import Given
from ..shell.running import AsJson, Debug, Overrides, Quiet, examples, running
from .weights import shown as weights_shown

if TYPE_CHECKING:
    from ...sweep.paper import Ground
    from ...sweep.plan import DryRun
    from ...sweep.table import SweepResult

Seeds = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", min=1, max=MOST_SEEDS, help="Runs of each row: train.seed and the next ones."),
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
        Path, typer.Argument(metavar="SWEEP", help="A YAML file: base, grid, runs; see docs/reproduce.md.")
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
        read = load_sweep(file)
        if read.base is None:
            raise ConfigError("base: is missing; it names the configuration that runs start from", where=str(file))
    stop = StopRequest()
    with running("sweep", json, quiet, debug, read.base, sets, stop) as output:
        with output.waiting("loading"):
            from ...sweep.paper import Ground, named_tests

        ground = Ground(read.base, tuple(sets or ()), named_tests([*read.settings.tests, *(tests or ())]))
        go(output, read, ground, stop, seeds=seeds, partial=partial, dry_run=dry_run, out=out)


def go(
    output: Output,
    read: Sweep,
    ground: "Ground",
    stop: StopRequest,
    *,
    seeds: int | None,
    partial: bool,
    dry_run: bool,
    out: Path | None,
    packaged: bool = False,
    check: bool = True,
) -> None:
    """Plan a sweep, and run it or only list it; `packaged` for a table of the paper's.

    Raises:
        typer.Exit: a run failed.
    """
    from ...sweep.plan import dry_run as look
    from ...sweep.plan import plan_sweep, refuse_unready
    from ...sweep.run import run_sweep, weigh_frames
    from ...sweep.table import make_table

    tell = Given(ground.base, ground.overrides).tell
    plan = plan_sweep(read, ground.base, ground.overrides, seeds=seeds, tests=ground.tests, check=check)
    if dry_run:
        planned = look(plan)
        output.result(planned, *_listed(planned))
        return
    if not partial:
        refuse_unready(plan, shlex.join(["teachclip", *sys.argv[1:], "--partial"]), tell)
    results = run_sweep(plan, output, stop, tell)
    result = make_table(plan, results, ground.notes, paper=packaged)
    problem = None
    if read.settings.show == "frame-weights":
        try:
            result = replace(result, frame_weights=weigh_frames(plan, results, output))
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
    from ...sweep.table import cells, columns, problems

    yield result.title
    yield table(*columns(result), rows=cells(result))
    yield "Text to video, in percent; mean ± sample deviation over seeds."
    yield from (f"! {line}" for line in problems(result))
    if result.frame_weights is not None:
        yield from weights_shown(result.frame_weights)
    yield from result.notes


def _listed(planned: "DryRun") -> Iterator[RenderableType]:
    rows = [
        (run.label, "-" if run.seed is None else str(run.seed), run.state, run.problem or "") for run in planned.runs
    ]
    yield table("run", "seed", "state", "", rows=rows)
    time = "no run is finished yet, so nothing is known of the time" if planned.seconds is None else ""
    if planned.seconds is not None:
        time = f"some {duration(planned.seconds)}, if they take as long as those that are finished"
    yield f"{planned.left} of {len(planned.runs)} runs are left" + (f": {time}" if planned.left else "")


def write(result: object, shown: Iterable[RenderableType], out: Path) -> None:
    """A result to a file: JSON, or else Markdown; what is no table of a sweep as it is shown."""
    from ....cache.storage.publish import publish
    from ...sweep.table import SweepResult, markdown

    if out.suffix == ".json":
        text = document(result)
    elif isinstance(result, SweepResult) and result.frame_weights is None:
        text = markdown(result)
    else:
        text = f"```\n{plain(shown)}```\n"
    publish(out, text.encode())
