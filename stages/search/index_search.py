"""Which videos of an index show what a sentence says, and when: for whoever asks once, and keeps nothing open."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...cache.library.rows import Hit
from ..runtime.reporting import Reporter, Silent
from .searcher import refuse_empty
from .serving.open_index import ALL, Filters, Found, OpenIndex, second_of

SLOW = "every window is looked through, which takes long: they are put in lists when videos are indexed here again"


@dataclass(frozen=True)
class WindowFound:
    """A window, seconds from the video's beginning; `second` is of the frame that counts most in its vector."""

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
        recall: share of the ten nearest windows that such a search finds; None where it is exact.
    """

    queries: tuple[VideosFound, ...]
    model: str
    windows: int
    seconds: float
    recall: float | None = None


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
        if index.library.slow and filters == ALL:
            reporter.warn(SLOW)
        found, seconds = [], 0.0
        for query in queries:
            answers = index.sentence(query, top, filters)
            for note in answers.notes:
                reporter.warn(f"{note}: {query!r}")
            seconds += answers.seconds
            found.append(VideosFound(query, tuple(_video(one, windows) for one in answers.found)))
        recall = index.library.recall if filters == ALL else None
        return IndexSearched(tuple(found), index.library.model.name, len(index.library), seconds, recall)
    finally:
        index.close()


def _video(found: Found, windows: bool) -> VideoFound:
    best = found.window
    every = tuple(_window(hit) for hit in found.hits) if windows else ()
    return VideoFound(found.cosine, best.start, best.stop, found.second, found.rank, best.path, every)


def _window(hit: Hit) -> WindowFound:
    return WindowFound(hit.score, hit.window.start, hit.window.stop, second_of(hit.window))
