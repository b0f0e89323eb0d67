"""What a teacher made of windows, kept beside a library: a database a teacher; deleting it costs time alone.

teacher-IDENTITY.sqlite, where IDENTITY is a hash of what the features depend on beside the windows. Table `features`:
`window` (its number), `made_of` (16 bytes: BLAKE2b of the window's number, times and vector, since a database that was
deleted and made again gives numbers again), `name`, `dtype` (as numpy has it, little-endian), `shape` (JSON), `value`.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...errors import CacheError
from ...remedies import DeleteFile, Remedy
from ..features import Arrays
from .database import atomic, connected, is_refusal
from .library import Library
from .rows import Window

APPLICATION, FORMAT = 0x74636C66, 1
SCHEMA = """
CREATE TABLE features(
    window INTEGER NOT NULL, made_of BLOB NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL,
    value BLOB NOT NULL, PRIMARY KEY(window, name))
"""


class TeacherFeatures:
    """The features that one teacher made of a library's windows; for one thread at a time.

    Attributes:
        path: the database.
        kept: whether features can be put down; where the folder may only be read, what is there is read.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection | None, kept: bool) -> None:
        self.path, self.kept = path, kept
        self._connection = connection

    @classmethod
    def open(cls, library: Library, identity: Mapping[str, Any]) -> Self:
        """Those beside a library, without windows that it no longer holds.

        Args:
            identity: what the features depend on beside the windows (the teacher's weights); JSON values.

        Raises:
            CacheError: the database is damaged, of another kind or format, or cannot be read.
        """
        text = json.dumps(dict(identity), sort_keys=True)
        path = library.folder / f"teacher-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.sqlite"
        with _told(path):
            try:
                connection = connected(path, "rwc")
                try:
                    with atomic(connection):
                        _make(connection)
                        _refuse_other(connection, path)
                        connection.execute(f"PRAGMA user_version = {FORMAT}")  # tells whether it may be written
                        _drop_gone(connection, library)
                except BaseException:
                    connection.close()
                    raise
                return cls(path, connection, True)
            except sqlite3.OperationalError as error:
                if not is_refusal(error):
                    raise
            if not path.is_file():
                return cls(path, None, False)
            connection = connected(path, "ro")
            try:
                _refuse_other(connection, path)
            except BaseException:
                connection.close()
                raise
            return cls(path, connection, False)

    def read(self, keys: Mapping[int, bytes]) -> dict[int, Arrays]:
        """What is there of windows, by their numbers.

        Args:
            keys: of each window, by its number, its `key_of`.

        Raises:
            CacheError: it cannot be read.
        """
        found: dict[int, Arrays] = {}
        if self._connection is None:
            return found
        query = "SELECT name, dtype, shape, value FROM features WHERE window = ? AND made_of = ? ORDER BY name"
        with _told(self.path):
            for row, key in keys.items():
                if arrays := _arrays(self._connection.execute(query, (row, key)).fetchall()):
                    found[row] = arrays
        return found

    def write(self, row: int, key: bytes, arrays: Arrays) -> None:
        """Put down what was made of a window, in one transaction; nothing where nothing can be kept.

        Raises:
            CacheError: the disk is full, or the database cannot be written.
        """
        if not self.kept or self._connection is None:
            return
        rows = []
        for name, value in arrays.items():
            plain = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            rows.append((row, key, name, plain.dtype.str, json.dumps(value.shape), plain.tobytes()))
        with _told(self.path), atomic(self._connection) as connection:
            connection.execute("DELETE FROM features WHERE window = ?", (row,))
            connection.executemany("INSERT INTO features VALUES (?, ?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def key_of(library: Library, window: Window) -> bytes:
    """What a window's features are known by: 16 bytes, of its number, times and vector."""
    total = hashlib.blake2b(str(window.row).encode(), digest_size=16)
    total.update(np.asarray(window.times, "<f4").tobytes())
    vector = library.vector(window.row)
    total.update(b"" if vector is None else np.asarray(vector, "<f2").tobytes())
    return total.digest()


def _make(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        connection.execute(SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _refuse_other(connection: sqlite3.Connection, path: Path) -> None:
    marks = tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if marks != (APPLICATION, FORMAT):
        raise CacheError("these are no features that this version can read", where=str(path), hint=_again(path))


def _drop_gone(connection: sqlite3.Connection, library: Library) -> None:
    rows = [row for (row,) in connection.execute("SELECT DISTINCT window FROM features")]
    there = {window.row for window in library.windows(rows)}
    gone = [(row,) for row in rows if row not in there]
    connection.executemany("DELETE FROM features WHERE window = ?", gone)


def _arrays(rows: Sequence[tuple[str, str, str, bytes]]) -> Arrays:
    return {name: np.frombuffer(value, dtype).reshape(json.loads(shape)) for name, dtype, shape, value in rows}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Failures in words.

    Raises:
        CacheError: in place of sqlite's errors, and of values that are not what was written.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            hint = "free some space and ask again: what is finished is kept"
            raise CacheError("no space left on the disk", where=str(path), hint=hint) from error
        raise CacheError(f"a teacher's features cannot be used: {error}", where=str(path), hint=_again(path)) from error
    except (ValueError, TypeError) as error:
        raise CacheError("a teacher's features are damaged", where=str(path), hint=_again(path)) from error


def _again(path: Path) -> Remedy:
    return Remedy("they are made again where the file is gone", DeleteFile(str(path)))
