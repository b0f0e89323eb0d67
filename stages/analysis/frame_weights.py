"""The frames that a student looks at, beside those that its teacher does (TeachCLIP, figure 3).

Weights of students are AFA's at temperature 1, those that the fine loss teaches; a teacher's are y_f, the softmax of
its frame-text scores at `train.loss.fine_temperature`. Notation: T texts, each with its own video, F frame slots of the
students.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...cache.frames.cache import FrameCache
from ...configs.schema import Config
from ...errors import CheckpointError, ConfigError, DataError
from ..data.dataset import read_dataset
from ..data.teacher_frames import teacher_frames
from ..data.usable_split import UsableSplit, usable_split
from ..data.video_inputs import FrameInputs
from ..models.checkpoints.files import load_clip_network
from ..models.common.network import Features, VideoTextNetwork
from ..models.student import Student
from ..retrieval.encode import encode_videos
from ..retrieval.fits import check_fits
from ..runtime.device import choose_device, plain_float32
from ..runtime.reporting import Reporter, Silent
from .closeness import Closeness, closeness, softmax_over, total_variation
from .teacher_frame_weights import LogitsSource, SplitName, first_teacher, teacher_weights


@dataclass(frozen=True)
class QueryWeights:
    """One text and the frames of its own video, in F slots of the students' frame cache; padded slots come last.

    Attributes:
        text, video: ids; caption: the text.
        times: seconds, NaN in padding; valid: whether there is a frame.
        teacher: y_f, 0 in padding.
        runs: by run, AFA's weights at temperature 1; pooling: those that make the video's vector. A network that does
            not mask padding has weights there, too.
        changed: total variation distance between the first two runs' weights (of a single run and equal weights).
    """

    text: str
    caption: str
    video: str
    times: tuple[float, ...]
    valid: tuple[bool, ...]
    teacher: tuple[float, ...]
    runs: Mapping[str, tuple[float, ...]]
    pooling: Mapping[str, tuple[float, ...]]
    changed: float


@dataclass(frozen=True)
class FrameWeights:
    """Figure 3 of a split.

    Attributes:
        split, teacher: whose; source: where the teacher's scores come from, the score store or the teacher itself.
        texts, videos: of the split; compared: texts whose video has at least two frames.
        closeness: to the teacher's weights, of every run and, last, of equal weights (named "uniform").
        queries: the chosen ones.
    """

    split: str
    teacher: str
    source: LogitsSource
    texts: int
    videos: int
    compared: int
    closeness: tuple[Closeness, ...]
    queries: tuple[QueryWeights, ...]


def frame_weights(
    config: Config,
    runs: Sequence[Path],
    *,
    teacher: str | None = None,
    split: SplitName = "test",
    queries: Sequence[str] = (),
    count: int = 4,
    reporter: Reporter | None = None,
) -> FrameWeights:
    """How runs weigh frames, beside a teacher: over a whole split, and frame by frame for some queries.

    Args:
        runs: run folders or checkpoints of students with AFA: the student first, then the untaught one, then others.
        teacher: its name; by default the first of `train.teachers`, else of `score.teachers`. Its scores come from the
            store where it was scored on this split, else it is loaded and asked.
        queries: ids of texts or of videos (its first text); by default `count` texts of different videos, those where
            the first two runs differ most (a single run: from equal weights).

    Raises:
        ConfigError: no such teacher, or one without frame scores.
        CheckpointError: a run cannot be loaded, or has no AFA.
        DataError: the split has no usable captions, or there is no such query.
        CacheError: frames or scores are missing, or do not fit.
    """
    if not runs:
        raise ConfigError("no run is named: whose frame weights?", hint="name a student's: runs/student")
    reporter = reporter or Silent()
    name = teacher or first_teacher(config)
    known = next((each for each in config.score.teachers if each.name == name), None)
    frames = FrameCache.open(config.frames_folder)
    seen = frames if known is None else teacher_frames(config, known, frames)
    found = usable_split(read_dataset(config.data), [split], frames, seen)
    if not found.texts:
        raise DataError(
            f"the {split} split has no usable captions", where=str(config.data.origin), hint="choose another split"
        )
    device = choose_device(config.evaluate.device)
    times = frames.times(found.videos)
    weighed = _Weighed(config, runs, found, ~np.isnan(times), frames, device, reporter)
    temperature = config.train.loss.fine_temperature
    y_f, source = teacher_weights(config, name, found, split, frames, seen, temperature, device, reporter)
    chosen = _find(queries, found) if queries else _most_changed(weighed.changed, found, count)
    shown = tuple(weighed.query(k, times[found.text_video[k]], y_f[k]) for k in chosen)
    return FrameWeights(
        split=split,
        teacher=name,
        source=source,
        texts=len(found.texts),
        videos=len(found.videos),
        compared=int(weighed.comparable.sum()),
        closeness=weighed.closeness(y_f),
        queries=shown,
    )


def thumbnails(config: Config, video: str, size: int = 112) -> np.ndarray:
    """The frames that a student sees of a video, uint8 RGB [F, size, size, 3]; padded slots are black.

    Raises:
        CacheError: the video has no frames.
    """
    clip = FrameCache.open(config.frames_folder).read([video]).frames[0]
    images = (
        Image.fromarray(frame.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BICUBIC) for frame in clip
    )
    return np.stack([np.asarray(image) for image in images])


class _Weighed:
    """The runs' weights of a split's texts: of each text's own video [T, F]."""

    def __init__(
        self,
        config: Config,
        runs: Sequence[Path],
        split: UsableSplit,
        valid_VF: np.ndarray,
        frames: FrameCache,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.split = split
        self.valid = valid_VF[split.text_video]
        self.weights: dict[str, np.ndarray] = {}
        self.pooling: dict[str, np.ndarray] = {}
        paths = [path if path.exists() else config.work / path for path in runs]
        for name, path in zip(_names(runs), paths, strict=True):
            network = _student(path).to(device).eval()
            check_fits(network, frames, config.frames_folder)
            encoded = _encoded(network, FrameInputs(frames, split.videos), device, reporter)
            mask = torch.from_numpy(valid_VF).to(device)
            for kept, weigh in ((self.weights, network.frame_weights), (self.pooling, network.pooling_weights)):
                kept[name] = weigh(encoded, mask).float().cpu().numpy()[split.text_video]

    @property
    def comparable(self) -> np.ndarray:
        """Texts whose video has two frames or more, bool [T]."""
        enough: np.ndarray = self.valid.sum(1) > 1
        return enough

    @cached_property
    def changed(self) -> np.ndarray:
        """How far the first two runs are apart, [T]."""
        first, second = [*self.weights.values(), _equal(self.valid)][:2]
        return total_variation(first, second)

    def closeness(self, y_f: np.ndarray) -> tuple[Closeness, ...]:
        """Of every run, and of equal weights, to the teacher's [T, F]."""
        rows = self.comparable
        if not rows.any():
            raise DataError("no video has two frames: there is nothing to weigh")
        named = {**self.weights, "uniform": _equal(self.valid)}
        return tuple(closeness(name, each[rows], y_f[rows], self.valid[rows]) for name, each in named.items())

    def query(self, k: int, times: np.ndarray, y_f: np.ndarray) -> QueryWeights:
        text = self.split.texts[k]
        return QueryWeights(
            text=text.id,
            caption=text.caption,
            video=text.video,
            times=tuple(times.tolist()),
            valid=tuple(self.valid[k].tolist()),
            teacher=tuple(y_f.tolist()),
            runs={name: tuple(weights[k].tolist()) for name, weights in self.weights.items()},
            pooling={name: tuple(weights[k].tolist()) for name, weights in self.pooling.items()},
            changed=float(self.changed[k]),
        )


def _equal(valid: np.ndarray) -> np.ndarray:
    return softmax_over(valid, np.zeros(valid.shape))


def _names(runs: Sequence[Path]) -> list[str]:
    """A short name of each run, the whole path where two would be called alike."""
    short = [path.stem if path.suffix else path.name for path in runs]
    return [
        name if short.count(name) == 1 and name != "uniform" else str(path)
        for name, path in zip(short, runs, strict=True)
    ]


def _student(path: Path) -> Student:
    network = load_clip_network(path)
    if not isinstance(network, Student) or network.afa is None:
        what = "a student with mean pooling" if isinstance(network, Student) else f"a {network.config.kind}"
        raise CheckpointError(
            f"this is {what}: it has no frame weights of its own",
            where=str(path),
            hint="name runs of students with AFA (train.network.pooling: afa)",
        )
    return network


def _encoded(network: VideoTextNetwork, inputs: FrameInputs, device: torch.device, reporter: Reporter) -> Features:
    with plain_float32(device):
        return encode_videos(network, inputs, reporter)


def _find(queries: Sequence[str], split: UsableSplit) -> list[int]:
    """Indices of texts by their id, or by that of their video (its first text)."""
    places: dict[str, int] = {}
    for k, text in enumerate(split.texts):
        places.setdefault(text.id, k)
        places.setdefault(text.video, k)
    if unknown := [query for query in queries if query not in places]:
        near = get_close_matches(unknown[0], places, n=3)
        raise DataError(
            f"no text and no usable video of this split has the id {unknown[0]!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"ids look like {next(iter(places))}",
        )
    return [places[query] for query in queries]


def _most_changed(changed: np.ndarray, split: UsableSplit, count: int) -> list[int]:
    """The texts with the largest changes, one of each video."""
    order = np.argsort(-changed, kind="stable")
    _, first = np.unique(split.text_video[order], return_index=True)
    chosen: list[int] = order[np.sort(first)][:count].tolist()
    return chosen
