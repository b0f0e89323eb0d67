"""Servers of stores: they fail, refuse, are silent, or know neither lists nor parts of files."""

import http.server
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.exchange.packing import Export, Import
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage import locations
from teachclip.errors import CacheError, UnreachableError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128


FAULTS = [
    (403, r"the server refuses \(PERMISSION_DENIED: "),
    (500, "the server cannot be reached or fails"),
    (503, "the server cannot be reached or fails"),
    ("gone", "the server cannot be reached or fails"),
    ("short", "the server cannot be reached or fails"),
    ("silent", "the server does not answer in time"),
]


def test_a_server_that_fails_is_told_from_damage(put, relay, monkeypatch, tmp_path: Path) -> None:
    made, url = put(texts=8)
    reader = ScoreStore.open(url).teacher("tiny").reader(made.texts, made.videos)
    check, exporting = Check(url), Export(url, "tiny", tmp_path / "out")
    asked = [
        lambda: reader.read(np.arange(8), np.arange(9)),
        lambda: ScoreStore.open(url),
        check.run,
        exporting.run,
        lambda: Export(made.path, "tiny", f"{url}-export").run(),
    ]
    for fault, why in FAULTS:
        relay.fault = fault
        monkeypatch.setattr(locations, "PATIENCE", 0.5 if fault == "silent" else 100.0)
        for ask in asked if fault == 500 else asked[:2]:
            with pytest.raises(UnreachableError, match=why) as caught:
                ask()
            assert "give the same command again" in caught.value.hint
    assert not (tmp_path / "out").exists()
    relay.fault = None
    monkeypatch.setattr(locations, "PATIENCE", 100.0)
    relay.released.set()
    assert reader.read(np.arange(2), np.arange(2)).coarse.shape == (2, 2)  # it is there again: on we go


def test_who_may_not_read_is_told_so(put, bucket, monkeypatch, tmp_path: Path) -> None:
    """Without credentials requests are anonymous; with them they are signed."""
    _, url = put(texts=8)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(UnreachableError, match="the server refuses") as caught:
        ScoreStore.open(url)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(UnreachableError, match="there are no credentials"):
        ScoreStore.open(url)
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert ScoreStore.open(url).teachers == ("tiny",)


def test_ctrl_c_ends_a_verb_that_waits_for_a_silent_server(put, relay) -> None:
    _, url = put(texts=8)
    relay.fault = "silent"
    code = "from teachclip.pipeline.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "cache", "verify", url], stderr=subprocess.PIPE, text=True
    ) as verb:
        assert relay.asked.wait(120)
        time.sleep(0.3)
        verb.send_signal(signal.SIGINT)
        _, said = verb.communicate(timeout=0.7 * locations.PATIENCE)  # it would wait longer
    assert (verb.returncode, "stopped" in said) == (130, True), said


# Web servers


class Folder(http.server.SimpleHTTPRequestHandler):
    """Shows a folder; gives a part of a file where it is asked for one."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("Range")
        if asked is None or not path.is_file() or "whole" in path.parts:
            super().do_GET()
            return
        data = path.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(data) - int(last)
        part = data[start : int(last) + 1 if first and last else None]
        self.send_response(206 if part else 416)
        self.send_header("Content-Length", str(len(part)))
        end = f"{start}-{start + len(part) - 1}" if part else "*"
        self.send_header("Content-Range", f"bytes {end}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path, bucket) -> Iterator[str]:
    """A web server that knows no lists, and shows `tmp_path`; below `whole`, it knows no parts of files either."""
    server = Server(("127.0.0.1", 0), partial(Folder, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_export_on_a_web_server_is_read_checked_and_taken_in(make_store, web: str, tmp_path: Path) -> None:
    made = make_store(texts=8)
    Export(made.path, "tiny", tmp_path / "out").run()
    there = ScoreStore.open(f"{web}/out/scores.zarr").teacher("tiny")
    labels = there.reader(made.texts, made.videos).read(np.arange(8), np.arange(13))
    mine = made.cache.reader(made.texts, made.videos).read(np.arange(8), np.arange(13))
    np.testing.assert_array_equal(labels.coarse, mine.coarse)
    assert Check(f"{web}/out/scores.zarr", full=True).run().findings == ()
    Import(f"{web}/out", tmp_path / "new.zarr").run()
    assert contents(tmp_path / "new.zarr") == contents(tmp_path / "out/scores.zarr")
    with pytest.raises(CacheError, match="a web server is only read"):
        Export(made.path, "tiny", f"{web}/more")
    with pytest.raises(CacheError, match="a web server does not list its files"):
        _ = ScoreStore.open(f"{web}/s.zarr").teachers
    (tmp_path / "whole").mkdir()
    (tmp_path / "out").rename(tmp_path / "whole/out")
    with pytest.raises(UnreachableError, match="ignored by server"):
        ScoreStore.open(f"{web}/whole/out/scores.zarr").teacher("tiny").reader(made.texts, made.videos)
