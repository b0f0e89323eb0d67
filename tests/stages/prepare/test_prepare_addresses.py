"""prepare writes to an address what it writes to a folder, killed or not; and what is made of it is the same."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.storage.locations import location_of
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, UnreachableError
from teachclip.remedies import Remedy
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.estimate import estimate_frames
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.stage import score
from teachclip.stages.search.index import index
from teachclip.stages.train.stage import train

SPAWNED = Path(__file__).parents[1] / "data" / "video" / "spawned" / "prepare_slowly.py"


def objects(url: str) -> dict[str, bytes]:
    place = location_of(url)
    return {name: (place / name).read() for name in place.files()}


def files(folder: Path, kept: str = "*") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(kept) if path.is_file()}


def whole(collection: Any, name: str) -> dict[str, bytes]:
    config = collection.config(frames=name)
    prepare(config)
    return files(config.frames_folder)


def test_prepare_makes_the_same_objects_and_does_nothing_twice(collection: Any, bucket) -> None:
    for k in range(3):
        collection.clip(f"{k}.mp4", first=k)
    collection.caption("missing.mp4")
    url = f"{bucket.url}/frames"
    config = collection.config(frames=url)
    assert config.frames_folder == url
    expected = estimate_frames(config)
    assert (expected.remaining, expected.free) == (3, None)
    made = prepare(config)
    assert (made.decoded, made.folder) == (4, url)
    assert objects(url) == whole(collection, "one")
    assert prepare(config).decoded == 0
    collection.encode("missing.mp4")
    assert prepare(config).decoded == 1
    before = objects(url)
    collection.clip("new.mp4", first=7)
    assert prepare(config).decoded == 1
    assert {name: before[name] for name in ("00000.h5", "00001.h5")}.items() <= objects(url).items()
    assert FrameCache.open(url).usable[-1] == "new.mp4"


def test_changed_and_touched_files_and_pruning(collection: Any, bucket) -> None:
    paths = [collection.clip(f"{k}.mp4", first=k) for k in range(5)]
    places = [collection.config(frames=f"{bucket.url}/frames"), collection.config(frames="local")]
    for config in places:
        prepare(config)
    for path in (paths[0], paths[4]):
        path.touch()
    collection.encode("2.mp4", first=9)
    for config in places:
        again = prepare(config)
        assert (again.decoded, again.renewed) == (1, 2)
    assert objects(places[0].frames_folder) == files(places[1].frames_folder)
    assert "00000.stamps.json" in objects(places[0].frames_folder)
    collection.rows = collection.rows[:4:2]
    collection.caption()
    for config in places:
        assert prepare(config, prune=True).pruned == ("1.mp4", "3.mp4", "4.mp4")
    assert objects(places[0].frames_folder) == files(places[1].frames_folder)
    assert FrameCache.open(places[0].frames_folder).usable == ("0.mp4", "2.mp4")


def test_two_at_once_make_what_one_makes(collection: Any, bucket) -> None:
    for k in range(6):
        collection.clip(f"{k}.mp4", first=k)
    url = f"{bucket.url}/frames"
    config = collection.config(frames=url)
    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(prepare, config) for _ in range(2)]:
            assert each.result(240).counts == {"ok": 6}
    assert objects(url) == whole(collection, "whole")


def killed(config: Config, url: str, after: float) -> None:
    """Run prepare in a process of its own and kill it `after` seconds past its first shard."""
    settings = config.work.parent / "config.json"
    settings.write_text(config.model_dump_json())
    process = subprocess.Popen([sys.executable, str(SPAWNED), str(settings)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not any(name.endswith(".h5") for name in location_of(url).files()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait(120)


@pytest.mark.parametrize("moments", [(0.2,), pytest.param((0.0, 0.1, 0.3, 0.6), marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_objects(
    collection: Any, bucket, moments: tuple[float, ...]
) -> None:
    for k in range(8):
        collection.clip(f"slow{k}.mp4", first=k)  # 0.4 seconds each
    url = f"{bucket.url}/frames"
    reference, config = whole(collection, "whole"), collection.config(frames=url, workers=2)
    for after in moments:
        killed(config, url, after)
        with pytest.raises(CacheError, match="not complete"):
            FrameCache.open(url)
    kept = {name: data for name, data in objects(url).items() if name.endswith(".h5")}
    assert 0 < len(kept) < 4
    assert kept.items() <= reference.items()
    assert prepare(config).decoded == 2 * (4 - len(kept))
    assert objects(url) == reference


def test_a_server_that_goes_away_midway_keeps_what_was_finished(collection: Any, bucket, relay) -> None:
    for k in range(6):
        collection.clip(f"{k}.mp4", first=k)
    url = f"{bucket.url}/frames"
    relay.fault, relay.only = "gone", lambda method, path: method == "PUT" and path.endswith("00002.h5")
    config = collection.config(frames=url)
    with pytest.raises(UnreachableError, match="cannot be reached or fails") as caught:
        prepare(config)
    assert "give the same command again" in str(caught.value.hint)
    relay.fault = None
    assert sorted(objects(url)) == ["00000.h5", "00001.h5", "frames.json"]
    assert prepare(config).decoded == 2
    assert objects(url) == whole(collection, "whole")


def outcome(config: Config) -> tuple[Any, ...]:
    """What training, evaluating and indexing make, but for what tells times and names."""
    train(config)
    found = evaluate(config)
    index(config)
    made = files(config.run_folder, "best*") | files(config.index_folder)
    return made, found.t2v, found.v2t


@pytest.mark.parametrize("where", ["stream", pytest.param("host", marks=pytest.mark.slow)])
def test_scores_training_and_metrics_are_those_of_a_folder(world: Any, bucket, where: str) -> None:
    url = f"{bucket.url}/world/frames"
    prepare(world.config(prepare={"frames": url}))
    assert objects(url) == files(world.root / "work/frames")
    here, there = (
        world.config(
            prepare={"frames": frames},
            score={"store": f"{where}-of-{name}.zarr"},
            train={"run": f"runs/{where}-of-{name}", "teachers": ["xclip"], "epochs": 1, "frames": where},
            evaluate={"run": f"runs/{where}-of-{name}"},
            search={"run": f"runs/{where}-of-{name}", "index": f"{where}-of-{name}"},
        )
        for name, frames in (("here", "frames"), ("there", url))
    )
    assert estimate_scores(there).prepared
    for config in (here, there):
        score(config)
    assert files(there.score_store) == files(here.score_store)
    made = outcome(there)
    assert [name.partition("-")[0] for name in sorted(made[0])] == ["best.safetensors", "identity.json", "vectors"]
    assert made == outcome(here)


def test_a_teacher_may_see_frames_at_an_address(world: Any, bucket) -> None:
    url = f"{bucket.url}/world/frames"
    prepare(world.config(prepare={"frames": url}))
    teacher = {"name": "xclip", "checkpoint": "runs/xclip", "prepared": url}
    config = world.config(score={"teachers": [teacher], "store": "prepared.zarr"})
    score(config)
    expected = ScoreStore.open(world.root / "work/scores.zarr").teacher("xclip").tiles[0]
    found = ScoreStore.open(config.score_store).teacher("xclip").tiles[0]
    assert found.spec == expected.spec


def test_frames_that_are_not_there_are_told(world: Any, bucket) -> None:
    config = world.config(prepare={"frames": f"{bucket.url}/none"}, train={"run": "runs/none"})
    for ask in (train, score):
        with pytest.raises(CacheError, match="no frame cache here") as caught:
            ask(config)
        assert isinstance(caught.value.hint, Remedy)
    config = world.config(prepare={"frames": "s3://no-such-bucket/none"})
    for ask in (prepare, estimate_frames, score):
        with pytest.raises(UnreachableError, match="NoSuchBucket"):
            ask(config)
