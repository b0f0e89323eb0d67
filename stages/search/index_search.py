"""Which videos of an index show what a sentence says, or are like a video, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from ...cache.library.rows import Hit
from ...errors import DataError
from ..runtime.reporting import Reporter, Silent
from .library.models import DeviceName
from .questions import Question, refuse_empty
from .serving.fit import NOTHING_FITS
from .serving.open_index import ALL, Answers, Filters, Found, OpenIndex, second_of
from .serving.pictures import clip_frames
from .serving.workbench import Workbench

CLIP_SECONDS = 300.0  # after which the decoding of a video that is asked with counts as hung
_ROW_DIGITS = 18  # more than any window's number has

type By = Literal["sentence", "clip", "window"]

SLOW = "every window is looked through, which takes long: they are put in lists when videos are indexed here again"


@dataclass(frozen=True)
class WindowFound:
    """A window, seconds from the video's beginning; `second` is of the frame that counts most in its vector, `id` its
    number, which is never another's."""

    id: int
    cosine: float
    start: float
    stop: float
    second: float


@dataclass(frozen=True)
class VideoFound(WindowFound):
    """A video: its best window, its rank (1 is best), its file; `windows`, best first, where they are asked for."""

    rank: int
    path: str
    windows: tuple[WindowFound, ...] = ()


@dataclass(frozen=True)
class VideosFound:
    """A sentence, or the path or number of what was asked with, and its videos, best first; whether the best fits the
    sentence at all, None where that is not told."""

    query: str
    answers: tuple[VideoFound, ...]
    by: By = "sentence"
    fits: bool | None = None


@dataclass(frozen=True)
class IndexSearched:
    """What each question found among the windows of an index.

    Attributes:
        model: that made the vectors; windows: of it.
        seconds: of the search alone, without loading and encoding.
        recall: share of the ten nearest windows that such a search finds; None where it is exact.
    """

    queries: tuple[VideosFound, ...]
    model: str
    windows: int
    seconds: float
    recall: float | None = None


class IndexSearcher:
    """An index that is open and asked often, until it is closed; several threads may ask at once.

    What is indexed meanwhile is found, too, some seconds later.

        with IndexSearcher.open(Path("index")) as searcher:
            searcher.search(["a dog runs on the beach", Path("dog.mp4")], top=3)

    Args:
        index: is closed with it.
    """

    def __init__(self, index: OpenIndex) -> None:
        self._index, self._bench = index, Workbench(1)

    @classmethod
    def open(cls, folder: Path, model: str | None = None, device: DeviceName = "auto") -> Self:
        """As `OpenIndex.open`."""
        return cls(OpenIndex.open(folder, model, device))

    def search(
        self,
        queries: Sequence[Question],
        top: int = 5,
        filters: Filters = ALL,
        *,
        like: str | None = None,
        windows: bool = False,
        reporter: Reporter | None = None,
    ) -> IndexSearched:
        """As `search_index`."""
        if like is None or queries:
            refuse_empty(queries)
        reporter, found, seconds, library = reporter or Silent(), [], 0.0, self._index.library
        if library.slow and filters == ALL:
            reporter.warn(SLOW)
        asked: list[tuple[str, By, Answers]] = []
        for query in queries:
            by: By = "sentence" if isinstance(query, str) else "clip"
            asked.append((str(query), by, self._asked(query, top, filters)))
        if like is not None:
            asked.append((like, "window", self._index.like(self._row(like), top, filters)))
        for query, by, answers in asked:
            for note in answers.notes:
                if note != NOTHING_FITS:  # stands with the answers
                    reporter.warn(f"{note}: {query!r}")
            seconds += answers.seconds
            videos = tuple(_video(one, windows) for one in answers.found)
            found.append(VideosFound(query, videos, by, answers.fits))
        recall = library.recall if filters == ALL else None
        return IndexSearched(tuple(found), library.model.name, len(library), seconds, recall)

    def close(self) -> None:
        """Let go of the index, and of the process that opens videos."""
        self._bench.close()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, query: Question, top: int, filters: Filters) -> Answers:
        if isinstance(query, str):
            return self._index.sentence(query, top, filters)
        reading = self._index.reading(CLIP_SECONDS)
        try:
            clip = self._bench.do(clip_frames, str(query), reading, seconds=CLIP_SECONDS)
        except DataError as error:
            raise DataError(error.what, where=str(query), hint=error.hint) from None
        return self._index.clip(clip, top, filters)

    def _row(self, like: str) -> int:
        """The number of a window that is named by it, or of the first one of the video at this path."""
        library = self._index.library
        if like.isascii() and like.isdecimal() and len(like) <= _ROW_DIGITS:
            if library.vector(int(like)) is not None:
                return int(like)
            hint = "an answer shows the id of its window"
            raise DataError(f"there is no window {like} in this index", where=str(library.folder), hint=hint)
        if windows := library.windows_of(like):
            return windows[0].row
        video = library.video(like)
        if video is not None and video.status != "ok":
            raise DataError(f"there is no vector of this video: {video.status}, {video.reason}", where=like)
        raise DataError(
            "the index has no vector of this video", where=like, hint="index it, or search by the file itself"
        )


def search_index(
    folder: Path,
    queries: Sequence[Question],
    top: int = 5,
    filters: Filters = ALL,
    *,
    like: str | None = None,
    model: str | None = None,
    windows: bool = False,
    device: DeviceName = "auto",
    reporter: Reporter | None = None,
) -> IndexSearched:
    """The `top` videos of an index whose best windows are nearest to each question; those whose file is gone are none.

    Args:
        queries: sentences, and paths of videos, each of which finds others like it. None where `like` asks.
        filters: what answers must fit.
        like: asks for videos like a window of the index: its id, or the path of a video, for its first one. Answered
            last; its own video is no answer.
        model: where the one that made the vectors lies now, or another that the index has vectors of; by default the
            one that it had last.
        windows: tell of each video every window that was found, not its best alone.
        reporter: is told of sentences that are longer than what the model reads.

    Raises:
        DataError: no question, or an empty sentence; a video that cannot be used, with its status and reason; there is
            no such window; `top` is less than 1.
        CacheError: there is no index, none of this model, it is of another format, or damaged.
        CheckpointError, ConfigError, UnreachableError: the model is gone, or cannot be loaded.
        CacheMismatchError: the model's name is another model's now.
    """
    with IndexSearcher.open(folder, model, device) as searcher:
        return searcher.search(queries, top, filters, like=like, windows=windows, reporter=reporter)


def _video(found: Found, windows: bool) -> VideoFound:
    best = found.window
    every = tuple(_window(hit) for hit in found.hits) if windows else ()
    return VideoFound(best.row, found.cosine, best.start, best.stop, found.second, found.rank, best.path, every)


def _window(hit: Hit) -> WindowFound:
    return WindowFound(hit.window.row, hit.score, hit.window.start, hit.window.stop, second_of(hit.window))
