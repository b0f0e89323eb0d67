"""Which videos show what a sentence says: the index brought up to date, a searcher opened over it, and asked."""

from collections.abc import Sequence

from ...configs.schema import Config
from ..data.dataset import locator
from ..runtime.reporting import Reporter, Silent
from .gone import look_in, nothing_left
from .index import up_to_date
from .questions import refuse_empty
from .rerank import Reranker
from .searcher import Searcher, SearchResult


def search(
    config: Config, queries: Sequence[str], reporter: Reporter | None = None, rerank: str | None = None
) -> SearchResult:
    """The `config.search.top` videos of the frame cache whose vectors are nearest to each sentence.

    Videos that have no vector yet are encoded first. What the data no longer names, and what has no file any more, is
    no answer. Whoever asks more than once keeps a searcher open instead.

    Args:
        rerank: a teacher that re-orders what the student finds, as in `Reranker.open`.

    Raises:
        DataError: no sentence, or an empty one; no video can be used; all that could be found is gone.
        CheckpointError: the model cannot be loaded, is a teacher, or makes vectors that are not finite; the teacher
            cannot be loaded, or takes other frames.
        CacheError: frames are missing or do not fit the model; the index is damaged.
    """
    refuse_empty(queries)
    teacher = None if rerank is None else Reranker.open(config, rerank, reporter)
    with open_searcher(config, reporter) as searcher:
        result = searcher.search(queries, config.search.top, reporter, teacher)
    if result.gone and not any(found.answers for found in result.queries):
        raise nothing_left(result.gone, config.data)
    return result


def open_searcher(config: Config, reporter: Reporter | None = None) -> Searcher:
    """A searcher over all usable videos of the frame cache, the index brought up to date; it leaves out what is gone.

    Raises:
        As `index`.
    """
    reporter = reporter or Silent()
    embedder, vectors, _ = up_to_date(config, reporter)
    return Searcher(embedder, vectors, locator(config.data), look_in(config.data, reporter))
