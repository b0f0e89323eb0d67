"""`teachclip search`: sentences, or videos -> videos."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from typer.core import TyperCommand

from ....errors import ConfigError
from ....plurals import counted
from ....remedies import IndexVideos, Remedy
from ...wording import found_of_ten
from ..asking import ask_at_terminal, at_terminal, only_sentences, refuse_swapped, remark_on_words
from ..shell.options import refuse_options, told_as_setting
from ..shell.output import Output
from ..shell.paths import settings_inside
from ..shell.remedies import Given, joined
from ..shell.running import AsJson, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import table

if TYPE_CHECKING:
    from ....configs.schema import Config
    from ....stages.search.index_search import IndexSearched, VideoFound, WindowFound
    from ....stages.search.questions import Question
    from ....stages.search.searcher import SearchResult

Where = Annotated[
    Path,
    typer.Argument(
        metavar="INDEX|CONFIG",
        help="A folder that `teachclip index` filled, a demo's folder, or a YAML file, for its frame cache.",
    ),
]
Top = Annotated[
    int | None, typer.Option("--top", min=1, help="Videos per sentence, by default 5; search.top of a CONFIG.")
]
Under = Annotated[
    str | None, typer.Option("--under", metavar="PATH", help="Of an index: only videos in this folder, at any depth.")
]
Tag = Annotated[str | None, typer.Option("--tag", help="Of an index: only videos that have this tag.")]
Windows = Annotated[
    bool, typer.Option("--windows", help="Of an index: every window of a video that was found, not its best alone.")
]
Named = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Of an index: its model, where that lies elsewhere now or is not the one that it had last.",
    ),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        metavar="TEACHER",
        help="Let a teacher re-order the 100 nearest: a run, a checkpoint, of a CONFIG also a name in score.teachers.",
    ),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like", metavar="ID", help="Of an index: videos like a window, by an answer's id or the path of its video."
    ),
]
Queries = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUERY]...",
        help="Sentences, each in quotes; @FILE or - for one a line; of an index, also a video. On a terminal they are "
        "asked for where none is given.",
    ),
]

SHOWN = 5
TOP = 5

EXAMPLES = examples(
    'teachclip search index/ "a dog runs on the beach"',
    'teachclip search index/ "a child laughs" --under holidays/2019 --top 20 --windows',
    'teachclip search index/ "a child laughs" --rerank runs/teacher',
    "teachclip search index/ @sentences.txt --json --quiet",
    "teachclip search index/ --like 42",
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
                where = next((each for each in args if not each.startswith("-")), "CONFIG")
                ask = joined(["teachclip", "search", where, "--", word])
                ctx.fail(f"no such option: {name}{meant} A sentence that begins so comes last, behind --: {ask}")
        return super().parse_args(ctx, args)


def search(
    context: typer.Context,
    where: Where,
    queries: Queries = None,
    top: Top = None,
    under: Under = None,
    tag: Tag = None,
    windows: Windows = False,
    like: Like = None,
    model: Named = None,
    rerank: Rerank = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the videos that sentences describe, or that are like a video.

    Of an index, a video's best window is told, and the second in it to look at first. Of a CONFIG, videos of the frame
    cache that have no vector yet, or another model's, are encoded first; that happens once. Videos that have no file
    any more, or that the data no longer names, are no answers. A teacher that re-orders them encodes the candidates of
    a sentence, each video once; of an index it decodes their best windows, each once.
    """
    words = queries or []
    asks = not words and like is None
    if asks and (json or not at_terminal()):
        context.fail("Missing argument 'QUERY...': a sentence in quotes, @FILE or - for one a line, or --like ID.")
    where = settings_inside(where)
    with running("search", json, quiet, debug, where, sets) as output:
        refuse_swapped(where, words)
        _refuse_absent(where)
        if where.is_dir() and _is_index(where):
            refuse_options({"--set": sets or None}, where, *OF_CONFIG)
            options = {"top": top or TOP, "under": under, "tag": tag, "windows": windows}
            _ask_index(where, words, output, model, like, rerank, options)
        else:
            settings = _settings(where, [*(sets or ()), *([f"search.top={top}"] if top else [])])
            given = {"--under": under, "--tag": tag, "--windows": windows or None, "--like": like, "--model": model}
            refuse_options(given, where, *OF_INDEX)
            _ask_frames(settings, words, output, rerank, Given(where, sets or ()))
        remark_on_words(output, where, words)


def _refuse_absent(where: Path) -> None:
    """Refuse a name of nothing that may have been meant for an index; a sentence or configuration is told elsewhere."""
    if where.exists() or where.suffix in (".yaml", ".yml"):
        return
    from ....configs.loading.messages import nearest

    near = nearest(where.name, [path.name for path in where.parent.glob("*") if _is_index(path)])
    if not near and (" " in where.name or any(where.parent.glob("*.y*ml"))):
        return
    hint = Remedy("make an index", IndexVideos(str(where)))
    raise ConfigError(f"there is neither an index nor a configuration{near}", where=str(where), hint=hint)


def _ask_index(
    folder: Path,
    words: Sequence[str],
    output: Output,
    model: str | None,
    like: str | None,
    rerank: str | None,
    options: Mapping[str, Any],
) -> None:
    from ....stages.search.questions import questions

    asked = questions(words)
    with output.waiting("loading"):
        from ....stages.search.index_search import IndexSearcher, search_index
        from ....stages.search.serving.open_index import Filters

    top, windows = options["top"], options["windows"]
    filters = Filters(options["under"], tag=options["tag"])
    if words or like is not None:
        found = search_index(
            folder, asked, top, filters, like=like, model=model, windows=windows, rerank=rerank, reporter=output
        )
        output.result(found, *_of_index(found))
        return

    def shown(more: "list[Question]") -> Iterator[RenderableType]:
        return _of_index(searcher.search(more, top, filters, windows=windows, reporter=output))

    with IndexSearcher.open(folder, model, rerank=rerank, reporter=output) as searcher:
        searcher.refuse_lacking()
        ask_at_terminal(output, shown, Given())


def _ask_frames(settings: "Config", words: Sequence[str], output: Output, rerank: str | None, given: Given) -> None:
    from ....stages.search.questions import questions

    asked = only_sentences(questions(words))
    with output.waiting("loading"):
        from ....stages.search.rerank import Reranker
        from ....stages.search.stage import open_searcher
        from ....stages.search.stage import search as run

    def shown(result: "SearchResult") -> Iterator[RenderableType]:
        yield from answered(result)
        yield from _left_out(result, given)

    if words:
        result = run(settings, asked, output, rerank)
        output.result(result, *shown(result))
        return
    teacher, top = None if rerank is None else Reranker.open(settings, rerank, output), settings.search.top
    with open_searcher(settings, output) as searcher:
        ask_at_terminal(output, lambda more: shown(searcher.search(only_sentences(more), top, output, teacher)), given)


OF_CONFIG = ("for a CONFIG, not for an index", "leave it away, or name the CONFIG of prepared videos")
OF_INDEX = ("for an index, not for a CONFIG", "leave it away, or name the folder that teachclip index filled")


def _is_index(folder: Path) -> bool:
    from ....cache.library.database import is_library

    return is_library(folder)


def _settings(where: Path, sets: Sequence[str]) -> "Config":
    """The configuration; a folder that is something else is told how it becomes an index."""
    try:
        return load_config(where, sets)
    except ConfigError as error:
        if not where.is_dir() or not error.what.startswith("this is a folder"):
            raise
        command = joined(["teachclip", "index", str(where), "--model", "MODEL", "--out", "index"])
        hint = f"if it holds videos, make an index of them, and search that: {command}"
        raise ConfigError(f"{error.what}, and no index lies here", where=error.where, hint=hint) from None


def _of_index(result: "IndexSearched") -> Iterator[RenderableType]:
    """Each sentence, its videos and when they show it."""
    from ....stages.search.serving.nothing_fits import NOTHING_FITS

    for found in result.queries:
        yield f'"{found.query}"' if found.by == "sentence" else f"like {found.query}"
        if not found.answers:
            yield "no video of the index fits"
            continue
        teacher = [] if result.rerank_seconds is None else ["teacher"]
        rows = [row for answer in found.answers for row in _rows(answer, bool(teacher))]
        yield table("rank", *teacher, "cosine", "id", "window", "look at", "video", rows=rows)
        if found.fits is False:
            yield NOTHING_FITS
    if result.recall is not None:
        yield f"searched {result.windows:,} windows {found_of_ten(result.recall)}"


def _rows(answer: "VideoFound", teacher: bool) -> Iterator[tuple[object, ...]]:
    """A row of each window, the best first, or of that alone; the teacher's score is of the best."""
    score = [_score(answer.teacher)] if teacher else []
    for window in answer.windows or (answer,):
        yield (answer.rank, *score, f"{window.cosine:.3f}", window.id, *_when(window), answer.path)
        score = [""] if teacher else []


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def _when(window: "WindowFound") -> tuple[str, str]:
    return f"{_clock(window.start)} to {_clock(window.stop)}", _clock(window.second)


def _clock(seconds: float) -> str:
    """`1:02`, `1:00:05`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def answered(result: "SearchResult") -> Iterator[RenderableType]:
    """Each sentence and its videos."""
    for found in result.queries:
        yield f'"{found.query}"'
        if result.rerank_seconds is None:
            rows = [(answer.rank, f"{answer.cosine:.3f}", answer.path) for answer in found.answers]
            yield table("rank", "cosine", "video", rows=rows)
            continue
        both = [(one.rank, _score(one.teacher), f"{one.cosine:.3f}", one.path) for one in found.answers]
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
