"""`teachclip prepare`: videos and captions -> frame cache."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....plurals import counted
from ...wording import duration, size
from ..shell.cluster import Mixed, OnRay, RayOptions, on_ray, refuse_estimate
from ..shell.remedies import Given
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ....configs.schema import Config
    from ....stages.prepare.estimate import PrepareEstimate
    from ....stages.prepare.stage import PrepareResult

Estimate = Annotated[bool, typer.Option("--estimate", help="Only say how many bytes and how long; writes nothing.")]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="First remove the frames of videos that the data names in no split, for every configuration that shares "
        "this cache; scores stay. With --estimate, only list them.",
    ),
]
SHOWN = 20
SAME_CONTENT = "their files have another time and the same content"

EXAMPLES = examples(
    "teachclip prepare own_videos.yaml --estimate",
    "teachclip prepare own_videos.yaml",
    "teachclip prepare own_videos.yaml --prune --estimate",
    "teachclip prepare own_videos.yaml --set prepare.storage=jpeg --set prepare.frames=frames-jpeg",
    "teachclip prepare own_videos.yaml --json > prepared.json",
    "teachclip prepare own_videos.yaml --ray local",
    "teachclip prepare own_videos.yaml --ray 10.0.0.1:6379 --ray-option num_cpus=8",
)


def prepare(
    config: ConfigFile,
    estimate: Estimate = False,
    prune: Prune = False,
    ray: OnRay = None,
    ray_options: RayOptions = None,
    mixed: Mixed = False,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Decode videos into the frame cache that everything else reads.

    Every video gets a status (ok, short, missing, corrupt, timeout, failed) and a reason; only those that are ok are
    used. Workers of a Ray cluster (--ray ADDRESS) each decode shards of videos; the cache is the same.
    """
    with running("prepare", json, quiet, debug, config, sets) as output:
        how = on_ray(ray, ray_options, mixed, {})
        refuse_estimate(estimate, how)
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.prepare.estimate import estimate_frames as estimated
            from ....stages.prepare.stage import prepare as run

        if estimate:
            with output.waiting("decoding a few videos"):
                expected = estimated(settings, prune)
            output.result(expected, *_estimated(expected, settings, prune))
        else:
            if how is None:
                result = run(settings, output, prune)
            else:
                from ....stages.prepare.cluster import prepare_on_cluster

                result = prepare_on_cluster(settings, how, output, prune)
            output.result(result, *_prepared(result, settings, Given(config, sets or ()), prune))


def _estimated(expected: "PrepareEstimate", config: "Config", prune: bool) -> Iterator[RenderableType]:
    most = f", at most {size(expected.bytes_at_most)}" if expected.bytes_at_most else ""
    again = f"; {expected.asked_again} of those an older version called damaged" if expected.asked_again else ""
    compared = f"; {expected.compared} to be compared ({size(expected.bytes_compared)}): their files have another time"
    touched = compared if expected.compared else ""
    free = "" if expected.free is None else f" ({size(expected.free)} free)"
    gone = f"; {expected.missing} have no file" if expected.missing else ""
    yield facts(
        ("videos", f"{expected.videos}, {expected.remaining} of them still to be decoded{again}{touched}{gone}"),
        ("disk", f"about {size(expected.bytes)}{most}{free} in {config.frames_folder}"),
        ("time", f"about {duration(expected.seconds)} on {counted(expected.workers, 'process', 'processes')}"),
        ("probed", counted(expected.probed, "video")),
        *([("prune", f"{counted(len(expected.pruned), 'video')}, {size(expected.bytes_pruned)}")] if prune else []),
    )
    if expected.pruned:
        yield (
            "Pruning removes these frames for every configuration that shares the cache. The data names none of them: "
            f"{_named(expected.pruned)}"
        )


def _prepared(result: "PrepareResult", config: "Config", given: Given, prune: bool) -> Iterator[RenderableType]:
    counts = ", ".join(f"{count} {status}" for status, count in result.counts.items())
    from ....stages.prepare.stage import AFTER_FAILURE, after_timeout

    yield facts(
        ("frames", f"{size(result.bytes)} in {result.folder}"),
        ("videos", f"{result.videos}: {counts}"),
        ("decoded", f"{result.decoded} in {duration(result.seconds)}" if result.decoded else "none, all were there"),
        *([("renewed", f"{result.renewed}: {SAME_CONTENT}")] if result.renewed else []),
        *([("pruned", f"{counted(len(result.pruned), 'video')}, {size(result.freed)} freed")] if prune else []),
    )
    if result.pruned:
        yield f"Frames were removed of what the data no longer names; scores stay: {_named(result.pruned)}"
    if result.left_out:
        unusable = result.videos - result.counts.get("ok", 0)
        more = f", the first {len(result.left_out)} of them" if unusable > len(result.left_out) else ""
        yield f"{counted(unusable, 'video is', 'videos are')} left out{more}:"
        yield table(
            "video", "status", "reason", rows=[(each.video, each.status, each.reason) for each in result.left_out]
        )
    if failed := result.counts.get("failed", 0):
        yield f"{failed} failed: {given.tell(AFTER_FAILURE)}"
    if late := result.counts.get("timeout", 0):
        yield f"{late} ran out of time: {given.tell(after_timeout(config.prepare))}"


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more
