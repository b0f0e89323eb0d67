"""One unit vector per video, in a folder that is complete or absent.

identity.json            what the vectors were made by, the videos in row order with the hashes of their frames, and the
                         name and hash of the file below; replaced whole, last
vectors-<hash>.npy       float16 [V, D]
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CacheError
from ..remedies import OTHER, Change, DeleteFolder, Remedy
from .storage.publish import publish, publishing
from .storage.untrusted import others

FORMAT = 1
_OURS = ("identity.json", f"vectors-{'[0-9a-f]' * 16}.npy")


@dataclass(frozen=True)
class Vectors:
    """V videos and their vectors.

    Attributes:
        identity: what they were made by; JSON values.
        digests: video id -> hash of its frames (hex), in row order.
        matrix: float16 [V, D], unit rows.
    """

    identity: Mapping[str, Any]
    digests: Mapping[str, str]
    matrix: np.ndarray

    @property
    def videos(self) -> tuple[str, ...]:
        """Ids of the rows."""
        return tuple(self.digests)


def publish_vectors(folder: Path, vectors: Vectors) -> None:
    """Replace what `folder` holds; a reader sees the old vectors or the new ones."""
    matrix = np.ascontiguousarray(vectors.matrix, np.float16)
    assert matrix.shape[0] == len(vectors.digests)
    digest = _digest(matrix)
    path = folder / f"vectors-{digest}.npy"
    with publishing(path) as temporary, temporary.open("wb") as file:
        np.save(file, matrix, allow_pickle=False)
    content = {
        "format": FORMAT,
        "identity": dict(vectors.identity),
        "vectors": {"file": path.name, "digest": digest},
        "videos": dict(vectors.digests),
    }
    publish(folder / "identity.json", json.dumps(content, indent=1).encode())
    for old in folder.glob("vectors-*.npy"):
        if old != path:
            old.unlink(missing_ok=True)


def read_vectors(folder: Path) -> Vectors | None:
    """What `folder` holds, or None when nothing has been published there.

    Raises:
        CacheError: the files are damaged or of another format, or are something else.
    """
    path = folder / "identity.json"
    if not path.exists():
        if found := others(folder, _OURS):
            hint = Remedy("name a folder of its own", Change({"search.index": OTHER}))
            raise CacheError(
                f"this folder holds something else than an index: {found[0]}", where=str(folder), hint=hint
            )
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise _damaged(folder, f"the index is of format {content['format']}, this version reads {FORMAT}")
        file, digest = content["vectors"]["file"], content["vectors"]["digest"]
        matrix = np.load(folder / Path(file).name, allow_pickle=False)
        digests = {str(video): str(value) for video, value in content["videos"].items()}
        identity = dict(content["identity"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, "this index is damaged") from error
    if matrix.dtype != np.float16 or matrix.ndim != 2 or len(matrix) != len(digests) or _digest(matrix) != digest:
        raise _damaged(folder, "this index is damaged: its vectors are not those that were written")
    return Vectors(identity, digests, matrix)


def exact_index(matrix: np.ndarray) -> Any:
    """A faiss index of unit vectors float16 [V, D] for the largest dot products.

    They stay float16 as stored, which is half the memory and half the time of a flat float32 index; the rounding moves
    a cosine by less than 5e-4.
    """
    import faiss

    index = faiss.IndexScalarQuantizer(matrix.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add_sa_codes(np.ascontiguousarray(matrix, np.float16).view(np.uint8))  # float16 is the index's own code
    return index


def _digest(matrix: np.ndarray) -> str:
    total = hashlib.blake2b(str(matrix.shape).encode(), digest_size=8)
    total.update(memoryview(matrix).cast("B") if matrix.size else b"")
    return total.hexdigest()


def _damaged(folder: Path, what: str) -> CacheError:
    hint = Remedy("delete it, the next search makes it again", DeleteFolder(str(folder)))
    if others(folder, _OURS):
        hint = Remedy("name another folder", Change({"search.index": OTHER}))
    return CacheError(what, where=str(folder), hint=hint)
