"""`teachclip cache report`: what the teachers in a store know, from their scores alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from .....plurals import counted
from ....wording import duration
from ...shell.paths import out_file, store_to_read
from ...shell.running import AsJson, Debug, Overrides, Quiet, examples, load_config, running
from ...shell.tables import facts, table

if TYPE_CHECKING:
    from .....stages.analysis.report_card import ReportCard

EXAMPLES = examples(
    "teachclip cache report work/scores.zarr",
    "teachclip cache report work/scores.zarr --captions own_videos.yaml --out teachers.html",
)
SHOWN = 10
CUT = 60


def report(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="A score store: a folder, or s3://, gs://, https:// where one lies.",
            callback=store_to_read,
        ),
    ],
    captions: Annotated[
        Path | None,
        typer.Option(
            "--captions",
            metavar="CONFIG",
            help="Show the captions of this configuration, and say whether the teachers are any good for them.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE", help="Write an HTML page, too.")] = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Report what teachers know, where they agree, and which captions they doubt; from the scores alone.

    Ranks are of the captions that were scored, as a rule the training set. With several teachers it suggests weights
    for them, by a rule of teachclip's own. No network is loaded.

    With --captions it says whether each teacher is any good for that data: how it ranks captions of the validation
    split, where these are scored (`score.splits: [train, val]`), beside the student alone.
    """
    with running("cache", json, quiet, debug, captions, sets) as output:
        out_file(out)
        settings = None if captions is None else load_config(captions, sets or ())
        with output.waiting("loading"):
            from .....cache.scores.store import ScoreStore
            from .....stages.analysis.report_card import report_card
            from .....stages.data.dataset import read_dataset
            from ....report.page.teacher_card import write_card

        asked = None if settings is None else (settings, read_dataset(settings.data))
        texts = {text.id: text.caption for text in asked[1].texts} if asked else {}
        card = report_card(ScoreStore.open(store), texts, output, asked)
        if out is not None:
            write_card(card, out)
        output.result(card, *_shown(card, out))


def _shown(card: "ReportCard", out: Path | None) -> Iterator[RenderableType]:
    from ....report.page.teacher_card import RULE, weights_options
    from ....report.page.teacher_worth import told

    yield f"{card.store}: {counted(card.texts, 'caption')}, {counted(card.videos, 'video')}; {duration(card.seconds)}"
    yield table("teacher", "captions", *METRICS, "v2t R@1", "v2t SumR", "normalised rank", rows=_ranks(card))
    late = [
        f"{each.teacher}: {counted(each.left_out, 'caption is', 'captions are')} not scored yet"
        for each in card.teachers
        if each.left_out
    ]
    yield from late
    if card.worth is not None:
        yield from told(card.worth)
    if card.agreement:
        heads = ("agreement", "captions", "correlation", "same first video", "of the first ten")
        yield table(*heads, rows=_agreement(card))
    flat = [
        (each.teacher, *(f"{value:.4f}" for value in (flatness.mean, flatness.quantiles[5], flatness.quantiles[95])))
        for each in card.teachers
        if (flatness := each.flatness) is not None
    ]
    if flat:
        yield table("flatness of y_f (1: flat)", "mean", "5% below", "95% below", rows=flat)
    yield from _doubtful(card)
    if card.weights is not None:
        yield f"suggested weights: {weights_options(card.weights)}"
        yield RULE
    if out is not None:
        yield facts(("page", out))


METRICS = ("R@1", "R@5", "R@10", "SumR", "MdR", "MnR")


def _ranks(card: "ReportCard") -> Iterator[tuple[object, ...]]:
    for each in card.teachers:
        found = each.t2v
        cells = (found.r1, found.r5, found.r10, found.sumr, found.mdr, found.mnr) if found else ("-",) * 6
        back = (each.v2t.r1, each.v2t.sumr) if each.v2t else ("-", "-")
        yield each.teacher, f"{each.texts:,}", *cells, *back, _number(each.normalised, ".4f")


def _agreement(card: "ReportCard") -> Iterator[tuple[object, ...]]:
    for each in card.agreement:
        shares = (_number(None if share is None else 100 * share, ".1f") for share in (each.same_first, each.top10))
        yield (
            f"{each.first}, {each.second}",
            f"{each.texts:,}",
            _number(each.pearson, ".3f"),
            *(f"{s}%" for s in shares),
        )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _doubtful(card: "ReportCard") -> Iterator[RenderableType]:
    if not card.doubtful:
        return
    yield "captions whose own video ranks worst (mislabelled?):"
    rows = []
    for each in card.doubtful[:SHOWN]:
        worst = max(each.teachers, key=lambda one: one.rank / one.candidates)
        ranks = ", ".join(f"{one.rank:g}" for one in each.teachers)
        text = [] if each.caption is None else [_cut(each.caption)]
        rows.append((each.id, ranks, worst.candidates, worst.instead or "-", *text))
    heads = ("caption", "rank by each", "among", "first instead", "text")
    widest = max(map(len, rows))
    yield table(*heads[:widest], rows=[(*row, *[""] * (widest - len(row))) for row in rows])
    if card.other_captions:
        yield (
            f"{counted(card.other_captions, 'caption has', 'captions have')} "
            "changed since they were scored; their text is not shown"
        )


def _cut(caption: str) -> str:
    return caption if len(caption) <= CUT else f"{caption[: CUT - 1]}…"
