"""Videos and texts of a data set, whichever it is: checked before anything runs."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import get_args

from ...configs.published_sets import SplitName
from ...configs.schema import DataConfig
from ...errors import DataError
from ...plurals import counted
from ...remedies import Change, CheckData, Remedy
from ..runtime.reporting import Reporter
from .readers.annotated_video import AnnotatedVideo, Annotations
from .readers.own import read_own
from .readers.own_rows import read_rows
from .readers.published import read_published_set
from .readers.text_files import blank
from .readers.video_folder import VideoFolder, bad_id, encodes, file_there
from .readers.webdataset import read_shards, shard_name, shard_paths
from .unlabelled_files import PREFIX, read_unlabelled
from .video.source import VideoSource, file_of

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
SHOWN = 20


@dataclass(frozen=True)
class Video:
    """A video and where its bytes are.

    `id`: own: its POSIX path below the video folder, extension included; published: what the data set calls it;
    webdataset: its shard and its name there; of `data.unlabelled`: `unlabelled:` and its path there. `instead`: what is
    there when its file is not, in words.
    """

    id: str
    source: VideoSource
    split: SplitName
    instead: str = ""

    @property
    def path(self) -> Path:
        """The file it is in."""
        return file_of(self.source)


@dataclass(frozen=True)
class Text:
    """One caption of one video. `id` is `{video}#{k}`, k counting that video's captions in file order."""

    id: str
    video: str
    caption: str


@dataclass(frozen=True)
class Dataset:
    """V videos and T texts, in order of first appearance in the caption file.

    `validation`: the split that chooses the best network: `test` only where `data.validation` says so. `left_out`: what
    is wrong with samples of shards, which are therefore not among the videos, in words. `unlabelled`: further videos,
    all for training, that have no captions and are not among the others. `unfused`: where all captions of a video are
    one text, the texts that they were.
    """

    videos: tuple[Video, ...]
    texts: tuple[Text, ...]
    validation: SplitName = "val"
    left_out: tuple[str, ...] = ()
    unlabelled: tuple[Video, ...] = ()
    unfused: tuple[Text, ...] = ()

    def with_unlabelled(self) -> "Dataset":
        """The same with the videos that have no captions behind the others: what is decoded."""
        return replace(self, videos=(*self.videos, *self.unlabelled), unlabelled=())

    def videos_of(self, split: SplitName) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == split)

    def texts_of(self, split: SplitName) -> tuple[Text, ...]:
        return tuple(text for text in self.texts if self._splits[text.video] == split)

    @cached_property
    def _splits(self) -> dict[str, SplitName]:
        return {video.id: video.split for video in self.videos}


def read_dataset(config: DataConfig) -> Dataset:
    """Read the data set and check every video and caption of it.

    Own captions come as CSV (a header with `video`, `caption` and perhaps `split`; further columns are ignored) or
    JSONL (one object a line with the same names, `caption` a string or a list of strings), in UTF-8, with or without a
    byte order mark; published sets and WebDataset shards as docs/guide/data.md says. Where no video is `val`,
    `val_fraction` of the training videos become so: those whose ids have the smallest hashes, so that the choice does
    not depend on the order of the file. With `validation: test`, and test videos, none does, and the test videos
    validate. Shards were filled by machines, so what is wrong with single samples of theirs only leaves these out.

    Raises:
        DataError: a file cannot be read, or something is wrong with single videos; `details` names up to 20 of them.
    """
    problems: list[str] = []
    dataset = dataset_of(read_clips(config, problems.append), config, problems.append)
    if problems and not (forgiving(config) and dataset.videos):
        raise _refusal(config, problems)
    dataset = replace(dataset, left_out=tuple(problems))
    if not dataset.videos:
        raise DataError("no captions in the file", where=str(config.origin))
    return dataset


def forgiving(config: DataConfig) -> bool:
    """Whether what is wrong with single videos leaves out these and refuses no others."""
    return config.set == "webdataset"


def read_clips(
    config: DataConfig,
    problem: Callable[[str], None],
    failed: Callable[[SplitName, DataError], None] | None = None,
    annotations: Annotations | None = None,
) -> list[AnnotatedVideo]:
    """The clips of `config.splits` as their files give them.

    Args:
        problem: told what is wrong with single videos.
        failed: told of splits of a published set whose files cannot be read; by default that is raised.

    Raises:
        DataError: a file cannot be read.
    """
    if config.set in ("own", "webdataset"):
        read = (
            read_own(config, problem)
            if config.set == "own"
            else read_shards(config.video_folder, problem, config.uncaptioned == "train")
        )
        return [clip for clip in read if clip.split in config.splits]
    annotations = annotations or Annotations(config.annotations, problem)
    clips: list[AnnotatedVideo] = []
    for split in (split for split in SPLITS if split in config.splits):
        try:
            clips += read_published_set(config.set, annotations, split)
        except DataError as error:
            if failed is None:
                raise
            failed(split, error)
    return clips


def dataset_of(clips: Iterable[AnnotatedVideo], config: DataConfig, problem: Callable[[str], None]) -> Dataset:
    """The data set that `clips` come to; what is wrong with single ones goes to `problem`, and they are left out."""
    folder = VideoFolder(config.video_folder) if config.set not in ("own", "webdataset") else None
    kept: dict[str, AnnotatedVideo] = {}
    sources: dict[str, VideoSource] = {}
    instead: dict[str, str] = {}
    unlabelled: list[Video] = []
    for clip in clips:
        source, wrong, there = (clip.source, "", clip.instead) if folder is None else _found(folder, clip)
        if clip.id in kept:
            wrong = f"is in split {clip.split!r} here and in {kept[clip.id].split!r} before"
        if wrong := wrong or _unusable(clip):
            problem(f"{clip.where}: video {clip.id!r} {wrong}")
        elif source is not None and clip.captions:
            kept[clip.id], sources[clip.id] = clip, source
            instead[clip.id] = there
        elif source is not None and clip.split == "train" and config.uncaptioned == "train":
            unlabelled.append(Video(clip.id, source, "train", there))
    videos = tuple(Video(id, sources[id], clip.split, instead[id]) for id, clip in kept.items())
    texts = tuple(
        Text(f"{id}#{k}", id, caption)
        for id, clip in kept.items()
        for k, caption in enumerate(caption.strip() for caption in clip.captions if not blank(caption))
    )
    if config.unlabelled is not None and config.has_unlabelled:
        known = {video.source.resolve() for video in (*videos, *unlabelled) if isinstance(video.source, Path)}
        further = read_unlabelled(config.unlabelled, known, problem)
        unlabelled += [Video(id, path, "train") for id, path in further.items()]
    return with_validation(Dataset(videos, texts, unlabelled=tuple(unlabelled)), config)


def tell_left_out(dataset: Dataset, reporter: Reporter) -> None:
    """Warn of samples that are not among the videos: of the first 20, and how many more."""
    for line in dataset.left_out[:SHOWN]:
        reporter.warn(f"left out: {line}")
    if len(dataset.left_out) > SHOWN:
        reporter.warn(f"left out: {len(dataset.left_out) - SHOWN:,} more; checking the data lists them")


def named_videos(config: DataConfig) -> set[str]:
    """Ids of the videos that the data set names in any split, whatever is wrong with single ones.

    Raises:
        DataError: a file cannot be read.
    """
    further = config.unlabelled and read_unlabelled(config.unlabelled, (), lambda _: None)
    named = set(further or ())
    if config.set == "own":  # without a look at every caption and file
        return named | {row.video for row in read_rows(config.captions, lambda _: None)}
    every = config.model_copy(update={"splits": SPLITS})
    return named | {clip.id for clip in read_clips(every, lambda _: None)}


def file_finder(config: DataConfig) -> Callable[[str], Path | None]:
    """Finds the file that a video is in, by its id; None where there is none now."""
    root, further = config.video_folder, config.unlabelled
    folder = cache(lambda: VideoFolder(root))  # a walk through all files, which may not be needed
    tars = _tars(root) if config.set == "webdataset" else {}

    def find(id: str) -> Path | None:
        if further is not None and id.startswith(PREFIX):
            return _there(further / id.removeprefix(PREFIX))
        if config.set == "own":
            return _there(root / id) or _there(folder().same(id))
        if config.set == "webdataset":
            return next(filter(_there, (tars[stem] for stem in tars if id.startswith(f"{stem}/"))), None)
        return _there(folder().find((id, id.removeprefix("v_")))[0])

    return find


def _there(path: Path | None) -> Path | None:
    return path if path is not None and file_there(path) else None


def locator(config: DataConfig) -> Callable[[str], str]:
    """Tells people where a video is, by its id: its file, or the tar, a slash and its name there."""
    root, further, find = config.video_folder, config.unlabelled, file_finder(config)
    tars = _tars(root) if config.set == "webdataset" else {}

    def locate(id: str) -> str:
        if further is not None and id.startswith(PREFIX):
            return str(further / id.removeprefix(PREFIX))
        if config.set == "webdataset":
            return next((f"{tars[stem]}{id[len(stem) :]}" for stem in tars if id.startswith(f"{stem}/")), id)
        return str(find(id) or root / id)

    return locate


def _tars(root: Path) -> dict[str, Path]:
    """Shards by what the ids of their videos begin with."""
    return {shard_name(path, root).removesuffix(".tar"): path for path in shard_paths(root)}


def _found(folder: VideoFolder, clip: AnnotatedVideo) -> tuple[VideoSource, str, str]:
    """The clip's file, what is wrong with it, and what is there instead.

    One that is not there may be missing when all that is asked of it is in the frame cache.
    """
    if "/" in clip.id or bad_id(clip.id):
        return folder.root, bad_id(clip.id) or "holds a slash", ""
    path, wrong = folder.find((clip.id, *clip.names))
    if path is not None or wrong:
        return path or folder.root, wrong, ""
    return folder.root / f"{clip.id}.mp4", "", folder.instead(clip.id, any_extension=True)


def _unusable(clip: AnnotatedVideo) -> str:
    if not all(map(encodes, clip.captions)):
        return "has a caption with half a character (a lone surrogate)"
    if clip.captions and all(map(blank, clip.captions)):
        return "has only empty captions"
    return bad_id(clip.id) or ""


def _refusal(config: DataConfig, problems: list[str]) -> DataError:
    shown = problems[:SHOWN]
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more")
    own = config.set == "own"
    hint = Remedy("look closer; docs/guide/data.md says what is what", CheckData())
    if own:
        equal = any("the same caption" in problem for problem in problems)
        first = Remedy("keep the first of equal captions", Change({"data.duplicates": "keep-first"}))
        hint = Remedy("correct these rows and run again", otherwise=first if equal else None)
    count = counted(len(problems), "problem")
    return DataError(f"{count} in the captions", where=str(config.origin), hint=hint, details=shown)


def with_validation(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with what validates it where it has no validation videos.

    The test videos, if so configured; else `val_fraction` of the training videos, of which one at least stays.
    """
    splits = {video.split for video in dataset.videos}
    if "val" in splits:
        return dataset
    if config.validation == "test" and "test" in splits:
        return replace(dataset, validation="test")
    train = [video.id for video in dataset.videos if video.split == "train"]
    if config.val_fraction == 0 or len(train) < 2:
        return dataset
    count = min(max(1, round(len(train) * config.val_fraction)), len(train) - 1)
    chosen = set(sorted(train, key=lambda id: hashlib.blake2b(id.encode()).digest())[:count])
    videos = tuple(replace(video, split="val") if video.id in chosen else video for video in dataset.videos)
    return replace(dataset, videos=videos)
