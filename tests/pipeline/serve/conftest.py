"""A small index that is served over real HTTP, by a server in a thread."""

import csv
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from teachclip.cache.library.library import Library
from teachclip.configs.schema import Config
from teachclip.pipeline.serve.access import Access
from teachclip.pipeline.serve.app import application
from teachclip.pipeline.serve.server import bound, server
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search.serving.from_frames import index_frames
from teachclip.stages.search.serving.open_index import OpenIndex
from teachclip.stages.search.serving.workbench import Workbench

from ..report.conftest import browser as browser

TOKEN = "a-token-of-many-letters"
NASTY = "<img src=x onerror=alert(1)>&amp;.mp4"
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 80, 230), (230, 220, 60), (240, 240, 240), (150, 50, 180))
SIZES = {
    "image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 2,
    "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16,
}  # fmt: skip
NETWORK = {"trunk": {"sizes": SIZES, "weights": None}, "words": 10, "frames": 4, "temporal_layers": 1}


def pictures(colour: tuple[int, int, int], count: int = 40) -> np.ndarray:
    """A square that moves over grey [N, 96, 160, 3]."""
    video = np.full((count, 96, 160, 3), 90, np.uint8)
    for k in range(count):
        video[k, 30:66, 3 * k : 3 * k + 36] = colour
    return video


def write_avi(path: Path, frames: np.ndarray) -> None:
    """MPEG-4 in AVI, which no browser plays."""
    write_other(path, frames, "mpeg4", "avi")


def write_other(path: Path, frames: np.ndarray, codec: str, container: str, sound: bool = False) -> None:
    """A clip of ten pictures a second in another codec or container than browsers like; with silence if asked for."""
    with av.open(str(path), "w", format=container) as file:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = file.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if sound:
            silence = file.add_stream("aac", rate=48000, layout="mono")
            for at in range(0, 4800 * len(frames), 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                samples.sample_rate, samples.pts = 48000, at
                file.mux(silence.encode(samples))
            file.mux(silence.encode())
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        file.mux(stream.encode())


@dataclass(frozen=True)
class Shelf:
    """Clips and their index."""

    root: Path
    config: Config

    @property
    def clips(self) -> Path:
        return self.root / "clips"

    @property
    def folder(self) -> Path:
        return self.root / "work/library"

    def row(self, name: str) -> int:
        """The window of a clip."""
        with Library.open(self.folder) as library:
            return library.windows_of(self.clips / name)[0].row


def make_shelf(root: Path) -> Shelf:
    """Six clips, one of them with a name like HTML, one an AVI, and the student that indexed them."""
    (root / "clips").mkdir(parents=True)
    names = [f"clip-{k}.mp4" for k in range(4)] + [NASTY, "old.avi"]
    for name, colour in zip(names, COLOURS, strict=True):
        write = write_avi if name.endswith("avi") else lambda path, frames: write_h264(path, frames, fps=10)
        write(root / "clips" / name, pictures(colour))
    with (root / "captions.csv").open("w", newline="") as file:
        rows = [(f"clips/{name}", f"clip number {k}") for k, name in enumerate(names)]
        csv.writer(file).writerows([("video", "caption"), *rows])
    config = Config.model_validate(
        {
            "work": root / "work",
            "data": {"captions": root / "captions.csv"},
            "prepare": {"image_size": 32, "max_frames": 4, "workers": 1},
            "train": {"network": NETWORK, "device": "cpu"},
            "search": {"run": "runs/student", "device": "cpu"},
        }
    )
    prepare(config)
    torch.manual_seed(3)
    run = config.search_run
    run.mkdir(parents=True)
    save_network(build_network(config.train.network), run / "best.safetensors")
    index_frames(config, Silent())
    return Shelf(root, config)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Not to be changed."""
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def own_shelf(tmp_path: Path) -> Shelf:
    """To be changed."""
    return make_shelf(tmp_path / "shelf")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def what(self) -> str:
        """What an error says."""
        said: str = self.json["error"]["what"]
        return said


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int
    index: OpenIndex | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request; `Content_Type` stands for Content-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def hand_in(self, content: bytes, name: str = "clip.mp4", under: str = "", **headers: str) -> Answer:
        """A clip to search by."""
        body = multipart(content, name)
        given = {"Content_Type": "multipart/form-data; boundary=edge", **headers}
        return self.ask(f"/api/search/clip?under={under}" if under else "/api/search/clip", "POST", body, **given)


def multipart(content: bytes, name: str = "clip.mp4", field: str = "clip") -> bytes:
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--edge--\r\n"


type Serve = Callable[..., Any]


@contextmanager
def serving(index: OpenIndex | None, token: str | None = None, **settings: Any) -> Iterator[Served]:
    """A server on a free port of loopback."""
    socket = bound("127.0.0.1", 0)
    port = socket.getsockname()[1]
    with Workbench(1) as bench, socket:
        running = server(application(index, bench, Access.of("127.0.0.1", port, (), token), **settings))
        thread = threading.Thread(target=lambda: running.run(sockets=[socket]))
        thread.start()
        try:
            end = time.monotonic() + 120
            while not running.started:
                assert thread.is_alive()
                assert time.monotonic() < end
                time.sleep(0.01)
            yield Served(port, index)
        finally:
            running.should_exit = True
            thread.join(120)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def served(shelf: Shelf) -> Iterator[Served]:
    """The shelf, without a token."""
    index = OpenIndex.open(shelf.folder)
    with serving(index) as running:
        yield running
    index.close()


@pytest.fixture(scope="session")
def guarded(shelf: Shelf) -> Iterator[Served]:
    """The shelf, for those who say the token; bodies must be small."""
    index = OpenIndex.open(shelf.folder)
    with serving(index, TOKEN, upload_bytes=200_000) as running:
        yield running
    index.close()


@pytest.fixture
def save_picture() -> Callable[[str, bytes], None]:
    """Keeps a picture of the page where TEACHCLIP_PICTURES names a folder, to be looked at."""

    def save(name: str, png: bytes) -> None:
        if folder := os.environ.get("TEACHCLIP_PICTURES"):
            Path(folder, f"{name}.png").write_bytes(png)

    return save
