"""A configuration's test split in memory, and what vectors of it find."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.retrieval.metrics import retrieval_metrics

BLOCK = 64  # videos encoded at a time

type Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class TestSplit:
    """T captions; `own`: the place of each one's video [T]; frames uint8 [V, F, 3, S, S] and their mask [V, F]."""

    captions: list[str]
    own: NDArray[np.int64]
    frames: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, config: Config) -> "TestSplit":
        cache, data = FrameCache.open(config.frames_folder), read_dataset(config.data)
        usable = set(cache.usable)
        videos = [video.id for video in data.videos if video.split == "test" and video.id in usable]
        place = {video: k for k, video in enumerate(videos)}
        texts = [text for text in data.texts if text.video in place]
        clips = cache.read(videos)
        return cls([t.caption for t in texts], np.array([place[t.video] for t in texts]), clips.frames, clips.mask)

    def videos(self, encode: Callable[[NDArray[np.uint8], NDArray[np.bool_]], Vectors]) -> Vectors:
        """Vectors [V, D] of all videos, encoded block by block."""
        starts = range(0, len(self.frames), BLOCK)
        return np.concatenate([encode(self.frames[k : k + BLOCK], self.mask[k : k + BLOCK]) for k in starts])

    def sumr(self, scores: NDArray[np.floating]) -> float:
        """SumR text to video of scores [T, V]."""
        return float(
            retrieval_metrics(lambda texts, videos: scores[texts, videos], self.own, len(self.frames))["t2v"].sumr
        )
