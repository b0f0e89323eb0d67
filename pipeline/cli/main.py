"""The `teachclip` command. Nothing heavy is imported before a verb's configuration has been read."""

import io
import os
import sys
from typing import Annotated

import typer

from ... import __version__
from ...stages.runtime.cores import cores
from . import docs, export, export_model, features, index, push, serve
from .groups import checkpoint, config, data, encode
from .groups.cache import verbs as cache
from .shell.options import Verbs
from .shell.running import examples, not_printed
from .verbs import cost, demo, denoise, evaluate, prepare, report, reproduce, score, search, sweep, train, weights

app = typer.Typer(
    name="teachclip", cls=Verbs, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"teachclip {__version__}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "teachclip demo",
        "teachclip config template > own_videos.yaml",
        "teachclip prepare own_videos.yaml --estimate",
    )
)
def teachclip(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text-to-video retrieval: cached teacher scores train a student that stores one vector per video.

    In order: prepare (videos -> frames), score (teachers -> soft labels), train, evaluate, search. A verb that is
    stopped and given again goes on where it was; what is finished is not done twice. `teachclip docs` shows the pages
    that texts call docs/...
    """


app.command(epilog=demo.EXAMPLES)(demo.demo)
app.command(epilog=prepare.EXAMPLES)(prepare.prepare)
app.command(epilog=features.EXAMPLES)(features.features)
app.command(epilog=score.EXAMPLES)(score.score)
app.command(epilog=denoise.EXAMPLES)(denoise.denoise)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=index.EXAMPLES)(index.index)
app.command(epilog=search.EXAMPLES, cls=search.WithSentences)(search.search)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=export.EXAMPLES)(export.export)
app.command("export-model", epilog=export_model.EXAMPLES)(export_model.export_model)
app.command(epilog=push.EXAMPLES)(push.push)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.command(epilog=sweep.EXAMPLES)(sweep.sweep)
app.command(epilog=cost.EXAMPLES)(cost.cost)
app.command(epilog=weights.EXAMPLES)(weights.weights)
app.command(epilog=docs.EXAMPLES)(docs.docs)
app.add_typer(encode.app, name="encode")
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.add_typer(checkpoint.app, name="checkpoint")


def main() -> None:
    """The console script."""
    _share_the_machine()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except OSError as error:  # what no verb prints: help, the version
        sys.exit(not_printed(error))


def _share_the_machine() -> None:
    """Before torch is loaded, which reads it once; what the user has set stays."""
    # Threads that spin while they wait make two cores slower than one where somebody else is at work, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if cores() < len(os.sched_getaffinity(0)):  # a container's quota, of which torch does not know
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
