"""What a data set comes to before anything is made of it: counts beside the paper's, what is missing, what is odd."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ...cache.frames.cache import FrameCache
from ...cache.frames.record import VideoStatus
from ...configs.published_sets import PUBLISHED, Count, SplitName
from ...configs.schema import Config, DataConfig, PrepareConfig
from ...configs.sweeps import paper_counts
from ...errors import CacheError, DataError
from ...plurals import counted
from ..runtime.reporting import Reporter, Silent
from .dataset import SPLITS, Dataset, Video, dataset_of, forgiving, read_clips, with_validation
from .readers.annotated_video import Annotations
from .readers.video_folder import file_there
from .usable_split import usable_unlabelled
from .video.workers import decode_videos

SHOWN = 20
MISSING = 50.0  # percent: sets of public videos lose some every year, and are used without them
OWN = {"own": "your own captions", "webdataset": "WebDataset shards"}


@dataclass(frozen=True)
class SplitCheck:
    """One split as its files give it, before any part of it validates.

    Attributes:
        paper: what TeachCLIP's table 2 has; None where it has nothing.
        on_disk: videos that have a file.
        prepared: videos with usable frames in the frame cache; None without one.
        files: what was read for it.
        failed: why it cannot be read.
    """

    split: SplitName
    videos: int
    texts: int
    paper: Count | None
    on_disk: int
    prepared: int | None
    files: tuple[str, ...]
    failed: str | None


@dataclass(frozen=True)
class UnlabelledCheck:
    """Training videos without captions, for `train.unlabelled`.

    Attributes:
        on_disk: those that have a file.
        prepared: those with usable frames in the frame cache; None without one.
        captioned: how many of these have the frames of a video with captions, of whatever split, and are left out.
    """

    videos: int
    on_disk: int
    prepared: int | None
    captioned: int


@dataclass(frozen=True)
class Wanted:
    """A file of annotations that is not there: names it may have, splits that need it, where it comes from."""

    names: tuple[str, ...]
    splits: tuple[SplitName, ...]
    origin: str


@dataclass(frozen=True)
class DataCheck:
    """What `check_data` found. Lists hold the first 20; beside each stands how many there are.

    Attributes:
        validation: what will choose the best network.
        problems: what is wrong with single videos, for which the data set is refused; those of shards are left out.
        missing: videos without a file, with what is there instead; undecodable: those that do not decode, as
            `looked_at` says.
        same_captions: per pair of splits, texts of the second that are, letter for letter, texts of the first.
        same_frames: pairs of videos of two splits whose stored frames are equal.
        wanted: files of annotations to get; home: the page of the data set's makers.
        refused: why the data cannot be used; None when it can.
        unlabelled: training videos without captions; None where the configuration names none.
    """

    set: str
    title: str
    annotations: str
    videos: str
    home: str | None
    validation: str
    splits: tuple[SplitCheck, ...]
    problems: tuple[str, ...]
    problem_count: int
    missing: tuple[str, ...]
    missing_count: int
    undecodable: tuple[VideoStatus, ...]
    undecodable_count: int
    looked_at: str
    same_captions: dict[str, int]
    same_frames: tuple[tuple[str, str], ...]
    same_frames_count: int
    wanted: tuple[Wanted, ...]
    warnings: tuple[str, ...]
    refused: str | None
    unlabelled: UnlabelledCheck | None = None


def check_data(
    config: Config, decode: int | None = 0, reporter: Reporter | None = None, missing: float = MISSING
) -> DataCheck:
    """Look at everything that `config.data` names; nothing is written, and a finding is no error.

    Args:
        decode: this many videos, spread over the data set, are decoded; None for all, 0 for none.
        missing: percent of a split's videos that may lack a file, or be damaged, before the data counts as refused.

    Raises:
        DataError: own captions or shards that cannot be read at all.
    """
    return _Check(config, reporter or Silent()).result(decode, missing)


class _Check:
    def __init__(self, config: Config, reporter: Reporter) -> None:
        self.config, self.data, self.reporter = config, config.data, reporter
        self.published, self.paper = PUBLISHED.get(config.data.set), paper_counts(config.data.set)
        self.problems: list[str] = []
        self.failed: dict[SplitName, str] = {}
        self.annotations = Annotations(config.data.annotations, self.problems.append)
        clips = read_clips(config.data, self.problems.append, self._fail, self.annotations)
        as_given = config.data.model_copy(update={"val_fraction": 0.0, "validation": "held-out"})
        self.dataset = dataset_of(clips, as_given, self.problems.append)
        self.validating = with_validation(self.dataset, config.data)
        self.frames = _frames(config.frames_folder)
        self.every_video = self.dataset.with_unlabelled().videos
        self.there = {video.id for video in self.every_video if file_there(video.path)}

    def _fail(self, split: SplitName, error: DataError) -> None:
        self.failed[split] = f"{error.where}: {error.what}"

    def result(self, decode: int | None, allowed: float) -> DataCheck:
        splits = tuple(self._split(split) for split in SPLITS if self._concerns(split))
        missing = [
            f"{video.id} ({video.instead})" if video.instead else video.id
            for video in self.every_video
            if video.id not in self.there
        ]
        undecodable, looked_at, sampled = self._undecodable(decode)
        same = _same_frames(self.dataset, self.frames)
        return DataCheck(
            set=self.data.set,
            title=self.published.title if self.published else OWN[self.data.set],
            annotations=str(self.data.origin),
            videos=str(self.data.video_folder),
            home=self.published.home if self.published else None,
            validation="" if self.failed else _validation(self.dataset, self.validating, self.data),
            splits=splits,
            problems=tuple(self.problems[:SHOWN]),
            problem_count=len(self.problems),
            missing=tuple(missing[:SHOWN]),
            missing_count=len(missing),
            undecodable=tuple(undecodable[:SHOWN]),
            undecodable_count=len(undecodable),
            looked_at=looked_at,
            same_captions=_same_captions(self.dataset),
            same_frames=tuple(same[:SHOWN]),
            same_frames_count=len(same),
            wanted=self._wanted(),
            warnings=(*_against_the_paper(splits), *self._without()),
            refused=self._refused() or self._lacking(undecodable, sampled, allowed),
            unlabelled=self._unlabelled(),
        )

    def _without(self) -> Iterable[str]:
        """Splits that a later verb will ask for in vain."""
        for split, use in (("train", "train on"), ("test", "evaluate on")) if self.published is None else ():
            if split in self.data.splits and not self.dataset.videos_of(split):
                yield f"no {split} videos: there is nothing to {use}"

    def _concerns(self, split: SplitName) -> bool:
        if self.published is None:
            return bool(self.dataset.videos_of(split))
        return split in self.data.splits and split in self.published.splits

    def _split(self, split: SplitName) -> SplitCheck:
        videos = self.dataset.videos_of(split)
        usable = None if self.frames is None else set(self.frames.usable)
        needed = [needed for needed in (self.published.needed if self.published else ()) if split in needed.splits]
        read = {path.relative_to(self.annotations.folder).as_posix() for path in self.annotations.read}
        return SplitCheck(
            split=split,
            videos=len(videos),
            texts=len(self.dataset.texts_of(split)),
            paper=self.paper.get(split),
            on_disk=sum(video.id in self.there for video in videos),
            prepared=None if usable is None else sum(video.id in usable for video in videos),
            files=tuple(name for each in needed for name in each.names if name in read),
            failed=self.failed.get(split),
        )

    def _unlabelled(self) -> UnlabelledCheck | None:
        if not self.data.has_unlabelled:
            return None
        videos = self.dataset.unlabelled
        found = None if self.frames is None else usable_unlabelled(self.dataset, self.frames)
        return UnlabelledCheck(
            videos=len(videos),
            on_disk=sum(video.id in self.there for video in videos),
            prepared=None if found is None else len(found.videos) + found.captioned,
            captioned=0 if found is None else found.captioned,
        )

    def _wanted(self) -> tuple[Wanted, ...]:
        needed = self.published.needed if self.published else ()
        return tuple(
            Wanted(tuple(name for name in each.names if not self._exists(name)), splits, each.origin)
            for each in needed
            if (splits := tuple(split for split in each.splits if split in self.data.splits))
            and (each.names in self.annotations.short or not any(map(self._exists, each.names)))
        )

    def _exists(self, name: str) -> bool:
        return (self.data.annotations / name).exists()

    def _undecodable(self, decode: int | None) -> tuple[list[VideoStatus], str, int]:
        """Videos that do not decode, what was looked at, and how many were decoded now."""
        if decode == 0:
            if self.frames is None:
                return [], "", 0
            known = [self.frames.statuses[video.id] for video in self.every_video if video.id in self.frames.statuses]
            bad = [status for status in known if status.status not in ("ok", "missing")]
            return bad, f"{counted(len(known), 'video')} in the frame cache", 0
        there = [video for video in self.every_video if video.id in self.there]
        chosen = there if decode is None else there[:: max(1, -(-len(there) // decode))]
        found = _decoded(chosen, self.config.prepare, self.reporter)
        return found, f"{counted(len(chosen), 'video')} decoded now", len(chosen)

    def _refused(self) -> str | None:
        if self.failed:
            return f"{counted(len(self.failed), 'split')} cannot be read: {', '.join(self.failed)}"
        if self.problems and not (forgiving(self.data) and self.dataset.videos):
            return f"something is wrong with {counted(len(self.problems), 'video or caption', 'videos or captions')}"
        if not self.dataset.videos:
            return "there are no captions"
        if not any(video.id in self.there for video in self.dataset.videos) and not (
            self.frames and self.frames.usable
        ):
            return f"none of the {counted(len(self.dataset.videos), 'video')} has a file, and none is prepared"
        return None

    def _lacking(self, damaged: Sequence[VideoStatus], sampled: int, allowed: float) -> str | None:
        """A split of which too much is missing, or too many damaged videos among those that were decoded now."""
        known = set(() if self.frames is None else self.frames.usable)
        bad = {status.video for status in damaged}
        for split in filter(self._concerns, SPLITS):
            videos = self.dataset.videos_of(split)
            usable = sum(video.id in known or (video.id in self.there and video.id not in bad) for video in videos)
            if videos and 100 * (len(videos) - usable) > allowed * len(videos):
                return (
                    f"{len(videos) - usable:,} of the {len(videos):,} {split} videos have no file or are damaged; "
                    f"{allowed:g} % may be"
                )
        if sampled and 100 * len(damaged) > allowed * sampled:
            return (
                f"{len(damaged):,} of {counted(sampled, 'video')} that were decoded are damaged; {allowed:g} % may be"
            )
        return None


def _frames(folder: Path | str) -> FrameCache | None:
    try:
        return FrameCache.open(folder)
    except CacheError:
        return None


def _decoded(videos: Sequence[Video], config: PrepareConfig, reporter: Reporter) -> list[VideoStatus]:
    """Those that do not decode, in the data set's order."""
    found: dict[int, VideoStatus] = {}
    jobs = [(video.id, video.source) for video in videos]
    with (
        reporter.progress("decode videos", len(jobs), "video") as progress,
        closing(decode_videos(jobs, config, len(jobs))) as results,
    ):
        for decoded in results:
            found[decoded.index] = decoded.record.status
            progress.advance(1)
    return [status for _, status in sorted(found.items()) if status.status != "ok"]


def _validation(given: Dataset, split: Dataset, config: DataConfig) -> str:
    if split.validation == "test":
        return "the TEST videos choose the best network, as published (data.validation: test); marked in every output"
    if own := len(given.videos_of("val")):
        return f"its own {counted(own, 'validation video')}"
    if held := len(split.videos_of("val")):
        return f"{held} held out of the training videos (data.val_fraction: {config.val_fraction:g})"
    return "none: the last step is kept"


def _same_captions(dataset: Dataset) -> dict[str, int]:
    """`train, test`: how many texts of test are texts of train, too; pairs without any are left out."""
    texts = {split: Counter(text.caption for text in dataset.texts_of(split)) for split in SPLITS}
    pairs: Iterable[tuple[SplitName, SplitName]] = (("train", "val"), ("train", "test"), ("val", "test"))
    counts = {
        f"{one}, {other}": sum(count for text, count in texts[other].items() if text in texts[one])
        for one, other in pairs
    }
    return {pair: count for pair, count in counts.items() if count}


def _same_frames(dataset: Dataset, frames: FrameCache | None) -> list[tuple[str, str]]:
    """Videos of two splits whose stored frames are the same."""
    if frames is None:
        return []
    usable = set(frames.usable)
    seen: dict[bytes, Video] = {}
    pairs = []
    for video in (video for video in dataset.videos if video.id in usable):
        first = seen.setdefault(frames.digest(video.id), video)
        if first.split != video.split:
            pairs.append((f"{first.id} ({first.split})", f"{video.id} ({video.split})"))
    return pairs


def _against_the_paper(splits: Sequence[SplitCheck]) -> Iterable[str]:
    for check in splits:
        if check.paper is None or check.failed:
            continue
        counted: Mapping[str, tuple[int, int]] = {
            "videos": (check.videos, check.paper.videos),
            "texts": (check.texts, check.paper.texts),
        }
        for what, (found, paper) in counted.items():
            if found != paper:
                less = f"{abs(paper - found):,} {'fewer' if found < paper else 'more'}"
                yield f"{check.split}: {found:,} {what}, {less} than the paper's {paper:,}"
