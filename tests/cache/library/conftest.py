"""A library of some vectors, and how to fill one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter

from .spawned.filling_process import vector

WIDTH = 16
MODEL = Model("runs/a", "a" * 64, WIDTH, 4)
FILLING = Path(__file__).parent / "spawned/filling_process.py"


def video(path: str | Path, content: int = 1, mtime: int = 1, status: Any = "ok", size: int = 10) -> Video:
    return Video(0, str(path), size, mtime, bytes([content]) * 16, 60.0, status, "", 2)


def some(*seeds: int, weights: bool = True) -> list[NewWindow]:
    shares = np.array([0.5, 0.25, 0.25, 0.0]) if weights else None
    return [
        NewWindow(15.0 * k, 15.0 * k + 30, 15.0 * k + np.arange(4.0), shares, vector(seed))
        for k, seed in enumerate(seeds)
    ]


def fill(folder: Path, videos: dict[str, Sequence[int]], model: Model = MODEL) -> None:
    with LibraryWriter.claim(folder, model) as writer:
        for k, (path, seeds) in enumerate(videos.items(), 1):
            writer.keep(video(path, content=k, mtime=k * 10**9), some(*seeds))
        writer.finish()


def claimed(folder: Path) -> None:
    """Somebody opens a library to write and goes."""
    with LibraryWriter.claim(folder, MODEL):
        pass


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with files of some names, which a search looks for."""
    for name in ("a/1.mp4", "a/2.mp4", "ab/3.mp4", "b/ü\udce9.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    return tmp_path / "clips"


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    names = {"a/1.mp4": (1, 2), "a/2.mp4": (3,), "ab/3.mp4": (4,), "b/ü\udce9.mp4": (5, 6, 7)}
    fill(tmp_path / "index", {str(clips / name): seeds for name, seeds in names.items()})
    return tmp_path / "index"


def found(library: Library, seed: int, top: int = 3, **filters: Any) -> list[tuple[str, float]]:
    return [(Path(hit.window.path).name, hit.window.start) for hit in library.search(vector(seed), top, **filters)]
