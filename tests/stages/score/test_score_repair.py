"""`cache repair` scores only what is damaged, with the original's bits; `cache estimate` says what scoring takes."""

import os
import random
from pathlib import Path

import pytest
from teachclip.cache.scores.shard import marker_path
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check
from teachclip.errors import CacheError, ConfigError
from teachclip.remedies import RemoveScores, Score
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.repair import repair


def contents(root: Path) -> dict[str, bytes]:
    store = root / "work/scores.zarr"
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def harm(path: Path, how: str, seed: int = 0) -> None:
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "flipped":
        bit = random.Random(seed).randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data[: len(data) // 2] if how == "truncated" else data)


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
@pytest.mark.parametrize(
    "harmed",
    [("coarse/c.1.0",), ("coarse_codec/c.0.0", "fine/c.4.0"), ("done/00002.json", "coarse/c.2.0"), ("features",)],
)
def test_what_is_damaged_comes_back_bit_for_bit(
    new_world, process, fake_teacher, how: str, harmed: tuple[str, ...]
) -> None:
    root = new_world(scored=True)
    before = contents(root)
    config = process.config_of(root)
    tile = root / "work/scores.zarr/fake/tiles/dense"
    features = next((root / "work/scores.zarr/fake/videos").rglob("*.safetensors"))
    for seed, file in enumerate(harmed):
        harm(features if file == "features" else tile / file, how, seed)
    stamps = {name: (root / "work/scores.zarr" / name).stat().st_mtime_ns for name in contents(root)}
    found = Check(config.score_store, full=True).run().findings
    result = repair(config, Silent())
    assert {(f.tile, f.shard) for f in result.repaired} == {(f.tile, f.shard) for f in found}
    if harmed == ("features",):  # nothing needs them, now that everything is scored
        before.pop(str(features.relative_to(config.score_store)))
    elif found:
        whole = [n for n, at in stamps.items() if (root / "work/scores.zarr" / n).stat().st_mtime_ns == at]
        assert len(whole) >= len(before) - 4 * len(harmed)  # nothing else was written
    else:  # a shard without a marker is not damaged but not scored: left to `score`
        assert how == "deleted"
        process.stage.score(config)
    assert contents(root) == before
    assert Check(config.score_store, full=True).run().findings == ()


def test_nothing_is_scored_where_nothing_is_damaged(new_world, process, fake_teacher) -> None:
    root = new_world(scored=True)
    result = repair(process.config_of(root), Silent())
    assert (result.repaired, fake_teacher.loads) == ((), 0)
    assert result.checked == 5 + 2


@pytest.mark.parametrize("file", ["fake/zarr.json", "fake/tiles/dense/zarr.json", "fake/tiles/dense/frame_times/c.0.0"])
def test_what_cannot_be_made_again_in_place_is_told_and_left(new_world, process, fake_teacher, file: str) -> None:
    root = new_world(scored=True)
    config = process.config_of(root)
    harm(config.score_store / file, "flipped")
    harm(config.score_store / "fake/tiles/dense/fine/c.0.0", "deleted")
    before = contents(root)
    with pytest.raises(CacheError, match="cannot be repaired in place") as caught:
        repair(config, Silent())
    assert caught.value.hint.actions == (RemoveScores(str(config.score_store), "fake"), Score())
    assert file in caught.value.details[0]
    assert contents(root) == before


def test_only_the_teacher_that_is_asked_for(new_world, process, fake_teacher) -> None:
    root = new_world(scored=True)
    with pytest.raises(ConfigError, match="no teacher 'other'"):
        repair(process.config_of(root), Silent(), "other")
    harm(root / "work/scores.zarr/fake/tiles/dense/fine/c.0.0", "truncated")
    assert len(repair(process.config_of(root), Silent(), "fake").repaired) == 1


@pytest.mark.parametrize(("texts", "shard"), [(37, 8), (16, 8), (3, 8), (37, 1000)])
@pytest.mark.parametrize("coarse", ["uint16", "float32"])
def test_the_estimate_is_exact_to_the_byte(
    new_world, process, fake_teacher, monkeypatch, texts: int, shard: int, coarse: str
) -> None:
    root = new_world(texts=texts)
    config = process.config_of(root, shard_texts=shard, coarse=coarse, chance_check=False)
    (before,) = estimate_scores(config).teachers
    assert not config.score_store.exists()
    assert (before.seconds, before.measured, fake_teacher.loads) == (None, None, 0)
    assert before.shards_left == before.shards
    process.stage.score(config)
    tiles = config.score_store / "fake/tiles/dense"
    assert before.bytes == sum(p.stat().st_size for p in tiles.rglob("*") if p.is_file())
    (after,) = estimate_scores(config).teachers
    assert (after.bytes, after.pairs, after.shards_left, after.pairs_left) == (before.bytes, before.pairs, 0, 0)


def test_time_is_told_where_it_was_measured(new_world, process, fake_teacher) -> None:
    root = new_world(scored=True)
    config = process.config_of(root)
    tile = ScoreStore.open(config.score_store).teacher("fake").tiles[0]
    for shard in range(5):
        os.utime(marker_path(tile, shard), (100 + 2 * shard, 100 + 2 * shard))
    marker_path(tile, 4).unlink()
    (each,) = estimate_scores(config).teachers
    assert each.rate == pytest.approx(8 * 17 / 2)
    assert each.pairs_left == 6 * 17  # of 37 texts and one more of v000, 38 rows
    assert each.seconds == pytest.approx(6 * 17 / each.rate)
    assert each.measured == f"{config.score_store}:fake"


def test_an_unprepared_data_set_is_estimated_from_its_captions(new_world, process) -> None:
    root = new_world()
    (root / "work/frames/frames.json").unlink()
    found = estimate_scores(process.config_of(root))
    assert not found.prepared
    assert (found.teachers[0].texts, found.teachers[0].videos) == (39, 18)
