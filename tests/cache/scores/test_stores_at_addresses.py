"""Stores made at an address: there from the moment in which their document is, whoever else makes them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
from teachclip.cache.features import FeatureShards
from teachclip.cache.scores.exchange.merging import Merge
from teachclip.cache.scores.shard import missing_shards
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.scores.upkeep.catalog import summaries
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage import locations
from teachclip.errors import CacheError

IDENTITY = {"weights": "aa", "score_version": 1}
TINY = {"identity": IDENTITY, "scale": 100.0, "dtype": "float32", "frames": 4, "frame_logits": False}
DENSE = "s.zarr/tiny/tiles/dense"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def of_tile(digest: int = 0, texts: int = 4, frames: int = 4) -> TileContents:
    """Contents that differ by their digests."""
    keys = [[(f"{what}{k}", bytes([digest] * 16)) for k in range(texts)] for what in "tv"]
    return TileContents(*keys, np.arange(texts), np.full((texts, frames), float(digest)))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_store_made_at_an_address_is_that_of_a_folder(make_store, bucket, dtype: str) -> None:
    url = f"{bucket.url}/deep/below/s.zarr"
    here, there = make_store(dtype=dtype), make_store(dtype=dtype, where=url, shards=(0, 2))
    assert missing_shards(there.tile) == [1]
    there.write(1)
    assert bucket.contents("deep/below/s.zarr") == contents(here.path)
    ScoreStore.create(url)  # which is there


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], bool]:
    """`killed_at(n, work)`: whether the work ends before it makes its nth file."""

    def run(limit: int, work: Callable[[], Any]) -> bool:
        create, made = locations.Remote.create, [0]

        def counted(self: locations.Remote, data: bytes) -> bool:
            made[0] += 1
            if made[0] > limit:
                raise KeyboardInterrupt
            return create(self, data)

        with monkeypatch.context() as patched:
            patched.setattr(locations.Remote, "create", counted)
            try:
                work()
            except KeyboardInterrupt:
                return True
        return False

    return run


def test_what_killed_makers_leave_is_no_tile_or_teacher_and_is_made_whole(bucket, killed_at) -> None:
    """Whatever it was to hold: the next may make something else under the name."""
    url, limit = f"{bucket.url}/s.zarr", 0
    assert killed_at(1, lambda: ScoreStore.create(url).create_teacher("tiny", **TINY))
    assert ScoreStore.open(url).teachers == ()
    assert summaries(ScoreStore.open(url)) == []
    cache = ScoreStore.open(url).create_teacher("tiny", **{**TINY, "frames": 3})
    while not cache.tiles:
        killed_at(limit, lambda limit=limit, cache=cache: cache.create_tile("dense", of_tile(limit % 7, frames=3), 2))
        limit += 3
        cache = ScoreStore.open(url).teacher("tiny")
        assert cache.frames == 3
        assert Check(url, full=True).run().findings == ()
    assert limit > 8
    assert set(cache.tiles[0].video_digests.ravel()) == {(limit - 3) % 7}


def test_several_who_make_the_same_make_it_once(bucket) -> None:
    url = f"{bucket.url}/s.zarr"

    def make(number: int) -> str:
        cache = ScoreStore.create(url).create_teacher("tiny", **TINY)
        return cache.create_tile("dense", of_tile(), 2).checksum

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(make, range(6)))) == 1
    assert Check(url, full=True).run().findings == ()


def test_of_several_who_make_something_else_under_one_name_one_has_it_whole(bucket) -> None:
    url = f"{bucket.url}/s.zarr"
    cache = ScoreStore.create(url).create_teacher("tiny", **TINY)

    def make(name: str, digest: int) -> int | str:
        try:
            return int(cache.create_tile(name, of_tile(digest), 2).video_digests[0, 0])
        except CacheError as error:
            return error.what

    for name in ("first", "second", "third"):
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(lambda digest, name=name: make(name, digest), range(3)))
        (winner,) = [each for each in made if isinstance(each, int)]
        assert [each for each in made if each != winner] == ["there is a tile of this name with other contents"] * 2
        tile = next(tile for tile in ScoreStore.open(url).teacher("tiny").tiles if tile.name == name)
        assert set(tile.video_digests.ravel()) == {winner}
    assert Check(url, full=True).run().findings == ()


def test_who_writes_over_what_another_has_just_finished_puts_it_back(bucket, killed_at, monkeypatch) -> None:
    """Asked a moment before, the tile was not there, and the files were those of somebody who had been killed."""
    url = f"{bucket.url}/s.zarr"
    cache = ScoreStore.create(url).create_teacher("tiny", **TINY)
    assert killed_at(13, lambda: cache.create_tile("dense", of_tile(0, texts=6), 2))  # all but the last
    replace, once, finished = locations.Remote.replace, Lock(), list[bool]()

    def late(self: locations.Remote, data: bytes, stamp: bytes) -> bool:
        with once:
            if not finished:
                finished.append(True)
                cache.create_tile("dense", of_tile(0, texts=6), 2)
        return replace(self, data, stamp)

    with monkeypatch.context() as patched:
        patched.setattr(locations.Remote, "replace", late)
        with pytest.raises(CacheError, match="a tile of this name with other contents"):
            cache.create_tile("dense", of_tile(1), 2)
    assert finished
    assert Check(url, full=True).run().findings == ()
    assert set(ScoreStore.open(url).teacher("tiny").tiles[0].video_digests.ravel()) == {0}


def test_a_tile_that_is_half_gone_is_damaged_where_it_had_shards(put, bucket) -> None:
    _, url = put(shards=(1,))
    bucket.request("DELETE", f"{DENSE}/zarr.json")
    with pytest.raises(CacheError, match=r"zarr.json: missing"):
        ScoreStore.open(url).teacher("tiny")


def test_shards_are_merged_into_a_store_at_an_address(make_store, bucket, tmp_path: Path) -> None:
    here = make_store(shards=(0, 2))
    there = make_store(where=f"{bucket.url}/s.zarr", shards=(1,))
    (merged,) = Merge(there.path, [here.path]).run()
    assert (merged.taken, merged.same, merged.unlike) == (2, 0, ())
    here.write(1)
    assert bucket.contents("s.zarr") == contents(here.path)
    assert [each.same for each in Merge(there.path, [here.path]).run()] == [3]
    new = ScoreStore.create(f"{bucket.url}/new.zarr")
    assert Merge(new.path, [there.path]).run()[0].tiles_added == ("dense",)
    assert bucket.contents("new.zarr") == contents(here.path)
    with pytest.raises(CacheError, match="cannot be merged with itself"):
        Merge(there.path, [there.path])
    with pytest.raises(CacheError, match="a web server is only read"):
        Merge("https://host/s.zarr", [here.path])


def test_features_of_videos_are_kept_at_an_address(bucket, make_store) -> None:
    made = make_store(where=f"{bucket.url}/s.zarr", shards=())
    shards = FeatureShards(made.cache.videos_folder, {"weights": "aa"}, shard_videos=4)
    digests, values = [bytes([k] * 16) for k in range(4)], {"vector": np.arange(8, dtype=np.float32).reshape(4, 2)}
    assert shards.read(digests) is None
    shards.write(digests, values)
    shards.write(digests, {"vector": values["vector"] + 1e-7})  # another's, rounded otherwise
    found = shards.read(digests)
    assert found is not None
    np.testing.assert_array_equal(found["vector"], values["vector"])
    (name,) = bucket.listed(f"s.zarr/tiny/videos/{shards.folder.name}/{shards.path(digests).name[:4]}")
    whole = bucket.request("GET", name)
    assert Check(made.path, full=True).run().teachers[0].features == 2
    for wrong in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], b"", b"\xff" * 20):
        bucket.request("PUT", name, wrong)
        with pytest.raises(CacheError, match="damaged"):
            shards.read(digests)
        assert [finding.repairable for finding in Check(made.path, full=True).run().damage] == [True]
    assert Check(made.path).run().damage == ()
    shards.write(digests, values)  # what is damaged may not stand
    assert bucket.request("GET", name) == whole
