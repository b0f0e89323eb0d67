"""A Ray cluster of several nodes on this machine fills a library: the rows of a plain run, whatever dies meanwhile.

Runs alone, as Ray starts some ten processes: `make test-extras`.
"""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from teachclip.errors import ConfigError
from teachclip.stages.search.library import cluster
from teachclip.stages.search.library.cluster import index_on_cluster
from teachclip.stages.search.library.stage import VideosIndexed

from ...conftest import CLUSTER, Nodes, kill_one_that_decodes
from .conftest import rows

pytestmark = CLUSTER


def shared_out(root: Path, nodes: Nodes, **options: Any) -> VideosIndexed:
    given = {"model": str(root / "student"), "how": nodes.how(), "device": "cpu", **options}
    return index_on_cluster([str(root / "clips")], root / "shared", **given)


def test_workers_make_the_library_of_a_plain_run(two_nodes: Nodes, root: Path, heard: Any) -> None:
    result = shared_out(root, two_nodes, reporter=heard)
    assert (result.counts, result.decoded, result.windows) == ({"ok": 4, "corrupt": 1}, 5, 9)
    assert "Ray: 2 workers on cpu" in heard.infos
    assert rows(root / "shared") == rows(root / "index")
    assert shared_out(root, two_nodes, model=None).unchanged == 5


def test_a_node_that_does_not_see_the_videos_is_refused(
    two_nodes: Nodes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_of = cluster.Place
    monkeypatch.setattr(
        cluster, "Place", lambda folder, files, device: place_of(folder, (*files, "/elsewhere/0.mp4"), device)
    )
    with pytest.raises(ConfigError, match="cannot take part") as raised:
        shared_out(root, two_nodes)
    assert any(line.endswith(": there is no /elsewhere/0.mp4") for line in raised.value.details)
    assert rows(root / "shared") == []


def test_a_worker_is_killed_while_it_decodes(two_nodes: Nodes, root: Path) -> None:
    killed = list[int | None]()
    killing = threading.Thread(target=lambda: killed.append(kill_one_that_decodes()))
    killing.start()
    shared_out(root, two_nodes)
    killing.join()
    assert killed[0] is not None
    assert rows(root / "shared") == rows(root / "index")


def test_a_command_that_is_killed_goes_on(two_nodes: Nodes, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    command = [
        *(sys.executable, "-m", "teachclip", "index", "clips", "--model", "student", "--out", "shared"),
        *("--ray", two_nodes.cluster.address),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        until = time.monotonic() + 300
        while not _put_down(root) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        said = running.communicate()
    before = _put_down(root)
    assert before, said
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert f'"unchanged": {before}' in ended.stdout
    assert rows(root / "shared") == rows(root / "index")


def _put_down(root: Path) -> int:
    """How many videos the library has."""
    try:
        with closing(sqlite3.connect(f"file:{root}/shared/index.sqlite?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM videos").fetchone()[0])
    except sqlite3.Error:
        return 0
