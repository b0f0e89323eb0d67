"""Bytes of a tile, known from its sizes alone: nothing in the format is compressed."""

from ...storage.identity import canonical
from ...storage.sealed import METADATA, group, seal
from ...storage.untrusted import Document
from .arrays import ITEM_BYTES, TileLayout

_HASH = "0" * 32
_CRC = 4


def shard_bytes(layout: TileLayout, shard: int) -> dict[str, int]:
    """The files of a shard and how many bytes each has.

    A row of `coarse` is one chunk with its checksum; the index has 16 bytes for every row of a whole shard. The others
    are one chunk, which is whole in the last shard too.
    """
    rows, slots = len(layout.rows(shard)), layout.shard_texts
    item = ITEM_BYTES[layout.dtype]
    sizes = {
        "coarse": rows * (layout.videos * item + _CRC) + slots * 16 + _CRC,
        "coarse_codec": slots * 16 + _CRC,
        "fine": slots * layout.frames * 4 + _CRC,
    }
    return {f"{name}/c.{shard}.0": sizes[name] for name in layout.scored}


def tile_bytes(layout: TileLayout) -> int:
    """Bytes of a finished tile, with its markers and documents."""
    arrays = layout.arrays()
    static = layout.static_bytes()
    documents = [canonical(metadata) for metadata in arrays.values()]
    names = [f"{name}/{METADATA}" for name in arrays] + [f"{name}/{_chunk(arrays[name])}" for name in static]
    tile = group({**layout.attributes(), "teacher": _HASH, "files": dict.fromkeys(names, _HASH)})
    shards = sum(whole_shard_bytes(layout, shard) for shard in range(layout.shards))
    return len(tile) + sum(map(len, documents)) + sum(static.values()) + shards


def whole_shard_bytes(layout: TileLayout, shard: int) -> int:
    """Bytes of a shard with its marker."""
    return _marker_bytes(layout, shard) + sum(shard_bytes(layout, shard).values())


def _chunk(metadata: Document) -> str:
    return f"c.{'.'.join('0' for _ in metadata['shape'])}"


def _marker_bytes(layout: TileLayout, shard: int) -> int:
    files = {file: {"size": size, "blake2b": _HASH} for file, size in shard_bytes(layout, shard).items()}
    return len(seal({"shard": shard, "tile": _HASH, "files": files}))
