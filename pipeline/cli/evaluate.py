"""`teachclip evaluate`: model and test split -> ranks and metrics."""

from collections.abc import Mapping
from typing import Any

from ...configs.loading import load_config
from .output import table
from .running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, running

EXAMPLES = examples(
    "teachclip evaluate own_videos.yaml",
    "teachclip evaluate own_videos.yaml --set evaluate.split=val --set evaluate.run=runs/teacher",
    "teachclip evaluate own_videos.yaml --set evaluate.ties=published --json",
)


def evaluate(
    config: ConfigFile, sets: Overrides = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Measure how well a model retrieves a split.

    Both ways: videos by text, and texts by video. R@K is the percentage of queries answered within the first K, SumR
    the sum over K = 1, 5, 10, MdR and MnR the median and mean rank; among equals the expected rank counts.
    """
    with running("evaluate", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ...stages.evaluate import evaluate as run

        result = run(settings, output)
        left_out = f"; {result.left_out_videos} videos left out" if result.left_out_videos else ""
        output.result(
            result,
            f"{result.run}: {result.split}, {result.texts} captions, {result.videos} videos{left_out}",
            table(
                *("", "R@1", "R@5", "R@10", "SumR", "MdR", "MnR"),
                rows=[_row("text to video", result.t2v), _row("video to text", result.v2t)],
            ),
        )


def _row(name: str, metrics: Mapping[str, Any]) -> tuple[object, ...]:
    return (name, *(float(metrics[key]) for key in ("r1", "r5", "r10", "sumr", "mdr", "mnr")))
