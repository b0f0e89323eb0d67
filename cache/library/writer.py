"""Whoever fills a library: one process at a time, one transaction a video, so that a kill loses none that is there."""

import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...errors import CacheError
from ..storage.publish import make_folder, remove_leftovers
from .database import DATABASE, raise_format, snapshot, stored_path, to_write, transaction
from .disks import network_disk
from .lists import Lists, keep_lists
from .matrix import next_generation, read_matrix
from .rows import UNKNOWN, VIDEO, Known, Model, NewWindow, Video, known_videos, video_of
from .tags import change_tags

LOCK = "index.lock"
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK)  # file systems that have none
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class LibraryWriter:
    """A library open for one model's windows; `LibraryWriter.claim` is the way in.

    Attributes:
        folder: of the library.
        model: whose windows are written.
        network_disk: the file system, where the disk may be shared with other machines; then the database keeps a
            rollback journal, and readers wait while it is written. Else None.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self.folder, self.model = folder, model
        self.network_disk = network_disk(folder)
        self._connection = to_write(folder)
        raise_format(self._connection, folder)
        self._id = self._claim_model()

    @classmethod
    @contextmanager
    def claim(cls, folder: Path, model: Model) -> Iterator["LibraryWriter"]:
        """Open or make a library; nobody else fills it meanwhile.

        Raises:
            CacheError: another process fills it; it cannot be made or written, or is of another format.
        """
        with _locked(folder):
            remove_leftovers(folder, age=0.0)
            writer = cls(folder, model)
            try:
                yield writer
            finally:
                writer._connection.close()

    def known(self) -> dict[str, Known]:
        """Every video of the library by its path, and how many windows this model has of it."""
        with snapshot(self._connection, self.folder) as connection:
            return known_videos(connection, self._id)

    def add_roots(self, folders: Iterable[Path]) -> None:
        """Remember which folders were walked through."""
        with transaction(self._connection, self.folder) as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO roots VALUES (CAST(? AS TEXT))",
                [(stored_path(str(folder)),) for folder in folders],
            )

    def keep(self, video: Video, windows: Sequence[NewWindow] = ()) -> int:
        """Put down what became of a video, in place of what was known of this path.

        Where the file is another one than before, every model's windows of it go; its tags stay.

        Args:
            video: its id does not count; the path says which.

        Returns:
            The video's id.
        """
        path = stored_path(video.path)
        facts = (video.size, video.mtime_ns, _content(video), video.duration, video.status, video.reason, video.reader)
        with transaction(self._connection, self.folder) as connection:
            before = connection.execute(
                f"SELECT {VIDEO} FROM videos v WHERE path = CAST(? AS TEXT)", (path,)
            ).fetchone()
            connection.execute(
                "INSERT INTO videos(path, size, mtime_ns, blake2b, duration, status, reason, reader) "
                "VALUES (CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(path) DO UPDATE SET size = excluded.size, "
                "mtime_ns = excluded.mtime_ns, blake2b = excluded.blake2b, duration = excluded.duration, "
                "status = excluded.status, reason = excluded.reason, reader = excluded.reader",
                (path, *facts),
            )
            id = int(connection.execute("SELECT id FROM videos WHERE path = CAST(? AS TEXT)", (path,)).fetchone()[0])
            if before is not None and _other(video_of(before), video):
                self._drop_windows(id)
            else:
                connection.execute("DELETE FROM windows WHERE video = ? AND model = ?", (id, self._id))
            for window in windows:
                kept = connection.execute(
                    "INSERT INTO windows(model, video, start, stop, times, weights, vector) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (self._id, id, *_columns(window)),
                )
                if window.frames is not None:
                    frames = np.asarray(window.frames, "<f2").tobytes()
                    connection.execute("INSERT INTO frames VALUES (?, ?)", (kept.lastrowid, frames))
            next_generation(connection, self._id)
        return id

    def renew(self, id: int, size: int, mtime_ns: int, content: bytes) -> None:
        """The file has another time, and holds what it held."""
        with transaction(self._connection, self.folder) as connection:
            values = (size, mtime_ns, None if content == UNKNOWN else content, id)
            connection.execute("UPDATE videos SET size = ?, mtime_ns = ?, blake2b = ? WHERE id = ?", values)

    def move(self, id: int, path: str, mtime_ns: int) -> None:
        """The file lies elsewhere now; what was known of the new path is replaced."""
        with transaction(self._connection, self.folder) as connection:
            where = stored_path(path)
            connection.execute("DELETE FROM videos WHERE path = CAST(? AS TEXT) AND id != ?", (where, id))
            values = (where, mtime_ns, id)
            connection.execute("UPDATE videos SET path = CAST(? AS TEXT), mtime_ns = ? WHERE id = ?", values)

    def copy(self, id: int, path: str, mtime_ns: int) -> None:
        """Another file holds the same as this video's: it gets the same windows, of every model, and no tags."""
        with transaction(self._connection, self.folder) as connection:
            where = stored_path(path)
            connection.execute("DELETE FROM videos WHERE path = CAST(? AS TEXT)", (where,))
            made = connection.execute(
                "INSERT INTO videos(path, size, mtime_ns, blake2b, duration, status, reason, reader) "
                "SELECT CAST(? AS TEXT), size, ?, blake2b, duration, status, reason, reader FROM videos WHERE id = ?",
                (where, mtime_ns, id),
            )
            query = "SELECT id FROM windows WHERE video = ? ORDER BY id"
            for (row,) in connection.execute(query, (id,)).fetchall():
                kept = connection.execute(
                    "INSERT INTO windows(model, video, start, stop, times, weights, vector) "
                    "SELECT model, ?, start, stop, times, weights, vector FROM windows WHERE id = ?",
                    (made.lastrowid, row),
                )
                frames = "INSERT INTO frames SELECT ?, vectors FROM frames WHERE window = ?"
                connection.execute(frames, (kept.lastrowid, row))
            for model in self._models_of(id):
                next_generation(connection, model)

    def remove(self, ids: Sequence[int]) -> None:
        """Forget videos, with their windows of every model and their tags, in one transaction."""
        if not ids:
            return
        with transaction(self._connection, self.folder) as connection:
            for id in ids:
                self._drop_windows(id)
                connection.execute("DELETE FROM videos WHERE id = ?", (id,))

    def change_tags(self, paths: Iterable[str], add: Sequence[str], remove: Sequence[str]) -> tuple[int, int]:
        """Give the videos of these paths tags and take others away, in one transaction; how many were new, and gone."""
        with transaction(self._connection, self.folder) as connection:
            return change_tags(connection, paths, add, remove)

    def finish(self, tell: Callable[[str], None] = lambda _: None) -> Lists | None:
        """Make what searches need of what is there now, and empty the write-ahead file.

        Args:
            tell: is told of what takes minutes.

        Returns:
            The lists of a library that is too large for exact search; None where it is exact.
        """
        with transaction(self._connection, self.folder) as connection:
            connection.execute("UPDATE models SET used = ? WHERE id = ?", (time.time(), self._id))
        with snapshot(self._connection, self.folder) as connection:
            matrix = read_matrix(self.folder, connection, self._id, self.model.width)
            lists = keep_lists(self.folder, connection, self._id, matrix, tell)
        if self.network_disk is None:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return lists

    def _claim_model(self) -> int:
        model = self.model
        key = (model.digest, model.frames, model.seconds, model.step, model.whole)
        with transaction(self._connection, self.folder) as connection:
            connection.execute(
                "INSERT INTO models(digest, frames, seconds, step, whole, name, width, used) "
                "VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?) "
                "ON CONFLICT DO UPDATE SET name = excluded.name, used = excluded.used",
                (*key, stored_path(model.name), model.width, time.time()),
            )
            query = "SELECT id FROM models WHERE (digest, frames, seconds, step, whole) = (?, ?, ?, ?, ?)"
            return int(connection.execute(query, key).fetchone()[0])

    def _models_of(self, video: int) -> list[int]:
        query = "SELECT DISTINCT model FROM windows WHERE video = ?"
        return [model for (model,) in self._connection.execute(query, (video,)).fetchall()]

    def _drop_windows(self, video: int) -> None:
        """Every model's, inside a transaction."""
        for model in self._models_of(video):
            next_generation(self._connection, model)
        self._connection.execute("DELETE FROM windows WHERE video = ?", (video,))


def _other(before: Video, now: Video) -> bool:
    """Whether the file holds something else than before, or may."""
    if (before.size, before.mtime_ns) == (now.size, now.mtime_ns):
        return False
    return before.content == UNKNOWN or before.content != now.content


def _content(video: Video) -> bytes | None:
    return None if video.content == UNKNOWN else video.content


def _columns(window: NewWindow) -> tuple[float, float, bytes, bytes | None, bytes]:
    weights = None if window.weights is None else np.asarray(window.weights, "<f4").tobytes()
    times, vector = np.asarray(window.times, "<f4").tobytes(), np.asarray(window.vector, "<f2").tobytes()
    return float(window.start), float(window.stop), times, weights, vector


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else fills this library meanwhile; where the file system has no locks, that is not checked."""
    try:
        make_folder(folder)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        hint = "make it writable for you, or name another folder"
        raise CacheError(f"this folder cannot be written ({error.strerror})", where=str(folder), hint=hint) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CacheError(
                f"{file.read().strip() or 'another process'} is indexing into this folder",
                where=str(folder / DATABASE),
                hint="wait for it or end it; searches go on meanwhile",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
        file.truncate(0)
