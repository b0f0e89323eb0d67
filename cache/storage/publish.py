"""Files that are complete or absent: written beside, synced, renamed into place."""

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".tmp-"
# Of folders above ours: what may not be opened is older than we are, and some file systems cannot sync folders.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
IN_USE = 3600.0
"""Seconds: what was written to more recently may still be in the making."""
_PRIVATE = 0o600


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


_MODE = 0o666 & ~_umask()


def free_bytes(folder: Path) -> int:
    """Bytes that are free where `folder` lies, or will lie."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(there).free


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_above(path: Path) -> None:
    """Make the folders that lead to `path` survive a power cut, whoever made them and was killed before he synced."""
    for folder in path.absolute().parents:
        try:
            sync_folder(folder)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_above(folder)


def leftovers(folder: Path, age: float = IN_USE) -> list[Path]:
    """Temporary files and folders below `folder` whose writers are dead; a living writer's are younger than `age`.

    Whoever fills a temporary folder for long must touch it (`os.utime`) meanwhile.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        inside = [name for name in folders if name.startswith(TEMPORARY)]
        for name in (*inside, *(name for name in files if name.startswith(TEMPORARY))):
            with suppress(OSError):  # its writer has just put it into place
                if time.time() - Path(parent, name).lstat().st_mtime > age:
                    found.append(Path(parent, name))
        folders[:] = [name for name in folders if name not in inside]
    return found


def remove(path: Path) -> None:
    """Remove a file, link or folder; what somebody else has removed already is no error."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_leftover(path: Path) -> None:
    """Remove what a killed writer left: at once, so that he cannot put a part of it into place should he live."""
    away = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(away)
        remove(away)


def remove_leftovers(folder: Path, age: float = IN_USE) -> None:
    """Remove what killed writers left below `folder`."""
    for path in leftovers(folder, age):
        with suppress(OSError):  # somebody else removes it, or may
            remove_leftover(path)


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    Readers see the old file, the new file or none; never a part. Two writers cost time, never data.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            if stat.S_IMODE(os.fstat(handle.fileno()).st_mode) == _PRIVATE:  # safetensors' files, whatever the umask
                with suppress(OSError):  # file systems without modes
                    os.fchmod(handle.fileno(), _MODE)
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def put_folder(temporary: Path, path: Path) -> None:
    """Give a folder beside `path`, whose files are synced, its name, which nobody has."""
    for folder, _, _ in os.walk(temporary):
        sync_folder(Path(folder))
    temporary.rename(path)
    sync_folder(path.parent)


@contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it is synced and takes the place of `path`, with all that is
    in there, on failure it is removed.

    Readers see the new folder or, while it comes and before, the old one or none; never a part.
    """
    path = path.absolute()
    make_folder(path.parent)
    temporary, away = (path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}") for _ in range(2))
    try:
        temporary.mkdir()
        yield temporary
        for folder, _, files in os.walk(temporary):
            for file in files:
                with Path(folder, file).open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            path.rename(away)
        put_folder(temporary, path)
    finally:
        remove(temporary)
        remove(away)


def publish(path: Path, data: bytes) -> None:
    """Write `data` to `path`, complete or not at all."""
    with publishing(path) as temporary:
        temporary.write_bytes(data)
