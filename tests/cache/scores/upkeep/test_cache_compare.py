"""`Diff` against numpy on whole matrices, in blocks of any size."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.shard import marker_path, write_shard
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.scores.tile import Key, TileContents
from teachclip.cache.scores.upkeep import compare
from teachclip.cache.scores.upkeep.compare import Diff, open_caches
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.errors import CacheError
from teachclip.remedies import RepairScores


def make(
    path: Path, texts: list[Key], videos: list[Key], scores: np.ndarray, fine: np.ndarray, scale: float = 10.0
) -> ScoreCache:
    """A store of float32 scores, one tile of shards of 4 texts."""
    cache = ScoreStore.create(path).create_teacher("t", {"weights": path.name}, scale, "float32", fine.shape[1], True)
    own = np.arange(len(texts)) % len(videos)
    tile = cache.create_tile("dense", TileContents(texts, videos, own, np.zeros((len(videos), fine.shape[1]))), 4)
    for shard in range(tile.spec.shards):
        rows = tile.spec.rows(shard)
        write_shard(tile, shard, scores[rows.start : rows.stop], fine[rows.start : rows.stop])
    return cache


def keys(names: list[int], what: str) -> list[Key]:
    return [(f"{what}{k}", digest(f"{what} {k}".encode())) for k in names]


@pytest.mark.parametrize("values", [1, 23, 2**20])
def test_numbers_are_those_of_whole_matrices(tmp_path: Path, monkeypatch, values: int) -> None:
    monkeypatch.setattr(compare, "_BLOCK_VALUES", values)
    rng = np.random.default_rng(5)
    scores, fine = rng.normal(50, 1, (13, 9)).astype(np.float32), rng.normal(size=(13, 3)).astype(np.float32)
    noisy, other = scores + rng.normal(0, 0.5, scores.shape).astype(np.float32), fine + np.float32(0.25)
    first = make(tmp_path / "a.zarr", keys(list(range(13)), "t"), keys(list(range(9)), "v"), scores, fine)
    rows, columns = rng.permutation(13)[:11], rng.permutation(9)[:7]
    texts, videos = keys(rows.tolist(), "t"), keys(columns.tolist(), "v")
    texts[2] = (texts[2][0], text_digest("changed"))
    second = make(tmp_path / "b.zarr", texts, videos, noisy[np.ix_(rows, columns)], other[rows], scale=20.0)
    counted: list[int] = []
    found = Diff(first, second).run(counted.append)

    held = np.ix_(np.sort(np.delete(rows, 2)), np.sort(columns))
    a, b = 10.0 * scores[held].astype(float), 20.0 * noisy[held].astype(float)
    assert (found.texts, found.videos, found.pairs) == (10, 7, 70)
    assert (found.changed_texts, found.changed_videos) == (1, 0)
    assert sum(counted) == 10
    assert found.largest == pytest.approx(np.abs(a - b).max(), rel=1e-12)
    assert found.mean == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
    assert found.pearson == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], rel=1e-9)
    assert found.same_best == (a.argmax(1) == b.argmax(1)).mean()
    assert found.frame_largest == pytest.approx(0.25, rel=1e-5)
    assert found.frame_mean == pytest.approx(0.25, rel=1e-5)
    far = np.abs(a - b)
    order = np.argsort(-far.max(axis=1))
    assert [pair.text for pair in found.apart] == [f"t{held[0].ravel()[row]}" for row in order]
    assert found.apart[0].video == f"v{held[1].ravel()[far[order[0]].argmax()]}"
    assert abs(found.apart[0].first - found.apart[0].second) == pytest.approx(found.largest)
    assert [(f.name, f.first, f.second) for f in found.fields] == [
        ("scale", 10.0, 20.0),
        ("weights", "a.zarr", "b.zarr"),
    ]


def test_a_cache_is_like_itself(make_store) -> None:
    made = make_store()
    found = Diff(*open_caches(str(made.path), f"{made.path}:tiny")).run()
    assert (found.fields, found.apart, found.largest, found.mean) == ((), (), 0.0, 0.0)
    assert found.pearson == pytest.approx(1.0)
    assert (found.same_best, found.frame_largest) == (1.0, 0.0)


def test_what_is_not_scored_yet_is_left_out(make_store) -> None:
    made, part = make_store(), make_store(name="part", shards=(1,))
    found = Diff(made.cache, part.cache).run()
    assert (found.texts, found.pairs, found.largest) == (21, 8 * 13, 0.0)
    found = Diff(part.cache, make_store(name="none", shards=()).cache).run()
    assert (found.pairs, found.largest, found.pearson, found.same_best, found.frame_mean) == (0, None, None, None, None)


def test_a_damaged_shard_is_an_error_and_no_number(make_store) -> None:
    made, other = make_store(), make_store(name="other")
    path = other.tile.folder / "coarse/c.1.0"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError, match="shard 1 is damaged") as caught:
        Diff(made.cache, other.cache).run()
    assert caught.value.hint.action == RepairScores()
    marker_path(other.tile, 1).unlink()
    assert Diff(made.cache, other.cache).run().pairs == 13 * 13


def test_tiles_are_put_together(make_store, tmp_path: Path) -> None:
    """The same scores as one tile, and as two blocks that leave some pairs out."""
    rng = np.random.default_rng(1)
    scores, fine = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32)
    texts, videos = keys(list(range(6)), "t"), keys(list(range(4)), "v")
    whole = make(tmp_path / "whole.zarr", texts, videos, scores, fine)
    blocks = ScoreStore.create(tmp_path / "b.zarr").create_teacher(
        "t", {"weights": "whole.zarr"}, 10.0, "float32", 2, True
    )
    for name, rows, columns in (("a", slice(0, 3), slice(0, 2)), ("b", slice(3, 6), slice(2, 4))):
        tile = blocks.create_tile(
            name, TileContents(texts[rows], videos[columns], np.array([0, 1, -1]), np.zeros((2, 2))), 4
        )
        write_shard(tile, 0, scores[rows, columns], fine[rows])
    found = Diff(whole, blocks).run()
    assert (found.pairs, found.largest, found.frame_largest) == (12, 0.0, 0.0)


def test_which_teacher_is_meant(make_store) -> None:
    made = make_store()
    shutil.copytree(made.path / "tiny", made.path / "second")
    with pytest.raises(CacheError, match="which teacher"):
        open_caches(str(made.path), str(made.path))
    first, second = open_caches(str(made.path), f"{made.path}:second")
    assert (first.name, second.name) == ("second", "second")
    with pytest.raises(CacheError, match="no scores of 'third'"):
        open_caches(f"{made.path}:third", f"{made.path}:second")
    odd = made.path.rename(made.path.with_name("a:b.zarr"))
    assert open_caches(f"{odd}:tiny", f"{odd}:tiny")[0].name == "tiny"


def test_nothing_in_common_is_told(make_store, tmp_path: Path) -> None:
    zeros = np.zeros((2, 1), np.float32)
    first = make(tmp_path / "a.zarr", keys([1, 2], "t"), keys([1], "v"), zeros, zeros)
    second = make(tmp_path / "b.zarr", keys([1, 2], "t"), [("v1", digest(b"changed"))], zeros, zeros)
    with pytest.raises(CacheError, match=r"no text or no video in common \(0 captions and 1 video"):
        Diff(first, second)
