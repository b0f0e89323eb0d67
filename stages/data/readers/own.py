"""Your own captions and videos: a CSV or JSONL file, checked row by row before anything runs."""

from collections import defaultdict
from collections.abc import Callable
from functools import cached_property

from ....configs.published_sets import SplitName
from ....configs.schema import DataConfig
from .annotated_video import AnnotatedVideo
from .own_rows import CaptionRow, read_rows
from .split_names import SPLIT_NAMES, nearest_split
from .text_files import blank, code_points
from .video_folder import VideoFolder, bad_id, encodes, file_there, link_out


def read_own(config: DataConfig, problem: Callable[[str], None]) -> list[AnnotatedVideo]:
    """The videos of the caption file, in order of first appearance; rows without a split are `train`.

    With `uncaptioned: train` training videos without any caption are among them. What is wrong with single rows goes to
    `problem`.

    Raises:
        DataError: the file cannot be read.
    """
    checker = _Checker(config, problem)
    for row in read_rows(config.captions, problem):
        checker.add(row)
    checker.finish()
    return [checker.clip(id) for id in checker.named if id in checker.splits]


class _Checker:
    """Collects videos, their captions and everything that is wrong with them."""

    def __init__(self, config: DataConfig, problem: Callable[[str], None]) -> None:
        self.name, self.problem = config.captions.name, problem
        self.keep_first = config.duplicates == "keep-first"
        self.folder = config.videos or config.captions.parent
        self.root = self.folder.resolve()
        self.splits: dict[str, SplitName] = {}
        self.captions: dict[str, list[str]] = defaultdict(list)
        self.named: dict[str, int] = {}
        self._refused: set[str] = set()
        self._seen: dict[str, dict[str, int]] = defaultdict(dict)
        self._uncaptioned = config.uncaptioned == "train"
        self._empty: dict[str, list[CaptionRow]] = defaultdict(list)

    def add(self, row: CaptionRow) -> None:
        if not self._known(row):
            return
        self._check_split(row)
        for caption in row.captions:
            self._check_caption(row, caption.strip())

    def finish(self) -> None:
        """Videos that no row captions, once all rows are read."""
        for id, line in self.named.items():
            captioned = bool(self._seen[id])
            if self._uncaptioned and not captioned and self.splits.get(id) == "train":
                continue
            for row in self._empty[id]:
                self._tell_empty(row)
            if not captioned and not self._empty[id]:
                self.problem(f"{self.name}:{line}: video {id!r} has no caption")

    def clip(self, id: str) -> AnnotatedVideo:
        where = f"{self.name}:{self.named[id]}"
        captions, path, instead = tuple(self.captions[id]), self.folder / id, ""
        if not file_there(path):
            found = self._files.same(id)
            path, instead = found or path, "" if found else self._files.instead(id)
        return AnnotatedVideo(id, self.splits[id], captions, where, source=path, instead=instead)

    @cached_property
    def _files(self) -> VideoFolder:
        return VideoFolder(self.folder)

    def _known(self, row: CaptionRow) -> bool:
        if row.video in self.named:
            return True
        if row.video in self._refused:
            return False
        wrong = bad_id(row.video) or self._escapes(row.video)
        if wrong:
            self._refused.add(row.video)
            self._tell(row, f"video {_quoted(row.video)} {wrong}")
            return False
        self.named[row.video] = row.line
        return True

    def _escapes(self, id: str) -> str | None:
        try:
            real = (self.folder / id).resolve()
        except (OSError, RuntimeError) as error:
            return f"cannot be resolved ({error.__class__.__name__})"
        return None if real.is_relative_to(self.root) else link_out(real)

    def _check_split(self, row: CaptionRow) -> None:
        split: SplitName | None = next((name for name in SPLIT_NAMES if name == (row.split or "train")), None)
        if split is None:
            self._tell(row, f"unknown split {_quoted(row.split)} (train, val or test{nearest_split(row.split)})")
            return
        first = self.splits.setdefault(row.video, split)
        if first != split:
            self._tell(row, f"video {row.video!r} is in split {split!r} here and in {first!r} before")

    def _check_caption(self, row: CaptionRow, caption: str) -> None:
        if not caption and self._uncaptioned:
            self._empty[row.video].append(row)  # told when the video turns out to have others, or is not for training
            return
        seen = self._seen[row.video]
        if not caption:
            self._tell_empty(row)
        elif blank(caption):
            told = f"nothing of the caption of video {row.video!r} can be seen ({code_points(caption)})"
            self._tell(row, told)
        elif not encodes(caption):
            self._tell(row, f"the caption of video {row.video!r} holds half a character (a lone surrogate)")
        elif caption not in seen:
            seen[caption] = row.line
            self.captions[row.video].append(caption)
            return
        elif not self.keep_first:
            self._tell(row, f"the same caption of video {row.video!r} as in line {seen[caption]}: {_quoted(caption)}")
        seen.setdefault(caption, row.line)  # a video whose captions are all wrong is named for those alone

    def _tell_empty(self, row: CaptionRow) -> None:
        self._tell(row, f"empty caption for video {row.video!r}")

    def _tell(self, row: CaptionRow, text: str) -> None:
        self.problem(f"{self.name}:{row.line}: {text}")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
