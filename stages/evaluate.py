"""Ranks and metrics of a model on a split, from the frame cache."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..cache.files import publish
from ..cache.frames import FrameCache
from ..configs.schema import Config
from ..errors import DataError
from .data.captions import read_dataset
from .data.tokens import tokenize
from .device import choose_device
from .inputs import FrameInputs, check_fits
from .models.checkpoints import load_network
from .reporting import Reporter, Silent
from .retrieval import measure
from .splits import usable_split


@dataclass(frozen=True)
class EvaluateResult:
    """Text-to-video and video-to-text metrics: r1, r5, r10, r50, sumr (percent), mdr, mnr (1-based), queries."""

    run: str
    split: str
    ties: str
    texts: int
    videos: int
    left_out_videos: int
    t2v: dict[str, Any]
    v2t: dict[str, Any]


def evaluate(config: Config, reporter: Reporter | None = None) -> EvaluateResult:
    """Measure `config.evaluate.run` on a split; also written to `evaluation-<split>.json` in the run folder.

    Raises:
        DataError: the split has no usable captions.
        CheckpointError: the model cannot be loaded.
        CacheError: frames are missing or do not fit the model.
    """
    reporter = reporter or Silent()
    settings = config.evaluate
    dataset = read_dataset(config.data)
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(dataset, [settings.split], frames)
    if not split.texts:
        raise DataError(
            f"the {settings.split} split has no usable captions",
            where=str(config.data.captions),
            hint="choose another: --set evaluate.split=val",
        )
    if split.left_out:
        reporter.warn(f"{split.left_out} {settings.split} videos have no usable frames and are left out")
    network = load_network(config.evaluate_run).to(choose_device(settings.device))
    check_fits(network, frames, config.frames_folder)
    ids, _ = tokenize(split.captions, network.config.words)
    inputs = FrameInputs(frames, split.videos)
    metrics = measure(network, ids, split.text_video, inputs, reporter, block=settings.block, ties=settings.ties)
    result = EvaluateResult(
        run=str(config.evaluate_run),
        split=settings.split,
        ties=settings.ties,
        texts=len(split.texts),
        videos=len(split.videos),
        left_out_videos=split.left_out,
        t2v=asdict(metrics["t2v"]),
        v2t=asdict(metrics["v2t"]),
    )
    if config.evaluate_run.is_dir():
        path = config.evaluate_run / f"evaluation-{settings.split}.json"
        publish(path, json.dumps(asdict(result), indent=1).encode())
    return result
