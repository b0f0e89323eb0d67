"""`teachclip train`: score cache -> student; also teachers and baselines."""

from typing import Annotated

import typer

from ....plurals import counted
from ....stages.runtime.stopping import StopRequest
from ...wording import duration
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import facts

EXAMPLES = examples(
    "teachclip train own_videos.yaml",
    "teachclip train own_videos.yaml --set train.run=runs/teacher --set train.network.kind=xclip",
    "teachclip train own_videos.yaml --set train.run=runs/b64 --set train.batch_size=64 --set train.optim.lr=3e-4",
    "teachclip train own_videos.yaml --set train.teachers=[clip] --set data.uncaptioned=train --set train.unlabelled=9",
    "teachclip train own_videos.yaml --accept pixels",
    "teachclip train own_videos.yaml --quiet --json",
)


def train(
    config: ConfigFile,
    sets: Overrides = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="pixels", help="Use scores of the same data set prepared elsewhere."),
    ] = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a student, taught or alone, or a teacher.

    What is trained stands in the section `train`: its network, the teachers that teach it, losses and optimiser. The
    run folder gets the network that was best on the validation videos and everything needed to go on after a stop.

    --accept pixels lets a published score cache teach on videos that were decoded elsewhere: captions, frame times and
    everything else must agree, only pixels may differ. It is recorded in the run.

    SIGTERM or SIGUSR1 (preemption) and Ctrl-C end it after the step, saved, the first two with exit code 0; a second
    one ends it at once. The same command goes on to the same network.
    """
    sets = [*(sets or ()), *([f"train.accept=[{','.join(accept)}]"] if accept else ())]
    stop = StopRequest()
    with running("train", json, quiet, debug, config, sets, stop) as output:
        settings = load_config(config, sets)
        with output.waiting("loading"):
            from ....stages.train.stage import train as run

        result = run(settings, output, stop)
        best, more = result.best, settings.train.unlabelled
        left_out = f", {counted(result.left_out_videos, 'video')} left out" if result.left_out_videos else ""
        left_out += f"; {counted(result.masked_texts, 'caption')} masked" if result.masked_texts else ""
        batches = [f"each of one of {counted(result.blocks, 'block')} of videos"] if result.blocks > 1 else []
        if result.left_over:
            batches.append(f"{result.left_over:,} of {counted(result.texts, 'caption')} of an epoch are left to others")
        output.result(
            result,
            facts(
                ("network", result.checkpoint),
                ("trained on", f"{counted(result.texts, 'caption')} of {counted(result.videos, 'video')}{left_out}"),
                ("teachers", ", ".join(result.teachers) or "none"),
                *(
                    (
                        f"accepted for {name}",
                        f"other pixels than were scored, in {count} of {counted(result.videos, 'video')}",
                    )
                    for name, count in result.other_pixels.items()
                ),
                *([("without captions", f"{counted(more, 'video')} a step, in the coarse loss")] if more else []),
                *([("batches", "; ".join(batches))] if batches else []),
                ("steps", f"{result.steps} in {duration(result.seconds)}{' (earlier)' if result.already_done else ''}"),
                ("chosen", f"step {best['step']}, by {best['chosen_by']}: {best['value']:.4g}"),
            ),
        )
