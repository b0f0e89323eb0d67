"""Which videos show what a sentence says: the index brought up to date, a searcher opened over it, and asked."""

from collections.abc import Sequence

from ...configs.schema import Config
from ..data.dataset import locator
from ..runtime.reporting import Reporter, Silent
from .index import up_to_date
from .searcher import Searcher, SearchResult, refuse_empty


def search(config: Config, queries: Sequence[str], reporter: Reporter | None = None) -> SearchResult:
    """The `config.search.top` videos of the frame cache whose vectors are nearest to each sentence.

    Videos that have no vector yet are encoded first. Whoever asks more than once keeps a searcher open instead.

    Raises:
        DataError: no sentence, or an empty one; no video can be used.
        CheckpointError: the model cannot be loaded, is a teacher, or makes vectors that are not finite.
        CacheError: frames are missing or do not fit the model; the index is damaged.
    """
    refuse_empty(queries)
    with open_searcher(config, reporter) as searcher:
        return searcher.search(queries, config.search.top, reporter)


def open_searcher(config: Config, reporter: Reporter | None = None) -> Searcher:
    """A searcher over all usable videos of the frame cache, the index brought up to date.

    Raises:
        As `index`.
    """
    embedder, vectors, _ = up_to_date(config, reporter or Silent())
    return Searcher(embedder, vectors, locator(config.data))
