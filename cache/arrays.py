"""TensorStore, as the score store uses it: chunks encoded in memory, files opened for reading with few threads."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from .documents import METADATA, Document

_CACHE_BYTES = 64 * 2**20  # shard indices and rows; 180,000 texts have 3 MB of indices


def encode_chunks(metadata: Document, values: np.ndarray, first_row: int = 0) -> dict[str, bytes]:
    """The chunk files that hold `values` from row `first_row` on: file name -> bytes.

    A chunk that is not filled to its end (the last shard's) holds the fill value there.
    """
    spec = {"driver": "zarr3", "kvstore": "memory://", "metadata": metadata, "store_data_equal_to_fill_value": True}
    array = ts.open(spec, create=True, context=ts.Context()).result()
    array[first_row : first_row + len(values)].write(values).result()
    store = array.kvstore
    assert store is not None
    names = [name.decode() for name in store.list().result()]
    return {name: bytes(store.read(name).result().value) for name in names if name != METADATA}


@cache
def _context() -> ts.Context:
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": _CACHE_BYTES},
            "file_io_concurrency": {"limit": 4},
            "data_copy_concurrency": {"limit": 2},
        }
    )


def open_array(folder: Path, metadata: Mapping[str, Any]) -> ts.TensorStore:
    """The array in `folder`, which must have exactly this metadata; missing chunks are errors, not fill values."""
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
        "metadata": metadata,
        "fill_missing_data_reads": False,
        "recheck_cached_data": "open",
    }
    return ts.open(spec, open=True, read=True, context=_context()).result()
