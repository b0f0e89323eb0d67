"""Writes the demo's data sets: H.264 clips of one frame a second, and who has captions of which."""

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.storage.publish import publish
from ...configs.schema import ShapesConfig
from ..runtime.cores import cores
from ..runtime.reporting import Reporter, Silent
from .shapes import CAPTIONS, make_clip
from .write_h264 import write_h264

OWN, THEIRS = "captions.csv", "teacher.csv"
UNCAPTIONED = "uncaptioned"
CRF = 14  # nearly lossless: the clips are small


@dataclass(frozen=True)
class RenderResult:
    """The files of the student's captions and of the teacher's, the number of clips, and how many this run drew."""

    captions: str
    teacher_captions: str
    clips: int
    drawn: int


@dataclass(frozen=True)
class _Clip:
    """A clip to be drawn: its file, its generator's seed, and how many of its captions the student's owner and the
    teacher's have."""

    name: str
    seed: tuple[int, int, int]
    split: str
    own: int
    theirs: int


def render(
    config: ShapesConfig, folder: Path, reporter: Reporter | None = None, threads: int | None = None
) -> RenderResult:
    """Draw what is missing of the clips, then write `folder`/captions.csv and `folder`/teacher.csv.

    `folder`/clips holds the student's clips (train, val, test) and the teacher's, `folder`/uncaptioned clips of which
    there is no caption. The teacher's file names its own clips as train, and one caption of each val clip. Every clip
    has a random generator of its own, so that a stopped run goes on to the same files, drawn by any number of threads,
    by default one a core.
    """
    reporter = reporter or Silent()
    clips, own, theirs = list(_clips(config)), folder / OWN, folder / THEIRS
    if own.exists() and theirs.exists():
        return RenderResult(str(own), str(theirs), len(clips), 0)

    def draw(clip: _Clip) -> tuple[tuple[str, ...], bool]:
        drawn = make_clip(np.random.default_rng(clip.seed), config.size, unseen=clip.split in ("val", "test"))
        missing = not (folder / clip.name).exists()
        if missing:
            write_h264(folder / clip.name, drawn.frames, fps=1, crf=CRF)
        return drawn.captions, missing

    rows: dict[Path, list[tuple[str, str, str]]] = {own: [], theirs: []}
    drawn = 0
    with ThreadPoolExecutor(threads or cores()) as pool, reporter.progress("clips", len(clips), "clip") as progress:
        for clip, (captions, missing) in zip(clips, pool.map(draw, clips), strict=True):
            for path, count in ((own, clip.own), (theirs, clip.theirs)):
                rows[path] += [(clip.name, caption, clip.split) for caption in captions[:count]]
            drawn += missing
            progress.advance()
    for path, lines in rows.items():
        publish(path, _csv(lines))
    return RenderResult(str(own), str(theirs), len(clips), drawn)


def _clips(config: ShapesConfig) -> Iterator[_Clip]:
    # The second number of a seed: 3 and 4 are those of pictures and of their batches.
    parts = (
        ("clips/train", 0, "train", config.train_clips, config.train_captions, 0),
        ("clips/val", 1, "val", config.val_clips, CAPTIONS, 1),
        ("clips/test", 2, "test", config.test_clips, CAPTIONS, 0),
        ("clips/teacher", 5, "train", config.teacher_clips, 0, CAPTIONS),
        (f"{UNCAPTIONED}/", 6, "train", config.uncaptioned_clips, 0, 0),
    )
    for name, part, split, count, own, theirs in parts:
        for k in range(count):
            yield _Clip(f"{name}{k:04d}.mp4", (config.seed, part, k), split, own, theirs)


def _csv(rows: list[tuple[str, str, str]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines).writerows([("video", "caption", "split"), *rows])
    return lines.getvalue().encode()
