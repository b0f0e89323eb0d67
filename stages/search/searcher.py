"""A student, the vectors that it made of videos and an exact index over them: opened once, asked often."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
import torch

from ...cache.vectors import Vectors, exact_index, read_vectors
from ...configs.schema import Config
from ...errors import CacheError, CacheMismatchError, CheckpointError, DataError
from ...remedies import Change, Remedy, Search
from ..data.dataset import locator
from ..models.common.network import VideoTextNetwork
from ..models.named import named_model
from ..runtime.device import choose_device, plain_float32
from ..runtime.reporting import Reporter, Silent
from .gone import Gone, Look
from .index_search import IndexSearcher
from .library.models import DeviceName
from .questions import refuse_empty
from .rerank import Reranker

type Ranked = tuple[float, str]  # a video and its cosine


@dataclass(frozen=True)
class Answer:
    """A video: its rank (1 is best), its cosine with the sentence, its id and its file; where a teacher has re-ordered
    the answers, its score too, None where it has no frames of the video."""

    rank: int
    cosine: float
    video: str
    path: str
    teacher: float | None = None


@dataclass(frozen=True)
class QueryAnswers:
    """A sentence and its videos, best first."""

    query: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class SearchResult:
    """What each sentence found among `videos` videos.

    Attributes:
        seconds: of the search alone, without loading and encoding.
        rerank_seconds: of the teacher alone; None without one.
        gone: nearer videos than the last answer that are no answers, because nobody can look at them any more.
    """

    queries: tuple[QueryAnswers, ...]
    videos: int
    seconds: float
    gone: tuple[Gone, ...] = ()
    rerank_seconds: float | None = None


@dataclass(frozen=True)
class Embedder:
    """A student in evaluation mode, and the digest of its weights."""

    network: VideoTextNetwork
    digest: str

    @classmethod
    def load(cls, run: Path, device: torch.device) -> Self:
        """The student of a run folder or checkpoint, read and hashed.

        Raises:
            CheckpointError: it cannot be loaded, or is a teacher, whose scores are not those of two vectors.
        """
        instead = Remedy("search with a student", Change({"search.run": "runs/student"}))
        model = named_model(run, device, instead=instead)
        return cls(model.network, model.digest)


class _Opened(NamedTuple):
    network: VideoTextNetwork
    videos: tuple[str, ...]
    index: Any
    locate: Callable[[str], str]
    look: Look


class Searcher:
    """Finds the videos that sentences describe; several threads may ask at once.

        with Searcher.open(load_config(Path("own_videos.yaml"))) as searcher:
            searcher.search(["a dog runs on the beach"], top=3)

    `stages.search.stage.open_searcher` brings the index up to date first, and leaves out videos that are gone;
    `Searcher.open` takes it as it is, and needs no frames and no videos; `Searcher.from_files` needs no configuration
    either. It goes on answering from the vectors that it was opened with: after the index has been changed, open
    another. `Searcher.open("index")`, of a folder that `index_videos` filled, is an `IndexSearcher` instead.

    Args:
        embedder: the student.
        vectors: what it made of the videos.
        locate: tells people where a video is, by its id.
        look: tells which videos are gone, and no answers.

    Attributes:
        videos: ids of the videos it knows.
    """

    def __init__(
        self,
        embedder: Embedder,
        vectors: Vectors,
        locate: Callable[[str], str] = str,
        look: Look = lambda _: None,
    ) -> None:
        self.videos = vectors.videos
        index = exact_index(vectors.matrix)
        self._opened: _Opened | None = _Opened(embedder.network, self.videos, index, locate, look)
        embedder.network.tokenize_telling(["warm"])  # reads the vocabulary now, not when the first sentence comes

    @overload
    @classmethod
    def open(cls, where: Config) -> Self: ...

    @overload
    @classmethod
    def open(cls, where: str | Path, model: str | None = None, device: DeviceName = "auto") -> IndexSearcher: ...

    @classmethod
    def open(
        cls, where: Config | str | Path, model: str | None = None, device: DeviceName = "auto"
    ) -> Self | IndexSearcher:
        """The student and the index that a configuration names, as they are; or any index folder, by its path.

        Args:
            model: of a folder, where its model lies now, or another that it has vectors of.
            device: of a folder, where its model runs; a configuration says it itself.

        Raises:
            CheckpointError: the model cannot be loaded, or is a teacher.
            CacheError: there is no index, or it is damaged.
            CacheMismatchError: the index was made by another model.
        """
        if not isinstance(where, Config):
            return IndexSearcher.open(Path(where), model, device)
        search = where.search
        return cls.from_files(where.search_run, where.index_folder, device=search.device, locate=locator(where.data))

    @classmethod
    def from_files(
        cls,
        run: Path,
        index: Path,
        *,
        device: DeviceName = "auto",
        locate: Callable[[str], str] = str,
    ) -> Self:
        """As `open`, from files alone.

        Args:
            run: the student's run folder or checkpoint.
            index: the folder of the vectors.
            device: where the student runs.
            locate: tells people where a video is, by its id; by default the id itself.

        Raises:
            As `open`.
        """
        embedder = Embedder.load(run, choose_device(device))
        return cls(embedder, _vectors_of(index, embedder), locate)

    def search(
        self,
        queries: Sequence[str],
        top: int = 5,
        reporter: Reporter | None = None,
        rerank: Reranker | None = None,
    ) -> SearchResult:
        """The videos whose vectors are nearest to each sentence, at most `top` of them.

        Args:
            reporter: is told of sentences that are longer than what the model reads.
            rerank: a teacher that re-orders the nearest `rerank.candidates` videos (or `top`, if those are more) by its
                own scores; videos that it has no frames of come behind, as they were.

        Raises:
            DataError: no sentence, or an empty one; `top` is less than 1.
            CheckpointError: the model gives a vector that is not finite.
            CacheError: frames or features for the teacher cannot be read or kept.
            ValueError: the searcher is closed.
        """
        refuse_empty(queries)
        if top < 1:
            raise DataError(f"{top} answers are asked for", hint="ask for one at least")
        if (opened := self._opened) is None:
            raise ValueError("this searcher is closed")
        wanted = _encode(opened.network, queries, reporter or Silent())
        began = time.perf_counter()
        nearest, gone = _nearest(opened, wanted, top if rerank is None else max(top, rerank.candidates))
        seconds = time.perf_counter() - began
        asked = list(zip(queries, nearest, strict=True))
        if rerank is None:
            found = [QueryAnswers(query, _answers(opened, best)) for query, best in asked]
            return SearchResult(tuple(found), len(opened.videos), seconds, gone)
        began = time.perf_counter()
        found = [QueryAnswers(query, _reordered(opened, rerank, query, best, top)) for query, best in asked]
        return SearchResult(tuple(found), len(opened.videos), seconds, gone, time.perf_counter() - began)

    def close(self) -> None:
        """Let go of the student and the vectors; searches that run end as they should."""
        self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _vectors_of(folder: Path, embedder: Embedder) -> Vectors:
    vectors = read_vectors(folder)
    if vectors is None or not vectors.videos:
        raise CacheError("there is no index here", where=str(folder), hint=Remedy("index the videos first", Search()))
    if vectors.identity.get("network") != embedder.digest:
        raise CacheMismatchError(
            "this index holds the vectors of another model",
            where=str(folder),
            hint=Remedy("bring it up to date first", Search()),
        )
    return vectors


@torch.inference_mode()
def _encode(network: VideoTextNetwork, queries: Sequence[str], reporter: Reporter) -> np.ndarray:
    """Unit vectors of the sentences, float32 [T, D]."""
    words = network.config.words
    ids, cut = network.tokenize_telling(queries)
    for query, is_cut in zip(queries, cut.tolist(), strict=True):
        if is_cut:
            reporter.warn(f"the model reads the first {words - 2} tokens of a sentence; this one is longer: {query!r}")
    with plain_float32(network.logit_scale.device):
        vectors: np.ndarray = network.encode_texts(network.take_ids(ids))["vector"].float().cpu().numpy()
    if not np.isfinite(vectors).all():
        raise CheckpointError(
            "the model makes a vector that is not finite of this sentence",
            details=[query for query, vector in zip(queries, vectors, strict=True) if not np.isfinite(vector).all()],
            hint="its weights are damaged or its training diverged: train it again, or search with another one",
        )
    return vectors


def _nearest(opened: _Opened, wanted: np.ndarray, top: int) -> tuple[list[list[Ranked]], tuple[Gone, ...]]:
    """Of each sentence the `top` nearest videos that are there, and those that are gone and nearer than the last."""
    look = cache(opened.look)
    count = min(top, len(opened.videos))
    while True:
        gone: dict[Gone, None] = {}
        nearest: list[list[Ranked]] = []
        for cosines, rows in zip(*opened.index.search(wanted, count), strict=True):
            best: list[Ranked] = []
            for cosine, row in zip(cosines, rows, strict=True):
                if len(best) == top:
                    break
                if missed := look(opened.videos[row]):
                    gone[missed] = None
                else:
                    best.append((float(cosine), opened.videos[row]))
            nearest.append(best)
        if count == len(opened.videos) or all(len(best) == top for best in nearest):
            return nearest, tuple(gone)
        count = min(2 * count, len(opened.videos))


def _answers(opened: _Opened, best: Sequence[Ranked]) -> tuple[Answer, ...]:
    return tuple(Answer(rank, cosine, video, opened.locate(video)) for rank, (cosine, video) in enumerate(best, 1))


def _reordered(opened: _Opened, rerank: Reranker, query: str, best: Sequence[Ranked], top: int) -> tuple[Answer, ...]:
    """The `top` first, as the teacher has them; what it has no frames of comes behind, equals stay as they were."""
    seen = [one for one in best if rerank.has(one[1])]
    scores = rerank.scores(query, [video for _, video in seen]).tolist() if seen else []
    order = sorted(range(len(seen)), key=lambda place: -scores[place])
    ranked = [(*seen[place], scores[place]) for place in order] + [(*one, None) for one in best if one not in seen]
    return tuple(
        Answer(rank, cosine, video, opened.locate(video), score)
        for rank, (cosine, video, score) in enumerate(ranked[:top], 1)
    )
