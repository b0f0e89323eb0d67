"""TensorStore, as the score store uses it: chunks encoded in memory, files opened for reading with few threads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from ...storage.locations import Location, context, patient, refuse_unreachable
from ...storage.sealed import METADATA
from ...storage.untrusted import Document


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


def decode_chunks(metadata: Document, chunks: Mapping[str, bytes], rows: range) -> np.ndarray:
    """These rows of what `encode_chunks` made.

    Raises:
        ValueError: a chunk is damaged, or none of this array.
    """
    spec = {"driver": "zarr3", "kvstore": "memory://", "metadata": metadata, "fill_missing_data_reads": False}
    array = ts.open(spec, create=True, context=ts.Context()).result()
    store = array.kvstore
    assert store is not None
    for name, data in chunks.items():
        store.write(name, data).result()
    return np.asarray(array[rows.start : rows.stop].read().result())


def open_array(folder: Location, metadata: Mapping[str, Any]) -> ts.TensorStore:
    """The array in `folder`, which must have exactly this metadata; missing chunks are errors, not fill values."""
    spec = {
        "driver": "zarr3",
        "kvstore": _kvstore(folder),
        "metadata": metadata,
        "fill_missing_data_reads": False,
        "recheck_cached_data": "open",
    }
    array: ts.TensorStore = _result(folder, ts.open(spec, open=True, read=True, context=context()))
    return array


def read_whole(folder: Location, metadata: Mapping[str, Any]) -> np.ndarray:
    """All values of the array in `folder`.

    Raises:
        ValueError, OSError: a chunk is missing or damaged.
    """
    array = open_array(folder, metadata)
    return np.asarray(_result(folder, array.read(), array.size * array.dtype.numpy_dtype.itemsize))


def _result(folder: Location, future: "ts.Future[Any]", size: int = 0) -> Any:
    if isinstance(folder, Path):
        return future.result()
    try:
        return patient(future, size)
    except (ValueError, OSError) as error:
        refuse_unreachable(folder, error)
        raise


def _kvstore(folder: Location) -> dict[str, Any]:
    return {"driver": "file", "path": f"{folder.absolute()}/"} if isinstance(folder, Path) else folder.kvstore()
