"""`teachclip prepare`: videos and captions -> frame cache."""

from typing import Annotated

import typer

from ...configs.loading import load_config
from .output import duration, facts, size
from .running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, running

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

    Every video gets a status (ok, short, missing, corrupt, timeout) and a reason; only those that are ok are used.
    """
    with running("prepare", json, quiet, debug) as output:
        settings = load_config(config, sets or ())
        from ...stages import prepare as stage

        if estimate:
            expected = stage.estimate(settings)
            output.result(
                expected,
                facts(
                    ("videos", expected.videos),
                    ("disk", f"{size(expected.bytes)} in {settings.frames_folder}"),
                    ("time", f"about {duration(expected.seconds)}"),
                ),
            )
            return
        result = stage.prepare(settings, output)
        output.result(
            result,
            facts(
                ("frames", settings.frames_folder),
                *((name, count) for name, count in result.counts.items()),
            ),
        )
