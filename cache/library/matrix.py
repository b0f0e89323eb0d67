"""All vectors of a model as one memory-mapped matrix, derived from the database and named by its generation.

matrix-MODEL-GENERATION-STAMP.npy   float16 [N, D], unit rows
rows-MODEL-GENERATION-STAMP.npy     int64 [N], the windows' numbers, ascending; written before the matrix

Every transaction that changes a model's windows gives it a generation, with a random stamp: a database that was put
back from a copy and changed again has other stamps. A window's vector never changes and its number is never given
again, so a matrix of an earlier generation, which the database remembers, is taken over where numbers are the same.
"""

import re
import secrets
import sqlite3
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..storage.publish import publishing

KEPT = 10_000  # generations that are remembered
_FEW = 20_000  # windows that are fetched one by one rather than all
_NAMED = re.compile(r"matrix-(\d+)-(\d+)-([0-9a-f]{16})\.npy")


class Matrix(NamedTuple):
    """N windows.

    Attributes:
        generation: of the database when it was made, and its stamp.
        rows: int64 [N], ascending.
        vectors: float16 [N, D], memory-mapped where the folder could be written.
    """

    generation: tuple[int, str]
    rows: NDArray[np.int64]
    vectors: NDArray[np.float16]


def generation_of(connection: sqlite3.Connection, model: int) -> tuple[int, str]:
    """The newest generation of a model's windows and its stamp."""
    query = "SELECT generation, stamp FROM generations WHERE model = ? ORDER BY generation DESC LIMIT 1"
    found = connection.execute(query, (model,)).fetchone()
    return (int(found[0]), str(found[1])) if found else (0, "0" * 16)


def next_generation(connection: sqlite3.Connection, model: int) -> None:
    """Say, inside a transaction, that the model's windows are others now."""
    generation, _ = generation_of(connection, model)
    connection.execute("INSERT INTO generations VALUES (?, ?, ?)", (model, generation + 1, secrets.token_hex(8)))
    if generation % KEPT == 0:
        connection.execute("DELETE FROM generations WHERE model = ? AND generation <= ?", (model, generation - KEPT))


def read_matrix(
    folder: Path, connection: sqlite3.Connection, model: int, width: int, before: Matrix | None = None
) -> Matrix:
    """The matrix of what the database holds now, inside a snapshot of it; made where it is not there, and kept if the
    folder allows it.

    Args:
        before: of an earlier generation, by whoever follows one who writes: what is new is added to it in memory, and
            nothing is kept.
    """
    generation = generation_of(connection, model)
    if (there := _load(folder, model, generation, width)) is not None:
        return there
    rows = np.fromiter(
        (row for (row,) in connection.execute("SELECT id FROM windows WHERE model = ? ORDER BY id", (model,))), np.int64
    )
    if before is not None and remembered(connection, model, before.generation):
        return _held(generation, rows, before, connection, model, width)
    before = _earlier(folder, connection, model, width)
    path = _path(folder, "matrix", model, generation)
    try:
        with publishing(_path(folder, "rows", model, generation)) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
        with publishing(path) as temporary:
            vectors = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(rows), width))
            _fill(vectors, rows, before, connection, model)
            vectors.flush()
            del vectors
        _remove_others(folder, model, generation)
        if (there := _load(folder, model, generation, width)) is not None:
            return there
    except OSError:  # it may only be read, or is full: it serves this once
        pass
    return _held(generation, rows, before, connection, model, width)


def _held(
    generation: tuple[int, str],
    rows: NDArray[np.int64],
    before: Matrix | None,
    connection: sqlite3.Connection,
    model: int,
    width: int,
) -> Matrix:
    """The matrix in memory."""
    held = np.empty((len(rows), width), np.float16)
    _fill(held, rows, before, connection, model)
    return Matrix(generation, rows, held)


def _fill(
    vectors: NDArray[np.float16],
    rows: NDArray[np.int64],
    before: Matrix | None,
    connection: sqlite3.Connection,
    model: int,
) -> None:
    missing = np.ones(len(rows), bool)
    if before is not None and len(before.rows):
        at = np.searchsorted(before.rows, rows).clip(max=len(before.rows) - 1)
        missing = before.rows[at] != rows
        kept = np.flatnonzero(~missing)
        for start, stop in _runs(kept, at[kept]):
            vectors[kept[start] : kept[stop - 1] + 1] = before.vectors[at[kept[start]] : at[kept[stop - 1]] + 1]
    places = np.flatnonzero(missing)
    if len(places) <= _FEW:
        for place in places:
            one = connection.execute("SELECT vector FROM windows WHERE id = ?", (int(rows[place]),)).fetchone()
            vectors[place] = np.frombuffer(one[0], "<f2")
        return
    every = connection.execute("SELECT vector FROM windows WHERE model = ? ORDER BY id", (model,))
    for at_row, (vector,) in enumerate(every):
        if missing[at_row]:
            vectors[at_row] = np.frombuffer(vector, "<f2")


def _runs(places: NDArray[np.int64], origins: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where both go on one by one: first and last (exclusive) index of each such stretch."""
    if not len(places):
        return []
    ends = np.flatnonzero((np.diff(places) != 1) | (np.diff(origins) != 1)) + 1
    edges = [0, *ends.tolist(), len(places)]
    return list(pairwise(edges))


def _earlier(folder: Path, connection: sqlite3.Connection, model: int, width: int) -> Matrix | None:
    """The newest matrix of a generation that this database remembers."""
    for generation in sorted(_files(folder, model), reverse=True):
        if remembered(connection, model, generation) and (found := _load(folder, model, generation, width)):
            return found
    return None


def remembered(connection: sqlite3.Connection, model: int, generation: tuple[int, str]) -> bool:
    known = "SELECT 1 FROM generations WHERE model = ? AND generation = ? AND stamp = ?"
    return connection.execute(known, (model, *generation)).fetchone() is not None


def _files(folder: Path, model: int) -> list[tuple[int, str]]:
    found = (_NAMED.fullmatch(path.name) for path in folder.glob(f"matrix-{model}-*.npy"))
    return [(int(name[2]), name[3]) for name in found if name]


def _path(folder: Path, kind: str, model: int, generation: tuple[int, str]) -> Path:
    return folder / f"{kind}-{model}-{generation[0]}-{generation[1]}.npy"


def _load(folder: Path, model: int, generation: tuple[int, str], width: int) -> Matrix | None:
    """What lies there; None where it is not there, or not whole."""
    try:
        rows = np.load(_path(folder, "rows", model, generation), allow_pickle=False)
        vectors = np.load(_path(folder, "matrix", model, generation), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    right = rows.dtype == np.int64 and vectors.dtype == np.float16 and vectors.shape == (len(rows), width)
    return Matrix(generation, rows, vectors) if right else None


def _remove_others(folder: Path, model: int, generation: tuple[int, str]) -> None:
    """Those who have an older one open keep it; whoever is about to open it makes his own."""
    for kind in ("matrix", "rows"):
        for path in folder.glob(f"{kind}-{model}-*.npy"):
            if path != _path(folder, kind, model, generation):
                with suppress(OSError):
                    path.unlink()
