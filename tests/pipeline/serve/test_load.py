"""Many clients while the index is written to: every question is answered, and nothing that was there is lost."""

import http.client
import json
import threading
from typing import Any

import numpy as np
import pytest
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import UNKNOWN, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter
from teachclip.stages.search.serving import open_index
from teachclip.stages.search.serving.open_index import OpenIndex

from .conftest import Shelf, serving

CLIENTS, QUESTIONS, WRITTEN = 32, 8, 60


def write(shelf: Shelf, width: int, done: list[str]) -> None:
    """More videos, one transaction each; one of the first is removed again."""
    with Library.open(shelf.folder) as library:
        model = library.model
    rng = np.random.default_rng(0)
    with LibraryWriter.claim(shelf.folder, model) as writer:
        for k in range(WRITTEN):
            path = shelf.clips / f"new-{k}.mp4"
            path.touch()
            vector = rng.normal(size=width)
            window = NewWindow(0.0, 1.0, np.arange(2.0), None, vector / np.linalg.norm(vector))
            id = writer.keep(Video(0, str(path), 0, 0, UNKNOWN, 1.0, "ok", "", 2), [window])
            if k == 0:
                writer.remove([id])
            else:
                done.append(path.name)
        writer.finish()


def test_clients_ask_while_the_index_is_written(own_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_index, "REFRESH_SECONDS", 0.05)
    index = OpenIndex.open(own_shelf.folder)
    row, before = own_shelf.row("clip-1.mp4"), set(map(int, index.library.rows))
    wrong: list[Any] = []
    written: list[str] = []
    whole = (own_shelf.clips / "clip-1.mp4").read_bytes()

    def client(port: int, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            for k in range(QUESTIONS):
                kind = (number + k) % 4
                path = (
                    "/api/search?q=clip%20number%201&top=200",
                    f"/api/windows/{row}/like?top=200",
                    f"/api/windows/{row}/video",
                    "/api/info",
                )[kind]
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    wrong.append((path, answer.status, body))
                elif kind == 2 and body != whole:
                    wrong.append("another video")
                elif kind < 2:
                    rows = {one["row"] for one in json.loads(body)["answers"]}
                    if lost := before - rows - ({row} if kind == 1 else set()):
                        wrong.append(lost)
        except Exception as error:
            wrong.append(error)
        finally:
            connection.close()

    with serving(index) as served:
        writer = threading.Thread(target=write, args=(own_shelf, index.library.model.width, written))
        clients = [threading.Thread(target=client, args=(served.port, k)) for k in range(CLIENTS)]
        for thread in (writer, *clients):
            thread.start()
        for thread in (writer, *clients):
            thread.join()
        assert wrong == []
        assert len(written) == WRITTEN - 1
        index._next = 0.0  # what is written is taken up now
        found = served.ask("/api/search?q=clip&top=200").json["answers"]
        there = {path.name for path in own_shelf.clips.iterdir()} - {"new-0.mp4"}
        assert {one["name"] for one in found} == there
        assert set(written) <= there
    index.close()
