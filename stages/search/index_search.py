"""Which videos of an index show what a sentence says, and when: for whoever asks once, and keeps nothing open."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...cache.library.rows import Hit
from ..runtime.reporting import Reporter, Silent
from .rerank_windows import WindowReranker
from .searcher import refuse_empty
from .serving.open_index import ALL, Answers, Filters, Found, OpenIndex


@dataclass(frozen=True)
class WindowFound:
    """A window, seconds from the video's beginning; `second` is of its frame that is nearest to the sentence."""

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
    """A sentence and its videos, best first."""

    query: str
    answers: tuple[VideoFound, ...]


@dataclass(frozen=True)
class IndexSearched:
    """What each sentence found among the windows of an index.

    Attributes:
        model: that made the vectors; windows: of it.
        seconds: of the search alone, without loading and encoding.
        rerank_seconds: of the teacher alone; None without one.
    """

    queries: tuple[VideosFound, ...]
    model: str
    windows: int
    seconds: float
    rerank_seconds: float | None = None


def search_index(
    folder: Path,
    queries: Sequence[str],
    top: int = 5,
    filters: Filters = ALL,
    *,
    model: str | None = None,
    windows: bool = False,
    rerank: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    reporter: Reporter | None = None,
) -> IndexSearched:
    """The `top` videos of an index whose best windows are nearest to each sentence; those whose file is gone are none.

    Args:
        filters: what answers must fit.
        model: where the one that made the vectors lies now, or another that the index has vectors of; by default the
            one that it had last.
        windows: tell of each video every window that was found, not its best alone.
        rerank: the run folder or the checkpoint of a teacher that re-orders the 100 nearest videos (or `top`, if those
            are more) by its own scores of their best windows.
        reporter: is told of sentences that are longer than what the model reads, and of what a teacher cannot read.

    Raises:
        DataError: no sentence, or an empty one; `top` is less than 1.
        CacheError: there is no index, none of this model, it is of another format, or damaged.
        CheckpointError, ConfigError, UnreachableError: the model is gone, or cannot be loaded; the teacher is none.
        CacheMismatchError: the model's name is another model's now.
    """
    refuse_empty(queries)
    reporter = reporter or Silent()
    index = OpenIndex.open(folder, model, device)
    with ExitStack() as opened:
        opened.callback(index.close)
        if index.lacking is not None:
            raise index.lacking
        teacher = None if rerank is None else WindowReranker.open(index.library, rerank, device, reporter)
        if teacher is not None:
            opened.callback(teacher.close)
        found, seconds, rerank_seconds = [], 0.0, 0.0
        for query in queries:
            answers = index.sentence(query, top if teacher is None else max(top, teacher.candidates), filters)
            for note in answers.notes:
                reporter.warn(f"{note}: {query!r}")
            seconds += answers.seconds
            began = time.perf_counter()
            scored = _scored(answers.found, teacher, query)[:top]
            rerank_seconds += time.perf_counter() - began
            found.append(VideosFound(query, _videos(index, answers, scored, windows)))
        with_teacher = None if teacher is None else rerank_seconds
        return IndexSearched(tuple(found), index.library.model.name, len(index.library), seconds, with_teacher)


def _scored(found: Sequence[Found], teacher: WindowReranker | None, query: str) -> list[tuple[Found, float | None]]:
    """What was found in the teacher's order, where there is one, with its scores; what it has no score of comes behind,
    equals stay as they were."""
    if teacher is None:
        return [(one, None) for one in found]
    scored = list(zip(found, teacher.scores(query, [one.window for one in found]), strict=True))
    return sorted(scored, key=lambda each: math.inf if each[1] is None else -each[1])


def _videos(
    index: OpenIndex, answers: Answers, scored: Sequence[tuple[Found, float | None]], windows: bool
) -> tuple[VideoFound, ...]:
    found = []
    for rank, (one, score) in enumerate(scored, start=1):
        best, every = one.window, _windows(index, answers, one.hits) if windows else ()
        found.append(VideoFound(one.cosine, best.start, best.stop, one.second, rank, best.path, every, score))
    return tuple(found)


def _windows(index: OpenIndex, answers: Answers, hits: Sequence[Hit]) -> tuple[WindowFound, ...]:
    assert answers.vector is not None
    seconds = index.seconds([hit.window for hit in hits], answers.vector)
    return tuple(
        WindowFound(hit.score, hit.window.start, hit.window.stop, second)
        for hit, second in zip(hits, seconds, strict=True)
    )
