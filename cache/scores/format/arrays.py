"""The arrays of a score store's tile: which there are and what their metadata must say.

docs/reference/score-cache.md is the specification; this file is its other half, and zarr-python puts it into documents.
"""

import re
from dataclasses import dataclass

from ...storage.locations import Location
from ...storage.sealed import whole_number
from ...storage.untrusted import Document, damaged
from .codes import Dtype

FORMAT = "teachclip-scores"
VERSION = 1

# Bytes of a score.
ITEM_BYTES: dict[Dtype, int] = {"uint16": 2, "float16": 2, "float32": 4}

# What one tile may hold: no declared size makes a reader allocate more than the data it was asked for.
MAX_TEXTS, MAX_VIDEOS, MAX_FRAMES, MAX_SHARD = 2**26, 2**20, 2**12, 2**16
_MAX_ID_BYTES = 1024
_MAX_STATIC = 2**30
"""Bytes of an array that is written with its tile and read as a whole."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FIRST = re.compile(
    r"[a-z_]+/zarr\.json|(text_ids|video_ids|text_digests|video_digests|text_video|frame_times)/c(\.0)+"
)


def valid_name(name: str) -> bool:
    """Whether a teacher or tile may be called so: letters, digits, `_`, `.`, `-`; no path."""
    return _NAME.fullmatch(name) is not None


def comes_first(file: str) -> bool:
    """Whether a file of a tile or a teacher is written before its own zarr.json."""
    return _FIRST.fullmatch(file) is not None


def chunk_file(name: str, metadata: Document) -> str:
    """The file of an array that is written with its tile, by the array's zarr.json."""
    return f"{name}/c.{'.'.join('0' for _ in metadata['shape'])}"


@dataclass(frozen=True)
class TileSpec:
    """Sizes of a tile; they say what its arrays look like.

    Args:
        texts, videos: rows and columns.
        frames: frame slots of the teacher.
        frame_logits: whether the teacher gives frame-text logits.
        dtype: codes, or scores as they are.
        shard_texts: rows per shard.
        text_id_bytes, video_id_bytes: length of the id lists.
        sparse: at most so many videos of each text are scored, and its own beside; 0: every one is.
    """

    texts: int
    videos: int
    frames: int
    frame_logits: bool
    dtype: Dtype
    shard_texts: int
    text_id_bytes: int
    video_id_bytes: int
    sparse: int = 0

    @property
    def per_text(self) -> int:
        """How many videos of a text are scored, at most."""
        return min(self.sparse + 1, self.videos) if self.sparse else self.videos

    @property
    def shards(self) -> int:
        """How many shards the rows fill."""
        return -(-self.texts // self.shard_texts)

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        return range(shard * self.shard_texts, min((shard + 1) * self.shard_texts, self.texts))

    @property
    def scored(self) -> tuple[str, ...]:
        """The arrays that are written shard by shard, in the order in which they are published."""
        codec = ("coarse_codec",) if self.dtype == "uint16" else ()
        return ("coarse", *codec, *(("fine",) if self.frame_logits else ()))

    def arrays(self) -> dict[str, Document]:
        """The zarr.json of every array. They are kept for whoever asks next: not to be changed."""
        from .zarr_io import describe  # imports zarr, which who neither makes nor opens a tile need not wait for

        texts, videos, frames, shard = self.texts, self.videos, self.frames, self.shard_texts
        arrays = {
            "text_ids": describe((self.text_id_bytes,), "uint8", ("byte",)),
            "video_ids": describe((self.video_id_bytes,), "uint8", ("byte",)),
            "text_digests": describe((texts, 16), "uint8", ("text", "byte")),
            "video_digests": describe((videos, 16), "uint8", ("video", "byte")),
            "text_video": describe((texts,), "int64", ("text",)),
            "frame_times": describe((videos, frames), "float64", ("video", "frame")),
            "coarse": describe((texts, videos), self.dtype, ("text", "video"), shard, sharded=True),
        }
        if self.dtype == "uint16":
            arrays["coarse_codec"] = describe((texts, 2), "float64", ("text", "scale_offset"), shard)
        if self.frame_logits:
            arrays["fine"] = describe((texts, frames), "float32", ("text", "frame"), shard)
        return arrays

    def static_bytes(self) -> dict[str, int]:
        """Size of the one chunk of each array that is written with the tile, checksum included."""
        return {
            "text_ids": self.text_id_bytes + 4,
            "video_ids": self.video_id_bytes + 4,
            "text_digests": 16 * self.texts + 4,
            "video_digests": 16 * self.videos + 4,
            "text_video": 8 * self.texts + 4,
            "frame_times": 8 * self.videos * self.frames + 4,
        }

    @property
    def too_large(self) -> str | None:
        """An array that is written with the tile and would take more bytes than a reader would hold."""
        return next((name for name, size in self.static_bytes().items() if size > _MAX_STATIC + 4), None)

    def attributes(self) -> Document:
        """What the tile's own zarr.json says of it."""
        return {
            "texts": self.texts,
            "videos": self.videos,
            "shard_texts": self.shard_texts,
            "text_id_bytes": self.text_id_bytes,
            "video_id_bytes": self.video_id_bytes,
        }

    @classmethod
    def read(
        cls, attributes: Document, frames: int, frame_logits: bool, dtype: Dtype, sparse: int, path: Location
    ) -> "TileSpec":
        """The spec that a tile's attributes describe.

        Raises:
            CacheError: a size is missing or absurd.
        """
        texts = whole_number(attributes, "texts", 1, MAX_TEXTS, path)
        videos = whole_number(attributes, "videos", 1, MAX_VIDEOS, path)
        spec = cls(
            texts,
            videos,
            frames,
            frame_logits,
            dtype,
            whole_number(attributes, "shard_texts", 1, MAX_SHARD, path),
            whole_number(attributes, "text_id_bytes", texts, _MAX_ID_BYTES * texts, path),
            whole_number(attributes, "video_id_bytes", videos, _MAX_ID_BYTES * videos, path),
            sparse,
        )
        if large := spec.too_large:
            raise damaged(path, f"{large} would have more than {_MAX_STATIC:,} bytes")
        return spec
