"""`teachclip search`: sentences -> videos."""

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from typer.core import TyperCommand

from ....plurals import counted
from ..shell.options import told_as_setting
from ..shell.remedies import Given, joined
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import table

if TYPE_CHECKING:
    from ....stages.search.searcher import SearchResult

Rerank = Annotated[
    str | None,
    typer.Option(
        metavar="TEACHER",
        help="Let a teacher re-order the 100 nearest: a name in score.teachers, a run folder or a checkpoint.",
    ),
]
Queries = Annotated[list[str], typer.Argument(metavar="QUERY...", help="Sentences, each in quotes.")]

SHOWN = 5

EXAMPLES = examples(
    'teachclip search own_videos.yaml "a dog runs on the beach"',
    'teachclip search own_videos.yaml "a man cooks" "two teams play football" --set search.top=3',
    'teachclip search own_videos.yaml "a child laughs" --rerank runs/teacher',
    'teachclip search own_videos.yaml "a child laughs" --json --quiet',
    'teachclip search own_videos.yaml -- "--a sentence that begins with dashes"',
)


class WithSentences(TyperCommand):
    """A command whose arguments may begin with a dash, as long as no option does so, too."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """As Typer's; what begins with two dashes is an option, unless it comes behind `--`."""
        ctx.ignore_unknown_options = True  # one dash: there are no short ones
        known = [name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("--")]
        for word in args[: args.index("--")] if "--" in args else args:
            name = word.partition("=")[0]
            if word.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                if " " not in name and (setting := told_as_setting(name, "search", bool(near))):
                    ctx.fail(f"no such option: {name}{setting}")
                meant = f", did you mean {near[0]}?" if near else "."
                config = next((each for each in args if not each.startswith("-")), "CONFIG")
                ask = joined(["teachclip", "search", config, "--", word])
                ctx.fail(f"no such option: {name}{meant} A sentence that begins so comes last, behind --: {ask}")
        return super().parse_args(ctx, args)


def search(
    config: ConfigFile,
    queries: Queries,
    rerank: Rerank = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the videos that sentences describe.

    Videos of the frame cache that have no vector yet, or another model's, are encoded first; that happens once. Those
    that the data no longer names, or that have no file any more, are no answers. A teacher that re-orders them
    encodes the candidates of a sentence, each video once.
    """
    with running("search", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.search.stage import search as run

        result = run(settings, queries, output, rerank)
        output.result(result, *answered(result), *_left_out(result, Given(config, sets or ())))


def answered(result: "SearchResult") -> Iterator[RenderableType]:
    """Each sentence and its videos."""
    for found in result.queries:
        yield f'"{found.query}"'
        if result.rerank_seconds is None:
            rows = [(answer.rank, f"{answer.cosine:.3f}", answer.path) for answer in found.answers]
            yield table("rank", "cosine", "video", rows=rows)
            continue
        both = [
            (one.rank, "-" if one.teacher is None else f"{one.teacher:.3f}", f"{one.cosine:.3f}", one.path)
            for one in found.answers
        ]
        yield table("rank", "teacher", "cosine", "video", rows=both)


def _left_out(result: "SearchResult", given: Given) -> Iterator[RenderableType]:
    """Nearer videos that are no answers, why, and what to do."""
    from ....stages.search.gone import MISSING, UNNAMED

    for unnamed, remedy in ((False, MISSING), (True, UNNAMED)):
        videos = [one.video for one in result.gone if one.unnamed == unnamed]
        if videos:
            more = f" and {len(videos) - SHOWN} more" if len(videos) > SHOWN else ""
            count = counted(len(videos), "nearer video is", "nearer videos are")
            yield f"{count} left out ({', '.join(videos[:SHOWN])}{more}): {given.tell(remedy)}"
