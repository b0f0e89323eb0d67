"""A small store with known scores, made without a teacher; and what the tests of faults share."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.scores.tile import Key, Tile, TileContents
from teachclip.cache.storage.identity import JSON, digest, text_digest

IDENTITY: dict[str, JSON] = {"weights": "aa" * 16, "score_version": 1, "words": 8, "frames.choice": "uniform"}


@dataclass
class Made:
    """A store beside the scores that were put into it."""

    path: Path | str
    texts: list[Key]
    videos: list[Key]
    coarse: np.ndarray
    fine: np.ndarray
    own: np.ndarray

    @property
    def cache(self) -> ScoreCache:
        return ScoreStore.open(self.path).teacher("tiny")

    @property
    def tile(self) -> Tile:
        return self.cache.tiles[0]

    def write(self, *shards: int) -> None:
        for shard in shards:
            rows = self.tile.spec.rows(shard)
            write_shard(self.tile, shard, self.coarse[rows.start : rows.stop], self.fine[rows.start : rows.stop])


type Make = Callable[..., Made]


def keys(texts: int, videos: int) -> tuple[list[Key], list[Key], np.ndarray]:
    """Captions and videos with ids and digests, and each caption's own video."""
    own = np.arange(texts) * 7 % videos
    text_keys = [(f"clips/v{own[i]}.mp4#{i}", text_digest(f"caption {i} ä")) for i in range(texts)]
    video_keys = [(f"clips/v{j}.mp4", digest(f"frames {j}".encode())) for j in range(videos)]
    return text_keys, video_keys, own


@pytest.fixture
def make_store(tmp_path: Path) -> Make:
    """Makes a store of one teacher `tiny` with one tile; `shards` are written (by default all). `where`: not here."""

    def make(
        texts: int = 21,
        videos: int = 13,
        dtype: str = "uint16",
        shards: tuple[int, ...] | None = None,
        name: str = "s",
        where: str | None = None,
    ) -> Made:
        rng = np.random.default_rng(texts * 1000 + videos)
        text_keys, video_keys, own = keys(texts, videos)
        coarse = rng.normal(0.3, 0.05, (texts, videos)).astype(np.float32)
        fine = rng.normal(0.2, 0.05, (texts, 4)).astype(np.float32)
        path = where or tmp_path / f"{name}.zarr"
        store = ScoreStore.create(path)
        cache = store.create_teacher("tiny", IDENTITY, 100.0, dtype, 4, True)  # type: ignore[arg-type]
        times = np.tile(np.arange(4.0), (videos, 1))
        times[::3, 2:] = np.nan
        cache.create_tile("dense", TileContents(text_keys, video_keys, own, times), shard_texts=8)
        made = Made(path, text_keys, video_keys, coarse, fine, own)
        made.write(*(range(made.tile.spec.shards) if shards is None else shards))
        return made

    return make


@pytest.fixture
def put(bucket, make_store: Make):
    """A store, put into the bucket as `s.zarr`; and its address."""

    def made(**options: object) -> tuple[Made, str]:
        store = make_store(**options)
        bucket.put(store.path, "s.zarr")
        return store, f"{bucket.url}/s.zarr"

    return made


def _load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "faults" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def disk() -> ModuleType:
    """The module faulty_disk.py."""
    return _load("faulty_disk")


@pytest.fixture(scope="session")
def writers(disk: ModuleType) -> ModuleType:
    """The module store_writers.py."""
    return _load("store_writers")


@pytest.fixture(scope="session")
def reference(writers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that `writers.work` makes when nothing interrupts it; do not write into it."""
    path = tmp_path_factory.mktemp("reference") / "scores.zarr"
    writers.work(path)
    return path


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Reads a folder: path -> bytes of each file; what killed writers leave does not count."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        return {str(p): (folder / p).read_bytes() for p in files if not any(n.startswith(".tmp-") for n in p.parts)}

    return read


class Server:
    """A warm process that forks writers; see store_writers.py."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def start(self, path: Path, log: Path, at: int | None = None, count: int = 1) -> list[int]:
        """Process ids of writers that have just begun."""
        return self._ask(json.dumps({"path": str(path), "log": str(log), "at": at, "count": count}))

    def wait(self) -> list[int]:
        """Statuses of the writers that were started last."""
        return self._ask("")

    def run(self, path: Path, log: Path, at: int | None = None, count: int = 1) -> list[int]:
        self.start(path, log, at, count)
        return self.wait()

    def _ask(self, line: str) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="session")
def server(writers) -> Iterator[Server]:
    server = Server(writers.__file__)
    with server.process:
        yield server
    assert server.process.returncode == 0
