"""Your captions and videos: a CSV or JSONL file, checked row by row before anything runs."""

import difflib
import hashlib
import posixpath
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from ...configs.videos import DataConfig
from ...errors import DataError
from .rows import Row, read_rows

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHOWN = 20


@dataclass(frozen=True)
class Video:
    """A video file. `id` is its POSIX path below the video folder, extension included."""

    id: str
    path: Path
    split: Split


@dataclass(frozen=True)
class Text:
    """One caption of one video. `id` is `{video}#{k}`, k counting that video's captions in file order."""

    id: str
    video: str
    caption: str


@dataclass(frozen=True)
class Dataset:
    """V videos and T texts, in order of first appearance in the caption file."""

    videos: tuple[Video, ...]
    texts: tuple[Text, ...]

    def videos_of(self, split: Split) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == split)

    def texts_of(self, split: Split) -> tuple[Text, ...]:
        return tuple(text for text in self.texts if self._splits[text.video] == split)

    @cached_property
    def _splits(self) -> dict[str, Split]:
        return {video.id: video.split for video in self.videos}


def read_dataset(config: DataConfig) -> Dataset:
    """Read the caption file and check every row.

    CSV: a header with `video`, `caption` and perhaps `split`; further columns are ignored. JSONL: one object a line
    with the same names, `caption` a string or a list of strings. Both in UTF-8, with or without a byte order mark.
    Rows without a split are `train`; when no row says `val`, `val_fraction` of the training videos become `val`: those
    whose ids have the smallest hashes, so that the choice does not depend on the order of the file.

    Raises:
        DataError: the file cannot be read, or rows are wrong; `details` names up to 20 of them.
    """
    checker = _Checker(config)
    for row in read_rows(config.captions, checker.problems.append):
        checker.add(row)
    checker.finish()
    if checker.problems:
        raise _refusal(config, checker.problems)
    if not checker.paths:
        raise DataError("no captions in the file", where=str(config.captions))
    videos = tuple(Video(id, path, checker.splits[id]) for id, path in checker.paths.items())
    texts = tuple(
        Text(f"{id}#{k}", id, caption)
        for id, captions in checker.captions.items()
        for k, caption in enumerate(captions)
    )
    return Dataset(_with_validation(videos, config.val_fraction), texts)


class _Checker:
    """Collects videos, their captions and everything that is wrong with them."""

    def __init__(self, config: DataConfig) -> None:
        self.name = config.captions.name
        self.keep_first = config.duplicates == "keep-first"
        self.folder = config.videos or config.captions.parent
        self.root = self.folder.resolve()
        self.paths: dict[str, Path] = {}
        self.splits: dict[str, Split] = {}
        self.captions: dict[str, list[str]] = defaultdict(list)
        self.problems: list[str] = []
        self._refused: set[str] = set()
        self._seen: dict[str, dict[str, int]] = defaultdict(dict)
        self._named: dict[str, int] = {}

    def add(self, row: Row) -> None:
        if not self._known(row):
            return
        self._check_split(row)
        for caption in row.captions:
            self._check_caption(row, caption.strip())

    def finish(self) -> None:
        """Videos that no row captions, once all rows are read."""
        for id, line in self._named.items():
            if not self._seen[id]:
                self.problems.append(f"{self.name}:{line}: video {id!r} has no caption")

    def _known(self, row: Row) -> bool:
        if row.video in self.paths:
            return True
        if row.video in self._refused:
            return False
        problem = _bad_id(row.video) or self._escapes(row.video)
        if problem:
            self._refused.add(row.video)
            self._problem(row, f"video {_quoted(row.video)} {problem}")
            return False
        self.paths[row.video] = self.folder / row.video
        self._named[row.video] = row.line
        return True

    def _escapes(self, id: str) -> str | None:
        try:
            real = (self.folder / id).resolve()
        except (OSError, RuntimeError) as error:
            return f"cannot be resolved ({error.__class__.__name__})"
        return None if real.is_relative_to(self.root) else "is a link out of the video folder"

    def _check_split(self, row: Row) -> None:
        split = next((name for name in SPLITS if name == (row.split or "train")), None)
        if split is None:
            near = difflib.get_close_matches(row.split.lower(), SPLITS, n=1, cutoff=0.4)
            meant = f", did you mean {near[0]!r}?" if near else ""
            self._problem(row, f"unknown split {_quoted(row.split)} (train, val or test{meant})")
            return
        first = self.splits.setdefault(row.video, split)
        if first != split:
            self._problem(row, f"video {row.video!r} is in split {split!r} here and in {first!r} before")

    def _check_caption(self, row: Row, caption: str) -> None:
        seen = self._seen[row.video]
        if not caption:
            self._problem(row, f"empty caption for video {row.video!r}")
        elif not _encodes(caption):
            self._problem(row, f"the caption of video {row.video!r} holds half a character (a lone surrogate)")
        elif caption not in seen:
            seen[caption] = row.line
            self.captions[row.video].append(caption)
            return
        elif not self.keep_first:
            self._problem(
                row, f"the same caption of video {row.video!r} as in line {seen[caption]}: {_quoted(caption)}"
            )
        seen.setdefault(caption, row.line)  # a video whose captions are all wrong is named for those alone

    def _problem(self, row: Row, text: str) -> None:
        self.problems.append(f"{self.name}:{row.line}: {text}")


def _bad_id(id: str) -> str | None:
    """Why `id` cannot be the name of a file below the video folder, or None."""
    if not id:
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in id):
        return "holds a control character or a line break"
    if not _encodes(id):
        return "holds half a character (a lone surrogate)"
    if posixpath.isabs(id):
        return "is an absolute path; give it relative to the video folder"
    if ".." in id.split("/"):
        return "leaves the video folder (..)"
    if id != posixpath.normpath(id):
        return f"should be written {posixpath.normpath(id)!r}, so that a video has one name"
    return None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _refusal(config: DataConfig, problems: list[str]) -> DataError:
    shown = problems[:SHOWN]
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more")
    hint = "correct these rows and run again"
    if any("the same caption" in problem for problem in problems):
        hint += "; or keep the first of equal captions: --set data.duplicates=keep-first"
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DataError(f"{count} in the captions", where=str(config.captions), hint=hint, details=shown)


def _with_validation(videos: tuple[Video, ...], fraction: float) -> tuple[Video, ...]:
    """Make `fraction` of the training videos `val` when there is none; at least one video stays in training."""
    train = [video.id for video in videos if video.split == "train"]
    if fraction == 0 or len(train) < 2 or any(video.split == "val" for video in videos):
        return videos
    count = min(max(1, round(len(train) * fraction)), len(train) - 1)
    chosen = set(sorted(train, key=lambda id: hashlib.blake2b(id.encode()).digest())[:count])
    return tuple(replace(video, split="val") if video.id in chosen else video for video in videos)
