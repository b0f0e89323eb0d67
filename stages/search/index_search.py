"""Which videos of an index show what a sentence says, or are like a video, and when."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from ...cache.library.rows import Hit
from ...errors import DataError
from ..runtime.reporting import Reporter, Silent
from .library.models import DeviceName
from .questions import Question, refuse_empty
from .rerank_windows import WindowReranker
from .serving.nothing_fits import NOTHING_FITS
from .serving.open_index import ALL, Answers, Filters, Found, OpenIndex
from .serving.pictures import clip_frames
from .serving.workbench import Workbench

CLIP_SECONDS = 300.0  # after which the decoding of a video that is asked with counts as hung
_ROW_DIGITS = 18  # more than any window's number has

type By = Literal["sentence", "clip", "window"]
type Scored = tuple[Found, float | None]  # with a teacher's score

SLOW = "every window is looked through, which takes long: they are put in lists when videos are indexed here again"


@dataclass(frozen=True)
class WindowFound:
    """A window, seconds from the video's beginning; `second` is of its frame that is nearest to what was asked, `id` is
    its number, which is never another's."""

    id: int
    cosine: float
    start: float
    stop: float
    second: float


@dataclass(frozen=True)
class VideoFound(WindowFound):
    """A video: its best window, its rank (1 is best), its file; `windows`, best first, where they are asked for;
    `teacher`, where one has re-ordered the answers: its score of the best window, None where that is not as it was."""

    rank: int
    path: str
    windows: tuple[WindowFound, ...] = ()
    teacher: float | None = None


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
        rerank_seconds: of the teacher alone; None without one.
    """

    queries: tuple[VideosFound, ...]
    model: str
    windows: int
    seconds: float
    recall: float | None = None
    rerank_seconds: float | None = None


class IndexSearcher:
    """An index that is open and asked often, until it is closed; several threads may ask at once.

    What is indexed meanwhile is found, too, some seconds later.

        with IndexSearcher.open(Path("index")) as searcher:
            searcher.search(["a dog runs on the beach", Path("dog.mp4")], top=3)

    Args:
        index: is closed with it.
        teacher: re-orders what sentences find, and is closed with it, too.
    """

    def __init__(self, index: OpenIndex, teacher: WindowReranker | None = None) -> None:
        self._index, self._teacher, self._bench = index, teacher, Workbench(1)

    @classmethod
    def open(
        cls,
        folder: Path,
        model: str | None = None,
        device: DeviceName = "auto",
        *,
        rerank: str | None = None,
        reporter: Reporter | None = None,
    ) -> Self:
        """As `OpenIndex.open`, with a teacher as `WindowReranker.open` has it.

        Raises:
            As these.
        """
        index = OpenIndex.open(folder, model, device)
        try:
            return cls(index, None if rerank is None else WindowReranker.open(index.library, rerank, device, reporter))
        except BaseException:
            index.close()
            raise

    def refuse_lacking(self) -> None:
        """Refuse, before anything is asked, what no sentence can be asked of.

        Raises:
            TeachclipError: the model cannot be loaded.
        """
        if self._index.lacking is not None:
            raise self._index.lacking

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
        if top < 1:
            raise DataError(f"{top} answers are asked for", hint="ask for one at least")
        if self._teacher is not None and (like is not None or not all(isinstance(query, str) for query in queries)):
            hint = "ask with a sentence, or without a teacher"
            raise DataError("a teacher re-orders what sentences find, not what is like a video", hint=hint)
        reporter, found, seconds, library = reporter or Silent(), [], 0.0, self._index.library
        if library.slow and filters == ALL:
            reporter.warn(SLOW)
        wanted = top if self._teacher is None else max(top, self._teacher.candidates)
        asked: list[tuple[str, By, Answers]] = []
        for query in queries:
            by: By = "sentence" if isinstance(query, str) else "clip"
            asked.append((str(query), by, self._asked(query, wanted, filters)))
        if like is not None:
            asked.append((like, "window", self._index.like(self._row(like), top, filters)))
        rerank_seconds = None if self._teacher is None else 0.0
        for query, by, answers in asked:
            for note in answers.notes:
                if note != NOTHING_FITS:  # stands with the answers
                    reporter.warn(f"{note}: {query!r}")
            seconds += answers.seconds
            scored: list[Scored] = [(one, None) for one in answers.found]
            if self._teacher is not None and rerank_seconds is not None:
                began = time.perf_counter()
                scored = _scored(answers, query, self._teacher)
                rerank_seconds += time.perf_counter() - began
            found.append(VideosFound(query, self._videos(answers, scored[:top], windows), by, answers.fits))
        recall = library.recall if filters == ALL else None
        return IndexSearched(tuple(found), library.model.name, len(library), seconds, recall, rerank_seconds)

    def close(self) -> None:
        """Let go of the index, and of the process that opens videos."""
        self._bench.close()
        if self._teacher is not None:
            self._teacher.close()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _videos(self, answers: Answers, scored: Sequence[Scored], windows: bool) -> tuple[VideoFound, ...]:
        found = []
        for rank, (one, score) in enumerate(scored, start=1):
            best, every = one.window, self._windows(answers, one.hits) if windows else ()
            shown = (best.row, one.cosine, best.start, best.stop, one.second)
            found.append(VideoFound(*shown, rank, best.path, every, score))
        return tuple(found)

    def _windows(self, answers: Answers, hits: Sequence[Hit]) -> tuple[WindowFound, ...]:
        assert answers.vector is not None
        seconds = self._index.seconds([hit.window for hit in hits], answers.vector)
        return tuple(
            WindowFound(hit.window.row, hit.score, hit.window.start, hit.window.stop, second)
            for hit, second in zip(hits, seconds, strict=True)
        )

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
    rerank: str | None = None,
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
        rerank: the run folder or the checkpoint of a teacher that re-orders the 100 nearest videos (or `top`, if those
            are more) by its own scores of their best windows.
        reporter: is told of sentences that are longer than what the model reads, and of what a teacher cannot read.

    Raises:
        DataError: no question, or an empty sentence; a video that cannot be used, with its status and reason; there is
            no such window; `top` is less than 1.
        CacheError: there is no index, none of this model, it is of another format, or damaged.
        CheckpointError, ConfigError, UnreachableError: the model is gone, or cannot be loaded; the teacher is none.
        CacheMismatchError: the model's name is another model's now.
    """
    with IndexSearcher.open(folder, model, device, rerank=rerank, reporter=reporter) as searcher:
        return searcher.search(queries, top, filters, like=like, windows=windows, reporter=reporter)


def _scored(answers: Answers, query: str, teacher: WindowReranker) -> list[Scored]:
    """What was found in the teacher's order, with its scores; what it has no score of comes behind, equals stay as they
    were."""
    scores = teacher.scores(query, [one.window for one in answers.found])
    return sorted(zip(answers.found, scores, strict=True), key=lambda each: math.inf if each[1] is None else -each[1])
