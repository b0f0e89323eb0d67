"""Shards, tiles and teachers copied from store to store, trusting nothing."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ....errors import CacheError
from ...storage.identity import DIGEST_BYTES, digest
from ...storage.locations import Location, Remote, at_once
from ...storage.publish import publish, publishing
from ...storage.sealed import METADATA, unseal
from ...storage.untrusted import Document, file_blocks, publish_folder, read_file, unwritable
from ..shard import marker_path, problem, publish_shard, scored_files
from ..store import TILES, ScoreCache
from ..tile import Tile, tile_files

ROOM = "what is finished is kept; make room or choose another folder, then give the same command again"
_ATTEMPTS = 5
type Advance = Callable[[int], None]


def marker_of(tile: Tile, shard: int) -> Document:
    """A complete shard's marker.

    Raises:
        CacheError: the shard is not complete.
    """
    if why := problem(tile, shard):
        raise CacheError(f"shard {shard} is not complete: {why}", where=str(tile.folder))
    path = marker_path(tile, shard)
    return unseal(read_file(path), path)[0]


def copy_file(source: Location, target: Path, size: int, blake2b: str) -> None:
    """Publish a copy of `source` if it has these bytes; else nothing. A file's time of the last change is kept.

    Raises:
        CacheError: it has other bytes, or cannot be read or written.
    """
    total, left = hashlib.blake2b(digest_size=DIGEST_BYTES), size
    try:
        with publishing(target) as temporary:
            with temporary.open("wb") as out:
                for block in _read(source, size):
                    left -= len(block)
                    total.update(block)
                    if left < 0:
                        break
                    out.write(block)
            if left != 0 or total.hexdigest() != blake2b:
                raise _changed(source)
            _keep_time(source, temporary)
    except OSError as error:
        raise unwritable(target, error, ROOM) from error


def _read(source: Location, size: int) -> Iterator[bytes]:
    try:
        yield from file_blocks(source, size)
    except OSError as error:
        raise CacheError(f"cannot be read: {error.strerror or 'missing'}", where=str(source)) from error


def _keep_time(source: Location, target: Path) -> None:
    if isinstance(source, Path):
        times = source.lstat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def copy_shard(source: Tile, target: Tile, shard: int) -> None:
    """Publish one complete shard in a tile of the same checksum: its files, then its marker.

    Raises:
        CacheError: the shard is not complete or damaged, or the disk cannot be written.
        UnreachableError: the server of an address fails.
    """
    assert source.checksum == target.checksum
    if isinstance(target.folder, Remote):
        publish_shard(target, shard, shard_files(source, shard))
        return
    for _ in range(_ATTEMPTS):  # somebody may score the same shard meanwhile
        _copy_shard(source, target.folder, shard)
        if not problem(target, shard, every_byte=True):
            return
    raise CacheError("what was written does not come back", where=str(target.folder), hint="check the disk")


def shard_files(tile: Tile, shard: int) -> dict[str, bytes]:
    """The files of a complete shard.

    Raises:
        CacheError: it is not complete, or damaged.
    """
    facts, files = marker_of(tile, shard)["files"], {}
    for file in scored_files(tile, shard):
        data = b"".join(_read(tile.folder / file, facts[file]["size"]))
        if len(data) != facts[file]["size"] or digest(data).hex() != facts[file]["blake2b"]:
            raise _changed(tile.folder / file)
        files[file] = data
    return files


def _changed(path: Location) -> CacheError:
    return CacheError("damaged: its bytes are not those that were written", where=str(path))


def _copy_shard(source: Tile, target: Path, shard: int) -> None:
    marker = marker_of(source, shard)
    for file, facts in marker["files"].items():
        copy_file(source.folder / file, target / file, facts["size"], facts["blake2b"])
    path = marker_path(source, shard)
    raw = read_file(path)
    if unseal(raw, path)[0] != marker:
        raise CacheError(f"shard {shard} was written again while it was copied", where=str(source.folder))
    published = target / "done" / path.name
    try:
        publish(published, raw)
        _keep_time(path, published)
    except OSError as error:
        raise unwritable(published, error, ROOM) from error


def copy_teacher(source: ScoreCache, folder: Location) -> ScoreCache:
    """A teacher's folder without tiles (or the one that is there)."""
    files = (f"{TILES}/{METADATA}", METADATA)
    publish_folder(folder, {file: read_file(source.folder / file) for file in files})
    return ScoreCache(folder)


def copy_tile(source: Tile, teacher: ScoreCache) -> Tile:
    """A tile without shards (or the one that is there)."""
    names = [*tile_files(source.spec), METADATA]
    read = at_once(source.folder, lambda name: read_file(source.folder / name, most=2**40), names)
    files = dict(zip(names, read, strict=True))
    publish_folder(teacher.folder / TILES / source.name, files, folders=("done",))
    return next(tile for tile in ScoreCache(teacher.folder).tiles if tile.name == source.name)
