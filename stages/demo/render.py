"""Writes the demo's data set: H.264 clips of one frame a second, and captions.csv."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.storage.publish import publish
from ...configs.schema import ShapesConfig
from ..runtime.reporting import Reporter, Silent
from .shapes import make_clip
from .write_h264 import write_h264

CRF = 14  # nearly lossless: the clips are small
THREADS = 2


@dataclass(frozen=True)
class RenderResult:
    """The captions' file, the number of clips, and how many of them this run drew."""

    captions: str
    clips: int
    drawn: int


def render(config: ShapesConfig, folder: Path, reporter: Reporter | None = None) -> RenderResult:
    """Draw what is missing of the clips in `folder`/clips, then write `folder`/captions.csv.

    Every clip has a random generator of its own, so that a stopped run goes on to the same files.
    """
    reporter = reporter or Silent()
    clips = [
        (f"clips/{split}{k:04d}.mp4", split, [config.seed, part, k])
        for part, (split, count) in enumerate(
            (("train", config.train_clips), ("val", config.val_clips), ("test", config.test_clips))
        )
        for k in range(count)
    ]

    def draw(item: tuple[str, str, list[int]]) -> tuple[str, str, tuple[str, ...], bool]:
        name, split, seed = item
        clip = make_clip(np.random.default_rng(seed), config.size, unseen=split != "train")
        missing = not (folder / name).exists()
        if missing:
            write_h264(folder / name, clip.frames, fps=1, crf=CRF)
        return name, split, clip.captions, missing

    path = folder / "captions.csv"
    if path.exists():
        return RenderResult(str(path), len(clips), 0)
    lines, drawn = io.StringIO(), 0
    writer = csv.writer(lines)
    writer.writerow(("video", "caption", "split"))
    with ThreadPoolExecutor(THREADS) as pool, reporter.progress("clips", len(clips), "clip") as progress:
        for name, split, captions, missing in pool.map(draw, clips):
            writer.writerows((name, caption, split) for caption in captions)
            drawn += missing
            progress.advance()
    publish(path, lines.getvalue().encode())
    return RenderResult(str(path), len(clips), drawn)
