"""What scores are stored as: float16 beside codes and float32."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from teachclip.cache.scores.format.codes import decode_scores, encode_scores
from teachclip.cache.scores.format.sizes import tile_bytes
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.shard import missing_shards, write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.errors import CacheError


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32"])
def test_every_way_to_read_gives_the_same_float32_scores(make_store, dtype: str) -> None:
    made = make_store(dtype=dtype)
    expected = decode_scores(*encode_scores(made.coarse, made.cache.dtype))
    rows, columns = np.arange(21), np.arange(13)
    for scores in (
        made.cache.reader(made.texts, made.videos).read(rows, columns).coarse,
        TileRows(made.tile).scores(rows),
    ):
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, expected)
    np.testing.assert_allclose(expected, made.coarse, rtol=2.0**-11, atol=1e-5)


def test_float16_is_rounded_to_nearest_and_half_as_large(make_store) -> None:
    half, full = make_store(dtype="float16", name="half"), make_store(dtype="float32", name="full")
    labels = half.cache.reader(half.texts, half.videos).read(np.arange(21), np.arange(13))
    np.testing.assert_array_equal(labels.coarse, half.coarse.astype(np.float16).astype(np.float32))
    for made in (half, full):
        files = sum(path.stat().st_size for path in made.tile.folder.rglob("*") if path.is_file())
        assert tile_bytes(made.tile.spec) == files
    sizes = [(made.tile.folder / "coarse/c.0.0").stat().st_size for made in (half, full)]
    assert sizes[1] - sizes[0] == 2 * 8 * 13


def test_zarr_reads_float16_and_a_row_that_is_not_scored_is_nan(make_store) -> None:
    made = make_store(dtype="float16", shards=(0, 1, 2))
    array = zarr.open_array(made.tile.folder / "coarse", mode="r")
    assert array.dtype == np.float16
    assert np.isnan(array.fill_value)
    np.testing.assert_array_equal(array[:], made.coarse.astype(np.float16))


def test_a_full_check_sees_a_float16_score_that_is_not_finite(make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_store(dtype="float16", shards=(0,))
    monkeypatch.setattr("teachclip.cache.scores.shard._refuse_overflow", lambda *_: None)
    made.coarse[9, 2] = 1e6
    made.write(1)
    found = Check(made.path, full=True).run().findings
    assert [(each.shard, each.why) for each in found] == [
        (1, f"the scores of {made.texts[9][0]} are not all there, or not finite")
    ]


@pytest.mark.parametrize("value", [65520.0, -1e30])
def test_scores_that_float16_cannot_hold_are_refused_in_words(tmp_path: Path, value: float) -> None:
    keys = [(f"v{k}#0", text_digest(f"{k}")) for k in range(4)], [(f"v{k}", digest(f"{k}".encode())) for k in range(3)]
    contents = TileContents(*keys, np.zeros(4), np.zeros((3, 4)))
    scores = np.full((2, 3), 65504.0, np.float32)  # the largest that it holds
    store = ScoreStore.create(tmp_path / "s.zarr")
    tile = store.create_teacher("tiny", {}, 1.0, "float16", 4, False).create_tile("dense", contents, shard_texts=2)
    write_shard(tile, 0, scores, None)
    scores[1, 2] = value
    with pytest.raises(CacheError, match="1 scores are too large for float16") as caught:
        write_shard(tile, 1, scores, None)
    assert list(caught.value.details) == [f"the largest is {value:g}, v3#0 with v2"]
    assert caught.value.hint.action.settings["score.coarse"] == "uint16"
    assert missing_shards(tile) == [1]
    codes = store.create_teacher("codes", {}, 1.0, "uint16", 4, False).create_tile("dense", contents, shard_texts=2)
    write_shard(codes, 1, scores, None)
    assert not [shard for shard in missing_shards(codes) if shard == 1]
