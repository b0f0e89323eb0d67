"""The groups and arrays of a store as zarr-python's own, for whoever explores one.

zarr-python sees the documents that were checked, and of the files of arrays what a reader of scores would take: those
written with a tile, and those of complete shards, each by its size and then under its crc32c.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..storage.identity import canonical
from ..storage.locations import Location
from ..storage.sealed import METADATA, group_document
from ..storage.untrusted import damaged, read_part, size_problem
from .format.arrays import chunk_file
from .format.sizes import shard_bytes
from .shard import incomplete, problem
from .tile import Tile

if TYPE_CHECKING:
    from .format.checked_store import Group

type Files = dict[str, "bytes | _Chunk"]
"""What zarr-python sees of a folder, by path."""


def as_group(folder: Location, files: Files) -> "Group":
    """zarr-python's group of a folder that has these files; read-only."""
    from .format.checked_store import open_checked  # imports zarr

    return open_checked(str(folder), files)


def store_files(folder: Location, teachers: Mapping[str, Files]) -> Files:
    """The files of a store that has these teachers."""
    return {METADATA: group_document(folder), **_below(teachers)}


def teacher_files(folder: Location, group_of_tiles: str, tiles: Iterable[Tile]) -> Files:
    """The files of a teacher that has these tiles."""
    each = {tile.name: _tile_files(tile) for tile in tiles}
    inside = {METADATA: group_document(folder / group_of_tiles), **_below(each)}
    return {METADATA: group_document(folder), **_below({group_of_tiles: inside})}


def _below(folders: Mapping[str, Files]) -> Files:
    return {f"{name}/{path}": file for name, files in folders.items() for path, file in files.items()}


def _tile_files(tile: Tile) -> Files:
    files: Files = {METADATA: group_document(tile.folder)}
    files |= {f"{name}/{METADATA}": canonical(metadata) for name, metadata in tile.arrays.items()}
    for name, size in tile.spec.static_bytes().items():
        file = chunk_file(name, tile.arrays[name])
        files[file] = _Chunk(tile, file, size)
    for shard in range(tile.spec.shards):
        files |= {file: _Chunk(tile, file, size, shard) for file, size in shard_bytes(tile.spec, shard).items()}
    return files


@dataclass(frozen=True)
class _Chunk:
    """A file of a tile's array; `shard` is None where it was written with the tile."""

    tile: Tile
    file: str
    size: int
    shard: int | None = None

    def complete(self) -> bool:
        return self.shard is None or not problem(self.tile, self.shard)

    def read(self, start: int, stop: int) -> bytes:
        self.tile.refuse_replaced()
        if self.shard is not None and not self.complete():
            raise incomplete(self.tile, self.shard)
        path = self.tile.folder / self.file
        if why := size_problem(path, self.size):
            raise damaged(path, why)
        return read_part(path, start, stop)
