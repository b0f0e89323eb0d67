"""`teachclip prepare`: videos and captions -> frame cache."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....plurals import counted
from ...wording import duration, size
from ..shell.remedies import Given
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ....configs.schema import Config
    from ....stages.prepare.estimate import PrepareEstimate
    from ....stages.prepare.stage import PrepareResult

Estimate = Annotated[bool, typer.Option("--estimate", help="Only say how many bytes and how long; writes nothing.")]

EXAMPLES = examples(
    "teachclip prepare own_videos.yaml --estimate",
    "teachclip prepare own_videos.yaml",
    "teachclip prepare own_videos.yaml --set prepare.storage=jpeg --set prepare.frames=frames-jpeg",
    "teachclip prepare own_videos.yaml --json > prepared.json",
)


def prepare(
    config: ConfigFile,
    estimate: Estimate = False,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Decode videos into the frame cache that everything else reads.

    Every video gets a status (ok, short, missing, corrupt, timeout, failed) and a reason; only those that are ok are
    used.
    """
    with running("prepare", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.prepare.estimate import estimate_frames as estimated
            from ....stages.prepare.stage import prepare as run

        if estimate:
            with output.waiting("decoding a few videos"):
                expected = estimated(settings)
            output.result(expected, _estimated(expected, settings))
        else:
            result = run(settings, output)
            output.result(result, *_prepared(result, Given(config, sets or ())))


def _estimated(expected: "PrepareEstimate", config: "Config") -> RenderableType:
    most = f", at most {size(expected.bytes_at_most)}" if expected.bytes_at_most else ""
    again = f"; {expected.asked_again} of those an older version called damaged" if expected.asked_again else ""
    gone = f"; {expected.missing} have no file" if expected.missing else ""
    return facts(
        ("videos", f"{expected.videos}, {expected.remaining} of them still to be decoded{again}{gone}"),
        ("disk", f"about {size(expected.bytes)}{most} ({size(expected.free)} free) in {config.frames_folder}"),
        ("time", f"about {duration(expected.seconds)} on {counted(expected.workers, 'process', 'processes')}"),
        ("probed", f"{counted(expected.probed, 'video')}"),
    )


def _prepared(result: "PrepareResult", given: Given) -> Iterator[RenderableType]:
    counts = ", ".join(f"{count} {status}" for status, count in result.counts.items())
    from ....stages.prepare.stage import AFTER_FAILURE

    yield facts(
        ("frames", f"{size(result.bytes)} in {result.folder}"),
        ("videos", f"{result.videos}: {counts}"),
        ("decoded", f"{result.decoded} in {duration(result.seconds)}" if result.decoded else "none, all were there"),
    )
    if result.left_out:
        unusable = result.videos - result.counts.get("ok", 0)
        more = f", the first {len(result.left_out)} of them" if unusable > len(result.left_out) else ""
        yield f"{counted(unusable, 'video is', 'videos are')} left out{more}:"
        yield table(
            "video", "status", "reason", rows=[(each.video, each.status, each.reason) for each in result.left_out]
        )
    if failed := result.counts.get("failed", 0):
        yield f"{failed} failed: {given.tell(AFTER_FAILURE)}"
