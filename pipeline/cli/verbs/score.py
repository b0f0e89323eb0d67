"""`teachclip score`: frozen teachers -> score cache."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....plurals import counted
from ....stages.score.worker_part import WHOLE, WorkerPart
from ...wording import duration
from ..shell.cluster import Mixed, OnRay, RayOptions, on_ray
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import table

if TYPE_CHECKING:
    from ....stages.score.one_teacher import TeacherScores
    from ....stages.score.stage import ScoreResult

# How the captions' own videos rank in one shard: the sign of a teacher that works.
RANKS = ("MdR", "R@1", "R@10", "ranked", "among")

EXAMPLES = examples(
    "teachclip score own_videos.yaml",
    'teachclip score own_videos.yaml --set "score.teachers=[{name: clip, openclip: {model: ViT-B-32-quickgelu}}]"',
    'teachclip score own_videos.yaml --set "score.teachers=[{name: xclip, checkpoint: runs/teacher}]"',
    'teachclip score own_videos.yaml --set "score.teachers=[{name: mine, plugin: my_module:MyTeacher}]"',
    "teachclip score own_videos.yaml --devices 2",
    "teachclip score own_videos.yaml --shard 0/8",
    "teachclip score own_videos.yaml --ray local",
    "teachclip score own_videos.yaml --ray 10.0.0.1:6379 --ray-option num_gpus=1 --ray-option num_cpus=8",
    "teachclip score own_videos.yaml --set score.device=cpu --json",
)


def score(
    config: ConfigFile,
    sets: Overrides = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="i/n", help="Make part i of n, from 0/n to n-1/n; each is a run of its own."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, on a GPU each; without GPUs they share the cores. [default: every GPU]"),
    ] = None,
    ray: OnRay = None,
    ray_options: RayOptions = None,
    mixed: Mixed = False,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run each teacher once and keep its scores.

    A teacher is an open_clip model as it is, a network trained here or a published one, or a class of your own
    (docs/guide/teachers.md). The scores of the training split serve every student to come; no teacher is needed while
    one trains. After the first shard the ranks of the captions' own videos are shown; near chance it stops, since a
    teacher that was loaded wrongly teaches nothing.

    All GPUs that are visible work, each in a process of its own (--devices 2 takes two of them), or all of a Ray
    cluster's (--ray ADDRESS), which may grow and shrink meanwhile.

    What is complete is never made again, and captions and videos that are new are added. Several machines may each make
    a part (--shard), in one shared store, or in stores of their own that `teachclip cache merge` brings together.
    """
    with running("score", json, quiet, debug, config, sets) as output:
        part = WorkerPart.parse(shard, "--shard") if shard is not None else WHOLE
        how = on_ray(ray, ray_options, mixed, {"--shard": shard, "--devices": devices})
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.score.workers.cluster import score_on_cluster
            from ....stages.score.workers.processes import score_by_processes

        if how is None:
            result = score_by_processes(settings, output, part, devices)
        else:
            result = score_on_cluster(settings, how, output)
        output.result(result, *shown(result))


def shown(result: "ScoreResult") -> Iterator[RenderableType]:
    """What a person sees of the scores that were made."""
    left_out = f"; {counted(result.left_out_videos, 'video')} left out" if result.left_out_videos else ""
    without = counted(result.unlabelled, "of the videos has no captions", "of the videos have no captions")
    left_out += f"; {without}" if result.unlabelled else ""
    yield f"{result.store}: {duration(result.seconds)}{left_out}"
    for each in result.teachers:
        if each.shards_left:
            yield (
                f"{each.teacher}: part {result.part} is complete; "
                f"{counted(each.shards_left, 'shard is', 'shards are')} left to other parts"
            )
    heads = ("teacher", "captions", "videos", "shards", "made now", *RANKS)
    yield table(*heads, rows=map(_row, result.teachers))


def _row(scores: "TeacherScores") -> tuple[object, ...]:
    ranks = scores.own_ranks
    shown: tuple[object, ...] = ("-",) * len(RANKS)
    if ranks:
        shown = (f"{ranks.median:g}", f"{ranks.r1:.1f}", f"{ranks.r10:.1f}", ranks.texts, ranks.videos)
    return (scores.teacher, scores.texts, scores.videos, scores.shards, scores.shards_now, *shown)
