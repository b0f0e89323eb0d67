"""`teachclip demo`: the whole chain on clips it renders itself."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....plurals import counted
from ...wording import duration
from ..shell.running import AsJson, Debug, Quiet, examples, running
from ..shell.tables import facts, table
from .search import answered

if TYPE_CHECKING:
    from ...demo.chain import DemoResult

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Everything the demo makes goes here.")]

EXAMPLES = examples("teachclip demo", "teachclip demo my-demo --quiet")

METRICS = {"R@1": "r1", "R@5": "r5", "R@10": "r10", "SumR": "sumr", "MdR": "mdr"}
OWN_VIDEOS = """
Your own videos: name them in captions.csv, first line `video,caption`, then a line for each caption. Then
    teachclip config template > own_videos.yaml
    teachclip prepare own_videos.yaml
    teachclip train own_videos.yaml
    teachclip search own_videos.yaml "a dog runs on the beach\""""


def demo(folder: Folder = Path("demo"), json: AsJson = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Show the whole chain on clips that it renders.

    It renders clips as video files, prepares them, trains a teacher on other people's and scores one's own with it,
    trains students without and with teaching, compares all on clips that none has seen, writes a page and searches.
    This takes some five minutes on two cores. Given again, it goes on where it was and shows what it has.
    """
    with running("demo", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ...demo.chain import run_demo

        result = run_demo(folder, output)
        output.result(result, *_shown(result))


def _shown(result: "DemoResult") -> Iterator[RenderableType]:
    queries = result.models[0].t2v["queries"]
    yield f"Text to video, {counted(queries, 'caption')} of clips that no model has seen:"
    rows = [
        (model.name, *(float(model.t2v[key]) for key in METRICS.values()), float(model.v2t["sumr"]))
        for model in result.models
    ]
    yield table("", *METRICS, "SumR v2t", rows=rows)
    yield from answered(result.searches)
    ask = f'teachclip search {shlex.quote(result.settings)} "a blue box goes down"'
    yield facts(("report", result.report), ("ask more", ask), ("took", duration(result.seconds)))
    yield OWN_VIDEOS
