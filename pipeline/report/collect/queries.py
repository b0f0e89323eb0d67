"""Queries worth a look: the worst and best of a run, what changed most between two, with frames and what was found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ....cache.frames.cache import FrameCache
from ....configs.schema import Config
from ....errors import CacheError, DataError, TeachclipError
from ....plurals import counted
from ....stages.analysis.closeness import softmax_over
from ....stages.data.dataset import SPLITS, Text
from ....stages.data.teacher_frames import teacher_frames
from ....stages.data.usable_split import UsableSplit
from ....stages.data.video_inputs import FrameInputs
from ....stages.models.checkpoints.files import load_network
from ....stages.models.common.network import VideoTextNetwork
from ....stages.retrieval.encode import encode_videos
from ....stages.retrieval.fits import check_fits
from ....stages.runtime.device import choose_device
from ....stages.runtime.reporting import Reporter, Silent
from ..contents import FoundVideo, QueryClip
from .run import RunFiles, teachers_among

if TYPE_CHECKING:
    from ....stages.retrieval.query_ranks import QueryRanks

WORST, BEST, GAINED, LOST = 3, 2, 2, 1
WEIGHED = 6  # runs whose frame weights are shown
SHOTS = 3  # frames shown of a video that was found
NO_FRAMES = np.zeros((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True)
class Example:
    """A query that is shown: why, and its place among the texts of the focus."""

    why: str
    text: int


class SharedQueries:
    """Runs that were asked the same, in the order of one of them, the focus.

    Args:
        ranks: of every run, by name; those that were asked something else are left out, by name in `others`.
        focus: the run whose queries are looked at.
    """

    def __init__(self, ranks: Mapping[str, "QueryRanks"], focus: str) -> None:
        self.focus, self.of = focus, ranks[focus]
        places = {name: _places(self.of, each) for name, each in ranks.items()}
        self.others = [name for name, found in places.items() if found is None]
        self.places = {name: found for name, found in places.items() if found is not None}
        self.ranks = ranks

    def expected(self, name: str) -> np.ndarray:
        """Ranks [T] of a run, in the focus' order."""
        found: np.ndarray = self.ranks[name].texts.expected[self.places[name]]
        return found

    def examples(self, against: str | None) -> list[Example]:
        """Those that moved most from `against` to the focus, the focus' worst, and some that it answers, by lot."""
        after = self.expected(self.focus)
        orders = [(f"ranked worst by {self.focus}", np.argsort(-after, kind="stable"), WORST)]
        if against is not None:
            gain = np.log(self.expected(against)) - np.log(after)
            by_gain = np.argsort(-gain, kind="stable")
            orders = [
                (f"gained most, {self.focus} against {against}", by_gain[gain[by_gain] > 0], GAINED),
                (f"lost most, {self.focus} against {against}", by_gain[gain[by_gain] < 0][::-1], LOST),
                *orders,
            ]
        lot = np.random.default_rng(0).permutation(np.flatnonzero(after < 2))
        orders.append((f"ranked first by {self.focus}, drawn by lot", lot, BEST))
        seen: set[int] = set()
        return [
            Example(why, text)
            for why, order, count in orders
            for text in _first_of_videos(order, count, self.of.text_video, seen)
        ]

    def split(self, examples: Sequence[Example]) -> UsableSplit:
        """The examples' texts and videos, in their order."""
        texts = [self._text(each.text) for each in examples]
        return UsableSplit(tuple(texts), tuple(text.video for text in texts), np.arange(len(texts)), 0)

    def _text(self, text: int) -> Text:
        video = self.of.video_ids[self.of.text_video[text]]
        return Text(self.of.text_ids[text], video, self.of.captions[text])

    def found(self, text: int, pictures: "Pictures") -> list[FoundVideo]:
        """What each run ranks first; those that agree as one."""
        by: dict[str, list[str]] = {}
        for name, places in self.places.items():
            ranks = self.ranks[name]
            row = ranks.first[places[text]]
            if len(row) and row[0] >= 0:
                by.setdefault(ranks.video_ids[row[0]], []).append(name)
        own = self._text(text).video
        return [
            FoundVideo(None, video, pictures.some(video), self._says(video), names, video == own)
            for video, names in by.items()
        ]

    def _says(self, video: str) -> str:
        """The video's first caption."""
        if video not in self.of.video_ids:
            return ""
        return self.of.captions[int(np.flatnonzero(self.of.text_video == self.of.video_ids.index(video))[0])]


def _places(of: "QueryRanks", other: "QueryRanks") -> np.ndarray | None:
    """Where `other` has the texts of `of` [T]; None when it was asked other things."""
    if other is of:
        return np.arange(len(of.text_ids))
    known = {key: place for place, key in enumerate(zip(other.text_ids, other.captions, strict=True))}
    found = [known.get(key) for key in zip(of.text_ids, of.captions, strict=True)]
    same = len(known) == len(found) and all(place is not None for place in found)
    return np.array(found, np.int64) if same else None


class Pictures:
    """Frames of videos, where there are any; what is missing is counted.

    Args:
        frames: None without a frame cache.
    """

    def __init__(self, frames: FrameCache | None) -> None:
        self.frames = frames
        self.missing: dict[str, str] = {}

    def all(self, video: str) -> tuple[np.ndarray, list[float]]:
        """Frames uint8 [F, H, W, 3] and their seconds, padding left out."""
        if self.frames is None:
            return NO_FRAMES, []
        try:
            clip = self.frames.read([video])
        except CacheError as error:
            self.missing[video] = error.what
            return NO_FRAMES, []
        count = int(clip.mask[0].sum())
        return clip.frames[0, :count].transpose(0, 2, 3, 1), clip.times[0, :count].tolist()

    @property
    def left_out(self) -> list[str]:
        """What readers must be told of videos without frames."""
        first = next(iter(self.missing.values()), None)
        return [] if first is None else [f"Frames of {counted(len(self.missing), 'video')}; the first: {first}."]

    def some(self, video: str) -> np.ndarray:
        """A few frames, evenly spaced [n, H, W, 3]."""
        frames, _ = self.all(video)
        count = min(SHOTS, len(frames))
        return frames[[(2 * k + 1) * len(frames) // (2 * count) for k in range(count)]]


def query_clips(
    runs: Sequence[RunFiles],
    ranks: Mapping[str, "QueryRanks"],
    reporter: Reporter,
    left_out: list[str],
    focus: str | None = None,
    against: str | None = None,
) -> tuple[list[QueryClip], str]:
    """Queries of the best run, how it fares against the first, and how they were chosen, in words.

    Args:
        runs: those whose ranks are known.
        focus, against: other runs than these, by name.
    """
    if not runs:
        return [], ""
    focus = focus or max(ranks, key=lambda name: ranks[name].metrics()["t2v"].sumr)
    queries = SharedQueries(ranks, focus)
    for name in queries.others:
        left_out.append(f"Queries of {name}: it was asked others than {focus}.")
    against = against or next((name for name in queries.places if name != focus), None)
    examples = queries.examples(against)
    split = queries.split(examples)
    pictures = Pictures(_frames(next(run for run in runs if run.name == focus), left_out))
    first = dict.fromkeys([*([against] if against else []), focus, *queries.places])
    weighed = sorted((run for run in runs if run.name in first), key=lambda run: list(first).index(run.name))
    if len(weighed) > WEIGHED:
        left_out.append(f"Frame weights of {counted(len(weighed) - WEIGHED, 'run')}: a page shows those of {WEIGHED}.")
    weights = _weights(weighed[:WEIGHED], split, queries.of.split, pictures, reporter, left_out)
    clips = [
        _clip(queries, example, text, pictures, {name: made[row] for name, made in weights.items()})
        for row, (example, text) in enumerate(zip(examples, split.texts, strict=True))
    ]
    left_out += pictures.left_out
    return clips, _note(focus, bool(weights))


def _note(focus: str, weighted: bool) -> str:
    text = f"Queries of {focus}, no video twice."
    if weighted:
        text += (
            " Under each frame: what it counts in a student's video vector (AFA), and a teacher's frame scores for "
            "this query under the same softmax. The dotted line is where all frames count alike."
        )
    return text


def _clip(
    queries: SharedQueries, example: Example, text: Text, pictures: Pictures, weights: Mapping[str, np.ndarray]
) -> QueryClip:
    frames, times = pictures.all(text.video)
    return QueryClip(
        title=example.why,
        caption=text.caption,
        video=text.video,
        frames=frames,
        times=times,
        weights={name: made[: len(times)].tolist() for name, made in weights.items()} if times else {},
        ranks={name: float(queries.expected(name)[example.text]) for name in queries.places},
        found=queries.found(example.text, pictures),
    )


def _frames(run: RunFiles, left_out: list[str]) -> FrameCache | None:
    """The frames that a run saw."""
    if run.config is None:
        left_out.append(f"Frames: {run.name} has no configuration that says where they are.")
        return None
    try:
        return FrameCache.open(run.config.frames_folder)
    except CacheError as error:
        left_out.append(f"Frames: {error.where or run.config.frames_folder}: {error.what}.")
        return None


def _weights(
    runs: Sequence[RunFiles],
    split: UsableSplit,
    split_name: str,
    pictures: Pictures,
    reporter: Reporter,
    left_out: list[str],
) -> dict[str, np.ndarray]:
    """What frames count [N, F], by run and for their first teacher, in the N examples; those that do not weigh frames
    have nothing."""
    frames = pictures.frames
    if frames is None or any(video not in frames.usable for video in split.videos):
        return {}
    found: dict[str, np.ndarray] = {}
    makers: dict[str, Callable[[], np.ndarray | None]] = {
        run.name: partial(_weights_of, run, split, frames) for run in runs if run.config is not None
    }
    taught = next((run.config for run in reversed(runs) if run.config and run.config.train.teachers), None)
    if taught is not None and taught.train.teachers[0] not in teachers_among(runs):
        teacher = taught.train.teachers[0]
        makers.setdefault(teacher, partial(_weights_of_teacher, taught, teacher, split, split_name, frames, reporter))
    for name, make in makers.items():
        try:
            made = make()
        except TeachclipError as error:
            left_out.append(f"Frame weights of {name}: {error.what}.")
            continue
        if made is not None:
            found[name] = made
    return found


def _weights_of_teacher(
    config: Config, name: str, split: UsableSplit, split_name: str, frames: FrameCache, reporter: Reporter
) -> np.ndarray:
    from ....stages.analysis.teacher_frame_weights import teacher_weights  # teachers' code, which a report seldom needs

    of = next((each for each in SPLITS if each == split_name), None)
    if of is None:
        raise DataError(f"its scores are of the splits {', '.join(SPLITS)}, not of {split_name}")
    known = next((each for each in config.score.teachers if each.name == name), None)
    seen = frames if known is None else teacher_frames(config, known, frames)
    temperature, device = config.train.network.pool_temperature, choose_device("auto")
    return teacher_weights(config, name, split, of, frames, seen, temperature, device, reporter)[0]


def _weights_of(run: RunFiles, split: UsableSplit, frames: FrameCache) -> np.ndarray | None:
    """Of a run's network; padding counts nothing, whatever the network does with it."""
    assert run.config is not None
    network = load_network(run.folder, choose_device("auto")).eval()
    check_fits(network, frames, run.config.frames_folder)
    return _frame_weights(network, split, frames, run.config.train.network.pool_temperature)


@torch.inference_mode()
def _frame_weights(
    network: VideoTextNetwork, split: UsableSplit, frames: FrameCache, temperature: float
) -> np.ndarray | None:
    """Softmax [T, F] of frame-text scores of texts with their own videos; None for a network that has none."""
    inputs, own = FrameInputs(frames, split.videos), torch.from_numpy(split.text_video)
    videos = encode_videos(network, inputs, Silent())
    texts = network.encode_texts(network.take_ids(network.tokenize(split.captions)))
    logits = network.frame_logits(texts, {key: value[own] for key, value in videos.items()})
    if logits is None:
        return None
    valid = ~np.isnan(frames.times(split.videos))[split.text_video]
    return softmax_over(valid, logits.float().cpu().numpy() / temperature)


def _first_of_videos(order: Iterable[np.integer], count: int, text_video: np.ndarray, seen: set[int]) -> list[int]:
    """The first `count` texts of videos that are not in `seen`, which grows."""
    found: list[int] = []
    for text in order:
        video = int(text_video[text])
        if len(found) < count and video not in seen:
            seen.add(video)
            found.append(int(text))
    return found
