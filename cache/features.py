"""Per-video features of a frozen network, kept in shards that are complete or absent.

A folder holds one safetensors file per group of videos, named by the group's own content: the digests of its videos.
Another network has another folder (`identity`), other frames have other digests, so nothing stale is ever read.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save, save_file

from ..errors import CacheError
from ..remedies import DeleteFile, Hint, Remedy
from .storage.creating import put
from .storage.locations import Location, Remote
from .storage.publish import TEMPORARY, publish, publishing, sync_above
from .storage.system_files import any_left_by_system
from .storage.untrusted import damaged, file_size, listed, read_file, real_folder, unwritable

Arrays = dict[str, np.ndarray]

IDENTITY = "identity.json"
SHARD_VIDEOS = 256
_LARGEST = SHARD_VIDEOS * 2**25
"""Bytes of a shard: nobody's features of one video have more than 32 MiB."""
_UNREADABLE = "is no safetensors file, or cut short"
_NO_CHECKSUM = "has no checksum"
_OTHER_VALUES = "has other values than were written"
_SHARD = re.compile(r"[0-9a-f]{32}\.safetensors")


def _file(digests: Sequence[bytes]) -> str:
    return f"{hashlib.blake2b(b''.join(digests), digest_size=16).hexdigest()}.safetensors"


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    return _checksum_of(sorted(arrays), arrays.__getitem__)


def _checksum_of(keys: Iterable[str], value: Callable[[str], np.ndarray]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for key in keys:
        array = np.ascontiguousarray(value(key))
        total.update(f"{key} {array.dtype} {array.shape};".encode())
        total.update(memoryview(array).cast("B") if array.size else b"")
    return total.hexdigest()


def _groups(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


class FeatureShards:
    """The features that one network makes of videos.

    Args:
        folder: parent of all feature folders; at an address, whoever makes a shard first has it.
        identity: what the features are made by (network digest, kind, precision); JSON values.
        shard_videos: videos per shard, the unit that is redone after a kill.
    """

    def __init__(self, folder: Location, identity: Mapping[str, Any], shard_videos: int = SHARD_VIDEOS) -> None:
        text = json.dumps(identity, sort_keys=True)
        self.folder = folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.shard_videos = shard_videos
        real_folder(self.folder)
        path = self.folder / IDENTITY
        if isinstance(path, Remote):
            path.create(text.encode())
            return
        try:
            if not path.exists():
                publish(path, text.encode())
            sync_above(path)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def groups(self, digests: Sequence[bytes]) -> Iterator[slice]:
        """The videos of each shard, as slices of `digests`."""
        return _groups(len(digests), self.shard_videos)

    def path(self, digests: Sequence[bytes]) -> Location:
        """The file of the shard that holds exactly these videos."""
        return self.folder / _file(digests)

    def write(self, digests: Sequence[bytes], features: Arrays) -> None:
        """Publish one shard; every array's first dimension is the videos'.

        Raises:
            CacheError: the disk cannot be written.
            UnreachableError: the server of an address fails.
        """
        arrays = {key: np.ascontiguousarray(value) for key, value in features.items()}
        path, metadata = self.path(digests), {"checksum": _checksum(arrays)}
        if isinstance(path, Remote):
            put(path, save(arrays, metadata), stands=lambda other: _fault_in(other) is None)
            return
        try:
            with publishing(path) as temporary:
                save_file(arrays, temporary, metadata=metadata)
        except (OSError, SafetensorError) as error:
            raise unwritable(path, error) from error

    def read(self, digests: Sequence[bytes]) -> Arrays | None:
        """The features of one shard, or None when it has not been made.

        Raises:
            CacheError: the file is damaged, a link, or no plain file.
            UnreachableError: the server of an address fails.
        """
        path = self.path(digests)
        try:
            arrays, checksum = _contents(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, MemoryError) as error:
            raise _damaged(path) from error
        if checksum != _checksum(arrays) or any(len(array) != len(digests) for array in arrays.values()):
            raise _damaged(path)
        return arrays


def _contents(path: Location) -> tuple[Arrays, str | None]:
    """A shard's arrays, and the checksum that it has for them."""
    if isinstance(path, Remote):
        return _loaded(_bytes(path))
    _size(path)
    with safe_open(path, framework="numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, _noted(file.metadata())  # noqa: SIM118


def _bytes(path: Remote) -> bytes:
    most = 2**22  # a server that is silent is waited for by the bytes that it may send
    while path.holds(most) and most < _LARGEST:
        most *= 2
    data = path.read(most=most)
    if data is None:
        raise FileNotFoundError(str(path))
    return data


def _loaded(data: bytes) -> tuple[Arrays, str | None]:
    arrays: Arrays = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, _noted(header.get("__metadata__"))


def _noted(metadata: Mapping[str, str] | None) -> str | None:
    return (metadata or {}).get("checksum")


# Looked at from outside, without knowing the videos


def feature_files(folder: Location) -> list[Location]:
    """The files below a teacher's folder of features: shards, their identities, and what is foreign there."""
    if isinstance(folder, Remote):
        return [folder / name for name in folder.files() if not any_left_by_system(name.split("/"))]
    if not real_folder(folder):
        return []
    found: list[Location] = []
    for child in _own(folder):
        found += _own(child) if not child.is_file() and real_folder(child) else [child]
    return found


def _own(folder: Path) -> list[Path]:
    return [folder / name for name in listed(folder) if not name.startswith(TEMPORARY)]


def feature_name(name: str) -> bool:
    """Whether a file of features may have this name; else it is foreign among them."""
    return name == IDENTITY or _SHARD.fullmatch(name) is not None


def needed_files(digests: Sequence[bytes]) -> set[str]:
    """Names of the shards that hold the features of these videos."""
    return {_file(digests[group]) for group in _groups(len(digests), SHARD_VIDEOS)}


def feature_problem(path: Location, every_byte: bool) -> str | None:
    """Why a file of features is not as it was written, or None; of a local one, one tensor at a time is in memory."""
    try:
        if isinstance(path, Path) and _size(path) == 0:
            return "is empty"
        if path.name == IDENTITY:
            same = hashlib.blake2b(read_file(path), digest_size=8).hexdigest() == path.parent.name
            return None if same else "does not match the name of its folder"
        if isinstance(path, Remote):
            return _fault_in(_bytes(path)) if every_byte else "is empty" if path.holds(0) is False else None
        return _shard_problem(path, every_byte)
    except FileNotFoundError:
        return None  # gone meanwhile: features may be deleted
    except CacheError as error:
        return error.what
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        return f"{_UNREADABLE}: {error}"


def _shard_problem(path: Path, every_byte: bool) -> str | None:
    with safe_open(path, framework="numpy") as file:
        checksum = _noted(file.metadata())
        if checksum is None:
            return _NO_CHECKSUM
        if every_byte and checksum != _checksum_of(sorted(file.keys()), file.get_tensor):
            return _OTHER_VALUES
    return None


def _fault_in(data: bytes) -> str | None:
    """Why a shard's bytes are not as they were written, or None."""
    try:
        arrays, checksum = _loaded(data)
    except (SafetensorError, ValueError) as error:
        return f"{_UNREADABLE}: {error}"
    if checksum is None:
        return _NO_CHECKSUM
    return None if checksum == _checksum(arrays) else _OTHER_VALUES


def _size(path: Path) -> int:
    size = file_size(path)
    if size > _LARGEST:
        raise damaged(path, f"has {size:,} bytes, more than {_LARGEST:,}", _make_again(path))
    return size


def _damaged(path: Location) -> CacheError:
    return CacheError("this feature shard is damaged", where=str(path), hint=_make_again(path))


def _make_again(path: Location) -> Hint:
    if isinstance(path, Remote):
        return "remove this object and do the same again"
    return Remedy("delete it and do the same again", DeleteFile(str(path)))
