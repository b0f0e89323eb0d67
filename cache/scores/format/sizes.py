"""Bytes of a tile, known from its sizes alone: nothing in the format is compressed."""

from ...storage.identity import canonical
from ...storage.sealed import METADATA, group, seal
from .arrays import ITEM_BYTES, TileSpec, chunk_file

_HASH = "0" * 32
_CRC = 4


def shard_bytes(spec: TileSpec, shard: int) -> dict[str, int]:
    """The files of a shard and how many bytes each has.

    A row of `coarse` is one chunk with its checksum; the index has 16 bytes for every row of a whole shard. The others
    are one chunk, which is whole in the last shard too.
    """
    rows, slots = len(spec.rows(shard)), spec.shard_texts
    item = ITEM_BYTES[spec.dtype]
    sizes = {
        "coarse": rows * (spec.videos * item + _CRC) + slots * 16 + _CRC,
        "coarse_codec": slots * 16 + _CRC,
        "fine": slots * spec.frames * 4 + _CRC,
    }
    return {f"{name}/c.{shard}.0": sizes[name] for name in spec.scored}


def tile_bytes(spec: TileSpec) -> int:
    """Bytes of a finished tile, with its markers and documents."""
    arrays = spec.arrays()
    static = spec.static_bytes()
    documents = [canonical(metadata) for metadata in arrays.values()]
    names = [f"{name}/{METADATA}" for name in arrays] + [chunk_file(name, arrays[name]) for name in static]
    tile = group({**spec.attributes(), "teacher": _HASH, "files": dict.fromkeys(names, _HASH)})
    shards = sum(whole_shard_bytes(spec, shard) for shard in range(spec.shards))
    return len(tile) + sum(map(len, documents)) + sum(static.values()) + shards


def whole_shard_bytes(spec: TileSpec, shard: int) -> int:
    """Bytes of a shard with its marker."""
    return _marker_bytes(spec, shard) + sum(shard_bytes(spec, shard).values())


def _marker_bytes(spec: TileSpec, shard: int) -> int:
    files = {file: {"size": size, "blake2b": _HASH} for file, size in shard_bytes(spec, shard).items()}
    return len(seal({"shard": shard, "tile": _HASH, "files": files}))
