"""The texts of a split that can be used: those whose videos prepare could decode."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...cache.frames.cache import FrameCache
from .dataset import Dataset, Text


@dataclass(frozen=True)
class UsableSplit:
    """T texts and their V videos.

    Attributes:
        texts: the texts; videos: ids of their videos, in order of first appearance.
        text_video: index of each text's own video [T].
        left_out: videos of the split that have no usable frames.
    """

    texts: tuple[Text, ...]
    videos: tuple[str, ...]
    text_video: np.ndarray
    left_out: int

    @property
    def captions(self) -> list[str]:
        return [text.caption for text in self.texts]

    def without(self, texts: Collection[str]) -> "UsableSplit":
        """The same split without these texts, by id, and without the videos that lose all theirs."""
        return _split([text for text in self.texts if text.id not in texts], self.left_out)


def usable_split(
    dataset: Dataset, names: Iterable[Literal["train", "val", "test"]], *frames: FrameCache
) -> UsableSplit:
    """The texts of one or several splits, in data set order, whose videos have frames in every one of the caches."""
    splits = tuple(names)
    usable = set.intersection(*(set(cache.usable) for cache in frames))
    texts = [text for name in splits for text in dataset.texts_of(name)]
    left_out = {text.video for text in texts} - usable
    return _split([text for text in texts if text.video in usable], len(left_out))


def _split(texts: Sequence[Text], left_out: int) -> UsableSplit:
    videos = tuple(dict.fromkeys(text.video for text in texts))
    position = {video: k for k, video in enumerate(videos)}
    return UsableSplit(tuple(texts), videos, np.array([position[text.video] for text in texts], np.int64), left_out)
