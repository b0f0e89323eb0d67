"""Scores written to an address: byte for byte those of a folder, with the same promises."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from teachclip.cache.scores.makers import makers
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.catalog import teacher_info
from teachclip.cache.scores.upkeep.check import Check
from teachclip.errors import CacheError, UnreachableError
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.repair import repair
from teachclip.stages.score.stage import score
from teachclip.stages.score.worker_part import WorkerPart

TILE = "scores.zarr/fake/tiles/dense"


def in_folder(store: Path) -> dict[str, bytes]:
    """The bytes of every file, by its path; temporary ones do not count."""
    files = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if ".tmp-" not in name}


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture
def whole(finished: Path) -> dict[str, bytes]:
    """The store of one who scored into a folder, undisturbed."""
    return in_folder(finished / "work/scores.zarr")


@pytest.fixture
def at_address(process: ModuleType, new_world: Callable[..., Path], bucket: Any, fake_teacher: type) -> Any:
    """The configuration of a new world, to be scored into the bucket."""
    return process.config_of(new_world(), store=f"{bucket.url}/scores.zarr")


def stored(bucket: Any) -> dict[str, bytes]:
    found: dict[str, bytes] = bucket.contents("scores.zarr")
    return found


def test_a_store_at_an_address_has_the_bytes_of_one_in_a_folder(
    at_address: Any, bucket: Any, whole: dict[str, bytes], finished: Path, fake_teacher: Any
) -> None:
    made = score(at_address)
    assert made.store == f"{bucket.url}/scores.zarr"
    assert (made.teachers[0].shards_now, made.teachers[0].shards_left) == (5, 0)
    assert stored(bucket) == whole
    assert bucket.contents("scores.zarr.made") == in_folder(finished / "work/scores.zarr.made")
    cache = ScoreStore.open(at_address.score_store).teacher("fake")
    assert sum(makers(cache.tiles).values()) == 5
    info = teacher_info(ScoreStore.open(at_address.score_store), "fake")
    assert (info.made[0].device, info.feature_files, info.feature_bytes) == ("cpu", 1, None)
    loads, pairs = fake_teacher.loads, fake_teacher.pairs_scored
    again = score(at_address)
    assert (again.teachers[0].shards_before, again.teachers[0].shards_now) == (5, 0)
    assert (fake_teacher.loads, fake_teacher.pairs_scored) == (loads, pairs)
    assert stored(bucket) == whole


def test_what_a_data_set_gains_is_added(
    process: ModuleType, at_address: Any, bucket: Any, fake_teacher: Any, tmp_path: Path
) -> None:
    root = at_address.work.parent
    score(at_address)
    before = stored(bucket)
    process.grow(root, 19, [(17, "of new ones"), (18, "too"), (3, "again")])
    fake_teacher.videos_encoded = 0
    score(at_address)
    assert fake_teacher.videos_encoded == 2  # features of the others lie at the address
    after = stored(bucket)
    assert before.items() <= after.items()
    local = process.config_of(root, store=tmp_path / "local.zarr")
    (tmp_path / "local.zarr").mkdir()
    for name, data in before.items():
        (tmp_path / "local.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local.zarr" / name).write_bytes(data)
    score(local)
    assert in_folder(tmp_path / "local.zarr") == after


def test_parts_of_several_workers_make_the_store_of_one(
    at_address: Any, bucket: Any, whole: dict[str, bytes], process: ModuleType
) -> None:
    first = score(at_address, part=WorkerPart(0, 2)).teachers[0]
    assert (first.shards_now, first.shards_left) == (3, 2)
    assert score(at_address, part=WorkerPart(1, 2)).teachers[0].shards_now == 2
    assert stored(bucket) == whole


def test_a_shard_that_was_harmed_is_found_and_made_again(at_address: Any, bucket: Any, whole: dict[str, bytes]) -> None:
    score(at_address)
    features = next(name for name in whole if name.endswith(".safetensors"))
    for key in (f"{TILE}/coarse/c.3.0", f"{TILE}/done/00001.json", f"scores.zarr/{features}"):
        data = bytearray(bucket.request("GET", key))
        data[len(data) // 2] ^= 8
        bucket.request("PUT", key, bytes(data))
    found = Check(at_address.score_store, full=True).run().damage
    assert sorted(Path(finding.path).name for finding in found) == sorted(
        ["00001.json", "00003.json", Path(features).name]
    )
    result = repair(at_address, Silent())
    assert len(result.repaired) == 3
    assert Check(at_address.score_store, full=True).run().findings == ()
    assert {**stored(bucket), features: whole[features]} == whole
    bucket.request("PUT", f"{TILE}/text_ids/c.0", b"x")
    with pytest.raises(CacheError, match="cannot be repaired in place"):
        repair(at_address, Silent())


def test_what_it_takes_is_told_before(at_address: Any, bucket: Any, process: ModuleType) -> None:
    before = estimate_scores(at_address).teachers[0]
    assert (before.shards, before.shards_left) == (5, 5)
    score(at_address, part=WorkerPart(0, 2))
    after = estimate_scores(at_address).teachers[0]
    assert (after.shards, after.shards_left, after.rate) == (5, 2, None)
    assert after.bytes == before.bytes


def test_a_store_that_is_not_ours_is_left_alone(at_address: Any, bucket: Any) -> None:
    bucket.request("PUT", "scores.zarr/notes/readme.txt", b"hello")
    with pytest.raises(CacheError, match="has files that are no score store"):
        score(at_address)
    assert bucket.listed() == ["scores.zarr/notes/readme.txt"]


# Kills


@pytest.mark.parametrize("workers", [slow(1), 2])
def test_a_store_whose_workers_were_killed_is_finished_as_if_they_had_not(
    scored_by_processes: Any, new_world: Any, bucket: Any, whole: dict[str, bytes], workers: int
) -> None:
    """Killed at random requests to the server, before they hear of the answer."""
    root, url = new_world(), f"{bucket.url}/scores.zarr"
    # Of the moments that this seed draws, two come before the last request of a worker who finds everything done.
    killed, redone = scored_by_processes(root, 3, seed=9, workers=workers, changes=250, store=url)
    assert killed >= 2
    assert redone <= 3 * killed + 5 * (workers - 1)
    assert stored(bucket) == whole


@pytest.mark.slow
def test_two_workers_at_once_make_the_store_of_one(
    scored_by_processes: Any, new_world: Any, bucket: Any, whole: dict[str, bytes]
) -> None:
    assert scored_by_processes(new_world(), kills=0, seed=0, workers=2, store=f"{bucket.url}/scores.zarr")[0] == 0
    assert stored(bucket) == whole


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_kills_at_an_address(
    process: ModuleType,
    scored_by_processes: Any,
    tmp_path: Path,
    bucket: Any,
    whole: dict[str, bytes],
    record_testsuite_property: Any,
) -> None:
    killed = redone = seed = 0
    while killed < 30:
        seed += 1
        root, workers = process.make_world(tmp_path / str(seed)), 1 + seed % 2
        url = f"{bucket.url}/{seed}/scores.zarr"
        more = scored_by_processes(root, 6, seed=seed, workers=workers, changes=250 * (seed % 3 > 0), store=url)
        killed, redone = killed + more[0], redone + more[1]
        assert bucket.contents(f"{seed}/scores.zarr") == whole
    record_testsuite_property("kills at an address", f"{killed} kills in {seed} stores; {redone} shards scored again")


# Servers that fail


def test_no_bucket_and_no_permission_are_told(
    process: ModuleType, new_world: Callable[..., Path], relay: Any, fake_teacher: type
) -> None:
    root = new_world()
    nowhere = process.config_of(root, store="s3://there-is-none/scores.zarr")
    for ask in (score, estimate_scores):
        with pytest.raises(UnreachableError, match="NoSuchBucket"):
            ask(nowhere)
    relay.fault = 403
    with pytest.raises(UnreachableError, match="the server refuses") as caught:
        score(nowhere)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
    with pytest.raises(CacheError, match="a web server is only read"):
        score(process.config_of(root, store="https://host/scores.zarr"))


@pytest.mark.parametrize("fault", ["gone", *map(slow, (503, 403, "lost"))])
def test_a_server_that_fails_midway_costs_nothing_that_is_finished(
    at_address: Any, bucket: Any, relay: Any, whole: dict[str, bytes], fault: str | int
) -> None:
    """From one request on, nothing comes through; then the server is well again, and the same command goes on."""
    for after in (40, 100):
        relay.requests.clear()

        def late(method: str, path: str, after: int = after) -> bool:
            return len(relay.requests) > after

        relay.fault, relay.only = fault, late
        with pytest.raises(UnreachableError) as caught:
            score(at_address)
        assert "give the same command again" in str(caught.value.hint)
        assert not isinstance(fault, int) or f"HTTP {fault}" in caught.value.what
        relay.fault = None
        assert stored(bucket).items() <= whole.items()
    score(at_address)
    assert stored(bucket) == whole


@pytest.mark.parametrize("fault", ["lost", *map(slow, (409, "short", 503))])
def test_a_server_that_fails_now_and_then_is_asked_again(
    at_address: Any, bucket: Any, relay: Any, whole: dict[str, bytes], fault: str | int
) -> None:
    """Each request fails once, by 409 those that write; of those, every answer is lost after it has been done."""

    def only(method: str, path: str) -> bool:
        first = relay.requests.count((method, path)) == 1
        return (fault not in (409, "lost") and first) or (method == "PUT" and (first or fault == "lost"))

    relay.only = only
    relay.fault = fault
    score(at_address)
    assert stored(bucket) == whole
