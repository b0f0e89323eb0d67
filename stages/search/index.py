"""One vector per video: what a search compares a sentence with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...cache.frames.cache import FrameCache
from ...cache.vectors import Vectors, publish_vectors, read_vectors
from ...configs.schema import Config
from ...errors import CheckpointError, DataError
from ...remedies import Prepare, Remedy
from ..data.video_inputs import FrameInputs
from ..models.checkpoints.files import network_digest
from ..models.common.network import VideoTextNetwork
from ..retrieval.fits import check_fits
from ..runtime.device import choose_device
from ..runtime.reporting import Reporter, Silent
from .searcher import load_embedder

VIDEOS_AT_ONCE = 16
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


def index(config: Config, reporter: Reporter | None = None) -> IndexResult:
    """Bring the vectors of all usable videos of the frame cache, of every split, up to date.

    Only videos that are new or changed are encoded; another model or other frames mean all of them. A killed run
    loses at most the last `SAVE_SECONDS`.

    Raises:
        CheckpointError: the model cannot be loaded, is a teacher, or makes vectors that are not finite.
        CacheError: frames are missing or do not fit the model; the index is damaged.
        DataError: no video can be used.
    """
    reporter = reporter or Silent()
    began = time.perf_counter()
    frames = FrameCache.open(config.frames_folder)
    if not frames.usable:
        raise DataError(
            "no video has usable frames: nothing to search",
            where=str(config.frames_folder),
            hint=Remedy("look which videos cannot be used, and why", Prepare()),
        )
    network = load_embedder(config.search_run, choose_device(config.search.device))
    check_fits(network, frames, config.frames_folder)
    rows = _Rows(config.index_folder, network, frames)
    old = read_vectors(config.index_folder)
    remade = _what_differs(old, rows.identity)
    if remade:
        reporter.info(f"{remade} changed since the index was made: every vector is made again")
    elif old is not None:
        rows.take(old)
    kept = int(rows.have.sum())
    rows.encode(network, frames, reporter)
    if old is None or remade or dict(old.digests) != rows.digests:
        rows.publish()
    return IndexResult(
        index=str(config.index_folder),
        videos=len(rows.have),
        width=rows.matrix.shape[1],
        added=len(rows.have) - kept,
        kept=kept,
        removed=0 if old is None else sum(video not in rows.digests for video in old.digests),
        remade=remade,
        seconds=time.perf_counter() - began,
    )


def _what_differs(old: Vectors | None, identity: Mapping[str, Any]) -> str | None:
    if old is None:
        return None
    names = {"network": "the model", "frames": "the way frames are prepared"}
    differing = [name for key, name in names.items() if old.identity.get(key) != identity[key]]
    return " and ".join(differing) or None


class _Rows:
    """The vectors on their way: one row per usable video, in the order of the frame cache."""

    def __init__(self, folder: Path, network: VideoTextNetwork, frames: FrameCache) -> None:
        self.folder = folder
        self.identity = {"network": network_digest(network), "frames": frames.identity}
        self.digests = {video: frames.digest(video).hex() for video in frames.usable}
        self.matrix = np.zeros((len(self.digests), network.trunk.embed_dim), np.float16)
        self.have = np.zeros(len(self.digests), bool)

    def take(self, old: Vectors) -> None:
        """Take over the vectors of videos whose frames are the same."""
        position = {video: row for row, video in enumerate(old.videos)}
        for row, (video, digest) in enumerate(self.digests.items()):
            if old.digests.get(video) == digest:
                self.matrix[row] = old.matrix[position[video]]
                self.have[row] = True

    @torch.inference_mode()
    def encode(self, network: VideoTextNetwork, frames: FrameCache, reporter: Reporter) -> None:
        """Make the missing vectors, publishing now and then."""
        missing = np.flatnonzero(~self.have)
        if not len(missing):
            return
        inputs = FrameInputs(frames, tuple(self.digests))
        device = network.logit_scale.device
        saved = time.monotonic()
        with reporter.progress("vectors of videos", len(self.have), "video", done=int(self.have.sum())) as progress:
            for start in range(0, len(missing), VIDEOS_AT_ONCE):
                part = missing[start : start + VIDEOS_AT_ONCE]
                pixels, mask, _ = inputs.read(part)
                vectors = network.encode_videos(pixels.to(device), mask.to(device))["vector"].float().cpu().numpy()
                self._refuse_not_finite(vectors, part)
                self.matrix[part], self.have[part] = vectors, True
                progress.advance(len(part))
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.publish()
                    saved = time.monotonic()

    def publish(self) -> None:
        """Publish the vectors made so far."""
        made = {video: digest for (video, digest), have in zip(self.digests.items(), self.have, strict=True) if have}
        publish_vectors(self.folder, Vectors(self.identity, made, self.matrix[self.have]))

    def _refuse_not_finite(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        bad = rows[~np.isfinite(vectors).all(axis=1)]
        if len(bad):
            videos = list(self.digests)
            raise CheckpointError(
                "the model makes vectors that are not finite",
                details=[videos[row] for row in bad],
                hint="its weights are damaged or its training diverged: train it again, or search with another one",
            )
