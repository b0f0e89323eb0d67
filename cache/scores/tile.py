"""One tile of a score store: an immutable rectangle of texts x videos, filled shard by shard.

A tile's folder is complete before its first shard: sizes, ids, digests and frame times are written beside and renamed
into place; at an address, its document comes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import CacheError
from ..storage.identity import canonical, digest
from ..storage.locations import Location, at_once
from ..storage.sealed import METADATA, group, open_group, parse
from ..storage.untrusted import Document, Stamp, damaged, file_stamp, publish_folder, read_file, real_folder
from .format.arrays import MAX_SHARD, MAX_TEXTS, MAX_VIDEOS, TileSpec, chunk_file
from .format.codes import Dtype

type Key = tuple[str, bytes]
"""An id and the digest of what it stands for: a caption, or a video's stored frames and times."""

_ATTEMPTS = 5


@dataclass(frozen=True)
class TileContents:
    """What a tile's rows and columns are.

    Args:
        texts, videos: (id, 16-byte digest) of each row and column; ids are unique and have no line break.
        text_video: int64 [T], column of the text's own video; -1 when it is in another tile.
        frame_times: float64 [V,F] seconds, NaN in padded slots.
    """

    texts: Sequence[Key]
    videos: Sequence[Key]
    text_video: np.ndarray
    frame_times: np.ndarray


@dataclass(frozen=True)
class TeacherFacts:
    """What a tile shares with its teacher's other tiles; `digest` stands for all of it and the teacher's identity.

    `sparse`: as of `TileSpec`.
    """

    digest: str
    frames: int
    frame_logits: bool
    dtype: Dtype
    sparse: int = 0


def _pack_ids(keys: Sequence[Key], what: str) -> np.ndarray:
    ids = [key for key, _ in keys]
    if len(set(ids)) != len(ids) or any(not key or "\n" in key for key in ids):
        raise CacheError(f"{what} ids must be unique, not empty and without line breaks")
    try:
        return np.frombuffer("\n".join(ids).encode(), dtype=np.uint8)
    except UnicodeEncodeError as error:
        raise CacheError(f"{what} ids must be UTF-8") from error


def _pack_digests(keys: Sequence[Key]) -> np.ndarray:
    return np.frombuffer(b"".join(key for _, key in keys), dtype=np.uint8).reshape(len(keys), 16)


def tile_files(spec: TileSpec) -> set[str]:
    """The files that are written with a tile, beside its own document."""
    arrays = spec.arrays()
    documents = {f"{name}/{METADATA}" for name in arrays}
    return documents | {chunk_file(name, arrays[name]) for name in arrays if name not in spec.scored}


@dataclass(eq=False)
class TileFacts:
    """What reading and checking a tile's shards takes. It is plain, so that another process can be sent it.

    Args:
        folder: the tile's folder.
        checksum: of its metadata; each shard's marker names it.
        spec: its sizes.
        stamp: tells its metadata's file from another that takes its place.

    Attributes:
        arrays: the zarr.json of each.
    """

    folder: Location
    checksum: str
    spec: TileSpec
    stamp: Stamp | None

    def __post_init__(self) -> None:
        self.arrays = self.spec.arrays()
        self._document = self.folder / METADATA  # joined once: it is looked at after every read

    def refuse_replaced(self) -> None:
        """Refuse a tile that was removed, or another put in its place, since it was opened.

        Raises:
            CacheError: so it was.
        """
        if file_stamp(self._document) != self.stamp:
            raise CacheError("removed or replaced while it was open", where=str(self.folder), hint="open it again")


class Tile(TileFacts):
    """A tile on disk; every file that is not a shard has been checked against its hash.

    Args:
        folder: the tile's folder.
        teacher: what its teacher's metadata says.

    Raises:
        CacheError: the tile is damaged, or not one of this teacher's.
    """

    def __init__(self, folder: Location, teacher: TeacherFacts) -> None:
        path = folder / METADATA
        stamp = file_stamp(path)
        attributes, checksum = open_group(folder)
        if attributes.get("teacher") != teacher.digest:
            raise damaged(path, "this tile belongs to another teacher")
        spec = TileSpec.read(attributes, teacher.frames, teacher.frame_logits, teacher.dtype, teacher.sparse, path)
        super().__init__(folder, checksum, spec, stamp)
        hashes = attributes.get("files")
        if not isinstance(hashes, dict) or hashes.keys() != tile_files(self.spec):
            raise damaged(path, "its list of files is not that of a tile")
        for name in (*self.arrays, "done"):
            if not real_folder(folder / name):
                raise damaged(folder / name, "missing")
        at_once(folder, lambda name: self._check_array(name, hashes), self.arrays)
        static = [name for name in self.arrays if name not in self.spec.scored]
        values = at_once(folder, lambda name: self._read_static(name, self.arrays[name], hashes), static)
        self._static = dict(zip(static, values, strict=True))
        # Fewer ids than rows: a line is missing, or an id is there twice.
        if len(self.text_rows) != self.spec.texts or len(self.video_columns) != self.spec.videos:
            raise damaged(folder, "has other numbers of ids than of rows and columns")

    @property
    def facts(self) -> TileFacts:
        """Without ids, digests and times of frames."""
        return TileFacts(self.folder, self.checksum, self.spec, self.stamp)

    @property
    def name(self) -> str:
        return self.folder.name

    def _check_array(self, name: str, hashes: Document) -> None:
        path = self.folder / name / METADATA
        if parse(self._checked(f"{name}/{METADATA}", hashes), path) != self.arrays[name]:
            raise damaged(path, "not the array that this format describes")

    def _read_static(self, name: str, metadata: Document, hashes: Document) -> np.ndarray:
        file = chunk_file(name, metadata)
        size = self.spec.static_bytes()[name]
        # The hash is the tile's own; the last four bytes are the crc32c for those who read with a Zarr library.
        values = self._checked(file, hashes, size)[:-4]
        dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        return np.frombuffer(values, dtype=dtype).reshape(metadata["shape"])

    def _checked(self, file: str, hashes: Document, size: int | None = None) -> bytes:
        path = self.folder / file
        raw = read_file(path) if size is None else read_file(path, size, size)
        if digest(raw).hex() != hashes[file]:
            raise damaged(path, "damaged: its bytes do not match the tile's metadata")
        return raw

    def _ids(self, name: str) -> tuple[str, ...]:
        try:
            return tuple(self._static[name].tobytes().decode().split("\n"))
        except UnicodeDecodeError as error:
            raise damaged(self.folder / name, "not UTF-8") from error

    @cached_property
    def text_ids(self) -> tuple[str, ...]:
        """Id of each row."""
        return self._ids("text_ids")

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """Id of each column."""
        return self._ids("video_ids")

    @cached_property
    def text_rows(self) -> dict[str, int]:
        """Row of each text."""
        return {key: row for row, key in enumerate(self.text_ids)}

    @cached_property
    def video_columns(self) -> dict[str, int]:
        """Column of each video."""
        return {key: column for column, key in enumerate(self.video_ids)}

    @cached_property
    def text_digests(self) -> np.ndarray:
        """uint8 [T,16]."""
        return self._static["text_digests"]

    @cached_property
    def video_digests(self) -> np.ndarray:
        """uint8 [V,16]."""
        return self._static["video_digests"]

    @cached_property
    def text_video(self) -> np.ndarray:
        """int64 [T]: column of each text's own video, -1 when it is in another tile."""
        columns = self._static["text_video"]
        if columns.min() < -1 or columns.max() >= self.spec.videos:
            raise damaged(self.folder / "text_video", "names columns that the tile has not")
        return columns

    @cached_property
    def frame_times(self) -> np.ndarray:
        """float64 [V,F]: seconds of the frames that the teacher saw, NaN in padded slots."""
        return self._static["frame_times"]


def create_tile(folder: Location, teacher: TeacherFacts, contents: TileContents, shard_texts: int) -> Tile:
    """Make a tile without shards, or open the one that another worker has just made.

    Raises:
        CacheError: the contents do not fit this format, or there is another tile of this name.
    """
    static = {
        "text_ids": _pack_ids(contents.texts, "text"),
        "video_ids": _pack_ids(contents.videos, "video"),
        "text_digests": _pack_digests(contents.texts),
        "video_digests": _pack_digests(contents.videos),
        "text_video": contents.text_video.astype(np.int64),
        "frame_times": contents.frame_times.astype(np.float64),
    }
    texts, videos = len(contents.texts), len(contents.videos)
    if not (0 < texts <= MAX_TEXTS and 0 < videos <= MAX_VIDEOS and 0 < shard_texts <= MAX_SHARD):
        raise CacheError(
            f"a tile of {texts:,} texts, {videos:,} videos and {shard_texts:,} texts per shard is not possible",
            hint=f"at most {MAX_TEXTS:,} texts, {MAX_VIDEOS:,} videos and {MAX_SHARD:,} texts per shard",
        )
    spec = TileSpec(
        texts,
        videos,
        teacher.frames,
        teacher.frame_logits,
        teacher.dtype,
        min(shard_texts, texts),
        static["text_ids"].size,
        static["video_ids"].size,
        teacher.sparse,
    )
    if large := spec.too_large:
        raise CacheError(
            f"{large} of {texts:,} texts, {videos:,} videos and {spec.frames} frames is too large for one tile",
            hint="score fewer captions and videos into one store, or in blocks",
        )
    from .format.zarr_io import write_array  # imports zarr, which only who makes a tile waits for

    arrays = spec.arrays()
    files = {f"{name}/{METADATA}": canonical(metadata) for name, metadata in arrays.items()}
    for name, values in static.items():
        assert list(values.shape) == arrays[name]["shape"], name
        files |= {f"{name}/{file}": data for file, data in write_array(arrays[name], values).items()}
    hashes = {file: digest(data).hex() for file, data in files.items()}
    files[METADATA] = group({**spec.attributes(), "teacher": teacher.digest, "files": hashes})
    publish_folder(folder, files, folders=("done",))
    if read_file(folder / METADATA) != files[METADATA]:
        raise CacheError("there is a tile of this name with other contents", where=str(folder))
    return Tile(folder, teacher)
