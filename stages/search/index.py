"""One vector per video: what a search compares a sentence with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.cache import FrameCache, usable_digests
from ...cache.vectors import Vectors, publish_vectors, read_vectors
from ...configs.schema import Config
from ...errors import CheckpointError, DataError
from ...remedies import Prepare, Remedy
from ..data.video_inputs import VIDEOS_AT_ONCE, FrameInputs, encoded
from ..retrieval.fits import check_fits
from ..runtime.device import choose_device, plain_float32, tell_device
from ..runtime.reporting import Reporter, Silent
from .searcher import Embedder

SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class IndexResult:
    """What the index holds, and what was done for it.

    Attributes:
        videos: vectors in the index; width: numbers per vector.
        added, kept, removed: videos encoded now, taken over, no longer there.
        remade: what differed so that every vector was made again ("the model"), or None.
    """

    index: str
    videos: int
    width: int
    added: int
    kept: int
    removed: int
    remade: str | None
    seconds: float


class UpToDate(NamedTuple):
    """A student, its vectors of all usable videos, and what was done for them."""

    embedder: Embedder
    vectors: Vectors
    result: IndexResult


def index(config: Config, reporter: Reporter | None = None) -> IndexResult:
    """Bring the vectors of all usable videos of the frame cache, of every split, up to date.

    Only videos that are new or changed are encoded; another model or other frames mean all of them. A killed run
    loses at most the last `SAVE_SECONDS`.

    Raises:
        CheckpointError: the model cannot be loaded, is a teacher, or makes vectors that are not finite.
        CacheError: frames are missing or do not fit the model; the index is damaged.
        DataError: no video can be used.
    """
    return up_to_date(config, reporter or Silent(), must_keep=True).result


def up_to_date(config: Config, reporter: Reporter, must_keep: bool = False) -> UpToDate:
    """As `index`; hands on what it loaded and made, so that nothing is read again.

    Args:
        must_keep: vectors that cannot be written down are an error; else that is told, and they serve this once.

    Raises:
        As `index`.
    """
    began = time.perf_counter()
    # First, so that a network which sees no frames says so before frames are missed.
    embedder = Embedder.load(config.search_run, choose_device(config.search.device))
    prepared, stored = usable_digests(config.frames_folder)
    if not stored:
        raise DataError(
            "no video has usable frames: nothing to search",
            where=str(config.frames_folder),
            hint=Remedy("look which videos cannot be used, and why", Prepare()),
        )
    vectors = old = read_vectors(config.index_folder)
    kept, remade = len(stored), None
    if old is None or _what_differs(old, embedder, prepared) or old.digests != _hex(stored):
        vectors, kept, remade = _brought_up_to_date(config, embedder, old, reporter, must_keep)
    assert vectors is not None
    result = IndexResult(
        index=str(config.index_folder),
        videos=len(vectors.digests),
        width=vectors.matrix.shape[1],
        added=len(vectors.digests) - kept,
        kept=kept,
        removed=0 if old is None else sum(video not in vectors.digests for video in old.digests),
        remade=remade,
        seconds=time.perf_counter() - began,
    )
    return UpToDate(embedder, vectors, result)


def _brought_up_to_date(
    config: Config, embedder: Embedder, old: Vectors | None, reporter: Reporter, must_keep: bool
) -> tuple[Vectors, int, str | None]:
    """The vectors, encoded where they are missing and published; how many were kept, and what made all of them anew."""
    frames = FrameCache.open(config.frames_folder)
    check_fits(embedder.network, frames, config.frames_folder)
    tell_device(embedder.network.logit_scale.device, reporter)
    rows = _Rows(config.index_folder, embedder, frames, None if must_keep else reporter)
    remade = None if old is None else _what_differs(old, embedder, frames.identity)
    if remade:
        reporter.info(f"{remade} changed since the index was made: every vector is made again")
    elif old is not None:
        rows.take(old)
    kept = int(rows.have.sum())
    rows.encode(reporter)
    return rows.publish(), kept, remade


def _what_differs(old: Vectors, embedder: Embedder, frames: Mapping[str, Any]) -> str | None:
    """What the vectors were made by that is not what they would be made by now."""
    now = {"network": ("the model", embedder.digest), "frames": ("the way frames are prepared", frames)}
    return " and ".join(name for key, (name, value) in now.items() if old.identity.get(key) != value) or None


def _hex(digests: Mapping[str, bytes]) -> dict[str, str]:
    return {video: digest.hex() for video, digest in digests.items()}


class _Rows:
    """The vectors on their way: one row per usable video, in the order of the frame cache.

    `excused` is told, once, when they cannot be written down; None: that is an error.
    """

    def __init__(self, folder: Path, embedder: Embedder, frames: FrameCache, excused: Reporter | None) -> None:
        self.excused, self.told = excused, False
        self.folder, self.network, self.frames = folder, embedder.network, frames
        self.identity = {"network": embedder.digest, "frames": frames.identity}
        self.digests = _hex({video: frames.digest(video) for video in frames.usable})
        self.matrix = np.zeros((len(self.digests), self.network.vector_width), np.float16)
        self.have = np.zeros(len(self.digests), bool)

    def take(self, old: Vectors) -> None:
        """Take over the vectors of videos whose frames are the same."""
        position = {video: row for row, video in enumerate(old.videos)}
        for row, (video, digest) in enumerate(self.digests.items()):
            if old.digests.get(video) == digest:
                self.matrix[row] = old.matrix[position[video]]
                self.have[row] = True

    @torch.inference_mode()
    def encode(self, reporter: Reporter) -> None:
        """Make the missing vectors, publishing now and then."""
        missing = np.flatnonzero(~self.have)
        if not len(missing):
            return
        inputs, device = FrameInputs(self.frames, self.frames.usable), self.network.logit_scale.device
        saved = time.monotonic()
        with reporter.progress("vectors of videos", len(self.have), "video", done=int(self.have.sum())) as progress:
            for part, vectors in encoded(inputs, missing, self._vectors, device, VIDEOS_AT_ONCE):
                self._refuse_not_finite(vectors, part)
                self.matrix[part], self.have[part] = vectors, True
                progress.advance(len(part))
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.publish()
                    saved = time.monotonic()

    def publish(self) -> Vectors:
        """Publish the vectors made so far."""
        made = {video: digest for (video, digest), have in zip(self.digests.items(), self.have, strict=True) if have}
        vectors = Vectors(self.identity, made, self.matrix[self.have])
        try:
            publish_vectors(self.folder, vectors)
        except OSError as error:
            if self.excused is None:
                raise
            if not self.told:
                why = error.strerror or str(error)
                self.excused.warn(f"{self.folder}: the vectors are not kept, the next search makes them again: {why}")
            self.told = True
        return vectors

    def _vectors(self, frames: Tensor, mask: Tensor, times: Tensor) -> np.ndarray:
        with plain_float32(frames.device):
            vectors: np.ndarray = self.network.encode_videos(frames, mask)["vector"].float().cpu().numpy()
        return vectors

    def _refuse_not_finite(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        bad = rows[~np.isfinite(vectors).all(axis=1)]
        if len(bad):
            videos = list(self.digests)
            raise CheckpointError(
                "the model makes vectors that are not finite",
                details=[videos[row] for row in bad],
                hint="its weights are damaged or its training diverged: train it again, or search with another one",
            )
