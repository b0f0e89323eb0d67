"""prepare with shards made by whoever takes them: the bytes, statuses and counts of a plain run."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.storage.locations import location_of
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, ConfigError, DataError
from teachclip.stages.prepare import cluster
from teachclip.stages.prepare.cluster import Task, prepare_on_cluster, preparing_worker
from teachclip.stages.prepare.stage import PrepareResult, prepare
from teachclip.stages.runtime.cluster import OnCluster
from teachclip.stages.runtime.reporting import Silent

HOW = OnCluster("nowhere")


@pytest.fixture(autouse=True)
def _here(without_ray: Callable[[Any], None]) -> None:
    without_ray(cluster)


def files(config: Config) -> dict[str, bytes]:
    """Every file of the frame cache."""
    folder = config.frames_folder
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def told(result: PrepareResult) -> PrepareResult:
    """What does not depend on where and how long."""
    return replace(result, folder="", seconds=0, videos_per_second=0)


@pytest.fixture
def mixed(collection: Any) -> Any:
    """Five clips, a file that is missing and one that is none."""
    collection.clip("a.mp4", 24)
    collection.caption("gone.mp4")
    collection.clip("sub/b ü.mp4", 4)
    collection.clip("c.mp4", 40, first=100)
    (collection.videos / "page.mp4").write_text("<html>no</html>")
    collection.caption("page.mp4")
    collection.clip("d.mp4")
    collection.clip("e.mp4")
    return collection


class Counted(Silent):
    """Remembers by how many each count went on."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Any:
        count = super().progress(title, total, unit, done)
        steps = self.steps.setdefault(f"{title}, {total} {unit}", [])
        count.advance = lambda n=1, **fields: steps.append(n)  # type: ignore[method-assign]
        return count


def test_the_cache_is_that_of_a_plain_run(mixed: Any) -> None:
    plain, shared, heard = mixed.config(), mixed.config(frames="shared", workers=0), Counted()
    expected = prepare(plain)
    assert told(prepare_on_cluster(shared, HOW, heard)) == told(expected)
    assert expected.counts == {"ok": 5, "missing": 1, "corrupt": 1}
    assert files(shared) == files(plain)
    assert heard.steps == {"decode videos, 7 video": [1, 2, 2, 2]}
    assert prepare_on_cluster(shared, HOW).decoded == 0


def test_what_came_changed_and_went_since(mixed: Any) -> None:
    """In a cache that a plain run made: shards that are replaced, new ones, a copied file, one that goes."""
    plain, shared = mixed.config(), mixed.config(frames="shared")
    prepare(plain)
    shutil.copytree(plain.frames_folder, shared.frames_folder)
    shutil.copy(mixed.videos / "e.mp4", mixed.videos / "gone.mp4")
    os.utime(mixed.videos / "a.mp4", ns=(1, 1))
    shutil.copy(mixed.videos / "a.mp4", mixed.videos / "d.mp4")
    mixed.rows = [row for row in mixed.rows if row[0] != "c.mp4"]
    mixed.clip("f.mp4", 8)
    expected = prepare(plain, prune=True)
    assert (expected.decoded, expected.renewed, expected.pruned) == (3, 1, ("c.mp4",))
    assert told(prepare_on_cluster(shared, HOW, prune=True)) == told(expected)
    assert files(shared) == files(plain)


def test_at_an_address_workers_need_no_common_disk(mixed: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, shared, seen = mixed.config(), mixed.config(frames=f"{bucket.url}/frames"), list[str]()
    expected, given_out = prepare(plain), cluster.on_cluster

    def look(*given: Any) -> Any:
        seen.extend(given[2].files)
        return given_out(*given)

    monkeypatch.setattr(cluster, "on_cluster", look)
    assert told(prepare_on_cluster(shared, HOW)) == told(expected)
    assert {Path(file).parent for file in seen} == {mixed.videos, mixed.videos / "sub"}
    place = location_of(f"{bucket.url}/frames")
    assert {name: (place / name).read() for name in place.files()} == files(plain)
    assert prepare_on_cluster(shared, HOW).decoded == 0


def tasks_of(config: Config, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The shards that would be made."""
    found: list[Task] = []
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "on_cluster", lambda *given: iter(found.extend(given[-2]) or ()))
        with suppress(CacheError, DataError):
            prepare_on_cluster(config, HOW)
    return found


def test_what_a_dead_worker_left_is_made_again(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that published its shard, new or replaced, and told nobody: another one gets the task."""
    plain, shared = mixed.config(), mixed.config(frames="shared")
    prepare(plain)
    dead, late = preparing_worker(shared), preparing_worker(shared)
    for task in tasks_of(shared, monkeypatch):
        assert dead(task) == late(task) == (len(task.plan.jobs), 0)
    shutil.copy(mixed.videos / "c.mp4", mixed.videos / "gone.mp4")
    prepare(plain)
    (task,) = tasks_of(shared, monkeypatch)
    assert dead(task) == late(task) == (1, 0)
    assert prepare_on_cluster(shared, HOW).decoded == 0
    assert files(shared) == files(plain)


def test_a_file_that_a_worker_does_not_see_is_not_missing(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = mixed.config()
    first = tasks_of(config, monkeypatch)[0]
    (mixed.videos / "a.mp4").rename(mixed.root / "elsewhere.mp4")
    with pytest.raises(ConfigError, match="does not see 1 file that the command sees") as raised:
        preparing_worker(config)(first)
    assert raised.value.details == (str(mixed.videos / "a.mp4"),)
    assert not list(config.frames_folder.glob("*.h5"))


def test_what_was_written_and_is_not_seen_here_is_told(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of several machines that shows a new file late; the cache is not completed without it."""
    config = mixed.config()
    made = cluster.write_shard
    monkeypatch.setattr(cluster, "write_shard", lambda plan, *given: None if plan.number == 1 else made(plan, *given))
    with pytest.raises(CacheError, match="1 shard that workers have written cannot be seen from here"):
        prepare_on_cluster(config, HOW)
    monkeypatch.undo()
    assert prepare(config).decoded == 2


def test_workers_see_every_folder(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each a file, and one that no other machine has, which goes at the end."""
    config, seen = mixed.config(), list[str]()

    def look(*given: Any) -> Any:
        seen.extend(given[2].files)
        return iter(())

    monkeypatch.setattr(cluster, "on_cluster", look)
    with pytest.raises(CacheError, match="cannot be seen from here"):
        prepare_on_cluster(config, HOW)
    assert {Path(file).parent for file in seen} == {mixed.videos, mixed.videos / "sub", config.frames_folder}
    assert not list(config.frames_folder.glob(".workers-*"))
