"""Scores of a teacher that scores few videos of each text: holes are stored, told apart from harm, and asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.scores.tile import Key, TileContents
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.errors import CacheError

TEXTS, VIDEOS, TOP = 11, 9, 3
KEYS: list[Key] = [(f"v{k % VIDEOS}#{k}", text_digest(f"caption {k}")) for k in range(TEXTS)]
COLUMNS: list[Key] = [(f"v{k}", digest(bytes([k]))) for k in range(VIDEOS)]


def holes(seed: int = 0) -> np.ndarray:
    """Scores of `TOP` videos of each text, NaN elsewhere."""
    random = np.random.default_rng(seed)
    scores = np.full((TEXTS, VIDEOS), np.nan, np.float32)
    for row in scores:
        row[random.permutation(VIDEOS)[:TOP]] = random.normal(3, 2, TOP)
    return scores


def made(folder: Path, dtype: str = "uint16", sparse: dict[str, Any] | None = None) -> ScoreCache:
    identity = {"weights": "aa", **({"sparse": TOP} if sparse is None else sparse)}
    cache = ScoreStore.create(folder).create_teacher("few", identity, 2.0, dtype, 2, False)  # type: ignore[arg-type]
    own = np.arange(TEXTS) % VIDEOS
    cache.create_tile("dense", TileContents(KEYS, COLUMNS, own, np.zeros((VIDEOS, 2))), shard_texts=4)
    return cache


def write(cache: ScoreCache, scores: np.ndarray) -> None:
    for shard in range(3):
        rows = cache.tiles[0].spec.rows(shard)
        write_shard(cache.tiles[0], shard, scores[rows.start : rows.stop], None)


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32"])
def test_holes_come_back_and_scores_too(tmp_path: Path, dtype: str) -> None:
    cache, scores = made(tmp_path / "s.zarr", dtype), holes()
    write(cache, scores)
    cache = ScoreStore.open(tmp_path / "s.zarr").teacher("few")
    assert (cache.sparse, cache.tiles[0].spec.per_text) == (TOP, TOP + 1)
    rows, columns = np.array([7, 0, 10, 0]), np.array([8, 2, 0, 1, 5])
    labels = cache.reader(KEYS, COLUMNS, holes=True).read(rows, columns)
    assert labels.sparse
    expected = scores[np.ix_(rows, columns)]
    np.testing.assert_array_equal(np.isnan(labels.coarse), np.isnan(expected))
    np.testing.assert_allclose(labels.coarse, expected, atol=2e-4 if dtype != "float16" else 4e-3)
    with LabelProcess([cache.reader(KEYS, COLUMNS, holes=True)]) as process:
        (theirs,) = process.start(rows, columns).result()
    np.testing.assert_array_equal(theirs.coarse, labels.coarse)
    assert theirs.sparse
    assert Check(tmp_path / "s.zarr", full=True).run().findings == ()


def test_codes_of_a_row_span_what_was_scored(tmp_path: Path) -> None:
    """A row's extremes come back to float32's rounding, whatever stands in the holes."""
    cache, scores = made(tmp_path / "s.zarr"), holes(1)
    write(cache, scores)
    found = cache.reader(KEYS, COLUMNS, holes=True).read(np.arange(TEXTS), np.arange(VIDEOS)).coarse
    for extreme in (np.nanmin, np.nanmax):
        np.testing.assert_allclose(extreme(found, axis=1), extreme(scores, axis=1), rtol=1e-6)


def test_who_needs_every_pair_is_refused(tmp_path: Path) -> None:
    cache = made(tmp_path / "s.zarr")
    write(cache, holes())
    with pytest.raises(CacheError, match="few scored 3 videos of each caption, and this needs every pair"):
        cache.reader(KEYS, COLUMNS)


def test_a_pair_that_no_tile_holds_stays_an_error(tmp_path: Path) -> None:
    cache = made(tmp_path / "s.zarr")
    write(cache, holes())
    other = [("new#0", text_digest("new"))], [("new", digest(b"new")), ("newer", digest(b"newer"))]
    tile = cache.create_tile("more", TileContents(*other, np.array([0]), np.zeros((2, 2))), shard_texts=4)
    write_shard(tile, 0, np.array([[1.0, np.nan]], np.float32), None)
    cache = ScoreStore.open(tmp_path / "s.zarr").teacher("few")
    reader = cache.reader([*KEYS, *other[0]], [*COLUMNS, *other[1]], holes=True)
    assert np.isnan(reader.read(np.array([TEXTS]), np.array([VIDEOS, VIDEOS + 1])).coarse[0, 1])
    batch = np.array([TEXTS, 0]), np.array([VIDEOS, 0])
    with pytest.raises(CacheError, match="2 pairs of this batch have no score, new#0 with v0 for one"):
        reader.read(*batch)
    with LabelProcess([reader]) as process, pytest.raises(CacheError, match="2 pairs of this batch have no score"):
        process.start(*batch).result()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_hole_of_a_dense_teacher_is_not_written_and_found_as_damage(tmp_path: Path, dtype: str) -> None:
    dense = made(tmp_path / "dense.zarr", dtype, sparse={})
    with pytest.raises(CacheError, match="not finite"):
        write(dense, holes())
    write(dense, np.nan_to_num(holes()))
    sparse = made(tmp_path / "sparse.zarr", dtype)
    write(sparse, holes())
    for name in dense.tiles[0].spec.scored:  # bytes of holes, under a dense teacher's name
        file = f"tiles/dense/{name}/c.0.0"
        (dense.folder / file).write_bytes((sparse.folder / file).read_bytes())
    assert Check(tmp_path / "dense.zarr", full=True).run().findings


@pytest.mark.parametrize("bad", ["a whole row", "infinity"])
def test_what_a_sparse_teacher_may_not_give(tmp_path: Path, bad: str) -> None:
    cache, scores = made(tmp_path / "s.zarr"), holes()
    if bad == "infinity":
        scores[1, np.flatnonzero(~np.isnan(scores[1]))[0]] = np.inf
    else:
        scores[1] = np.nan
    with pytest.raises(CacheError, match="not finite"):
        write(cache, scores)


@pytest.mark.parametrize("value", [0, -1, "three", 2**40])
def test_an_absurd_number_of_scored_videos_is_damage(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CacheError):
        made(tmp_path / "s.zarr", sparse={"sparse": value})
