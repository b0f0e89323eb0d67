"""A folder of clips of every length, drawn once, and a student that indexes them."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.search.library.stage import VideosIndexed, index_videos

from ..conftest import NETWORK, SIZE

type Index = Callable[..., VideosIndexed]

FRAMES = 12
SECONDS = {"long.mp4": 100, "a/short.mp4": 20, "a/brief.mp4": 3, "b/whole.mp4": 45}
"""Clips of one picture a second."""


def draw(path: Path, seconds: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (seconds, 2, 2, 3), dtype=np.uint8)
    write_h264(path, noise.repeat(SIZE // 2, 1).repeat(SIZE // 2, 2), fps=1)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, one that is none, and students `student` and `other`."""
    root = tmp_path_factory.mktemp("library")
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        (root / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        draw(root / "clips" / name, seconds, seed)
    (root / "clips/b/broken.mp4").write_bytes(b"<html>not found</html>")
    for seed, run in enumerate(("student", "other")):
        torch.manual_seed(seed)
        network = NetworkConfig.model_validate({**NETWORK, "frames": FRAMES})
        save_network(build_network(network), root / run / "best.safetensors")
    return root


def run_index(root: Path, *words: str, **options: Any) -> VideosIndexed:
    options = {"model": str(root / "student"), "device": "cpu", "workers": 1, **options}
    return index_videos(words or [str(root / "clips")], root / "index", **options)


@pytest.fixture(scope="session")
def indexed_once(drawn: Path) -> tuple[Path, VideosIndexed]:
    return drawn, run_index(drawn)


@pytest.fixture
def root(indexed_once: tuple[Path, VideosIndexed], tmp_path: Path) -> Path:
    """A copy of clips, students and index, where the clips' times are as they were; paths are those of the copy."""
    before = str(indexed_once[0])
    shutil.copytree(before, tmp_path / "place")
    connection = sqlite3.connect(tmp_path / "place/index/index.sqlite")
    connection.execute("UPDATE videos SET path = replace(path, ?, ?)", (before, str(tmp_path / "place")))
    connection.commit()
    connection.close()
    return tmp_path / "place"


@pytest.fixture
def index(root: Path) -> Index:
    """`index("folder", model=...)`; by default the clips with `student`."""
    return lambda *words, **options: run_index(root, *words, **options)


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """All that is known of videos and their windows, with the bytes of vectors; numbers of rows apart."""
    query = (
        "SELECT v.path, v.size, v.mtime_ns, v.blake2b, v.duration, v.status, v.reason, v.reader, "
        "w.start, w.stop, w.times, w.weights, w.vector, f.vectors FROM videos v "
        "LEFT JOIN windows w ON w.video = v.id LEFT JOIN frames f ON f.window = w.id ORDER BY v.path, w.start"
    )
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        return connection.execute(query).fetchall()
