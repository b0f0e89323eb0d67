"""`teachclip reproduce`: the paper's tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....configs.loading import load_config
from ....errors import ConfigError
from ....stages.runtime.stopping import StopRequest
from ..shell.output import Output
from ..shell.running import AsJson, Debug, Overrides, Quiet, examples, running
from .cost import shown
from .sweep import Dry, Out, Partial, Seeds, Tests, go, write

if TYPE_CHECKING:
    from ...sweep.paper import Ground

EXAMPLES = examples(
    "teachclip reproduce table5 --on demo",
    "teachclip reproduce table3 own_videos.yaml --seeds 3 --out table3.md",
    "teachclip reproduce table6 own_videos.yaml --test other.yaml",
    "teachclip reproduce table4 own_videos.yaml --dry-run",
)


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table3 to table7, figure1 or figure3.")],
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Your data set: a YAML file with its teachers.")
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
    """Run one of the paper's tables, and print its numbers beside ours.

    On your data set: frames and the teachers' scores must be there (teachclip prepare, teachclip score). On the demo
    (--on demo) clips, teachers and scores are made first; that shows the machinery, not the paper's effect. What is
    finished is only read; stopped and given again, it goes on.
    """
    stop = StopRequest()
    with running("reproduce", json, quiet, debug, config, sets, stop) as output:
        if (config is None) == (on is None):
            raise ConfigError("name your configuration, or --on demo, one of them", hint="docs/guide/reproduce.md")
        if on is not None and on.name != "demo" and not on.is_dir():
            raise ConfigError(
                f"--on {on}: no such folder", hint=f"--on demo makes what is missing; or first: teachclip demo {on}"
            )
        with output.waiting("loading"):
            from ...sweep import paper as tables_of

        read = tables_of.table(table)
        if read.settings.elsewhere and on is None and not tests:
            raise ConfigError(
                f"{table} measures students on other data sets, and none is named",
                hint=f"teachclip reproduce {table} {config} --test OTHER.yaml",
            )
        if on is None:
            assert config is not None
            ground = tables_of.Ground(config, tuple(sets or ()), tables_of.named_tests(tests or ()))
        elif dry_run:
            ground = tables_of.demo_unmade(on, sets or ())
        else:
            making = [each for each in sets or () if not each.startswith("train.")]
            ground = tables_of.demo_ground(read, on, output, sets or (), making)
        if not read.rows:
            _cost(output, ground, out)
            return
        check = on is None or not dry_run
        go(
            output,
            read,
            ground,
            stop,
            seeds=seeds,
            partial=partial,
            dry_run=dry_run,
            out=out,
            packaged=True,
            check=check,
        )


def _cost(output: Output, ground: "Ground", out: Path | None) -> None:
    from ....stages.analysis.cost.table import cost

    report = cost(load_config(ground.base, ground.overrides), reporter=output)
    if out is not None:
        write(report, shown(report), out)
    output.result(report, *shown(report), *ground.notes)
