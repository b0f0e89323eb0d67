"""The database of a library: its tables, how it is opened, and its failures in words.

index.sqlite is the truth. `PRAGMA application_id` says that it is one of ours, `PRAGMA user_version` its format.
Paths are TEXT, absolute; a name that is not UTF-8 stands there in its own bytes.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ...errors import CacheError
from ...remedies import DeleteFile, Hint, IndexVideos, Remedy
from .disks import network_disk

DATABASE = "index.sqlite"
APPLICATION, FORMAT = 0x74636C62, 2
PATIENCE = 30.0  # seconds to wait for another writer's transaction

SCHEMA = """
CREATE TABLE models(
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL, name TEXT NOT NULL, width INTEGER NOT NULL, frames INTEGER NOT NULL,
    seconds REAL NOT NULL, step REAL NOT NULL, whole REAL NOT NULL, used REAL NOT NULL,
    UNIQUE(digest, frames, seconds, step, whole));
CREATE TABLE generations(
    model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, generation INTEGER NOT NULL, stamp TEXT NOT NULL,
    PRIMARY KEY(model, generation)) WITHOUT ROWID;
CREATE TABLE roots(path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE videos(
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    blake2b BLOB, duration REAL, status TEXT NOT NULL, reason TEXT NOT NULL, reader INTEGER NOT NULL);
CREATE INDEX videos_by_size ON videos(size);
CREATE INDEX videos_by_time ON videos(mtime_ns);
CREATE TABLE windows(
    id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
    video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE, start REAL NOT NULL, stop REAL NOT NULL,
    times BLOB NOT NULL, weights BLOB, vector BLOB NOT NULL);
CREATE INDEX windows_of_model ON windows(model);
CREATE INDEX windows_of_video ON windows(video, model);
CREATE TABLE tags(
    tag TEXT NOT NULL, video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE, PRIMARY KEY(tag, video)
    ) WITHOUT ROWID;
CREATE INDEX tags_of_video ON tags(video);
"""
# Of single frames, beside the windows, so that whoever goes through these does not read them.
FRAMES = """
CREATE TABLE frames(window INTEGER PRIMARY KEY REFERENCES windows ON DELETE CASCADE, vectors BLOB NOT NULL)
"""

_FULL = "free some space and give the same command again: what is finished is kept"
_BUSY = "another process writes there for long; try again when it is done"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_REFUSED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_WRITE_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_library(folder: Path) -> bool:
    """Whether a folder holds a library."""
    return (folder / DATABASE).is_file()


def to_write(folder: Path) -> sqlite3.Connection:
    """The database of a folder, made where there is none, in write-ahead mode unless the disk is a network's.

    Raises:
        CacheError: the folder cannot be made or written, or holds a database of another kind or format.
    """
    path = folder / DATABASE
    with told(path):
        connection = connected(path, "rwc")
        try:
            if _is_new(connection):
                _make(connection)
            refuse_other(connection, folder)
            wanted = "delete" if network_disk(folder) else "wal"
            connection.execute(f"PRAGMA journal_mode = {wanted}")
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if wanted == 'wal' else 'FULL'}")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def to_read(folder: Path) -> sqlite3.Connection:
    """The database of a folder, never written to, while another process may write.

    Raises:
        CacheError: there is none, it cannot be read, or is of another kind or format.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise _absent(folder)
    with told(path):
        connection = connected(path, "ro")
        try:
            _refuse_empty_and_other(connection, folder)
        except sqlite3.OperationalError as error:
            connection.close()
            # Write-ahead mode wants to make a file beside it; where nobody may, nobody writes either.
            if not is_refusal(error) or _not_yet_in(path):
                raise
            connection = connected(path, "ro&immutable=1")
            _refuse_empty_and_other(connection, folder)
        except BaseException:
            connection.close()
            raise
    return connection


def has_frames(connection: sqlite3.Connection) -> bool:
    """Whether there is a table of frames: format 1 has none."""
    return bool(connection.execute("PRAGMA user_version").fetchone()[0] >= 2)


def raise_format(connection: sqlite3.Connection, folder: Path) -> None:
    """Bring a database of format 1, open for writing, to this one; its windows have no frames.

    Raises:
        As `transaction`.
    """
    if has_frames(connection):
        return
    with transaction(connection, folder):
        if not has_frames(connection):  # nobody else has done it meanwhile
            connection.execute(FRAMES)
            connection.execute(f"PRAGMA user_version = {FORMAT}")


def refuse_other(connection: sqlite3.Connection, folder: Path) -> None:
    """Refuse a database that is not a library, or of a later format.

    Raises:
        CacheError: it is not; says what it is.
    """
    kind = connection.execute("PRAGMA application_id").fetchone()[0]
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if kind != APPLICATION:
        hint = "name another folder"
        raise CacheError("this database is none of teachclip's indexes", where=str(folder / DATABASE), hint=hint)
    if not 1 <= found <= FORMAT:
        what = f"this index has format {found}, this version reads 1 to {FORMAT}"
        raise CacheError(what, where=str(folder), hint=_again(folder))


@contextmanager
def transaction(connection: sqlite3.Connection, folder: Path) -> Iterator[sqlite3.Connection]:
    """All of what is written inside, or nothing of it; a killed process leaves nothing.

    Raises:
        CacheError: the disk is full or cannot be written, another process writes for long, the database is damaged.
    """
    with told(folder / DATABASE), atomic(connection):
        yield connection


@contextmanager
def atomic(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """As `transaction`, with sqlite's own errors."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection, folder: Path) -> Iterator[sqlite3.Connection]:
    """Everything that is read inside is of one moment.

    Raises:
        CacheError: the database cannot be read, or is damaged.
    """
    with told(folder / DATABASE):
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")


def is_refusal(error: sqlite3.Error) -> bool:
    """Whether it may not be written, or opened."""
    return error.sqlite_errorcode & 0xFF in _REFUSED


def stored_path(path: str) -> bytes:
    """A path as SQL takes it: `CAST(? AS TEXT)`, for names that are not UTF-8, too."""
    return os.fsencode(path)


def connected(path: Path, mode: str) -> sqlite3.Connection:
    """A database that several threads may use in turn, opened in a mode of SQLite's addresses."""
    address = f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    connection.text_factory = os.fsdecode
    return connection


def _is_new(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0)


def _refuse_empty_and_other(connection: sqlite3.Connection, folder: Path) -> None:
    """As `refuse_other`; whoever was about to make the tables may have been killed."""
    if _is_new(connection):
        raise _absent(folder)
    refuse_other(connection, folder)


def _absent(folder: Path) -> CacheError:
    hint = Remedy("index videos first", IndexVideos(str(folder)))
    return CacheError("there is no index here", where=str(folder), hint=hint)


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_new(connection):  # nobody else has made it meanwhile
            for statement in (*SCHEMA.split(";\n"), FRAMES):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _not_yet_in(path: Path) -> bool:
    """Whether transactions lie in the write-ahead file alone."""
    beside = path.with_name(f"{path.name}-wal")
    return beside.exists() and beside.stat().st_size > 0


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Failures of the database and of its disk, in words.

    Raises:
        CacheError: in place of sqlite's errors.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _in_words(error, path) from error
    except OSError as error:
        if error.errno not in _WRITE_REFUSED:
            raise
        raise _no_access(path.parent, error.strerror or str(error)) from error


def _in_words(error: sqlite3.Error, path: Path) -> CacheError:
    code, said = getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error)
    if code == sqlite3.SQLITE_FULL:
        return CacheError("no space left on the disk", where=str(path), hint=_FULL)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return CacheError("this index is in use", where=str(path), hint=_BUSY)
    if code in _DAMAGED:
        return CacheError(f"this index is damaged ({said})", where=str(path), hint=_again(path.parent))
    if code in _REFUSED:
        return _no_access(path.parent, said)
    return CacheError(f"this index cannot be used: {said}", where=str(path), hint="check the disk, then try again")


def _no_access(folder: Path, said: str) -> CacheError:
    hint = "make the folder readable and writable for you, or name another one"
    return CacheError(f"this index cannot be opened or written ({said})", where=str(folder), hint=hint)


def _again(folder: Path) -> Hint:
    return Remedy("index into another folder, or make it again", DeleteFile(str(folder / DATABASE)))
