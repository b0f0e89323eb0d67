"""Which videos show what a sentence says: exact search over the index's vectors."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...configs.schema import Config
from ...errors import DataError
from ...remedies import Remedy, Search
from ..data.dataset import locator
from ..runtime.device import choose_device
from ..runtime.reporting import Reporter, Silent
from .searcher import encode_queries, load_embedder, nearest_videos, open_vectors


@dataclass(frozen=True)
class Answer:
    """A video: its rank (1 is best), its cosine with the sentence, its id and its file."""

    rank: int
    cosine: float
    video: str
    path: str


@dataclass(frozen=True)
class QueryAnswers:
    """A sentence and its videos, best first."""

    query: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class SearchResult:
    """What each sentence found among `videos` videos; `seconds` is the search alone, without loading and encoding."""

    queries: tuple[QueryAnswers, ...]
    videos: int
    seconds: float


def search(config: Config, queries: Sequence[str], reporter: Reporter | None = None) -> SearchResult:
    """The `config.search.top` videos of the index whose vectors are nearest to each sentence.

    Raises:
        DataError: no sentence, or an empty one.
        CheckpointError: the model cannot be loaded, is a teacher, or gives a vector that is not finite.
        CacheError: there is no index, or it is damaged.
        CacheMismatchError: the index was made by another model.
    """
    reporter = reporter or Silent()
    _refuse_empty(queries)
    network = load_embedder(config.search_run, choose_device(config.search.device))
    vectors = open_vectors(config.index_folder, network)
    wanted = encode_queries(network, queries, reporter)
    began = time.perf_counter()
    nearest = nearest_videos(vectors.matrix, wanted, config.search.top)
    seconds = time.perf_counter() - began
    where = locator(config.data)
    found = tuple(
        QueryAnswers(query, _answers(cosines, rows, vectors.videos, where))
        for query, cosines, rows in zip(queries, *nearest, strict=True)
    )
    return SearchResult(found, len(vectors.videos), seconds)


def _answers(
    cosines: np.ndarray, rows: np.ndarray, videos: Sequence[str], where: Callable[[str], str]
) -> tuple[Answer, ...]:
    best = [(float(cosine), videos[row]) for cosine, row in zip(cosines, rows, strict=True)]
    return tuple(Answer(rank, cosine, video, where(video)) for rank, (cosine, video) in enumerate(best, start=1))


def _refuse_empty(queries: Sequence[str]) -> None:
    hint = Remedy("ask with words", Search())
    if not queries:
        raise DataError("nothing to search for", hint=hint)
    empty = [f"sentence {number}" for number, query in enumerate(queries, start=1) if not query.strip()]
    if empty:
        raise DataError("an empty sentence finds nothing", details=empty if len(queries) > 1 else (), hint=hint)
