"""`teachclip index`: any folder of videos -> a library of vectors, or the vectors of a configuration's frames."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ...errors import ConfigError
from ...plurals import counted
from ..wording import duration, found_of_ten, size
from .shell.cluster import Mixed, OnRay, RayOptions, on_ray, refuse_estimate
from .shell.options import refuse_options
from .shell.remedies import joined
from .shell.running import AsJson, Debug, Overrides, Quiet, examples, load_config, running
from .shell.tables import facts, table

if TYPE_CHECKING:
    from ...stages.search.index import IndexResult
    from ...stages.search.library.estimate import IndexEstimate
    from ...stages.search.library.stage import VideosIndexed

Videos = Annotated[
    list[str],
    typer.Argument(
        metavar="VIDEOS...",
        help="Folders (all videos in them, at any depth), files, patterns, @LIST or - for a list of paths; or one YAML "
        "file, for the videos of its frame cache.",
    ),
]
Named = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="What makes the vectors: a run folder, a checkpoint, or plain CLIP as openclip:MODEL/WEIGHTS (WEIGHTS: an "
        "open_clip tag or a file). By default the one that the index had last.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Folder of the index, by default `index`.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Only say how many files and how long; writes nothing.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Decoding processes, by default one per core; 0 is the same. With --ray: of each worker.",
    ),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME", help="Give these videos a tag; may be repeated.")
]
Untags = Annotated[
    list[str] | None, typer.Option("--untag", metavar="NAME", help="Take a tag from these videos; may be repeated.")
]
OUT = Path("index")
OF_VIDEOS = (
    "for videos, not for a configuration",
    "a configuration says it itself: search.run is the model, search.index the folder",
)

EXAMPLES = examples(
    "teachclip index clips/ --model runs/student",
    "teachclip index clips/ holidays/*.mkv --model openclip:ViT-B-32/openai --out index/",
    "teachclip index clips/ --model openclip:ViT-B-32/openai --estimate",
    "teachclip index clips/ --tag sea --tag 2019 --untag unsorted",
    "teachclip index @files.txt --model runs/student --json --quiet",
    "teachclip index clips/ --model runs/student --ray 10.0.0.1:6379 --ray-option num_gpus=1 --ray-option num_cpus=8",
    "teachclip index own_videos.yaml --set search.run=runs/student",
)


def index(
    videos: Videos,
    model: Named = None,
    out: Out = None,
    estimate: Estimate = False,
    workers: Workers = None,
    tags: Tags = None,
    untags: Untags = None,
    ray: OnRay = None,
    ray_options: RayOptions = None,
    mixed: Mixed = False,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make vectors of videos, to be searched.

    Long videos are cut into windows of 30 seconds, 15 from one to the next. Given again, only new and changed files are
    decoded; what was moved is recognised, and what is gone leaves the index. Every file gets a status and a reason, and
    tags that searches can be limited to. Workers of a Ray cluster (--ray ADDRESS) decode and encode, and this process
    puts down what they make.
    """
    config = _config(videos)
    with running("index", json, quiet, debug, config, sets) as output:
        how = on_ray(ray, ray_options, mixed, {})
        refuse_estimate(estimate, how)
        if config is not None:
            if how is not None:
                raise ConfigError(
                    "--ray is for videos: of a configuration, frames that are there are encoded by this process",
                    where=str(config),
                    hint="leave --ray away; preparing the frames takes longer, and --ray can do that",
                )
            options = {
                "--model": model,
                "--out": out,
                "--workers": workers,
                "--estimate": estimate or None,
                "--tag": tags or None,
                "--untag": untags or None,
            }
            refuse_options(options, config, *OF_VIDEOS)
            settings = load_config(config, sets or ())
            with output.waiting("loading"):
                from ...stages.search.index import index as of_frames

            made = of_frames(settings, output)
            output.result(made, *_of_frames(made))
            return
        if sets:
            raise ConfigError(
                "these videos are indexed without a configuration, and --set changes one",
                hint="what can be chosen here: --model, --out, --workers, --tag, --untag, --estimate",
            )
        with output.waiting("loading"):
            from ...stages.search.library.cluster import index_on_cluster
            from ...stages.search.library.estimate import estimate_videos
            from ...stages.search.library.stage import index_videos

        folder = out or OUT
        if estimate:
            if tags or untags:
                raise ConfigError("--estimate writes nothing, and no tags", hint="leave one of them away")
            with output.waiting("decoding a few videos"):
                expected = estimate_videos(videos, folder, model, workers=workers or 0, reporter=output)
            output.result(expected, *_estimated(expected, folder))
        else:
            given, taken = tags or (), untags or ()
            run = index_videos if how is None else partial(index_on_cluster, how=how)
            result = run(videos, folder, model, workers=workers or 0, tags=given, untags=taken, reporter=output)
            output.result(result, *_indexed(result, bool(given or taken)))


def _config(videos: list[str]) -> Path | None:
    """The configuration, where one is named in place of videos."""
    named = [word for word in videos if word.endswith((".yaml", ".yml"))]
    return Path(named[0]) if len(videos) == 1 and named else None


def _of_frames(result: "IndexResult") -> Iterator[RenderableType]:
    yield facts(
        ("index", result.index),
        ("videos", f"{result.videos}, {result.width} numbers each"),
        ("made", f"{result.added} in {duration(result.seconds)}" if result.added else "none, all were there"),
        *([("removed", str(result.removed))] if result.removed else []),
        *([("again", f"{result.remade} changed")] if result.remade else []),
    )


def _estimated(expected: "IndexEstimate", folder: Path) -> Iterator[RenderableType]:
    compared = f"; {expected.compared} to be compared with what is known" if expected.compared else ""
    gone = f"; {expected.gone} in the index are gone" if expected.gone else ""
    yield facts(
        ("videos", f"{expected.files}, {expected.remaining} of them to be decoded{compared}{gone}"),
        ("time", f"about {duration(expected.seconds)} on {counted(expected.workers, 'process', 'processes')}"),
        ("disk", f"about {size(expected.disk)} in {folder}"),
        ("probed", counted(expected.probed, "video")),
    )


def _indexed(result: "VideosIndexed", tagged: bool) -> Iterator[RenderableType]:
    counts = ", ".join(f"{count} {status}" for status, count in result.counts.items())
    decoded = f"{result.decoded} in {duration(result.seconds)}, {counted(result.windows, 'window')}"
    others = {"moved": result.moved, "copied": result.copied, "removed": result.removed}
    renewed = f"{result.renewed}: their files have another time and the same content"
    yield facts(
        ("index", f"{result.index}: {counted(result.videos, 'video')}, {counted(result.all_windows, 'window')}"),
        ("model", f"{result.model}, {result.width} numbers a window"),
        ("files", f"{result.files}: {counts}"),
        ("decoded", decoded if result.decoded else "none, all were there"),
        *([("renewed", renewed)] if result.renewed else []),
        *((name, str(count)) for name, count in others.items() if count),
        *([("tags", f"{result.tags_added} given, {result.tags_removed} taken away")] if tagged else []),
        *([] if result.recall is None else [("search", found_of_ten(result.recall))]),
    )
    if result.left_out:
        unusable = result.files - result.counts.get("ok", 0)
        more = f", the first {len(result.left_out)} of them" if unusable > len(result.left_out) else ""
        yield f"{counted(unusable, 'file is', 'files are')} left out{more}:"
        rows = [(each.video, each.status, each.reason) for each in result.left_out]
        yield table("video", "status", "reason", rows=rows)
    if result.counts.get("failed") or result.counts.get("timeout"):
        yield f"What failed or ran out of time is tried again with: {joined(['teachclip', *sys.argv[1:]])}"
