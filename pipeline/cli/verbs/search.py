"""`teachclip search`: sentences -> videos."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import table

if TYPE_CHECKING:
    from ....stages.search.searcher import SearchResult

Queries = Annotated[list[str], typer.Argument(metavar="QUERY...", help="Sentences, each in quotes.")]

EXAMPLES = examples(
    'teachclip search own_videos.yaml "a dog runs on the beach"',
    'teachclip search own_videos.yaml "a man cooks" "two teams play football" --set search.top=3',
    'teachclip search own_videos.yaml "a child laughs" --json --quiet',
)


def search(
    config: ConfigFile,
    queries: Queries,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the videos that sentences describe.

    Videos of the frame cache that have no vector yet, or another model's, are encoded first; that happens once.
    """
    with running("search", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.search.stage import search as run

        result = run(settings, queries, output)
        output.result(result, *answered(result))


def answered(result: "SearchResult") -> Iterator[RenderableType]:
    """Each sentence and its videos."""
    for found in result.queries:
        yield f'"{found.query}"'
        rows = [(answer.rank, f"{answer.cosine:.3f}", answer.path) for answer in found.answers]
        yield table("rank", "cosine", "video", rows=rows)
