"""Files of a store read without trusting them: sizes, links, hashes; folders published whole."""

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ...errors import CacheError
from ...remedies import Hint, Remedy, Score
from .creating import create_folder
from .identity import DIGEST_BYTES
from .locations import Location, Remote
from .publish import TEMPORARY, make_folder, sync_folder
from .system_files import any_left_by_system, left_by_system

type Document = dict[str, Any]
type Stamp = tuple[int, int, int] | bytes
BLOCK = 2**20
_MAX_DOCUMENT = 2**20


def damaged(path: Location, why: str, hint: Hint | None = None) -> CacheError:
    """The error for a file that is not what this format writes."""
    fallback = Remedy("restore it from a copy, or remove the store and score again", Score())
    return CacheError(why, where=str(path), hint=hint or fallback)


class ForeignError(CacheError):
    """What somebody else put among ours: no damage, and nothing of ours has to go for it."""


def foreign(path: Location, why: str = "") -> ForeignError:
    """The error for what is not of this format, in a folder that is."""
    return ForeignError(
        f"foreign, it does not belong here{why}",
        where=str(path),
        hint="move it elsewhere; what lies beside it is not harmed",
    )


def file_size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        FileNotFoundError: there is none.
        CacheError: it is a link or something else.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise damaged(path, "not a plain file; links are not followed inside a score store", "remove it")
    return status.st_size


def size_problem(path: Location, size: int) -> str | None:
    """Why a file is not a plain one of `size` bytes, or None.

    Raises:
        CacheError: it is a link or something else.
    """
    if isinstance(path, Remote):
        longer = path.holds(size)
        shorter = longer is False and size > 0 and not path.holds(size - 1)
        fault = "has more" if longer else "has fewer"
        return "is missing" if longer is None else f"{fault} than {size} bytes" if longer or shorter else None
    try:
        found = file_size(path)
    except FileNotFoundError:
        return "is missing"
    return None if found == size else f"has {found} bytes instead of {size}"


def file_stamp(path: Location) -> Stamp | None:
    """What another file in the same place would differ in: inode, time and size, or a tag; None when there is none."""
    if isinstance(path, Remote):
        return path.stamp()
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def real_folder(path: Location) -> bool:
    """Whether `path` is a folder; at an address there are none, nor links: there it is as good as one.

    Raises:
        CacheError: it is a link or something else.
    """
    if isinstance(path, Remote):
        return True
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise damaged(path, "not a plain folder; links are not followed inside a score store", "remove it")
    return True


def listed(folder: Location) -> list[str]:
    """Names of what is in a folder, but for what systems leave."""
    if isinstance(folder, Remote):
        return sorted({name.partition("/")[0] for name in folder.files() if not any_left_by_system(name.split("/"))})
    return sorted(path.name for path in folder.iterdir() if not left_by_system(path.name))


def others(folder: Path, ours: Iterable[str]) -> list[str]:
    """Names of what is in a folder, but for ours, by patterns, and for hidden files; none where there is no folder."""
    if not folder.is_dir():
        return []
    patterns = [*ours, f"{TEMPORARY}*"]
    names = [name for name in listed(folder) if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    return [name for name in names if not name.startswith(".") or (folder / name).is_dir()]


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty, but for what systems leave."""
    return not listed(folder)


def keep_system_files(path: Path, folder: Path) -> None:
    """Move what systems left in `path` into `folder`, which takes its place."""
    for each in path.iterdir() if path.is_dir() else ():
        if left_by_system(each.name):
            with suppress(OSError):
                each.rename(folder / each.name)


def read_file(path: Location, size: int | None = None, most: int = _MAX_DOCUMENT) -> bytes:
    """The bytes of a plain file.

    Raises:
        CacheError: it is absent, a link, not of `size` bytes or larger than `most`.
    """
    if isinstance(path, Remote):
        raw = path.read(size, most)
        if raw is None:
            raise damaged(path, "missing")
        return raw
    try:
        found = file_size(path)
        if found > most or size not in (None, found):
            raise damaged(path, f"has {found:,} bytes" + (f" instead of {size:,}" if size else f", more than {most:,}"))
        return path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path, "missing") from error
    except OSError as error:
        raise CacheError(f"cannot be read: {error.strerror}", where=str(path)) from error


def read_part(path: Location, start: int, stop: int) -> bytes:
    """Bytes of a plain file from `start` to `stop`.

    Raises:
        CacheError: it is absent, a link or shorter.
    """
    try:
        part = path.part(start, stop) if isinstance(path, Remote) else _part(path, start, stop)
    except FileNotFoundError as error:
        raise damaged(path, "missing") from error
    except OSError as error:
        raise CacheError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(part) != stop - start:
        raise damaged(path, f"has fewer than {stop:,} bytes")
    return part


def _part(path: Path, start: int, stop: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as handle:
        handle.seek(start)
        return handle.read(stop - start)


def read_optional(path: Location) -> bytes | None:
    """The bytes of a document, or None when there is none; else as `read_file`."""
    if isinstance(path, Remote):
        return path.read(most=_MAX_DOCUMENT)
    return read_file(path) if path.exists() else None


def file_blocks(path: Location, size: int) -> Iterator[bytes]:
    """The bytes of a plain file one after the other; not many more than `size`, if it has more.

    Raises:
        OSError: it is missing, a link (the system refuses them) or cannot be read.
    """
    if isinstance(path, Remote):
        yield from path.blocks(size)
        return
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as handle:
        while size >= 0 and (block := handle.read(BLOCK)):
            size -= len(block)
            yield block


def file_digest(path: Location, size: int) -> str:
    """BLAKE2b of a plain file of `size` bytes in hexadecimal; OSError as for `file_blocks`."""
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for block in file_blocks(path, size):
        total.update(block)
    return total.hexdigest()


def unwritable(path: Location, error: Exception, hint: Hint | None = None) -> CacheError:
    """The error for a disk that is full or may not be written."""
    fallback = Remedy("what is finished is kept; make room or choose another folder, then go on", Score())
    why = getattr(error, "strerror", None) or error
    return CacheError(f"cannot be written: {why}", where=str(path), hint=hint or fallback)


def publish_folder(path: Location, files: Mapping[str, bytes], folders: tuple[str, ...] = ()) -> bool:
    """Make a folder with these files, complete or not at all; False when there is one already.

    At an address it is there with the last of its files.

    Raises:
        CacheError: the disk cannot be written.
    """
    if isinstance(path, Remote):
        return create_folder(path, files)
    if path.is_dir() and not holds_nothing(path):
        return False
    try:
        return _publish_folder(path, files, folders)
    except OSError as error:
        raise unwritable(path, error) from error


def _publish_folder(path: Path, files: Mapping[str, bytes], folders: tuple[str, ...]) -> bool:
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        inside = {
            Path(),
            *map(Path, folders),
            *(parent for name in (*folders, *files) for parent in Path(name).parents),
        }
        for folder in sorted(inside):  # each once: whoever takes the folder away meanwhile gets nothing half made again
            (temporary / folder).mkdir()
        for name, data in files.items():
            with (temporary / name).open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        for name, _, _ in os.walk(temporary):
            sync_folder(Path(name))
        keep_system_files(path, temporary)
        try:
            temporary.replace(path)
        except OSError:
            if path.exists():  # another worker was faster
                return False
            raise
        sync_folder(path.parent)
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
