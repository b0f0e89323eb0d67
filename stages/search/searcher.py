"""A student's vectors and an exact index over them, opened and asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from ...cache.vectors import Vectors, read_vectors
from ...errors import CacheError, CacheMismatchError, CheckpointError
from ...remedies import Change, Remedy, Search
from ..models.checkpoints.files import load_network, network_digest
from ..models.clip.tokens import tokenize
from ..models.common.network import VideoTextNetwork
from ..runtime.reporting import Reporter


def open_vectors(folder: Path, network: VideoTextNetwork) -> Vectors:
    vectors = read_vectors(folder)
    if vectors is None:
        raise CacheError("there is no index here", where=str(folder), hint=Remedy("index the videos first", Search()))
    if vectors.identity.get("network") != network_digest(network):
        raise CacheMismatchError(
            "this index holds the vectors of another model",
            where=str(folder),
            hint=Remedy("bring it up to date first", Search()),
        )
    return vectors


@torch.inference_mode()
def encode_queries(network: VideoTextNetwork, queries: Sequence[str], reporter: Reporter) -> np.ndarray:
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


def nearest_videos(matrix: np.ndarray, wanted: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and rows of the best videos, both [T, min(top, V)]."""
    cosines, rows = exact_index(matrix).search(wanted, min(top, len(matrix)))
    return cosines, rows


def load_embedder(path: Path, device: torch.device) -> VideoTextNetwork:
    """The student of a run folder or checkpoint, in evaluation mode.

    Raises:
        CheckpointError: it cannot be loaded, or is a teacher, whose scores are not those of two vectors.
    """
    network = load_network(path)
    if network.config.kind != "student":
        raise CheckpointError(
            f"this is a network of kind {network.config.kind}: it compares every word with every frame and has no "
            "single vector per video, so it cannot search",
            where=str(path),
            hint=Remedy("search with a student", Change({"search.run": "runs/student"})),
        )
    return network.to(device).eval()


ROWS_AT_ONCE = 65_536


def exact_index(matrix: np.ndarray) -> Any:
    """A faiss index of unit vectors [V, D] for the largest dot products.

    They stay float16 as stored, which is half the memory and half the time of a flat float32 index; the rounding moves
    a cosine by less than 5e-4.
    """
    index = faiss.IndexScalarQuantizer(matrix.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        index.add(matrix[start : start + ROWS_AT_ONCE].astype(np.float32))
    return index
