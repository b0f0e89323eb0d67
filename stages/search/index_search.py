"""Which videos of an index show what a sentence says, and when: for whoever asks once, and keeps nothing open."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...cache.library.rows import Hit
from ..runtime.reporting import Reporter, Silent
from .searcher import refuse_empty
from .serving.open_index import ALL, Answers, Filters, OpenIndex


@dataclass(frozen=True)
class WindowFound:
    """A window, seconds from the video's beginning; `second` is of its frame that is nearest to the sentence."""

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
    """A sentence and its videos, best first."""

    query: str
    answers: tuple[VideoFound, ...]


@dataclass(frozen=True)
class IndexSearched:
    """What each sentence found among the windows of an index.

    Attributes:
        model: that made the vectors; windows: of it.
        seconds: of the search alone, without loading and encoding.
    """

    queries: tuple[VideosFound, ...]
    model: str
    windows: int
    seconds: float


def search_index(
    folder: Path,
    queries: Sequence[str],
    top: int = 5,
    filters: Filters = ALL,
    *,
    model: str | None = None,
    windows: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    reporter: Reporter | None = None,
) -> IndexSearched:
    """The `top` videos of an index whose best windows are nearest to each sentence; those whose file is gone are none.

    Args:
        filters: what answers must fit.
        model: where the one that made the vectors lies now, or another that the index has vectors of; by default the
            one that it had last.
        windows: tell of each video every window that was found, not its best alone.
        reporter: is told of sentences that are longer than what the model reads.

    Raises:
        DataError: no sentence, or an empty one; `top` is less than 1.
        CacheError: there is no index, none of this model, it is of another format, or damaged.
        CheckpointError, ConfigError, UnreachableError: the model is gone, or cannot be loaded.
        CacheMismatchError: the model's name is another model's now.
    """
    refuse_empty(queries)
    reporter = reporter or Silent()
    index = OpenIndex.open(folder, model, device)
    try:
        if index.lacking is not None:
            raise index.lacking
        found, seconds = [], 0.0
        for query in queries:
            answers = index.sentence(query, top, filters)
            for note in answers.notes:
                reporter.warn(f"{note}: {query!r}")
            seconds += answers.seconds
            found.append(VideosFound(query, _videos(index, answers, windows)))
        return IndexSearched(tuple(found), index.library.model.name, len(index.library), seconds)
    finally:
        index.close()


def _videos(index: OpenIndex, answers: Answers, windows: bool) -> tuple[VideoFound, ...]:
    found = []
    for one in answers.found:
        best, every = one.window, _windows(index, answers, one.hits) if windows else ()
        found.append(VideoFound(one.cosine, best.start, best.stop, one.second, one.rank, best.path, every))
    return tuple(found)


def _windows(index: OpenIndex, answers: Answers, hits: Sequence[Hit]) -> tuple[WindowFound, ...]:
    assert answers.vector is not None
    seconds = index.seconds([hit.window for hit in hits], answers.vector)
    return tuple(
        WindowFound(hit.score, hit.window.start, hit.window.stop, second)
        for hit, second in zip(hits, seconds, strict=True)
    )
