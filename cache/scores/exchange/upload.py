"""An export put at an address: file by file, each read back; the manifest last, so that half of one is none."""

from collections.abc import Collection, Sequence

from ....errors import CacheError
from ...storage.identity import digest
from ...storage.locations import MANIFEST, Location, Remote, at_once, refuse_read_only
from ...storage.sealed import METADATA, open_group, unseal
from ...storage.untrusted import file_digest, read_file
from ..shard import marker_path
from ..store import TILES, ScoreCache, ScoreStore
from ..tile import Tile, tile_files
from .copying import Advance, marker_of, shard_files

type Facts = dict[str, dict[str, int | str]]
"""File -> size and BLAKE2b, as a manifest has them."""

_AGAIN = "give the same command again: what an interrupted upload left is written over"


def refuse_taken(out: Remote, names: Collection[str]) -> None:
    """Refuse an address where something lies; what an interrupted upload of `names` left does not count.

    Raises:
        CacheError: there is an export, or something else.
    """
    refuse_read_only(out)
    there = out.files()
    if taken := [name for name in there if name == MANIFEST or name not in names]:
        raise CacheError(
            f"there is something already ({taken[0]})", where=str(out), hint="name an address where nothing is"
        )


def upload_store(store: ScoreStore, cache: ScoreCache, out: Remote) -> Facts:
    """The documents of the store and the teacher, without tiles."""
    names = (METADATA, f"{cache.name}/{METADATA}", f"{cache.name}/{TILES}/{METADATA}")
    return _documents(store.path, out, names, {})


def upload_tile(tile: Tile, shards: Sequence[int], out: Remote, advance: Advance) -> Facts:
    """A tile and some of its shards, each shard's marker last.

    Raises:
        CacheError: something is damaged, or was changed meanwhile.
    """
    hashes = open_group(tile.folder)[0]["files"]
    facts = _documents(tile.folder, out, (METADATA, *sorted(tile_files(tile.spec))), hashes)
    for shard in shards:
        facts |= _upload_shard(tile, shard, out)
        advance(1)
    return facts


def _documents(source: Location, out: Remote, names: Sequence[str], hashes: dict[str, str]) -> Facts:
    def put(name: str) -> dict[str, int | str]:
        data = read_file(source / name, most=2**40)
        found = digest(data).hex()
        if hashes.get(name, found) != found:
            raise CacheError("damaged: its bytes are not those that were written", where=str(source / name))
        return upload_bytes(data, out / name)

    return dict(zip(names, at_once(out, put, names), strict=True))


def _upload_shard(tile: Tile, shard: int, out: Remote) -> Facts:
    marker = marker_of(tile, shard)
    facts = {file: upload_bytes(data, out / file) for file, data in shard_files(tile, shard).items()}
    path = marker_path(tile, shard)
    raw = read_file(path)
    if unseal(raw, path)[0] != marker:
        raise CacheError(f"shard {shard} was written again while it was copied", where=str(tile.folder))
    name = f"done/{path.name}"
    return {**facts, name: upload_bytes(raw, out / name)}


def upload_bytes(data: bytes, target: Remote) -> dict[str, int | str]:
    """Write a file and read it back; its size and hash.

    Raises:
        CacheError: what comes back is something else.
    """
    target.write(data)
    blake2b = digest(data).hex()
    try:
        if file_digest(target, len(data)) == blake2b:
            return {"size": len(data), "blake2b": blake2b}
    except FileNotFoundError:
        pass
    raise CacheError("what was written does not come back", where=str(target), hint=_AGAIN)
