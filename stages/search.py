"""Which videos show what a sentence says: exact search over the index's vectors."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..cache.vectors import Vectors, read_vectors
from ..configs.schema import Config
from ..errors import CacheError, CacheMismatchError, CheckpointError, DataError
from .data.captions import locator
from .data.tokens import tokenize
from .device import choose_device
from .embedder import load_embedder
from .models.checkpoints import network_digest
from .models.network import VideoTextNetwork
from .nearest import exact_index
from .reporting import Reporter, Silent


@dataclass(frozen=True)
class Answer:
    """A video: its rank (1 is best), its cosine with the sentence, its id and its file."""

    rank: int
    cosine: float
    video: str
    path: str


@dataclass(frozen=True)
class Found:
    """A sentence and its videos, best first."""

    query: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class SearchResult:
    """What each sentence found among `videos` videos; `seconds` is the search alone, without loading and encoding."""

    queries: tuple[Found, ...]
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
    vectors = _open(config.index_folder, network)
    wanted = _encode(network, queries, reporter)
    began = time.perf_counter()
    nearest = _nearest(vectors.matrix, wanted, config.search.top)
    seconds = time.perf_counter() - began
    where = locator(config.data)
    found = tuple(
        Found(query, _answers(cosines, rows, vectors.videos, where))
        for query, cosines, rows in zip(queries, *nearest, strict=True)
    )
    return SearchResult(found, len(vectors.videos), seconds)


def _answers(
    cosines: np.ndarray, rows: np.ndarray, videos: Sequence[str], where: Callable[[str], str]
) -> tuple[Answer, ...]:
    best = [(float(cosine), videos[row]) for cosine, row in zip(cosines, rows, strict=True)]
    return tuple(Answer(rank, cosine, video, where(video)) for rank, (cosine, video) in enumerate(best, start=1))


def _refuse_empty(queries: Sequence[str]) -> None:
    hint = 'ask with words: teachclip search "a dog runs on the beach"'
    if not queries:
        raise DataError("nothing to search for", hint=hint)
    empty = [f"sentence {number}" for number, query in enumerate(queries, start=1) if not query.strip()]
    if empty:
        raise DataError("an empty sentence finds nothing", details=empty if len(queries) > 1 else (), hint=hint)


def _open(folder: Path, network: VideoTextNetwork) -> Vectors:
    vectors = read_vectors(folder)
    if vectors is None:
        raise CacheError("there is no index here", where=str(folder), hint="make it first: stages.index.index(config)")
    if vectors.identity.get("network") != network_digest(network):
        raise CacheMismatchError(
            "this index holds the vectors of another model", where=str(folder), hint="bring it up to date first"
        )
    return vectors


@torch.inference_mode()
def _encode(network: VideoTextNetwork, queries: Sequence[str], reporter: Reporter) -> np.ndarray:
    """Unit vectors of the sentences, float32 [T, D]."""
    words = network.config.words
    longer = tokenize(queries, words + 1)[1].all(dim=1)
    for query, long in zip(queries, longer.tolist(), strict=True):
        if long:
            reporter.warn(f"the model reads the first {words - 2} tokens of a sentence; this one is longer: {query!r}")
    ids = tokenize(queries, words)[0].to(network.logit_scale.device)
    vectors: np.ndarray = network.encode_texts(ids)["vector"].float().cpu().numpy()
    if not np.isfinite(vectors).all():
        raise CheckpointError(
            "the model makes a vector that is not finite of this sentence",
            details=[query for query, vector in zip(queries, vectors, strict=True) if not np.isfinite(vector).all()],
            hint="its weights are damaged or its training diverged: train it again, or search with another one",
        )
    return vectors


def _nearest(matrix: np.ndarray, wanted: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and rows of the best videos, both [T, min(top, V)]."""
    cosines, rows = exact_index(matrix).search(wanted, min(top, len(matrix)))
    return cosines, rows
