"""A Ray cluster of several nodes on this machine scores: the store of one process, whatever dies meanwhile.

Runs alone, as Ray starts some ten processes: `make test-extras`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.loading import dump_config
from teachclip.errors import ConfigError, PluginError, TeachclipError
from teachclip.stages.runtime import cluster as runtime_cluster
from teachclip.stages.runtime.cluster import LOCAL, OnCluster, connected
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.stage import score
from teachclip.stages.score.worker_part import WorkerPart
from teachclip.stages.score.workers import cluster
from teachclip.stages.score.workers.cluster import score_on_cluster

from ..conftest import CLUSTER, Nodes
from .conftest import done, loaded_by, tree

pytestmark = CLUSTER


def test_workers_make_the_store_of_one_process(
    two_nodes: Nodes, config_of: Callable[..., Any], expected: dict[str, str], numbered: Path, heard: Any
) -> None:
    config = config_of(pause=0.3)
    result = score_on_cluster(config, two_nodes.how(), heard)
    assert tree(config.score_store) == expected
    (made,) = result.teachers
    assert (result.part, made.shards, made.shards_now, made.shards_left, made.texts) == (None, 5, 5, 0, 38)
    assert made.own_ranks is not None
    assert len(loaded_by(numbered)) == 2, "each worker loads the teacher once"
    assert heard.infos[0] == "Ray: 2 workers on cpu"
    told = [*heard.infos, *heard.warnings]
    assert len(set(told)) == len(told)
    assert not list(config.work.glob(".workers-*"))
    again = score_on_cluster(config, two_nodes.how())
    assert (again.teachers[0].shards_before, again.teachers[0].shards_now) == (5, 0)


def test_it_goes_on_from_whatever_is_there(
    two_nodes: Nodes, config_of: Callable[..., Any], expected: dict[str, str]
) -> None:
    """Parts of plain workers, then the cluster, in one store."""
    config = config_of()
    score(config, part=WorkerPart(1, 3))
    before = done(config.score_store)
    assert 0 < before < 5
    made = score_on_cluster(config, two_nodes.how()).teachers[0]
    assert (made.shards_before, made.shards_now) == (before, 5 - before)
    assert tree(config.score_store) == expected


def test_what_a_teacher_raises_is_raised_here(two_nodes: Nodes, config_of: Callable[..., Any]) -> None:
    with pytest.raises(PluginError) as raised:
        score_on_cluster(config_of(fails="number 4 in round 0"), two_nodes.how())
    assert raised.value.what == "teacher 'fake' (number_teacher:Numbers): encode_texts failed"
    assert raised.value.details[0] == "ValueError: it does not know this one"


def test_nobody_who_sees_other_files_takes_part(
    two_nodes: Nodes, config_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of()
    place_of = cluster.Place
    monkeypatch.setattr(
        cluster, "Place", lambda folder, files, device: place_of(folder, (*files, "/no/such/teacher.pt"), device)
    )
    with pytest.raises(ConfigError, match=r"cannot take part") as raised:
        score_on_cluster(config, two_nodes.how())
    assert any(line.endswith("there is no /no/such/teacher.pt") for line in raised.value.details)
    assert done(config.score_store) == 0


def test_options_that_ray_does_not_know_are_refused(two_nodes: Nodes, config_of: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="Ray does not take these options of a worker"):
        score_on_cluster(config_of(), two_nodes.how(options={"gpus": 1}))


class Broken:
    """A worker that never comes up."""

    def __init__(self, *given: object) -> None:
        raise RuntimeError("a library is missing")

    def hello(self) -> None: ...


def test_workers_that_never_come_up_are_told(
    two_nodes: Nodes, config_of: Callable[..., Any], heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_cluster, "_Worker", Broken)
    with pytest.raises(TeachclipError, match="no worker of this cluster comes up"):
        score_on_cluster(config_of(), two_nodes.how(), heard)
    assert any(line.startswith("a worker did not come up") for line in heard.warnings)


def test_no_such_cluster(config_of: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="there is no Ray cluster to use") as raised:
        score_on_cluster(config_of(), OnCluster("127.0.0.1:1"))
    assert raised.value.where == "127.0.0.1:1"


def test_local_is_a_cluster_of_its_own(two_nodes: Nodes) -> None:
    """Though another one is there on this machine, which is used as before afterwards."""
    before = os.environ.get("RAY_AUTH_MODE")
    with connected(LOCAL) as ray:
        assert ray.get_runtime_context().gcs_address != two_nodes.cluster.address
        assert [node["Resources"].get("CPU", 0) for node in ray.nodes()] == [ray.cluster_resources()["CPU"]]
    assert os.environ.get("RAY_AUTH_MODE") == before
    with connected(two_nodes.cluster.address) as ray:
        assert ray.get(ray.remote(lambda: "answered").remote(), timeout=120) == "answered"


class Counting(Silent):
    """A reporter that does something whenever a part is done."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Any:
        counted = super().progress(title, total, unit, done)
        counted.advance = lambda n=1, **fields: self.act()  # type: ignore[method-assign]
        return counted


def test_a_node_is_killed_and_another_joins(config_of: Callable[..., Any], expected: dict[str, str]) -> None:
    nodes, config = Nodes(2), config_of(pause=0.5)
    killed: list[Any] = []

    def act() -> None:
        if not killed and done(config.score_store):
            killed.append(nodes.nodes[0])
            nodes.kill(nodes.nodes[0])
            nodes.add()

    try:
        score_on_cluster(config, nodes.how(), Counting(act))
        assert killed
        assert tree(config.score_store) == expected
    finally:
        nodes.cluster.shutdown()


def test_a_command_that_is_killed_goes_on(
    two_nodes: Nodes, config_of: Callable[..., Any], expected: dict[str, str], numbered: Path
) -> None:
    config = config_of(pause=0.5)
    (numbered / "own.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "teachclip", "score", "own.yaml", "--ray", two_nodes.cluster.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        until = time.monotonic() + 200
        while not done(config.score_store) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert 0 < done(config.score_store) < 5
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert tree(config.score_store) == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_workers_are_killed(
    two_nodes: Nodes, config_of: Callable[..., Any], expected: dict[str, str], numbered: Path
) -> None:
    """At random moments; each costs at most what it had under way."""
    rng, killed, stores = random.Random(0), set[int](), 0

    def act() -> None:
        alive = [worker for worker in loaded_by(numbered) if worker not in killed and Path(f"/proc/{worker}").exists()]
        if alive and len(killed) < 20 and rng.random() < 0.1:
            killed.add(chosen := rng.choice(alive))
            os.kill(chosen, signal.SIGKILL)

    while len(killed) < 20:
        config = config_of(f"scores-{stores}.zarr", pause=0.3)
        score_on_cluster(config, two_nodes.how(), Counting(act))
        assert tree(config.score_store) == expected
        stores += 1
