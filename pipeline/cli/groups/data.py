"""`teachclip data`: what a data set comes to, before anything is made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....errors import ConfigError
from ....plurals import counted
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ....stages.data.check import DataCheck, UnlabelledCheck

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check captions and videos before use.")

CHECK_EXAMPLES = examples(
    "teachclip data check own_videos.yaml",
    "teachclip data check own_videos.yaml --decode 50 --json",
    "teachclip data check own_videos.yaml --allow-missing 0",
    "teachclip data check own_videos.yaml --set data.set=msvd --set data.splits=[test]",
)
Decode = Annotated[
    str | None,
    typer.Option("--decode", metavar="N|all", help="Decode N videos, or all; by default ask the frame cache."),
]


Missing = Annotated[
    float,
    typer.Option(
        "--allow-missing",
        metavar="PERCENT",
        min=0,
        max=100,
        help="Of a split's videos, so many may have no file or be damaged; with more it ends with 1.",
    ),
]


@app.command(epilog=CHECK_EXAMPLES)
def check(
    config: ConfigFile,
    decode: Decode = None,
    missing: Missing = 50.0,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Count videos and texts per split beside the paper's, and say what is missing, damaged or in two splits.

    Published data sets are read from the files they come as; those that are not there are listed with where they come
    from. Writes nothing.

    Ends with exit code 1 when the data cannot be used: captions that are refused, no video at all, or a split of which
    more than half has no file or is damaged (another share by --allow-missing; 0 for a set that must be whole). A few
    missing videos are no failure, as published sets lose some; what is only odd is a warning.
    """
    with running("data", json, quiet, debug, config, sets) as output:
        wanted = _wanted(decode)
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.data.check import check_data

        found = check_data(settings, wanted, output, missing)
        output.result(found, *_shown(found))
        if found.refused:
            output.failure("error", (f"this data cannot be used: {found.refused}",), _hint(found), None)
            raise typer.Exit(1)


def _wanted(decode: str | None) -> int | None:
    if decode == "all":
        return None
    if decode is None:
        return 0
    if not decode.isdecimal() or int(decode) == 0:
        raise ConfigError(f"--decode takes a number or all, not {decode!r}", hint="for example --decode 50")
    return int(decode)


def _hint(found: "DataCheck") -> str:
    if found.wanted and Path(found.annotations).is_file():
        return "data.annotations names the folder of these files, not one of them."
    if found.wanted:
        return f"Put these files into {found.annotations}; teachclip docs guide/data says more."
    if found.problem_count or any(split.failed for split in found.splits):
        return "Correct these files, or get them again; teachclip docs guide/data says what they look like."
    return "data.videos names the folder of the videos."


def _shown(found: "DataCheck") -> Iterator[RenderableType]:
    yield facts(
        ("data set", found.title),
        ("annotations", found.annotations),
        ("videos", found.videos),
        ("validation", found.validation or "-"),
    )
    yield table(
        *("split", "videos", "paper", "texts", "paper", "on disk", "prepared", "read from"),
        rows=[
            (
                split.split,
                split.videos,
                _or_dash(split.paper.videos if split.paper else None),
                split.texts,
                _or_dash(split.paper.texts if split.paper else None),
                split.on_disk,
                _or_dash(split.prepared),
                f"cannot be read: {split.failed}" if split.failed else ", ".join(split.files),
            )
            for split in found.splits
        ],
    )
    if found.unlabelled is not None:
        yield _without_captions(found.unlabelled)
    yield from (f"differs: {warning}" for warning in found.warnings)
    yield from _listed(counted(found.problem_count, "problem"), found.problem_count, found.problems)
    yield from _listed(
        counted(found.missing_count, "video has no file", "videos have no file"), found.missing_count, found.missing
    )
    if found.looked_at:
        lines = [f"{status.video}: {status.status}, {status.reason}" for status in found.undecodable]
        yield f"{found.looked_at}: {found.undecodable_count or 'none'} cannot be used"
        yield from (f"  {line}" for line in lines)
    for pair, count in found.same_captions.items():
        one, other = pair.split(", ")
        texts = counted(count, f"text of {other} is a text", f"texts of {other} are texts")
        yield f"in two splits: {texts} of {one}, too"
    same = "of videos in two splits with the same frames"
    pairs = [f"{one} and {other}" for one, other in found.same_frames]
    yield from _listed(
        counted(found.same_frames_count, f"pair {same}", f"pairs {same}"), found.same_frames_count, pairs
    )
    for wanted in found.wanted:
        yield f"to get: {' or '.join(wanted.names)}, for {', '.join(wanted.splits)}, from {wanted.origin}"
    if found.home and (found.wanted or found.missing_count):
        yield f"the data set's own page: {found.home}"


def _without_captions(found: "UnlabelledCheck") -> str:
    prepared = "" if found.prepared is None else f", {found.prepared:,} prepared"
    left_out = f"; {found.captioned:,} have the frames of captioned videos and are left out" if found.captioned else ""
    return f"training videos without captions: {found.videos:,}, {found.on_disk:,} on disk{prepared}{left_out}"


def _or_dash(number: int | None) -> int | str:
    return "-" if number is None else number


def _listed(what: str, count: int, lines: tuple[str, ...] | list[str]) -> Iterator[str]:
    if count:
        yield f"{what}{f', the first {len(lines)}' if count > len(lines) else ''}:"
        yield from (f"  {line}" for line in lines)
