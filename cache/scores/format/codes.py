"""What scores are stored as: 16-bit codes with a scale and an offset per row, float16, or float32.

Codes: x = offset + code * scale in float64: offset is the row's smallest score, scale a 65534th of its range. The error
is at most half a step (scale / 2) plus the rounding of the result to float32; a row's smallest score, and rows of one
value, come back exactly.
"""

from typing import Literal

import numpy as np

type Dtype = Literal["uint16", "float16", "float32"]

NOT_SCORED = 65535
_STEPS = 65534
_ROWS = 8
_BLOCK = 2**16  # values decoded at a time: they fit the cache, and few calls give the interpreter away for a batch


def encode_scores(scores: np.ndarray, dtype: Dtype) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores float32 [T,V] as a store of this dtype keeps them, and the rows' scale and offset where it has codes.

    float16 rounds to nearest; beyond its range, from 65520 on, that is infinity.
    """
    if dtype == "uint16":
        return encode_rows(scores)
    with np.errstate(over="ignore"):
        return scores.astype(dtype, copy=False), None


def decode_scores(values: np.ndarray, codec: np.ndarray | None) -> np.ndarray:
    """Scores float32 [T,V] of what a store keeps; NaN where not scored."""
    return values.astype(np.float32, copy=False) if codec is None else decode_rows(values, codec)


def encode_rows(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code the rows of a score matrix.

    Args:
        scores: float32 [T,V], finite, or NaN where not scored; some of each row are.

    Returns:
        codes uint16 [T,V] of 0..65534 (65535 stands for "not scored"), and float64 [T,2]: scale and offset of each row.
    """
    codes = np.empty(scores.shape, np.uint16)
    codec = np.empty((len(scores), 2))
    for start in range(0, len(scores), _ROWS):  # few rows at a time stay in the processor's cache: 3 times faster
        rows = slice(start, start + _ROWS)
        exact = scores[rows].astype(np.float64)
        offset, most = exact.min(axis=1, keepdims=True), exact.max(axis=1, keepdims=True)
        absent = np.isnan(exact) if np.isnan(offset).any() else None
        if absent is not None:
            offset, most = np.nanmin(exact, axis=1, keepdims=True), np.nanmax(exact, axis=1, keepdims=True)
            exact[absent] = np.broadcast_to(offset, exact.shape)[absent]
        scale = (most - offset) / _STEPS
        exact -= offset
        exact /= np.where(scale > 0, scale, 1.0)
        codes[rows] = np.rint(exact, out=exact)
        if absent is not None:
            codes[rows][absent] = NOT_SCORED
        codec[rows] = np.concatenate([scale, offset], axis=1)
    return codes, codec


def decode_rows(codes: np.ndarray, codec: np.ndarray) -> np.ndarray:
    """Scores float32 [T,V] of codes uint16 [T,V] and the rows' scale and offset float64 [T,2]; NaN where not scored."""
    scores = np.empty(codes.shape, np.float32)
    step = max(1, _BLOCK // max(1, codes.shape[1]))
    for start in range(0, len(codes), step):  # blocks stay in the processor's cache
        rows = slice(start, start + step)
        exact = codes[rows] * codec[rows, :1]
        exact += codec[rows, 1:]
        scores[rows] = exact
    if codes.max(initial=0) == NOT_SCORED:  # rare, and a mask costs as much as all the rest
        scores[codes == NOT_SCORED] = np.nan
    return scores
