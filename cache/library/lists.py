"""Windows in lists of such as lie near each other, so that a search need not look through all of them.

lists-MODEL-GENERATION-STAMP.npz   rows int64 [N], list_of int32 [N], centres float32 [L, D], facts float64 [3]

Derived from the matrix of the same name once a library has more than `EXACT_UP_TO` windows; below that every search is
exact. A search goes through the `probes` lists whose centres are nearest to what is asked, so many that it finds
`RECALL` of the ten nearest windows. That is measured on `ASKED` windows of the library: half of them as they are, half
turned away until their cosine with themselves is `TURNED`, as far as a sentence lies from its videos. Windows that come
later join the nearest list, until they are more than `JOINED` of all; then the lists are made anew.
"""

import re
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..storage.publish import publishing
from .matrix import Matrix, remembered

EXACT_UP_TO = 1_000_000  # windows
RECALL, TOP = 0.95, 10
ASKED, TURNED, JOINED = 1024, 0.25, 0.1
LEAST = 8  # lists that a search goes through; a few more than are needed cost next to nothing
_PER_LIST, _STEPS, _SEED = 40, 10, 0  # of k-means: windows of its sample for each list, rounds
_PIECE = 4096  # windows that are held as float32 at once
_NAMED = re.compile(r"lists-(\d+)-(\d+)-([0-9a-f]{16})\.npz")


class Lists(NamedTuple):
    """N windows in L lists.

    Attributes:
        rows: the windows' numbers, ascending [N]; list_of: the list of each [N].
        centres: unit vectors [L, D].
        probes: how many lists a search goes through; recall: what it then finds of the ten nearest.
        joined: windows that came after that was measured.
    """

    rows: NDArray[np.int64]
    list_of: NDArray[np.int32]
    centres: NDArray[np.float32]
    probes: int
    recall: float
    joined: int


def keep_lists(
    folder: Path, connection: sqlite3.Connection, model: int, matrix: Matrix, tell: Callable[[str], None]
) -> Lists | None:
    """The lists of a matrix, inside a snapshot, once they are kept; None in a small library, and where they cannot be.

    Args:
        tell: is told when they must be made, which takes minutes.
    """
    path = _path(folder, model, matrix.generation)
    lists = None
    if len(matrix.rows) > EXACT_UP_TO:
        lists = read_lists(folder, connection, model, matrix)
        if lists is None:
            tell(f"putting {len(matrix.rows):,} windows in lists, so that searches are fast")
            lists = _made(matrix)
        if _load(path, matrix.vectors.shape[1]) is None and not _kept(path, lists):
            lists = None
    for other in folder.glob(f"lists-{model}-*.npz"):
        if lists is None or other != path:
            with suppress(OSError):
                other.unlink()
    return lists


def read_lists(folder: Path, connection: sqlite3.Connection, model: int, matrix: Matrix) -> Lists | None:
    """The newest lists of a generation that the database remembers, with what came since; None where none fit."""
    if len(matrix.rows) <= EXACT_UP_TO:
        return None
    names = (_NAMED.fullmatch(path.name) for path in folder.glob(f"lists-{model}-*.npz"))
    for generation in sorted(((int(name[2]), name[3]) for name in names if name), reverse=True):
        if remembered(connection, model, generation):
            lists = _load(_path(folder, model, generation), matrix.vectors.shape[1])
            if lists is not None and (now := carried(lists, matrix)) is not None:
                return now
    return None


def carried(lists: Lists, matrix: Matrix) -> Lists | None:
    """Lists of another generation for this one; None in a small library, and where too many windows are new."""
    at = np.searchsorted(lists.rows, matrix.rows).clip(max=len(lists.rows) - 1)
    new = np.flatnonzero(lists.rows[at] != matrix.rows)
    joined = lists.joined + len(new)
    if len(matrix.rows) <= EXACT_UP_TO or joined > JOINED * len(matrix.rows):
        return None
    list_of = lists.list_of[at]
    for start in range(0, len(new), _PIECE):
        places = new[start : start + _PIECE]
        list_of[places] = _nearest_lists(lists.centres, matrix.vectors[places].astype(np.float32))
    return lists._replace(rows=matrix.rows, list_of=list_of, joined=joined)


def index_of(vectors: NDArray[np.float16], lists: Lists) -> Any:
    """A faiss index of unit vectors [N, D] by lists; it holds them as float16, and is exact where all are probed."""
    import faiss

    count, width = lists.centres.shape
    centres = faiss.IndexFlatIP(width)
    centres.add(lists.centres)
    kind, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    index: Any = faiss.IndexIVFScalarQuantizer(centres, width, count, kind, metric, False)
    order = np.argsort(lists.list_of, kind="stable")
    edges = np.searchsorted(lists.list_of[order], np.arange(count + 1))
    for number in range(count):
        places = order[edges[number] : edges[number + 1]]
        if len(places):
            codes = np.ascontiguousarray(vectors[places]).view(np.uint8)
            index.invlists.add_entries(number, len(places), faiss.swig_ptr(places), faiss.swig_ptr(codes))
    index.ntotal, index.is_trained = len(lists.rows), True
    return index


def _made(matrix: Matrix) -> Lists:
    vectors, random = matrix.vectors, np.random.default_rng(_SEED)
    centres = _centres(vectors, random)
    own = np.sort(random.choice(len(vectors), min(ASKED, len(vectors)), replace=False))
    asked = vectors[own].astype(np.float32)
    asked[::2] = turned(asked[::2], random)
    list_of = np.empty(len(vectors), np.int32)
    scores, nearest = np.empty((len(own), 0), np.float32), np.empty((len(own), 0), np.int64)
    for start in range(0, len(vectors), _PIECE):
        piece = vectors[start : start + _PIECE].astype(np.float32)
        list_of[start : start + _PIECE] = _nearest_lists(centres, piece)
        cosines = asked @ piece.T
        inside = np.flatnonzero((own >= start) & (own < start + len(piece)))
        cosines[inside, own[inside] - start] = -np.inf  # a window does not find itself
        places = _best(cosines)
        scores = np.concatenate([scores, np.take_along_axis(cosines, places, 1)], 1)
        nearest = np.concatenate([nearest, start + places], 1)
        best = _best(scores)
        scores, nearest = np.take_along_axis(scores, best, 1), np.take_along_axis(nearest, best, 1)
    ranks = np.argsort(np.argsort(-(asked @ centres.T), 1), 1)
    at = np.take_along_axis(ranks, list_of[nearest], 1)  # a window is found where its list is gone through
    kinds = (at[::2].ravel(), at[1::2].ravel())
    needed = 1 + max(int(np.quantile(each, RECALL, method="higher")) for each in kinds)
    probes = min(max(needed, LEAST), len(centres))
    recall = min(float((each < probes).mean()) for each in kinds)
    return Lists(matrix.rows, list_of, centres, probes, recall, 0)


def _centres(vectors: NDArray[np.float16], random: np.random.Generator) -> NDArray[np.float32]:
    """Of 2 sqrt(N) lists, by k-means on a sample."""
    import faiss

    count = int(2 * len(vectors) ** 0.5)
    places = np.sort(random.choice(len(vectors), min(_PER_LIST * count, len(vectors)), replace=False))
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_STEPS,
        spherical=True,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_PER_LIST,
    )
    means.train(vectors[places].astype(np.float32))
    return np.ascontiguousarray(means.centroids, np.float32)


def _best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Where the largest ten of each row stand, in any order."""
    return np.argpartition(-scores, min(TOP, scores.shape[1]) - 1, 1)[:, :TOP]


def _nearest_lists(centres: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.argmax(vectors @ centres.T, 1).astype(np.int32)


def turned(vectors: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors whose cosines with the given ones are `TURNED`."""
    away = random.normal(size=vectors.shape).astype(np.float32)
    away -= (away * vectors).sum(1, keepdims=True) * vectors
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return TURNED * vectors + np.float32((1 - TURNED**2) ** 0.5) * away


def _kept(path: Path, lists: Lists) -> bool:
    facts = np.array([lists.probes, lists.recall, lists.joined], np.float64)
    try:
        with publishing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=lists.rows, list_of=lists.list_of, centres=lists.centres, facts=facts)
    except OSError:  # the disk is full, or it may only be read: searches are exact
        return False
    return True


def _path(folder: Path, model: int, generation: tuple[int, str]) -> Path:
    return folder / f"lists-{model}-{generation[0]}-{generation[1]}.npz"


def _load(path: Path, width: int) -> Lists | None:
    """What lies there; None where it is not there, or not whole, or no lists of such vectors."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            rows, list_of, centres, facts = (file[name] for name in ("rows", "list_of", "centres", "facts"))
        probes, recall, joined = facts.tolist()
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return None
    right = (
        (rows.dtype, list_of.dtype, centres.dtype) == (np.int64, np.int32, np.float32)
        and rows.ndim == 1
        and list_of.shape == rows.shape
        and centres.shape == (len(centres), width)
        and len(rows) > 0
        and bool(np.isfinite(centres).all())
        and 0 <= list_of.min() <= list_of.max() < len(centres)
        and 1 <= probes <= len(centres)
        and 0 <= recall <= 1
        and joined >= 0
    )
    return Lists(rows, list_of, centres, int(probes), recall, int(joined)) if right else None
