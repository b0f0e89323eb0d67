"""What tiles hold of a request, whatever the tiles: pairs put together, and what is refused, named and counted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.cache.scores.reading.pairs import PairScores, RequestedPairs, TilePart, any_absent
from teachclip.cache.scores.reading.request import changed, find, refuse_unscored, some_of
from teachclip.cache.scores.tile import TileContents
from teachclip.errors import CacheMismatchError

KEYS = [(f"t{k}", bytes([k]) * 16) for k in range(12)]


class Rows:
    """Reads rows of a matrix, and counts how often."""

    def __init__(self, stored: np.ndarray) -> None:
        self.stored, self.asked = stored, 0

    def start(self, rows: np.ndarray, columns: np.ndarray | None = None) -> Any:
        self.asked += 1
        found = self.stored[rows] if columns is None else self.stored[np.ix_(rows, columns)]
        return SimpleNamespace(result=lambda: found)


def part(texts: np.ndarray, videos: np.ndarray, dtype: str, codec: np.ndarray | None = None) -> TilePart:
    """A tile whose rows and columns come in the opposite order."""
    tile: Any = SimpleNamespace(spec=SimpleNamespace(dtype=dtype))
    rows, columns = np.arange(len(texts))[::-1], np.arange(len(videos))[::-1]
    return TilePart(tile, texts, rows, videos, columns, codec)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_a_batch_holds_each_pair_that_a_tile_holds_and_nan_else(tiles: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected = np.full((9, 8), np.nan, np.float32)
    parts, readers = [], []
    for rows in np.array_split(rng.permutation(9), tiles) if tiles else []:
        texts = np.sort(rows[: rng.integers(0, len(rows) + 1)])
        videos = np.flatnonzero(rng.random(8) < 0.6)
        scores = rng.normal(size=(len(texts), len(videos))).astype(np.float32)
        expected[np.ix_(texts, videos)] = scores
        parts.append(part(texts, videos, "float32"))
        readers.append(Rows(scores[::-1, ::-1]))
    texts, videos = rng.integers(0, 9, rng.integers(0, 7)), rng.integers(0, 8, rng.integers(0, 6))
    found = PairScores(RequestedPairs(parts, 9), readers).start(texts, videos).result()
    wanted = expected[np.ix_(texts, videos)]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    assert any_absent(found) == np.isnan(wanted).any()


def test_only_tiles_that_hold_a_text_of_the_batch_are_read() -> None:
    videos = np.arange(3)
    parts = [part(np.array(texts), videos, "float32") for texts in ([0, 4], [1, 2], [3], [2, 5])]
    readers = [Rows(np.full((len(one.texts), 3), number, np.float32)) for number, one in enumerate(parts)]
    scores = PairScores(RequestedPairs(parts, 6), readers)
    scores.start(np.array([4, 3]), videos)
    assert [rows.asked for rows in readers] == [1, 0, 1, 0]
    np.testing.assert_array_equal(scores.start(np.array([5, 0]), videos).result()[:, 0], [3, 0])
    assert [rows.asked for rows in readers] == [2, 0, 1, 1]


def test_codes_are_decoded_with_their_own_rows_scale_and_offset() -> None:
    codec = np.array([[0.5, 1.0], [0.25, -1.0]])  # of texts 1 and 3
    one = part(np.array([1, 3]), np.array([0, 2]), "uint16", codec)
    scores = PairScores(RequestedPairs([one], 4), [Rows(np.array([[8, 4], [2, 65535]], np.uint16))])
    found = scores.start(np.array([3, 1]), np.array([0, 2])).result()
    np.testing.assert_array_equal(found, [[0.0, 1.0], [np.nan, 2.0]])
    np.testing.assert_array_equal(scores.start(np.array([3]), np.array([2])).result(), [[1.0]])
    assert any_absent(found)
    assert scores.precision(np.array([3])) == 0.125
    assert scores.precision(np.array([3, 1])) == 0.25
    assert scores.precision(np.array([0])) == 0.0


def test_precision_is_that_of_the_coarsest_tile() -> None:
    half = part(np.array([0, 1]), np.array([0, 1]), "float16")
    single = part(np.array([2]), np.array([0, 1]), "float32")
    rows = [Rows(np.array([[0.25, -1.5], [0.1, 0.2]], np.float16)), Rows(np.ones((1, 2), np.float32))]
    scores = PairScores(RequestedPairs([half, single], 3), rows)
    assert scores.precision(np.array([1])) == 2.0**-11  # |-1.5| lies between 1 and 2: steps of 2 ** -10
    assert scores.precision(np.array([0, 2])) == 2.0**-14
    assert scores.precision(np.array([2])) == 0.0
    assert PairScores(RequestedPairs([], 3), []).precision(np.array([2])) == 0.0


def test_whole_batches_of_no_texts_are_not_absent() -> None:
    assert not any_absent(np.empty((0, 3), np.float32))
    assert not any_absent(np.array([[2.0]], np.float32))


def test_names_are_five_and_then_a_count() -> None:
    chosen = np.arange(12) >= 7
    assert some_of(chosen, KEYS) == ["t7", "t8", "t9", "t10", "t11"]
    assert some_of(~chosen, KEYS) == ["t0", "t1", "t2", "t3", "t4", "... and 2 more"]
    assert some_of(np.zeros(12, bool), KEYS) == []
    many = [("a", b"")] * 1205
    assert some_of(np.ones(1205, bool), many)[-1] == "... and 1,200 more"


def test_one_other_byte_in_any_tile_is_a_change() -> None:
    digests = np.array([np.frombuffer(key, np.uint8) for _, key in KEYS]).copy()
    other = digests.copy()
    other[3, 15] ^= 1
    places = np.array([1, 3])
    assert not changed(KEYS, []).any()
    assert np.flatnonzero(changed(KEYS, [(places, digests[places])])).tolist() == []
    both = [(places, other[places]), (places, digests[places])]
    assert np.flatnonzero(changed(KEYS, both)).tolist() == [3]
    assert np.flatnonzero(changed(KEYS, both[::-1])).tolist() == [3]


def test_what_no_tile_holds_is_refused_by_name() -> None:
    folder = Path("store/one")
    refuse_unscored(folder, "captions", KEYS, [np.arange(5), np.arange(4, 12)])
    with pytest.raises(CacheMismatchError, match=": 3 captions have no scores") as caught:
        refuse_unscored(folder, "captions", KEYS, [np.arange(5), np.arange(8, 12)])
    assert list(caught.value.details) == ["t5", "t6", "t7"]
    assert caught.value.where == str(folder)
    assert caught.value.hint is not None
    with pytest.raises(CacheMismatchError, match=": 1,500 videos have no scores"):
        refuse_unscored(folder, "videos", [("v", b"")] * 1500, [])


def test_a_request_is_found_where_the_tiles_have_it(make_store: Any) -> None:
    made = make_store()
    texts, videos = [made.texts[k] for k in (20, 3)], [made.videos[k] for k in (5, 1, 12)]
    (held,) = find(made.cache.folder, made.cache.tiles, texts, videos)
    assert [held.texts.tolist(), held.rows.tolist()] == [[0, 1], [20, 3]]
    assert [held.videos.tolist(), held.columns.tolist()] == [[0, 1, 2], [5, 1, 12]]


@pytest.mark.parametrize("what", ["captions", "frames"])
def test_changes_are_told_with_the_store_and_a_way_out(make_store: Any, what: str) -> None:
    made = make_store()
    texts, videos = list(made.texts), list(made.videos)
    keys = texts if what == "captions" else videos
    keys[4] = (keys[4][0], bytes(16))
    with pytest.raises(CacheMismatchError, match=f": {what} changed since the scores were made") as caught:
        find(made.cache.folder, made.cache.tiles, texts, videos)
    assert list(caught.value.details) == [keys[4][0]]
    assert caught.value.where == str(made.cache.folder)
    ways = str(caught.value.hint)
    assert ("prepared elsewhere" in ways) == (what == "frames")
    assert "another store" in ways


def test_a_text_of_several_tiles_is_read_from_all_of_them() -> None:
    parts = [part(np.array(texts), np.array(videos), "float32") for texts, videos in (([1, 2], [0]), ([2], [1, 2]))]
    parts += [part(np.array([0]), np.arange(3), "float32")]
    readers = [Rows(np.full((len(one.texts), len(one.videos)), k, np.float32)) for k, one in enumerate(parts)]
    scores = PairScores(RequestedPairs(parts, 3), readers)
    np.testing.assert_array_equal(scores.start(np.array([2]), np.arange(3)).result(), [[0, 1, 1]])
    with pytest.raises(ValueError, match="shorter"):
        PairScores(RequestedPairs(parts, 3), readers[:2])


@pytest.mark.parametrize(("texts", "videos"), [([], [0, 1]), ([0, 1], []), ([], [])])
def test_a_tile_without_a_text_or_a_video_of_the_request_gives_nothing(texts: list[int], videos: list[int]) -> None:
    one = part(np.array(texts, np.int64), np.array(videos, np.int64), "float32")
    reader = Rows(np.zeros((len(texts), len(videos)), np.float32))
    scores = PairScores(RequestedPairs([one], 2), [reader])
    assert np.isnan(scores.start(np.arange(2), np.arange(2)).result()).all()
    assert reader.asked == 0


def test_a_request_of_one_pair() -> None:
    one = part(np.array([0]), np.array([0]), "float32")
    scores = PairScores(RequestedPairs([one], 1), [Rows(np.array([[0.5]], np.float32))])
    np.testing.assert_array_equal(scores.start(np.array([0]), np.array([0])).result(), [[0.5]])


def test_padded_slots_are_of_the_same_moment(make_store: Any) -> None:
    made = make_store()
    videos = [*made.videos[:3], (made.videos[3][0], bytes(16)), *made.videos[4:]]
    assert np.isnan(made.tile.frame_times[3]).any()
    (held,) = find(made.cache.folder, made.cache.tiles, made.texts, videos, made.tile.frame_times)
    assert len(held.videos) == 13


def test_times_are_those_of_every_tile_that_holds_the_video(make_store: Any) -> None:
    made = make_store()
    texts, later = [("another", bytes(16))], made.tile.frame_times + 1
    cache = made.cache
    cache.create_tile("more", TileContents(texts, made.videos, np.array([0]), later), shard_texts=8)
    videos = [(made.videos[0][0], bytes(16)), *made.videos[1:]]
    for times in (made.tile.frame_times, later):
        with pytest.raises(CacheMismatchError, match="frames of 1 video are of other moments"):
            find(cache.folder, cache.tiles, texts, videos, times)
