"""The demo's results as a report."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from ... import __version__
from ...cache.frames.cache import FrameCache
from ...configs.schema import Config
from ...plurals import counted
from ...stages.analysis.cost.search_speed import Speed, machine, search_speed
from ...stages.data.dataset import Dataset, read_dataset
from ...stages.evaluate.one_model import EvaluateResult
from ...stages.models.checkpoints.files import load_clip_network
from ...stages.models.student import Student
from ...stages.retrieval.confidence import Interval
from ...stages.runtime.reporting import Reporter
from ...stages.search.searcher import SearchResult
from ...stages.train.run import TrainResult
from ..report.collect.report import build_report
from ..report.collect.run import read_runs
from ..report.contents import FoundVideo, Gain, ModelReport, Report, Search
from ..wording import duration, signed

SPLIT: Final = "test"
SHOTS = 3  # frames shown of a video that a search found


@dataclass(frozen=True)
class Model:
    """A trained and evaluated network of the demo.

    Args:
        name, note: what the page calls it.
        against: name of the model it is compared with.
        config: the configuration it was trained with.
    """

    name: str
    note: str
    against: str | None
    config: Config
    trained: TrainResult
    evaluated: EvaluateResult


@dataclass(frozen=True)
class Roles:
    """Which of the models the page speaks of: students that were taught, beside one that was not."""

    teacher: Model
    alone: Model
    taught: Sequence[Model]
    reference: Model


def demo_report(
    models: Sequence[Model], roles: Roles, found: SearchResult, seconds: float, reporter: Reporter
) -> Report:
    """The report of the demo's runs, with what came out in words, seconds of a search, and searches."""
    searcher, pairs = roles.taught[-1], [(taught.name, roles.alone.name) for taught in roles.taught]
    config = searcher.config
    dataset, frames = read_dataset(config.data), FrameCache.open(config.frames_folder)
    read = read_runs([Path(model.trained.run) for model in models])
    runs = [replace(run, name=model.name) for run, model in zip(read, models, strict=True)]
    report = build_report(runs, SPLIT, "Does teaching help? The teachclip demo", reporter, pairs)
    videos = max(model.candidates for model in report.models)
    speeds = _speeds(models, videos, reporter)
    shown = zip(models, report.models, strict=True)
    return replace(
        report,
        lead=_lead(roles, report.gains, dataset),
        models=[_model(model, made, speeds[model.name]) for model, made in shown],
        data=_data(dataset, frames),
        machine=_machine(seconds),
        searches=_searches(found, searcher, dataset, frames),
        footer=f"Written by teachclip {__version__}. The numbers of the page are those of this machine and this run.",
    )


def _lead(roles: Roles, gains: Sequence[Gain], dataset: Dataset) -> list[str]:
    own, asked, clips = dataset.texts_of("train"), dataset.texts_of(SPLIT), len(dataset.videos_of("train"))
    alone, teacher, reference = (one.evaluated.t2v["sumr"] for one in (roles.alone, roles.teacher, roles.reference))
    return [
        f"The student's owner has {counted(len(own), 'caption')} of {counted(clips, 'clip')}, and "
        f"{counted(len(dataset.unlabelled), 'clip')} that nobody has described. The teacher compares every word of a "
        "sentence with every frame of every clip, and learnt from other people's clips, of which the students saw "
        f"none. On {len(dataset.videos_of(SPLIT)):,} clips that no model has seen, asked with "
        f"{counted(len(asked), 'sentence')}, the student alone reaches a SumR of {alone:.1f}, the teacher "
        f"{teacher:.1f}.",
        *(_gained(gain) for gain in gains),
        f"A student that had the teacher's clips and captions itself reaches {reference:.1f} without a teacher: "
        "teaching hands on part of that, to whoever has the teacher but not its data.",
        "Intervals hold with the test clips drawn again (95 %). Other seeds of training move SumR by some points more: "
        "make bench-teaching measures eight draws, with controls. The clips are rendered, and this design was chosen "
        "because teaching shows on it: say so where you quote these numbers.",
    ]


def _gained(gain: Gain) -> str:
    ways = {"t2v": "text to video", "v2t": "video to text"}
    told = [f"{_moved(gain.differences[way]['sumr'])} {name}" for way, name in ways.items()]
    first = gain.differences["t2v"]["r1"]
    return f"{gain.model}, less {gain.against}: SumR {told[0]} and {told[1]}; R@1 {_moved(first)}."


def _moved(interval: Interval) -> str:
    """A difference, and whether the test clips tell it from none."""
    unsure = ", not to be told from nothing" if interval.low <= 0 <= interval.high else ""
    return f"{signed(interval.value)} ({signed(interval.low)} to {signed(interval.high)}{unsure})"


def _speeds(models: Sequence[Model], videos: int, reporter: Reporter) -> dict[str, Speed]:
    networks = {model.name: model.config.train.network for model in models}
    timed = search_speed(networks, dict.fromkeys(networks, (videos,)), torch.device("cpu"), reporter=reporter)
    return {speed.name: speed for speed in timed}


def _model(model: Model, report: ModelReport, speed: Speed) -> ModelReport:
    assert report.cost is not None
    cost = replace(report.cost, seconds_per_query=speed.milliseconds / 1e3, videos=speed.videos)
    return replace(report, note=model.note, against=model.against, cost=cost)


def _data(dataset: Dataset, frames: FrameCache) -> dict[str, str]:
    usable = set(frames.usable)
    facts = {}
    for split in ("train", "val", "test"):
        videos = [video for video in dataset.videos_of(split) if video.id in usable]
        facts[split] = f"{len(videos):,} clips, {counted(len(dataset.texts_of(split)), 'caption')}"
    facts["frames"] = f"at most {frames.max_frames} a clip, {frames.image_size} × {frames.image_size} pixels"
    facts["left out"] = f"{len(frames.statuses) - len(usable):,} clips that do not decode"
    return facts


def _machine(seconds: float) -> dict[str, str]:
    return {
        "processor": machine(torch.device("cpu")),
        "system": f"{platform.system()} {platform.release()}",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, teachclip {__version__}",
        "this run": f"{duration(seconds)}, steps that were found done included",
    }


@torch.inference_mode()
def _searches(result: SearchResult, model: Model, dataset: Dataset, frames: FrameCache) -> list[Search]:
    captions: dict[str, str] = {}  # the longest: it tells most
    for text in dataset.texts:
        captions[text.video] = max(captions.get(text.video, ""), text.caption, key=len)
    network = load_clip_network(Path(model.trained.run))
    assert isinstance(network, Student)
    return [
        Search(
            found.query,
            [
                FoundVideo(
                    answer.cosine,
                    answer.video,
                    _shots(network, frames, answer.video),
                    captions.get(answer.video, ""),
                    mp4=Path(answer.path).read_bytes(),
                )
                for answer in found.answers
            ],
        )
        for found in result.queries
    ]


def _shots(network: Student, frames: FrameCache, video: str) -> np.ndarray:
    """The frames that count most, in the order of time [n, H, W, 3]."""
    read = frames.read([video])
    mask = torch.from_numpy(read.mask)
    features = network.encode_videos(torch.from_numpy(read.frames), mask)
    weights = network.pooling_weights(features, mask)[0] if "raw_weights" in features else mask[0].float()
    count = min(SHOTS, int(mask[0].sum()))
    best = np.sort(weights.masked_fill(~mask[0], -1.0).topk(count).indices.numpy())
    shots: np.ndarray = read.frames[0, best].transpose(0, 2, 3, 1)
    return shots
