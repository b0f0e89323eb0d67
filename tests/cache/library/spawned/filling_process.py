"""Fills a library video by video until it is killed: `filling_process.py FOLDER FIRST`; tells each one that is kept."""

import itertools
import sys
from pathlib import Path

import numpy as np
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter

WIDTH = 16


def vector(seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=WIDTH)
    return made / np.linalg.norm(made)


def tell(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def fill(folder: Path, first: int) -> None:
    with LibraryWriter.claim(folder, Model("runs/a", "a" * 64, WIDTH, 4)) as writer:
        tell("ready")
        for k in itertools.count(first):
            times = np.arange(4.0)
            windows = [NewWindow(15.0 * w, 15.0 * w + 30, times, None, vector(3 * k + w)) for w in range(3)]
            writer.keep(Video(0, f"/videos/{k}.mp4", 1, 1, bytes([k % 250]) * 16, 60.0, "ok", "", 2), windows)
            tell(k)
            if k % 7 == 0:
                writer.finish()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
