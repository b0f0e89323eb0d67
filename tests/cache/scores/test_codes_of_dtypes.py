"""What a store keeps of scores, of each dtype and of any number of rows."""

import numpy as np
from teachclip.cache.scores.format.codes import decode_rows, decode_scores, encode_rows, encode_scores


def test_every_row_is_coded_by_itself() -> None:
    scores = np.random.default_rng(0).normal(size=(41, 7)).astype(np.float32) * np.arange(1, 42)[:, None]
    scores = scores.astype(np.float32)
    codes, codec = encode_rows(scores)
    alone = [encode_rows(row[None]) for row in scores]
    np.testing.assert_array_equal(codes, np.concatenate([row for row, _ in alone]))
    np.testing.assert_array_equal(codec, np.concatenate([row for _, row in alone]))


def test_rows_longer_than_a_block_are_decoded_like_short_ones() -> None:
    rng = np.random.default_rng(1)
    codes, codec = rng.integers(0, 65535, (5, 70_001)).astype(np.uint16), rng.normal(size=(5, 2))
    expected = (codes * codec[:, :1] + codec[:, 1:]).astype(np.float32)
    np.testing.assert_array_equal(decode_rows(codes, codec), expected)
    np.testing.assert_array_equal(decode_rows(codes[:, :30_000], codec), expected[:, :30_000])


def test_no_texts_and_no_videos_are_no_scores() -> None:
    assert decode_rows(np.empty((0, 4), np.uint16), np.empty((0, 2))).shape == (0, 4)
    assert decode_rows(np.empty((3, 0), np.uint16), np.empty((3, 2))).shape == (3, 0)


def test_uint16_has_a_scale_and_an_offset_per_row() -> None:
    scores = np.array([[-1.0, 2.0, 0.5], [3.0, 3.0, 3.0]], np.float32)
    values, codec = encode_scores(scores, "uint16")
    assert codec is not None
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(codec, [[3 / 65534, -1.0], [0.0, 3.0]])
    np.testing.assert_allclose(decode_scores(values, codec), scores, atol=3 / 65534)


def test_floats_are_kept_as_they_are_and_beyond_float16_lies_infinity() -> None:
    scores = np.array([[0.1, 65519.0, 65520.0, -1e6]], np.float32)  # a warning would fail this test
    half, codec = encode_scores(scores, "float16")
    assert codec is None
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, np.array([[0.1, 65504, np.inf, -np.inf]], np.float16))
    decoded = decode_scores(half, None)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, half)
    full, codec = encode_scores(scores, "float32")
    assert codec is None
    assert full.dtype == np.float32
    assert np.shares_memory(full, scores), "scores that are stored as they are need no second copy in memory"
    assert np.shares_memory(decode_scores(full, None), scores)
