"""The demo's results as a report."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..cache.frames import FrameCache
from ..configs.loading import dump_config
from ..configs.schema import Config
from ..stages.data.captions import Dataset, read_dataset
from ..stages.evaluate import EvaluateResult
from ..stages.inputs import FrameInputs
from ..stages.models.checkpoints import load_network
from ..stages.models.student import Student
from ..stages.reporting import Reporter
from ..stages.runs import RunFolder
from ..stages.search import SearchResult
from ..stages.splits import usable_split
from ..stages.train import TrainResult
from .examples import View, choose_examples, gain_interval
from .quantities import duration
from .report import Clip, Cost, Found, ModelReport, Report, Search

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
    """Which of the models the page speaks of."""

    teacher: Model
    alone: Model
    taught: Model


def build_report(
    models: Sequence[Model], roles: Roles, found: SearchResult, seconds: float, reporter: Reporter
) -> Report:
    """Look at every model's ranks and frame weights on the test split, and say what came out."""
    config = roles.taught.config
    dataset, frames = read_dataset(config.data), FrameCache.open(config.frames_folder)
    split = usable_split(dataset, ["test"], frames)
    inputs = FrameInputs(frames, split.videos)
    temperature = config.train.network.pool_temperature
    views = {model.name: View(load_network(Path(model.trained.run)), split, inputs, reporter) for model in models}
    every = np.arange(len(split.texts))
    before, after = (views[model.name].ranks(every) for model in (roles.alone, roles.taught))
    examples = choose_examples(before, after, split.text_video)
    return Report(
        title="Does teaching help? The teachclip demo",
        lead=_lead(roles, gain_interval(before, after, split.text_video), len(split.videos)),
        models=[_model(model, views[model.name].cost()) for model in models],
        data=_data(dataset, frames),
        machine=_machine(seconds),
        clips=_clips(examples, roles, views, frames, temperature),
        clips_note=(
            "Queries of the test split with their clips. Under each frame: what it counts in the student's video "
            "vector (AFA), and the teacher's frame scores for this query under the same softmax, temperature "
            f"{temperature:g}. The dotted line is where all frames count alike."
        ),
        searches=_searches(found, roles.taught, dataset, frames),
        footer=f"Written by teachclip {__version__}. The numbers of the page are those of this machine and this run.",
    )


def _lead(roles: Roles, interval: tuple[float, float], videos: int) -> list[str]:
    teacher, alone, taught = (model.evaluated.t2v["sumr"] for model in (roles.teacher, roles.alone, roles.taught))
    low, high = interval
    return [
        f"On {videos:,} clips that no model has seen, teaching moves the student's SumR from {alone:.1f} to "
        f"{taught:.1f} ({_signed(taught - alone)}). Its teacher reaches {teacher:.1f}, comparing every word of a "
        "sentence with every frame of every clip; the student keeps one vector per clip and answers by dot products.",
        f"With the clips drawn again, 95 % of the differences lie between {_signed(low)} and {_signed(high)}. This is "
        "one training seed, which alone can move SumR by some points; make bench-teaching measures three, with "
        "controls. The clips are rendered, and their design was chosen because teaching shows on it: say so where you "
        "quote these numbers.",
    ]


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _model(model: Model, cost: Cost) -> ModelReport:
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in RunFolder(Path(model.trained.run)).metrics():
        if line["kind"] == "val":
            curves.setdefault("SumR on the validation split, text to video", []).append(
                (line["step"], line["t2v"]["sumr"])
            )
        else:
            curves.setdefault("InfoNCE of the training batches", []).append((line["step"], line["infonce"]))
            for loss in ("coarse", "fine"):
                if model.trained.teachers and getattr(model.config.train.loss, loss):
                    curves.setdefault(f"{loss.capitalize()} loss of the training batches", []).append(
                        (line["step"], line[loss])
                    )
    return ModelReport(
        name=model.name,
        note=model.note,
        t2v=model.evaluated.t2v,
        v2t=model.evaluated.v2t,
        against=model.against,
        curves=dict(sorted(curves.items(), key=lambda item: not item[0].startswith("SumR"))),
        chosen=model.trained.best["step"],
        cost=cost,
        facts=_facts(model),
        config=dump_config(model.config),
    )


def _facts(model: Model) -> dict[str, str]:
    trained, settings = model.trained, model.config.train
    loss, optim = settings.loss, settings.optim
    network = settings.network
    afa = f" (AFA {optim.afa_lr:g})" if network.kind == "student" and network.pooling == "afa" else ""
    losses = f"InfoNCE {loss.infonce:g}"
    if trained.teachers:
        losses += f", coarse {loss.coarse:g} ({loss.coarse_kind}), fine {loss.fine:g} ({loss.fine_kind})"
    return {
        "trained on": f"{trained.videos:,} clips, {trained.texts:,} captions",
        "taught by": ", ".join(trained.teachers) or "nobody",
        "losses": losses,
        "optimiser": f"{optim.optimiser}, rate {optim.lr:g}{afa}, decay {optim.weight_decay:g}",
        "steps": f"{trained.steps:,} of {settings.batch_size} pairs",
        "visual trunk": settings.trunk,
        "chosen": f"step {trained.best['step']:,}, by {trained.best['chosen_by']}",
        "seed": str(settings.seed),
        "took": f"{duration(trained.seconds)}, {duration(trained.data_wait)} of it waiting for data",
    }


def _data(dataset: Dataset, frames: FrameCache) -> dict[str, str]:
    usable = set(frames.usable)
    facts = {}
    for split in ("train", "val", "test"):
        videos = [video for video in dataset.videos_of(split) if video.id in usable]
        facts[split] = f"{len(videos):,} clips, {len(dataset.texts_of(split)):,} captions"
    facts["frames"] = f"at most {frames.max_frames} a clip, {frames.image_size} × {frames.image_size} pixels"
    facts["left out"] = f"{len(frames.statuses) - len(usable):,} clips that do not decode"
    return facts


def _machine(seconds: float) -> dict[str, str]:
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, teachclip {__version__}",
        "this run": f"{duration(seconds)}, steps that were found done included",
    }


def _clips(
    examples: Sequence[tuple[str, int]], roles: Roles, views: Mapping[str, View], frames: FrameCache, temperature: float
) -> list[Clip]:
    split = views[roles.taught.name].split
    texts = np.array([text for _, text in examples])
    ranks = {name: view.ranks(texts) for name, view in views.items()}
    weights = {
        model.name: views[model.name].weights(texts, temperature)
        for model in (roles.teacher, roles.alone, roles.taught)
    }
    clips = []
    for row, (why, text) in enumerate(examples):
        video = split.videos[split.text_video[text]]
        read = frames.read([video])
        count = int(read.mask[0].sum())
        clips.append(
            Clip(
                title=why if why == "drawn by lot" else f"{why} from teaching",
                caption=split.texts[text].caption,
                video=video,
                frames=read.frames[0, :count].transpose(0, 2, 3, 1),
                times=read.times[0, :count].tolist(),
                weights={name: made[row, :count].tolist() for name, made in weights.items() if made is not None},
                ranks={name: float(made[row]) for name, made in ranks.items()},
            )
        )
    return clips


@torch.inference_mode()
def _searches(result: SearchResult, model: Model, dataset: Dataset, frames: FrameCache) -> list[Search]:
    captions: dict[str, str] = {}  # the longest: it tells most
    for text in dataset.texts:
        captions[text.video] = max(captions.get(text.video, ""), text.caption, key=len)
    network = load_network(Path(model.trained.run))
    assert isinstance(network, Student)
    return [
        Search(
            found.query,
            [
                Found(
                    answer.cosine, answer.video, _shots(network, frames, answer.video), captions.get(answer.video, "")
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
