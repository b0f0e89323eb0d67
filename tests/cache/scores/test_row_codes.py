"""Row codes: the error bound they promise, on any finite float32 row."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from teachclip.cache.scores.format.codes import NOT_SCORED, decode_rows, encode_rows

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
similar = st.floats(-1, 1, width=32)
rows = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=finite | similar)


@settings(deadline=None, max_examples=400)
@given(rows)
def test_error_is_at_most_half_a_step(scores: np.ndarray) -> None:
    codes, codec = encode_rows(scores)
    assert codes.dtype == np.uint16
    assert codec.shape == (len(scores), 2)
    assert codec.dtype == np.float64
    assert (codes != NOT_SCORED).all()
    decoded = decode_rows(codes, codec)
    assert decoded.dtype == np.float32
    exact = scores.astype(np.float64)
    step = (exact.max(axis=1, keepdims=True) - exact.min(axis=1, keepdims=True)) / 65534
    rounding = (np.abs(exact) + step) * 2.0**-24 + 2.0**-150  # half a unit in the last place of float32
    error = np.abs(decoded.astype(np.float64) - exact)
    assert np.all(error <= step / 2 * (1 + 1e-9) + rounding)


@settings(deadline=None)
@given(rows)
def test_smallest_score_and_constant_rows_come_back_exactly(scores: np.ndarray) -> None:
    decoded = decode_rows(*encode_rows(scores))
    smallest = scores.argmin(axis=1)[:, None]
    np.testing.assert_array_equal(
        np.take_along_axis(decoded, smallest, axis=1), np.take_along_axis(scores, smallest, axis=1)
    )
    constant = np.repeat(scores[:, :1], 5, axis=1)
    np.testing.assert_array_equal(decode_rows(*encode_rows(constant)), constant)


def test_extremes() -> None:
    big, tiny = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    scores = np.array([[-big, 0, big], [0, tiny, 2 * tiny], [-tiny, 0.0, 1e-30]], dtype=np.float32)
    decoded = decode_rows(*encode_rows(scores))
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded[0], scores[0], atol=float(big) / 65534)
    np.testing.assert_array_equal(decoded[1], scores[1])
    np.testing.assert_allclose(decoded[2], scores[2], atol=1e-30 / 65534)


def test_the_code_for_not_scored_is_nan() -> None:
    codes = np.array([[0, NOT_SCORED, 65534]], dtype=np.uint16)
    np.testing.assert_array_equal(decode_rows(codes, np.array([[0.5, 1.0]])), [[1.0, np.nan, 32768.0]])


def test_real_scores_move_less_than_float16_does(shared) -> None:  # type: ignore[no-untyped-def]
    scores = np.load(shared / "data/scores/Cap4Video_msrvtt_video_matrix.npy").astype(np.float32)
    ours = np.abs(decode_rows(*encode_rows(scores)) - scores).max()
    half = np.abs(scores.astype(np.float16).astype(np.float32) - scores).max()
    assert ours < 3.5e-6
    assert ours < half / 30
