"""A Ray cluster of several nodes on this machine decodes: the cache of a plain run, whatever dies meanwhile.

Runs alone, as Ray starts some ten processes: `make test-extras`.
"""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.errors import ConfigError
from teachclip.stages.prepare import cluster
from teachclip.stages.prepare.cluster import prepare_on_cluster
from teachclip.stages.prepare.stage import prepare

from ..conftest import CLUSTER, Nodes, kill_one_that_decodes

pytestmark = CLUSTER


def shards(config: Config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(config.frames_folder.glob("[0-9]*.h5"))}


@pytest.fixture
def many(collection: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Clips, a file that is missing and one that is none; the current folder is theirs, too."""
    collection.clip("0.mp4", 24)
    collection.caption("gone.mp4")
    (collection.videos / "page.mp4").write_text("<html>no</html>")
    collection.caption("page.mp4")
    for number in range(1, 8):
        collection.clip(f"below/{number}.mp4", 10 + number, first=10 * number)
    monkeypatch.chdir(collection.root)
    return collection


def test_workers_make_the_cache_of_a_plain_run(two_nodes: Nodes, many: Any, heard: Any) -> None:
    plain, shared = many.config(), many.config(frames="shared")
    expected = prepare(plain)
    result = prepare_on_cluster(shared, two_nodes.how(), heard)
    assert (result.counts, result.left_out) == (expected.counts, expected.left_out)
    assert result.counts == {"ok": 8, "missing": 1, "corrupt": 1}
    assert shards(shared) == shards(plain)
    assert (shared.frames_folder / "frames.json").read_bytes() == (plain.frames_folder / "frames.json").read_bytes()
    assert heard.infos == ["Ray: 2 workers on cpu"]
    assert not list(shared.frames_folder.glob(".workers-*"))


def test_a_node_that_does_not_see_the_videos_is_refused(
    two_nodes: Nodes, many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, and before anything is decoded."""
    config, place_of = many.config(), cluster.Place
    asked: list[str] = []

    def elsewhere(folder: str, files: tuple[str, ...], device: Any) -> Any:
        asked.extend(files)
        return place_of(folder, (*files, "/elsewhere/0.mp4"), device)

    monkeypatch.setattr(cluster, "Place", elsewhere)
    with pytest.raises(ConfigError, match="cannot take part") as raised:
        prepare_on_cluster(config, two_nodes.how())
    assert any(line.endswith(": there is no /elsewhere/0.mp4") for line in raised.value.details)
    assert {Path(file).parent for file in asked} == {many.videos, many.videos / "below", config.frames_folder}
    assert shards(config) == {}


def test_a_worker_is_killed_while_it_decodes(two_nodes: Nodes, many: Any) -> None:
    plain, shared, killed = many.config(), many.config(frames="shared"), list[int | None]()
    prepare(plain)
    killing = threading.Thread(target=lambda: killed.append(kill_one_that_decodes()))
    killing.start()
    prepare_on_cluster(shared, two_nodes.how())
    killing.join()
    assert killed[0] is not None
    assert shards(shared) == shards(plain)


def test_a_command_that_is_killed_goes_on(two_nodes: Nodes, many: Any) -> None:
    plain, shared = many.config(), many.config(frames="shared")
    prepare(plain)
    Path("own.yaml").write_text(dump_config(shared))
    command = [sys.executable, "-m", "teachclip", "prepare", "own.yaml", "--ray", two_nodes.cluster.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        until = time.monotonic() + 200
        while not shards(shared) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert 0 < len(shards(shared)) < 5
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert shards(shared) == shards(plain)
    assert (shared.frames_folder / "frames.json").read_bytes() == (plain.frames_folder / "frames.json").read_bytes()
