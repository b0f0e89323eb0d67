"""`teachclip demo`: the whole chain on clips it renders itself."""

from pathlib import Path
from typing import Annotated

import typer

from .running import AsJson, Debug, Quiet, examples, running

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Everything the demo makes goes here.")]

EXAMPLES = examples("teachclip demo", "teachclip demo my-demo --quiet")


def demo(folder: Folder = Path("demo"), json: AsJson = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Show the whole chain on clips that it renders.

    It renders captioned clips as video files, prepares them, trains a small teacher and scores with it, trains
    students without and with teaching, compares all on clips that none has seen, writes a report page and searches.
    This takes some minutes on two cores. Given again, it goes on where it was and shows what it has.
    """
    with running("demo", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ..demo import run_demo

        output.result(run_demo(folder, output))
