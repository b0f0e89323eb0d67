"""A library open for reading: its windows, their matrix, search, filters, tags. Several threads may ask at once.

Anybody may fill it meanwhile: what is open goes on answering from the windows that it knew, less those that are gone,
until it is refreshed.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import CacheError, DataError
from ...remedies import IndexVideos, Remedy
from ..vectors import exact_index
from .database import DATABASE, has_frames, snapshot, stored_path, to_read, to_write, told, transaction
from .lists import EXACT_UP_TO, Lists, carried, index_of, read_lists
from .matrix import Matrix, generation_of, read_matrix, remembered
from .rows import VIDEO, Hit, Known, Model, Video, Window, floats, known_videos, video_of
from .tags import change_tags, tag_of

_MODEL = "name, digest, width, frames, seconds, step, whole"
_WINDOW = "w.id, w.video, v.path, w.start, w.stop, w.times, w.weights"
_MANY = 500  # rows of one statement


class _State(NamedTuple):
    matrix: Matrix
    index: Any  # of faiss
    lists: Lists | None


class Library:
    """The windows of one model in a library.

        with Library.open(Path("index")) as library:
            for hit in library.search(vector, top=10, under="holidays"):
                print(hit.score, hit.window.path, hit.window.start)

    Attributes:
        folder: where it lies.
        model: what made its vectors.
    """

    def __init__(self, folder: Path, model: Model, id: int, connection: sqlite3.Connection) -> None:
        self.folder, self.model = folder, model
        self._id = id
        self._lock = threading.Lock()
        self._free = [connection]
        self._closed = False
        self._matrix, self._lists = self._read()
        self._state: _State | None = None

    @classmethod
    def open(cls, folder: Path, digest: str | None = None) -> Self:
        """A library's windows of the model that was indexed with last, or of the one with this digest.

        Raises:
            CacheError: there is no index, none of this model, it is of another format, or damaged.
        """
        connection = to_read(folder)
        try:
            with snapshot(connection, folder):
                query = f"SELECT id, {_MODEL} FROM models WHERE ? IS NULL OR digest = ? ORDER BY used DESC"
                found = connection.execute(query, (digest, digest)).fetchone()
            if found is None:
                what = "this index is empty" if digest is None else "this index holds no vectors of this model"
                hint = Remedy("index with it; what others made stays", IndexVideos(str(folder)))
                raise CacheError(what, where=str(folder), hint=hint)
            return cls(folder, Model(*found[1:]), found[0], connection)
        except BaseException:
            connection.close()
            raise

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the N windows, ascending [N]."""
        return self._matrix.rows

    @property
    def generation(self) -> int:
        """Counts the changes of this model's windows; that of the matrix at hand."""
        return self._matrix.generation[0]

    def __len__(self) -> int:
        return len(self._matrix.rows)

    def matrix(self) -> NDArray[np.float16]:
        """Unit vectors of the windows, in the order of `rows` [N, D]; memory-mapped."""
        return self._matrix.vectors

    @property
    def recall(self) -> float | None:
        """The share of the ten nearest windows that a search without filters finds; None where it is exact."""
        lists = self._lists
        return None if lists is None else lists.recall

    @property
    def slow(self) -> bool:
        """Whether searches are exact although there are many windows, since there are no lists of them yet."""
        return len(self) > EXACT_UP_TO and self._lists is None

    def refresh(self) -> bool:
        """Take up what was written since; whether that was anything."""
        with self._connected() as connection:
            current = generation_of(connection, self._id) == self._matrix.generation
        if current:
            return False
        matrix, lists = self._read(self._matrix)
        state = None if self._state is None else _state_of(matrix, lists)  # made here: nobody who asks waits for it
        with self._lock:
            self._matrix, self._lists, self._state = matrix, lists, state
        return True

    def search(
        self,
        vector: NDArray[np.floating],
        top: int = 10,
        *,
        under: str | Path | None = None,
        since: float | None = None,
        until: float | None = None,
        tag: str | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """The windows with the largest cosines, best first; those whose file is gone are left out.

        Exact, but where `recall` says otherwise and nothing is filtered.

        Args:
            vector: unit length [D].
            top: how many at most.
            under, since, until, tag: as `select`.
            exact: look through all windows, however many.

        Raises:
            DataError: the vector has another width; `top` is less than 1.
        """
        if np.shape(vector) != (self.model.width,):
            wanted = f"this index has vectors of {self.model.width} numbers"
            raise DataError(f"{wanted}; a vector of shape {np.shape(vector)} was asked for")
        if top < 1:
            raise DataError(f"{top} answers are asked for", hint="ask for one at least")
        state = self._searchable()
        filtered = not (under is None and since is None and until is None and tag is None)
        chosen = self._chosen(state, self.select(under, since, until, tag)) if filtered else None
        most = len(state.matrix.rows) if chosen is None else int(chosen.sum())
        there, count = cache(os.path.exists), min(top, most)
        while count:
            found = _nearest(state, vector, count, chosen, exact)
            windows = {window.row: window for window in self.windows([row for row, _ in found])}
            hits = [Hit(score, windows[row]) for row, score in found if row in windows and there(windows[row].path)]
            if len(hits) >= top or count == most:
                return hits[:top]
            count = min(2 * count, most)
        return []

    def select(
        self,
        under: str | Path | None = None,
        since: float | None = None,
        until: float | None = None,
        tag: str | None = None,
    ) -> NDArray[np.int64]:
        """Numbers of the windows whose video fits all that is given, ascending.

        Args:
            under: a folder (or a file) that it lies below; a relative one is looked for from the current folder.
            since, until: the file's time, seconds since 1970, from and to inclusive.
            tag: that it has.
        """
        # CROSS JOIN: videos first, or SQLite goes through all windows.
        query = "SELECT w.id FROM videos v CROSS JOIN windows w ON w.video = v.id AND w.model = ? WHERE 1"
        values: list[object] = [self._id]
        if under is not None:
            path = stored_path(os.path.abspath(under)).rstrip(b"/")
            query += " AND v.path >= CAST(? AS TEXT) AND v.path < CAST(? AS TEXT)"
            query += " AND (v.path = CAST(? AS TEXT) OR v.path >= CAST(? AS TEXT))"
            values += [path, path + b"0", path, path + b"/"]  # 0 follows the slash
        for sign, second in ((">=", since), ("<=", until)):
            if second is not None:
                query += f" AND v.mtime_ns {sign} ?"
                values.append(int(second * 1e9))
        if tag is not None:
            query += " AND v.id IN (SELECT video FROM tags WHERE tag = ?)"
            values.append(tag)
        with self._connected() as connection:
            found = np.fromiter((row for (row,) in connection.execute(query, values)), np.int64)
        found.sort()
        return found

    def window(self, row: int) -> Window | None:
        """A window by its number; None when it is gone."""
        found = self.windows([row])
        return found[0] if found else None

    def windows(self, rows: Sequence[int]) -> list[Window]:
        """Windows by their numbers, in this order; those that are gone are left out."""
        found: dict[int, Window] = {}
        with self._connected() as connection:
            for start in range(0, len(rows), _MANY):
                part = [int(row) for row in rows[start : start + _MANY]]
                marks = ",".join("?" * len(part))
                query = f"SELECT {_WINDOW} FROM windows w JOIN videos v ON v.id = w.video WHERE w.id IN ({marks})"
                found.update((row[0], _window(row)) for row in connection.execute(query, part))
        return [found[row] for row in map(int, rows) if row in found]

    def windows_of(self, path: str | Path) -> list[Window]:
        """All windows of a video, from its beginning; none where it is not here."""
        query = (
            f"SELECT {_WINDOW} FROM windows w JOIN videos v ON v.id = w.video "
            "WHERE v.path = CAST(? AS TEXT) AND w.model = ? ORDER BY w.start"
        )
        with self._connected() as connection:
            rows = connection.execute(query, (_absolute(path), self._id)).fetchall()
        return [_window(row) for row in rows]

    def vector(self, row: int) -> NDArray[np.float16] | None:
        """A window's unit vector [D], by its number; None when the matrix at hand has no such window."""
        matrix = self._matrix
        place = int(np.searchsorted(matrix.rows, row))
        return matrix.vectors[place] if place < len(matrix.rows) and matrix.rows[place] == row else None

    def frames(self, rows: Sequence[int]) -> dict[int, NDArray[np.float16]]:
        """Unit vectors of the frames of windows [F, D], by the windows' numbers; of those that have none, none."""
        found: dict[int, NDArray[np.float16]] = {}
        with self._connected() as connection:
            if not has_frames(connection):
                return found
            for row in map(int, rows):
                query = "SELECT vectors FROM frames WHERE window = ?"
                if kept := connection.execute(query, (row,)).fetchone():
                    found[row] = np.frombuffer(kept[0], "<f2").reshape(-1, self.model.width)
        return found

    def video(self, path: str | Path) -> Video | None:
        """What is known of a file; None where it was not looked at."""
        query = f"SELECT {VIDEO} FROM videos v WHERE v.path = CAST(? AS TEXT)"
        with self._connected() as connection:
            found = connection.execute(query, (_absolute(path),)).fetchone()
        return None if found is None else video_of(found)

    def videos(self) -> list[Video]:
        """Every file that was looked at, usable or not, by path."""
        with self._connected() as connection:
            return [video_of(row) for row in connection.execute(f"SELECT {VIDEO} FROM videos v ORDER BY v.path")]

    def known(self) -> dict[str, Known]:
        """Every file that was looked at by its path, and how many windows this model has of it."""
        with self._connected() as connection, snapshot(connection, self.folder):
            return known_videos(connection, self._id)

    def counts(self) -> dict[str, int]:
        """Videos by status; statuses without videos are absent."""
        with self._connected() as connection:
            return dict(connection.execute("SELECT status, count(*) FROM videos GROUP BY status ORDER BY status"))

    def roots(self) -> list[str]:
        """The folders that were walked through."""
        with self._connected() as connection:
            return [path for (path,) in connection.execute("SELECT path FROM roots ORDER BY path")]

    def models(self) -> list[Model]:
        """Every model that has vectors here, the one used last first."""
        with self._connected() as connection:
            return [Model(*row) for row in connection.execute(f"SELECT {_MODEL} FROM models ORDER BY used DESC")]

    def tags(self, path: str | Path | None = None) -> list[str]:
        """Tags of a video, or all that there are, in order."""
        query, values = "SELECT DISTINCT tag FROM tags ORDER BY tag", ()
        if path is not None:
            query = "SELECT tag FROM tags t JOIN videos v ON v.id = t.video WHERE v.path = CAST(? AS TEXT) ORDER BY tag"
            values = (_absolute(path),)  # type: ignore[assignment]
        with self._connected() as connection:
            return [tag for (tag,) in connection.execute(query, values)]

    def tags_of(self, videos: Sequence[int]) -> dict[int, list[str]]:
        """Tags of videos by their ids, in order; those without any are absent."""
        found: dict[int, list[str]] = {}
        with self._connected() as connection:
            for start in range(0, len(videos), _MANY):
                part = videos[start : start + _MANY]
                query = f"SELECT video, tag FROM tags WHERE video IN ({','.join('?' * len(part))}) ORDER BY tag"
                for video, tag in connection.execute(query, part):
                    found.setdefault(video, []).append(tag)
        return found

    def add_tag(self, path: str | Path, tag: str) -> None:
        """Give a video a tag; it keeps it when the file is moved or changed.

        Raises:
            DataError: the video is not here, or this cannot be a tag.
            CacheError: the library cannot be written.
        """
        self._change_tags(path, add=[tag_of(tag)])

    def remove_tag(self, path: str | Path, tag: str) -> None:
        """Take a tag off a video; nothing when it does not have it.

        Raises:
            As `add_tag`.
        """
        self._change_tags(path, remove=[tag_of(tag)])

    def close(self) -> None:
        """Let go of the database; what is under way ends as it should."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, before: Matrix | None = None) -> tuple[Matrix, Lists | None]:
        with self._connected() as connection, snapshot(connection, self.folder):
            matrix = read_matrix(self.folder, connection, self._id, self.model.width, before)
            lists = None
            if before is not None and self._lists is not None and remembered(connection, self._id, before.generation):
                lists = carried(self._lists, matrix)
            return matrix, lists or read_lists(self.folder, connection, self._id, matrix)

    def _change_tags(self, path: str | Path, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        connection = to_write(self.folder)
        try:
            with transaction(connection, self.folder):
                known = "SELECT 1 FROM videos WHERE path = CAST(? AS TEXT)"
                if connection.execute(known, (_absolute(path),)).fetchone() is None:
                    raise DataError("this video is not in the index", where=str(path))
                change_tags(connection, [os.path.abspath(path)], add, remove)
        finally:
            connection.close()

    def _searchable(self) -> _State:
        with self._lock:
            if self._state is None:
                self._state = _state_of(self._matrix, self._lists)
            return self._state

    @staticmethod
    def _chosen(state: _State, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which windows of the matrix are among `rows` [N]."""
        chosen = np.zeros(len(state.matrix.rows), bool)
        if len(chosen):
            at = np.searchsorted(state.matrix.rows, rows).clip(max=len(chosen) - 1)
            chosen[at[state.matrix.rows[at] == rows]] = True
        return chosen

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone meanwhile."""
        with self._lock:
            if self._closed:
                raise ValueError("this library is closed")
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = to_read(self.folder)
        try:
            with told(self.folder / DATABASE):
                yield connection
        finally:
            self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._free.append(connection)
                return
        connection.close()


def _state_of(matrix: Matrix, lists: Lists | None) -> _State:
    index = exact_index(matrix.vectors) if lists is None else index_of(matrix.vectors, lists)
    return _State(matrix, index, lists)


def _nearest(
    state: _State, vector: NDArray[np.floating], count: int, chosen: NDArray[np.bool_] | None, exact: bool
) -> list[tuple[int, float]]:
    """Numbers and cosines of the `count` nearest windows, of those chosen where some are."""
    import faiss

    exact = exact or chosen is not None
    options: dict[str, Any] = {}
    if chosen is not None:
        bits = np.packbits(chosen, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(bits))
    kind: Any = faiss.SearchParameters
    if state.lists is not None:
        kind, options["nprobe"] = faiss.SearchParametersIVF, state.index.nlist if exact else state.lists.probes
    asked = np.ascontiguousarray(vector, np.float32)[None]
    scores, places = state.index.search(asked, count, params=kind(**options))
    if places[0, -1] < 0 and not exact:  # the lists gone through have fewer windows
        return _nearest(state, vector, count, chosen, exact=True)
    rows = state.matrix.rows[places[0]]
    return [(int(row), float(score)) for row, score in zip(rows, scores[0], strict=True)]


def _window(row: tuple[Any, ...]) -> Window:
    id, video, path, start, stop, times, weights = row
    return Window(id, video, path, start, stop, floats(times), None if weights is None else floats(weights))


def _absolute(path: str | Path) -> bytes:
    return stored_path(os.path.abspath(path))
