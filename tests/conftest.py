"""Where the tests find their material: real data, a bucket, and a tiny world of clips, frames and scores."""

import csv
import gc
import http.client
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

# Before torch is imported, here and in processes that tests start: one thread each, since pytest-xdist keeps the cores
# busy and the last bits of a product depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from teachclip.configs.schema import Config
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.runtime.reporting import Silent

# A run in the background (nohup, `&`) ignores these, and the processes that tests stop with them would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]
SPAWNED = ROOT / "tests/stages/data/video/spawned"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, annotations and scores; tests that need it skip without it."""
    folder = Path(os.environ.get("TEACHCLIP_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}: set TEACHCLIP_SHARED to run this test")
    return folder


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Functions that worker processes can import: `spawned("hang_on")`."""
    monkeypatch.syspath_prepend(str(SPAWNED))
    return lambda name: getattr(importlib.import_module("readers_for_tests"), name)


@dataclass(frozen=True)
class Bucket:
    """A bucket on a real S3 server, and how to meddle with it; `server` is the server's address."""

    server: str
    name: str
    key_id: str = "owner"
    secret: str = "secret"

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    @property
    def port(self) -> int:
        return urlsplit(self.server).port or 80

    def request(self, method: str, key: str = "", data: bytes | None = None, **query: str) -> bytes:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        given = "&".join(f"{name.replace('_', '-')}={quote(value, safe='')}" for name, value in sorted(query.items()))
        path = f"/{self.name}{'/' * bool(key)}{quote(key)}{'?' * bool(given)}{given}"
        asked = AWSRequest(method, f"{self.server}{path}", data=data or b"")
        S3SigV4Auth(Credentials(self.key_id, self.secret), "s3", "us-east-1").add_auth(asked)
        server = urlsplit(self.server)
        kind = http.client.HTTPSConnection if server.scheme == "https" else http.client.HTTPConnection
        connection = kind(server.netloc, timeout=120)
        connection.request(method, path, data, dict(asked.headers))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status < 300, (method, key, answer.status, body)
        return body

    def listed(self, below: str = "") -> list[str]:
        """Every object whose key begins so."""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self.request("GET", list_type="2", prefix=below, **more).decode()
            found += re.findall("<Key>(.*?)</Key>", page)
            token = re.search("<NextContinuationToken>(.*?)</NextContinuationToken>", page)
            if token is None:
                return found
            more = {"continuation_token": token[1]}

    def contents(self, below: str) -> dict[str, bytes]:
        """The bytes of every object below a folder, by its path from there."""
        return {key.removeprefix(f"{below}/"): self.request("GET", key) for key in self.listed(f"{below}/")}

    def put(self, folder: Path, below: str) -> None:
        """Every file of a local folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.request("PUT", f"{below}/{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture(scope="session")
def durable_server() -> tuple[str, str, str] | None:
    """The address of a server that TEACHCLIP_S3_SERVER names, and who asks; None without."""
    names = ("TEACHCLIP_S3_SERVER", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    server, key_id, secret = (os.environ.get(name, "") for name in names)
    return (server.rstrip("/"), key_id, secret) if server else None


@contextmanager
def _stand_in() -> Iterator[str]:
    """The address of an S3 server in a process of its own, which keeps everything in memory."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@pytest.fixture(scope="session")
def s3_server(durable_server: tuple[str, str, str] | None) -> Iterator[tuple[str, str, str]]:
    """The address of an S3 server, and who asks: a stand-in of ours, or the one that the environment names."""
    if durable_server:
        yield durable_server
        return
    with _stand_in() as server:
        yield server, "somebody", "secret"


@pytest.fixture
def bucket(
    s3_server: tuple[str, str, str], durable_server: object, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    """An empty bucket; the environment says where its server is and who asks."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    server, key_id, secret = s3_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    made = Bucket(server, f"teachclip-{uuid.uuid4().hex}", key_id, secret)
    made.request("PUT")
    yield made
    if durable_server:
        for key in made.listed():
            made.request("DELETE", key)
        made.request("DELETE")


@pytest.fixture
def relay(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server in front of the S3 server that can be made to fail (relay.py); questions are repeated twice, quickly."""
    from teachclip.cache.storage import locations

    if urlsplit(bucket.server).hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("the relay stands in front of a server of this machine, and TEACHCLIP_S3_SERVER is elsewhere")
    spec = importlib.util.spec_from_file_location("relay", ROOT / "tests/relay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server(bucket.port)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(locations, "_RETRIES", {"max_retries": 2, "initial_delay": "10ms", "max_delay": "50ms"})
    locations.context.cache_clear()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    locations.context.cache_clear()


COLOURS = {
    "red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230), "yellow": (230, 220, 60),
    "white": (240, 240, 240), "purple": (150, 50, 180),
}  # fmt: skip
PLACES = {"left": (24, 4), "right": (24, 44), "top": (4, 24), "bottom": (44, 24)}
TRUNK = {
    "sizes": {
        "image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 2,
        "text_width": 16, "text_layers": 1, "embed_dim": 64, "context_length": 16,
    },
    "weights": None,
}  # fmt: skip


def clip(colour: str, place: str, frames: int) -> np.ndarray:
    """A coloured square at a place, on grey [N, 64, 64, 3]."""
    video = np.full((frames, 64, 64, 3), 90, np.uint8)
    top, left = PLACES[place]
    for k in range(frames):
        video[k, top : top + 16, left : left + 16] = COLOURS[colour]
        video[k, k * 4 : k * 4 + 3] = 160
    return video


@dataclass(frozen=True)
class World:
    """Where the tiny world lies, and configurations that live in it."""

    root: Path

    def config(self, **sections: dict[str, Any]) -> Config:
        """The world's configuration with `sections` merged in, one level deep."""
        network = {"trunk": TRUNK, "words": 10, "frames": 4, "temporal_layers": 1}
        base: dict[str, dict[str, Any]] = {
            "data": {"captions": self.root / "captions.csv"},
            "prepare": {"image_size": 32, "max_frames": 4, "workers": 1, "shard_videos": 8},
            "score": {"teachers": [{"name": "xclip", "checkpoint": "runs/xclip"}], "shard_texts": 16,
                      "chance_check": False},
            "train": {"network": network, "batch_size": 8, "epochs": 2, "optim": {"lr": 1e-3, "trunk_lr": 1e-3},
                      "device": "cpu"},
        }  # fmt: skip
        network.update(sections.get("train", {}).pop("network", {}))
        for name, values in sections.items():
            base.setdefault(name, {}).update(values)
        return Config.model_validate({"work": self.root / "work", **base})


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """24 clips (14 train, 4 val, 6 test), two captions each, one broken file; a teacher; scores in both precisions."""
    from teachclip.stages.prepare.stage import prepare
    from teachclip.stages.score.stage import score
    from teachclip.stages.train.stage import train

    root = tmp_path_factory.mktemp("world")
    rows = []
    for k, (colour, place) in enumerate((colour, place) for colour in COLOURS for place in PLACES):
        name = f"clips/{k:02d}.mp4"
        (root / "clips").mkdir(exist_ok=True)
        write_h264(root / name, clip(colour, place, 3 + k % 3), fps=1)
        split = "test" if k % 4 == 3 else "val" if k % 6 == 4 else "train"
        rows += [(name, f"a {colour} square at the {place}", split), (name, f"{place}: something {colour}", split)]
    (root / "clips/broken.mp4").write_bytes(b"<html>not found</html>")
    rows.append(("clips/broken.mp4", "nothing to see", "train"))
    with (root / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption", "split"), *rows])
    made = World(root)
    prepare(made.config())
    train(made.config(train={"run": "runs/xclip", "network": {"kind": "xclip"}, "epochs": 4}))
    score(made.config())
    score(made.config(score={"store": "exact.zarr", "coarse": "float32"}))
    return made


class _Stop(Exception):
    """Stands for a kill."""


class _StopsAfter(Silent):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Any:
        progress = super().progress(title, total, unit, done)
        if title.startswith("train"):

            def advance(n: int = 1, **fields: float | str) -> None:
                self.left -= n
                if self.left <= 0:
                    raise _Stop

            progress.advance = advance  # type: ignore[method-assign]
        return progress


@pytest.fixture(scope="session")
def train_until() -> Callable[[Config, int], None]:
    """`train_until(config, steps)`: a run that ends, as if killed, when it has gone on by at least that many steps."""
    from teachclip.stages.train.stage import train

    def run(config: Config, steps: int) -> None:
        with pytest.raises(_Stop):
            train(config, _StopsAfter(steps))

    return run


def pytest_collection_finish() -> None:
    """Libraries and collected tests live to the end: what looks for garbage need not walk them, each time a second."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Else libraries complain at the end of what was never freed."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need CUDA skip without it, and say so."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA, which torch does not see here: run `make test-gpu` on a machine with a GPU")
