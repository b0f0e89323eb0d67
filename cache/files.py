"""Files that are complete or absent: written beside, synced, renamed into place."""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, age: float = 3600.0) -> None:
    """Remove temporary files and folders that killed writers left below `folder`; a living writer's are younger."""
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        try:
            if time.time() - path.lstat().st_mtime > age:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:  # somebody else removed it, or may
            continue


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    Readers see the old file, the new file or none; never a part. Two writers cost time, never data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def publish(path: Path, data: bytes) -> None:
    """Write `data` to `path`, complete or not at all."""
    with publishing(path) as temporary:
        temporary.write_bytes(data)
