"""teachclip: distil heavy text-to-video retrieval models into one vector per video.

What users import stands here (docs/reference/python.md says what each name is). A name is loaded when it is first asked
for, so that `import teachclip` costs nothing; everything else in the package may change its place without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "CacheError",
    "CacheMismatchError",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "EncodedVideos",
    "Encoder",
    "FeatureCache",
    "Filters",
    "FrameCache",
    "IndexSearcher",
    "LabelProcess",
    "Labels",
    "PluginError",
    "Reporter",
    "Reranker",
    "ScoreCache",
    "ScoreReader",
    "ScoreStore",
    "Searcher",
    "StopRequest",
    "StoppedEarly",
    "Student",
    "TeachclipError",
    "Teacher",
    "TrainingError",
    "UnreachableError",
    "WorkerPart",
    "__version__",
    "confidence",
    "difference",
    "evaluate",
    "evaluate_sets",
    "features",
    "index",
    "load",
    "load_config",
    "load_network",
    "load_teacher",
    "prepare",
    "read_ahead",
    "read_query_ranks",
    "retrieval_metrics",
    "score",
    "search",
    "text_digest",
    "train",
]

_NAMES = {
    "cache.experts.cache": ("FeatureCache",),
    "cache.frames.cache": ("FrameCache",),
    "cache.read_ahead": ("read_ahead",),
    "cache.scores.reading.label_process": ("LabelProcess",),
    "cache.scores.reading.labels": ("Labels",),
    "cache.scores.reading.reader": ("ScoreReader",),
    "cache.scores.store": ("ScoreCache", "ScoreStore"),
    "cache.storage.identity": ("text_digest",),
    "configs.loading": ("load_config",),
    "configs.schema": ("Config",),
    "errors": (
        *("CacheError", "CacheMismatchError", "CheckpointError", "ConfigError", "DataError", "PluginError"),
        *("StoppedEarly", "TeachclipError", "TrainingError", "UnreachableError"),
    ),
    "stages.evaluate.stage": ("evaluate", "evaluate_sets"),
    "stages.models.checkpoints.files": ("load_network",),
    "stages.models.frozen.teacher": ("Teacher", "load_teacher"),
    "stages.models.student": ("Student",),
    "stages.prepare.features.stage": ("features",),
    "stages.prepare.stage": ("prepare",),
    "stages.retrieval.confidence": ("confidence", "difference"),
    "stages.retrieval.metrics": ("retrieval_metrics",),
    "stages.retrieval.query_ranks": ("read_query_ranks",),
    "stages.runtime.reporting": ("Reporter",),
    "stages.runtime.stopping": ("StopRequest",),
    "stages.score.stage": ("score",),
    "stages.score.worker_part": ("WorkerPart",),
    "stages.search.encoder": ("EncodedVideos", "Encoder", "load"),
    "stages.search.index": ("index",),
    "stages.search.index_search": ("IndexSearcher",),
    "stages.search.rerank": ("Reranker",),
    "stages.search.searcher": ("Searcher",),
    "stages.search.serving.open_index": ("Filters",),
    "stages.search.stage": ("search",),
    "stages.train.stage": ("train",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

if TYPE_CHECKING:
    from .cache.experts.cache import FeatureCache
    from .cache.frames.cache import FrameCache
    from .cache.read_ahead import read_ahead
    from .cache.scores.reading.label_process import LabelProcess
    from .cache.scores.reading.labels import Labels
    from .cache.scores.reading.reader import ScoreReader
    from .cache.scores.store import ScoreCache, ScoreStore
    from .cache.storage.identity import text_digest
    from .configs.loading import load_config
    from .configs.schema import Config
    from .errors import (
        CacheError,
        CacheMismatchError,
        CheckpointError,
        ConfigError,
        DataError,
        PluginError,
        StoppedEarly,
        TeachclipError,
        TrainingError,
        UnreachableError,
    )
    from .stages.evaluate.stage import evaluate, evaluate_sets
    from .stages.models.checkpoints.files import load_network
    from .stages.models.frozen.teacher import Teacher, load_teacher
    from .stages.models.student import Student
    from .stages.prepare.features.stage import features
    from .stages.prepare.stage import prepare
    from .stages.retrieval.confidence import confidence, difference
    from .stages.retrieval.metrics import retrieval_metrics
    from .stages.retrieval.query_ranks import read_query_ranks
    from .stages.runtime.reporting import Reporter
    from .stages.runtime.stopping import StopRequest
    from .stages.score.stage import score
    from .stages.score.worker_part import WorkerPart
    from .stages.search.encoder import EncodedVideos, Encoder, load
    from .stages.search.index import index
    from .stages.search.index_search import IndexSearcher
    from .stages.search.rerank import Reranker
    from .stages.search.searcher import Searcher
    from .stages.search.serving.open_index import Filters
    from .stages.search.stage import search
    from .stages.train.stage import train
else:  # a type checker must not believe that the package has every name

    def __getattr__(name: str) -> object:
        """A public name, loaded with its module when it is first asked for."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        return found


def __dir__() -> list[str]:
    return list(__all__)
