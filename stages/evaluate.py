"""Ranks and metrics of a model on a split, from the frame cache."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from ..cache.files import publish
from ..cache.frames import FrameCache
from ..configs.schema import Config
from ..errors import DataError
from .bootstrap import Intervals, confidence
from .data.captions import read_dataset
from .data.tokens import tokenize
from .device import choose_device
from .inputs import FrameInputs, check_fits
from .metrics import rank
from .models.checkpoints import load_network
from .query_ranks import TOP, QueryRanks, save_query_ranks
from .reporting import Reporter, Silent
from .retrieval import comparing
from .runs import RunFolder
from .splits import usable_split


@dataclass(frozen=True)
class EvaluateResult:
    """Text-to-video and video-to-text metrics: r1, r5, r10, r50, sumr (percent), mdr, mnr (1-based), queries.

    Attributes:
        chosen_by: how training chose the network that was measured; None when the run does not say.
        confidence: per way and metric the 95 % interval over queries: value, low, high (`bootstrap.confidence`).
        ranks: the file with the ranks of single queries; None when a checkpoint file was measured.
    """

    run: str
    split: str
    ties: str
    texts: int
    videos: int
    left_out_videos: int
    t2v: dict[str, Any]
    v2t: dict[str, Any]
    chosen_by: str | None = None
    confidence: dict[str, Any] = field(default_factory=dict)
    ranks: str | None = None


def evaluate(config: Config, reporter: Reporter | None = None) -> EvaluateResult:
    """Measure `config.evaluate.run` on a split; also written to `evaluation-<split>.json` and `ranks-<split>.npz` in
    the run folder.

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
    with comparing(network, ids, FrameInputs(frames, split.videos), reporter) as scores:
        found = rank(scores, split.text_video, len(split.videos), block=settings.block, top=TOP)
    queries = QueryRanks(
        run=str(config.evaluate_run),
        split=settings.split,
        marks=(),
        text_ids=tuple(text.id for text in split.texts),
        captions=tuple(split.captions),
        video_ids=split.videos,
        text_video=split.text_video,
        texts=found.texts,
        videos=found.videos,
        first=found.first,
    )
    metrics = queries.metrics(settings.ties)
    folder = config.evaluate_run if config.evaluate_run.is_dir() else None
    path = None if folder is None else folder / f"ranks-{settings.split}.npz"
    result = EvaluateResult(
        run=str(config.evaluate_run),
        split=settings.split,
        ties=settings.ties,
        texts=len(split.texts),
        videos=len(split.videos),
        left_out_videos=split.left_out,
        t2v=asdict(metrics["t2v"]),
        v2t=asdict(metrics["v2t"]),
        chosen_by=None if folder is None else _chosen_by(RunFolder(folder)),
        confidence=_plain(confidence(queries)),
        ranks=None if path is None else str(path),
    )
    if folder is not None and path is not None:
        save_query_ranks(path, queries)
        publish(folder / f"evaluation-{settings.split}.json", json.dumps(asdict(result), indent=1).encode())
    return result


def _chosen_by(folder: RunFolder) -> str | None:
    return None if folder.result is None else folder.result["best"].get("chosen_by")


def _plain(intervals: Intervals) -> dict[str, Any]:
    return {way: {name: asdict(interval) for name, interval in each.items()} for way, each in intervals.items()}
