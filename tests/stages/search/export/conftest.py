"""An index of five windows of three clips."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter

WIDTH = 12
MODEL = Model("/runs/student", "d" * 64, WIDTH, 3)

type Fill = Callable[[Mapping[str, Sequence[int]]], Path]


def unit(seed: int, width: int = WIDTH) -> np.ndarray:
    """A unit vector float32 [D]."""
    made = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    return made / np.linalg.norm(made)


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """`fill({"a.mp4": (1, 2)})`: the index then has these clips, a window for each seed, beside what it had."""

    def run(clips: Mapping[str, Sequence[int]]) -> Path:
        (tmp_path / "clips").mkdir(exist_ok=True)
        with LibraryWriter.claim(tmp_path / "index", MODEL) as writer:
            for name, seeds in clips.items():
                path = tmp_path / "clips" / name
                path.touch()
                content = max(seeds).to_bytes(16)
                windows = [
                    NewWindow(15.0 * k, 15.0 * k + 30, 15.0 * k + np.arange(3.0), None, unit(seed))
                    for k, seed in enumerate(seeds)
                ]
                writer.keep(Video(0, str(path), 10, 1, content, 60.0, "ok", "", 2), windows)
            writer.finish()
        return tmp_path / "index"

    return run


@pytest.fixture
def index(fill: Fill) -> Path:
    """Five windows; one clip's name has a blank and a letter that is no ASCII."""
    return fill({"a.mp4": (1, 2), "b ü.mp4": (3,), "c.mp4": (4, 5)})
