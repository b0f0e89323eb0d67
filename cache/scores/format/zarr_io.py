"""zarr-python, as the score store uses it: in memory it describes arrays, and makes those that come with their tile.

Others put the files in place, and check them when they are read. Only functions import this file: it imports zarr.
"""

import json
from functools import lru_cache

import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from ...storage.identity import canonical
from ...storage.sealed import METADATA
from ...storage.untrusted import Document
from .codes import NOT_SCORED

_MEMBERS = (
    *("attributes", "chunk_grid", "chunk_key_encoding", "codecs", "data_type", "dimension_names", "fill_value"),
    *("node_type", "shape", "zarr_format"),
)
"""What version 1 of the format says of an array. zarr-python adds `storage_transformers`, which is always empty."""


@lru_cache(maxsize=4096)  # teachers share their tiles' texts and videos, so most arrays are asked for again
def describe(
    shape: tuple[int, ...], dtype: str, names: tuple[str, ...], shard: int | None = None, sharded: bool = False
) -> Document:
    """The zarr.json of an array.

    Args:
        shape: its sizes.
        dtype: what it holds.
        names: what its dimensions are.
        shard: rows per file; None: all are in one.
        sharded: whether each row of a file can be read by itself.
    """
    plain, crc = BytesCodec(endian=None if dtype == "uint8" else "little"), Crc32cCodec()
    by_row = ShardingCodec(
        chunk_shape=(1, *shape[1:]), codecs=(plain, crc), index_codecs=(plain, crc), index_location="end"
    )
    store: dict[str, Buffer] = {}
    zarr.create_array(
        store,
        shape=shape,
        dtype=dtype,
        chunks=(shard or shape[0], *shape[1:]),
        filters=None,
        serializer=by_row if sharded else plain,
        compressors=None if sharded else crc,
        fill_value={"uint16": NOT_SCORED, "uint8": 0, "int64": 0}.get(dtype, np.nan),
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=names,
        zarr_format=3,
    )
    document = json.loads(store[METADATA].to_bytes())
    return {member: document[member] for member in _MEMBERS}


def write_array(metadata: Document, values: np.ndarray) -> dict[str, bytes]:
    """The chunk files of an array that has this zarr.json and these values: file name -> bytes."""
    store: dict[str, Buffer] = {METADATA: Buffer.from_bytes(canonical(metadata))}
    array = zarr.open_array(store, mode="r+").with_config({"write_empty_chunks": True})  # 3.2 forgets a given config
    array[...] = values
    return {name: buffer.to_bytes() for name, buffer in store.items() if name != METADATA}
