"""Clips whose frames show their own number, in many containers and codecs, and their damaged forms; who hears it."""

import csv
import importlib.util
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from teachclip.configs.schema import Config, DataConfig, PrepareConfig
from teachclip.stages.runtime.cluster import OnCluster, Place
from teachclip.stages.runtime.reporting import Remembered

SIDE = 96


def numbered(count: int, side: int = SIDE) -> np.ndarray:
    """uint8 [N, side, side, 3]: frame k shows the nine bits of k as a 3 x 3 grid, under moving noise."""
    cell = side // 3
    bits = (np.arange(count)[:, None] >> np.arange(9)) & 1
    grid = np.where(bits, 220, 30).astype(np.uint8).reshape(count, 3, 3)
    gray = grid.repeat(cell, axis=1).repeat(cell, axis=2)
    colour = np.stack([gray, gray, np.broadcast_to(np.linspace(0, 255, 3 * cell, dtype=np.uint8), gray.shape)], axis=-1)
    padded = np.pad(colour, ((0, 0), (0, side - 3 * cell), (0, side - 3 * cell), (0, 0)), "edge")
    grain = np.random.default_rng(0).integers(0, 30, (side, side, 1), dtype=np.uint8)
    return padded // 2 + 40 + np.stack([np.roll(grain, 5 * k, axis=1) for k in range(count)])


def shown_number(image: np.ndarray) -> int:
    """The number that a frame uint8 [3, S, S] shows."""
    cell = image.shape[1] // 3
    centre = slice(cell // 4, 3 * cell // 4)
    cells = image[0, : 3 * cell, : 3 * cell].reshape(3, cell, 3, cell)[:, centre, :, centre]
    return int(((cells.mean(axis=(1, 3)).reshape(9) > 125) << np.arange(9)).sum())


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    *,
    fps: int = 10,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    gop: int | None = 10,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    pixels: str | None = None,
) -> Path:
    """Write `frames` as a video; `times` in milliseconds makes its rate variable, `pixels` is FFmpeg's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=fps, options={"threads": "1", **_repeatable(codec, options or {})})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels or {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        if gop is not None:
            stream.gop_size = gop
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def _repeatable(codec: str, options: dict[str, str]) -> dict[str, str]:
    """x264's macroblock tree gives other bytes from run to run."""
    if codec != "libx264":
        return options
    return options | {"x264-params": ":".join(filter(None, [options.get("x264-params"), "mbtree=0"]))}


@pytest.fixture(scope="session", name="numbered")
def _numbered() -> Callable[..., np.ndarray]:
    return numbered


@pytest.fixture(scope="session", name="shown_number")
def _shown_number() -> Callable[[np.ndarray], int]:
    return shown_number


@pytest.fixture(scope="session", name="encode")
def _encode() -> Callable[..., Path]:
    return encode


@pytest.fixture
def every_frame() -> PrepareConfig:
    """Keeps all frames as they are."""
    return PrepareConfig(image_size=SIDE, sample_fps=0, max_frames=500, workers=1)


class Collection:
    """A folder of clips with a caption file, and the configuration that prepares it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.videos = root / "videos"
        self.videos.mkdir()
        self.rows: list[tuple[str, str]] = []

    def clip(self, name: str, count: int = 12, first: int = 0) -> Path:
        """A clip at 4 fps showing numbers from `first` on, with a caption."""
        self.caption(name)
        return self.encode(name, count, first)

    def encode(self, name: str, count: int = 12, first: int = 0) -> Path:
        """The same without a caption, or in place of a clip that has one."""
        return encode(self.videos / name, numbered(first + count)[first:], fps=4)

    def caption(self, *names: str) -> None:
        self.rows += [(name, f"what {name} shows") for name in names]
        with (self.root / "captions.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("video", "caption"), *self.rows])

    def config(self, **prepare: Any) -> Config:
        settings = {"image_size": SIDE, "max_frames": 3, "workers": 1, "shard_videos": 2, **prepare}
        data = DataConfig(captions=self.root / "captions.csv", videos=self.videos)
        return Config(work=self.root / "work", data=data, prepare=PrepareConfig(**settings))


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


@pytest.fixture
def heard() -> Remembered:
    return Remembered()


CLUSTER = [
    pytest.mark.extras,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: make test-extras"),
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="a cluster is tested alone: make test-extras"),
    pytest.mark.timeout(600),
]
"""Marks of tests of a Ray cluster, which starts some ten processes."""


class Nodes:
    """A cluster on this machine, each of whose nodes is a process of its own with one CPU."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.add() for _ in range(count)]

    def add(self, **settings: Any) -> Any:
        return self.cluster.add_node(num_cpus=1, **settings)

    def kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def how(self, **more: Any) -> OnCluster:
        return OnCluster(self.cluster.address, **more)


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[Nodes]:
    nodes = Nodes(2)
    yield nodes
    nodes.cluster.shutdown()


def kill_one_that_decodes(seconds: float = 120) -> int | None:
    """Wait for a worker of a cluster of ours whose processes decode, and kill it; its number."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for child, parents in _above().items():
            worker = parents[0] if parents else 0
            if os.getpid() in parents and b"--multiprocessing-fork" in _line(child) and b"_Worker" in _line(worker):
                os.kill(worker, signal.SIGKILL)
                return worker
        time.sleep(0.01)
    return None


def _above() -> dict[int, list[int]]:
    """Every process with those above it, nearest first."""
    parent: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue

    def above(process: int) -> Iterator[int]:
        while process := parent.get(process, 0):
            yield process

    return {process: list(above(process)) for process in parent}


def _line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    """`without_ray(module)`: what it has a cluster do is done here, the last task first; what crosses Ray is copied."""

    def here(
        ray: object, how: OnCluster, place: Place, make: Callable[..., Any], arguments: Any, tasks: Any, reporter: Any
    ) -> Iterator[Any]:
        assert [file for file in place.files if not Path(file).exists()] == []
        work = make(*_copied(arguments))
        for task in reversed(tasks):
            yield _copied(work(_copied(task)))

    def replace(module: ModuleType) -> None:
        monkeypatch.setattr(module, "connected", lambda address: nullcontext())
        monkeypatch.setattr(module, "on_cluster", here)
        monkeypatch.setattr(module, "room", lambda *_: 2, raising=False)

    return replace


def _copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301
