"""Per-video features of a frozen network, kept in shards that are complete or absent.

A folder holds one safetensors file per group of videos, named by the group's own content: the digests of its videos.
Another network has another folder (`identity`), other frames have other digests, so nothing stale is ever read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import CacheError
from .documents import unwritable
from .files import publish, publishing

Arrays = dict[str, np.ndarray]


def _name(digests: Sequence[bytes]) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        total.update(f"{key} {array.dtype} {array.shape};".encode())
        total.update(memoryview(array).cast("B") if array.size else b"")
    return total.hexdigest()


class FeatureShards:
    """The features that one network makes of videos.

    Args:
        folder: parent of all feature folders.
        identity: what the features are made by (network digest, kind, precision); JSON values.
        shard_videos: videos per shard, the unit that is redone after a kill.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard_videos: int = 256) -> None:
        text = json.dumps(identity, sort_keys=True)
        self.folder = folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.shard_videos = shard_videos
        if not (self.folder / "identity.json").exists():
            try:
                publish(self.folder / "identity.json", text.encode())
            except OSError as error:
                raise unwritable(self.folder, error) from error

    def groups(self, digests: Sequence[bytes]) -> Iterator[slice]:
        """The videos of each shard, as slices of `digests`."""
        for start in range(0, len(digests), self.shard_videos):
            yield slice(start, min(start + self.shard_videos, len(digests)))

    def path(self, digests: Sequence[bytes]) -> Path:
        """The file of the shard that holds exactly these videos."""
        return self.folder / f"{_name(digests)}.safetensors"

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
            CacheError: the file is damaged.
        """
        path = self.path(digests)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                arrays: Arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                checksum = (file.metadata() or {}).get("checksum")
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path) from error
        if checksum != _checksum(arrays) or any(len(array) != len(digests) for array in arrays.values()):
            raise _damaged(path)
        return arrays


def _damaged(path: Path) -> CacheError:
    return CacheError("this feature shard is damaged", where=str(path), hint=f"delete it and run again: rm {path}")
