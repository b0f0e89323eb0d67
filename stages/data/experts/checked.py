"""What a file says of one video, checked: its arrays, or that there is nothing."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....cache.experts.shard import Status

Array = NDArray[np.float32 | np.float16]


class Checked(NamedTuple):
    """What there is for a video: its arrays [rows, D], none unless ok; and why there are none."""

    status: Status
    parts: tuple[Array, ...] = ()
    reason: str = ""


def checked_expert(value: Any) -> Checked:
    """An expert's vector or sequence. Missing is what the published pickles write so: one float NaN for an array; and
    an array of nothing but NaN, or of no rows.

    Raises:
        ValueError: neither numbers (D) or (time, D) nor missing, or a number among them that is not finite.
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return Checked("missing", reason="the file says that there is none")
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind == "f" and np.isnan(array):
        return Checked("missing", reason="the file says that there is none")
    rows = _rows(array, (1, 2), "(D) or (time, D)")
    if not len(rows):
        return Checked("missing", reason="the file has a sequence without rows")
    if np.isnan(rows).all():
        return Checked("missing", reason="the file has nothing but NaN")
    _refuse_not_finite(rows)
    return Checked("ok", (rows,))


def checked_words(value: Any) -> Checked:
    """The words of a video's captions, one array [words, D] a caption; a caption without words has no rows.

    Raises:
        ValueError: no list of arrays (words, D), or a number that is not finite.
    """
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("no list of arrays, one for each caption")
    parts = []
    for k, caption in enumerate(value):
        try:
            rows = _rows(np.asarray(caption), (2,), "(words, D)")
            _refuse_not_finite(rows)
        except ValueError as error:
            raise ValueError(f"caption {k}: {error}") from None
        parts.append(rows)
    return Checked("ok", tuple(parts))


def width_of(parts: tuple[Array, ...]) -> int | None:
    """D of arrays that have rows; None where none has.

    Raises:
        ValueError: they differ.
    """
    widths = {part.shape[1] for part in parts if len(part)}
    if len(widths) > 1:
        raise ValueError(f"arrays of {' and '.join(map(str, sorted(widths)))} numbers a row")
    return widths.pop() if widths else None


def _rows(array: NDArray[Any], dimensions: tuple[int, ...], wanted: str) -> Array:
    if array.dtype.kind not in "fiub" or array.ndim not in dimensions or array.shape[-1] == 0:
        if array.size == 0 and array.ndim in (1, 2):  # a caption of which no word is known
            return np.zeros((0, array.shape[-1] if array.ndim == 2 else 0), np.float32)
        raise ValueError(f"{array.dtype} {list(array.shape)} instead of numbers {wanted}")
    kept = array.dtype if array.dtype in (np.float16, np.float32) else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.atleast_2d(array), kept.newbyteorder("="))


def _refuse_not_finite(rows: Array) -> None:
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise ValueError(f"row {row} has {rows[row, column]} in place {column}")
