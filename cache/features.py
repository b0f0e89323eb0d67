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
from safetensors.numpy import save_file

from ..errors import CacheError
from ..remedies import DeleteFile, Remedy
from .storage.publish import TEMPORARY, publish, publishing, sync_above
from .storage.untrusted import damaged, file_size, listed, read_file, real_folder, unwritable

Arrays = dict[str, np.ndarray]

IDENTITY = "identity.json"
SHARD_VIDEOS = 256
_LARGEST = SHARD_VIDEOS * 2**25
"""Bytes of a shard: nobody's features of one video have more than 32 MiB."""
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
        folder: parent of all feature folders.
        identity: what the features are made by (network digest, kind, precision); JSON values.
        shard_videos: videos per shard, the unit that is redone after a kill.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard_videos: int = SHARD_VIDEOS) -> None:
        text = json.dumps(identity, sort_keys=True)
        self.folder = folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.shard_videos = shard_videos
        real_folder(self.folder)
        try:
            if not (self.folder / IDENTITY).exists():
                publish(self.folder / IDENTITY, text.encode())
            sync_above(self.folder / IDENTITY)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def groups(self, digests: Sequence[bytes]) -> Iterator[slice]:
        """The videos of each shard, as slices of `digests`."""
        return _groups(len(digests), self.shard_videos)

    def path(self, digests: Sequence[bytes]) -> Path:
        """The file of the shard that holds exactly these videos."""
        return self.folder / _file(digests)

    def write(self, digests: Sequence[bytes], features: Arrays) -> None:
        """Publish one shard; every array's first dimension is the videos'.

        Raises:
            CacheError: the disk cannot be written.
        """
        arrays = {key: np.ascontiguousarray(value) for key, value in features.items()}
        path = self.path(digests)
        try:
            with publishing(path) as temporary:
                save_file(arrays, temporary, metadata={"checksum": _checksum(arrays)})
        except (OSError, SafetensorError) as error:
            raise unwritable(path, error) from error

    def read(self, digests: Sequence[bytes]) -> Arrays | None:
        """The features of one shard, or None when it has not been made.

        Raises:
            CacheError: the file is damaged, a link, or no plain file.
        """
        path = self.path(digests)
        try:
            _size(path)
        except FileNotFoundError:
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                arrays: Arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                checksum = (file.metadata() or {}).get("checksum")
        except (SafetensorError, OSError, ValueError, MemoryError) as error:
            raise _damaged(path) from error
        if checksum != _checksum(arrays) or any(len(array) != len(digests) for array in arrays.values()):
            raise _damaged(path)
        return arrays


# Looked at from outside, without knowing the videos


def feature_files(folder: Path) -> list[Path]:
    """The files below a teacher's folder of features: shards, their identities, and what is foreign there."""
    if not real_folder(folder):
        return []
    found = []
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


def feature_problem(path: Path, every_byte: bool) -> str | None:
    """Why a file of features is not as it was written, or None; one tensor at a time is in memory."""
    try:
        if _size(path) == 0:
            return "is empty"
        if path.name == IDENTITY:
            same = hashlib.blake2b(read_file(path), digest_size=8).hexdigest() == path.parent.name
            return None if same else "does not match the name of its folder"
        return _shard_problem(path, every_byte)
    except FileNotFoundError:
        return None  # gone meanwhile: features may be deleted
    except CacheError as error:
        return error.what
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        return f"is no safetensors file, or cut short: {error}"


def _shard_problem(path: Path, every_byte: bool) -> str | None:
    with safe_open(path, framework="numpy") as file:
        checksum = (file.metadata() or {}).get("checksum")
        if checksum is None:
            return "has no checksum"
        if every_byte and checksum != _checksum_of(sorted(file.keys()), file.get_tensor):
            return "has other values than were written"
    return None


def _size(path: Path) -> int:
    size = file_size(path)
    if size > _LARGEST:
        raise damaged(path, f"has {size:,} bytes, more than {_LARGEST:,}", _make_again(path))
    return size


def _damaged(path: Path) -> CacheError:
    return CacheError("this feature shard is damaged", where=str(path), hint=_make_again(path))


def _make_again(path: Path) -> Remedy:
    return Remedy("delete it and do the same again", DeleteFile(str(path)))
