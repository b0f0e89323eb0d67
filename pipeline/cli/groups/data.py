"""`teachclip data`: what a data set comes to, before anything is made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....errors import ConfigError
from ..shell.output import facts, table
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running

if TYPE_CHECKING:
    from ....stages.data.check import DataCheck, UnlabelledCheck

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check captions and videos before use.")

CHECK_EXAMPLES = examples(
    "teachclip data check own_videos.yaml",
    "teachclip data check own_videos.yaml --decode 50 --json",
    "teachclip data check own_videos.yaml --set data.set=msvd --set data.splits=[test]",
)
Decode = Annotated[
    str | None,
    typer.Option("--decode", metavar="N|all", help="Decode N videos, or all; by default ask the frame cache."),
]


@app.command(epilog=CHECK_EXAMPLES)
def check(
    config: ConfigFile,
    decode: Decode = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Count videos and texts per split beside the paper's, and say what is missing, damaged or in two splits.

    Published data sets are read from the files they come as; those that are not there are listed with where they come
    from. Ends with exit code 1 when the data cannot be used; what is only odd is a warning. Writes nothing.
    """
    with running("data", json, quiet, debug, config, sets) as output:
        wanted = _wanted(decode)
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.data.check import check_data

        found = check_data(settings, wanted, output)
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
        return f"Put these files into {found.annotations}; docs/guide/data.md says more."
    if found.problem_count or any(split.failed for split in found.splits):
        return "Correct these files, or get them again; docs/guide/data.md says what they look like."
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
    yield from _listed(found.problem_count, "problems", found.problems)
    yield from _listed(found.missing_count, "videos have no file", found.missing)
    if found.looked_at:
        lines = [f"{status.video}: {status.status}, {status.reason}" for status in found.undecodable]
        yield f"{found.looked_at}: {found.undecodable_count or 'none'} cannot be used"
        yield from (f"  {line}" for line in lines)
    for pair, count in found.same_captions.items():
        one, other = pair.split(", ")
        yield f"in two splits: {count} texts of {other} are texts of {one}, too"
    pairs = [f"{one} and {other}" for one, other in found.same_frames]
    yield from _listed(found.same_frames_count, "pairs of videos in two splits have the same frames", pairs)
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


def _listed(count: int, what: str, lines: tuple[str, ...] | list[str]) -> Iterator[str]:
    if count:
        yield f"{count} {what}{f', the first {len(lines)}' if count > len(lines) else ''}:"
        yield from (f"  {line}" for line in lines)
