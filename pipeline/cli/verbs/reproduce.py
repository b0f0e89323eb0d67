"""`teachclip reproduce`: the paper's tables."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....errors import ConfigError
from ....stages.runtime.stopping import StopRequest
from ..shell.output import Output
from ..shell.paths import out_file
from ..shell.running import AsJson, Debug, Overrides, Quiet, examples, running
from ..shell.tables import table
from .sweep import Dry, Out, Partial, Seeds, Tests, go, shown, write

if TYPE_CHECKING:
    from ....configs.sweeps import Sweep
    from ...sweep.paper import Ground
    from ...sweep.set_sizes import SizesTable

EXAMPLES = examples(
    "teachclip reproduce table5 --on demo",
    "teachclip reproduce table3 own_videos.yaml --seeds 3 --out table3.md",
    "teachclip reproduce table6 own_videos.yaml --test other.yaml",
    "teachclip reproduce table7 msrvtt.yaml msvd.yaml --dry-run",
    "teachclip reproduce teachtext msvd.yaml --seeds 3",
    "teachclip reproduce table1",
)


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1 to table7, figure1 or figure3; teachtext.")],
    config: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CONFIG]...",
            help="Your data set: a YAML file with its teachers; table2, table7 and teachtext take several.",
        ),
    ] = None,
    on: Annotated[
        Path | None, typer.Option("--on", metavar="demo", help="On the demo's rendered clips: the demo's folder.")
    ] = None,
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
    """Run one of the paper's tables, and print its numbers beside ours; `teachtext` is TeachText's own table.

    On your data set: frames and the teachers' scores must be there (teachclip prepare, teachclip score). On the demo
    (--on demo) clips, teachers and scores are made first; that shows the machinery, not the paper's effect. Without
    either, table1 counts costs alone. What is finished is only read; stopped and given again, it goes on.
    """
    stop = StopRequest()
    paths = config or []
    only = paths[0] if len(paths) == 1 else None
    with running("reproduce", json, quiet, debug, only, sets, stop) as output:
        out_file(out)
        if Path(table).is_file():
            swapped = shlex.join(["teachclip", "reproduce", str(paths[0]) if paths else "table5", table])
            raise ConfigError("this is a file, no table", where=table, hint=f"TABLE comes first: {swapped}")
        with output.waiting("loading"):
            from ...sweep import paper as tables_of

        read = tables_of.table(table)
        counting = read.settings.show == "cost" and not paths and on is None
        if not counting:
            _refuse(table, read, paths, on, tests)
        if counting:
            _costs(output, read, out)
        elif on is None:
            grounds = tables_of.grounds(read, paths, sets or (), tables_of.named_tests(tests or ()))
            _go(output, read, grounds, stop, seeds, partial, dry_run, out)
        elif dry_run:
            ground = tables_of.demo_unmade(read, on, sets or ())
            _go(output, read, [ground], stop, seeds, partial, dry_run, out, check=False)
        else:
            making = [each for each in sets or () if not each.startswith("train.")]
            ground = tables_of.demo_ground(read, on, output, sets or (), making)
            _go(output, read, [ground], stop, seeds, True, dry_run, out)  # the demo has not every teacher


def _refuse(table: str, read: "Sweep", paths: Sequence[Path], on: Path | None, tests: Sequence[Path] | None) -> None:
    """Say what is missing on the command line."""
    if read.settings.sees == "features" and not paths:
        demo = "" if on is None else "; the demo has no features of experts"
        raise ConfigError(
            f"{table} takes a configuration for each data set that is to be run{demo}",
            hint="teachclip docs guide/reproduce",
        )
    if bool(paths) == (on is not None):
        raise ConfigError("name your configuration, or --on demo, one of them", hint="teachclip docs guide/reproduce")
    if on is not None and on.name != "demo" and not on.is_dir():
        raise ConfigError(
            f"--on {on}: no such folder", hint=f"--on demo makes what is missing; or first: teachclip demo {on}"
        )
    if read.settings.elsewhere and on is None and not tests:
        raise ConfigError(
            f"{table} measures networks on other data sets, and none is named",
            hint=f"teachclip reproduce {table} {paths[0]} --test OTHER.yaml",
        )


def _go(
    output: Output,
    read: "Sweep",
    grounds: "Sequence[Ground]",
    stop: StopRequest,
    seeds: int | None,
    partial: bool,
    dry_run: bool,
    out: Path | None,
    check: bool = True,
) -> None:
    if read.settings.show == "data":
        _sizes(output, read, grounds, out)
        return
    go(
        output, read, grounds, stop,
        seeds=seeds, partial=partial, dry_run=dry_run, out=out, packaged=True, check=check,
    )  # fmt: skip


def _costs(output: Output, read: "Sweep", out: Path | None) -> None:
    """What the paper's networks cost, at its sizes; nothing is run."""
    from ...sweep.plan import plan_sweep
    from ...sweep.table import joined, make_table

    note = "Ours of quality are measured on a data set: name your configuration, or --on demo."
    result = joined(read, [make_table(plan_sweep(read, None, check=False), [], [note])])
    if out is not None:
        write(result, shown(result), out)
    output.result(result, *shown(result))


def _sizes(output: Output, read: "Sweep", grounds: "Sequence[Ground]", out: Path | None) -> None:
    """Table 2.

    Raises:
        typer.Exit: a split cannot be read.
    """
    from ...sweep.set_sizes import set_sizes

    result = set_sizes(read, grounds, output)
    if out is not None:
        write(result, _shown_sizes(result), out)
    output.result(result, *_shown_sizes(result))
    if any(each.failed for each in result.sets):
        raise typer.Exit(1)


def _shown_sizes(result: "SizesTable") -> Iterator[RenderableType]:
    from ...sweep.set_sizes import findings, part

    text = part(result)
    yield result.title
    yield table(*text.columns, rows=text.lines)
    yield "diff: ours minus the paper's"
    yield from (f"! {line}" for line in findings(result))
    yield from result.notes
