"""The texts of a split that can be used: those whose videos prepare could decode."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from ...plurals import counted
from .dataset import Dataset, Text


class VideoView(Protocol):
    """What is kept of videos for a network to see; a frame cache is one.

    Attributes:
        usable: ids of the videos that can be seen.
    """

    @property
    def usable(self) -> Collection[str]: ...

    def digest(self, video: str) -> bytes:
        """Stands for all that can be seen of a video."""
        ...


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

    def one_text_each(self) -> "UsableSplit":
        """The same videos, each with the first of its texts, in the order of the videos."""
        _, first = np.unique(self.text_video, return_index=True)
        texts = tuple(self.texts[k] for k in first)
        return replace(self, texts=texts, text_video=np.arange(len(self.videos)))

    def beside(self, videos: Iterable[str]) -> "UsableSplit":
        """The same texts and videos, and behind these others that have no text."""
        return replace(self, videos=(*self.videos, *videos))


@dataclass(frozen=True)
class UsableUnlabelled:
    """Videos without captions that can be trained on.

    Attributes:
        videos: their ids, in data set order.
        left_out: how many have no usable frames.
        captioned: how many have the frames of a video with captions, of whatever split, and are left out for it.
    """

    videos: tuple[str, ...] = ()
    left_out: int = 0
    captioned: int = 0

    @property
    def told(self) -> str:
        """How many there are and why not more, in words."""
        reasons = {"without usable frames": self.left_out, "with the frames of a captioned video": self.captioned}
        left = " and ".join(f"{count:,} {why}" for why, count in reasons.items() if count)
        return counted(len(self.videos), "video without captions", "videos without captions") + (
            f"; left out: {left}" if left else ""
        )


def usable_split(dataset: Dataset, names: Iterable[Literal["train", "val", "test"]], *views: VideoView) -> UsableSplit:
    """The texts of one or several splits, in data set order, whose videos can be seen in all of these views."""
    splits = tuple(names)
    usable = set.intersection(*(set(view.usable) for view in views))
    texts = [text for name in splits for text in dataset.texts_of(name)]
    left_out = {text.video for text in texts} - usable
    return _split([text for text in texts if text.video in usable], len(left_out))


def usable_unlabelled(dataset: Dataset, frames: VideoView, *others: VideoView) -> UsableUnlabelled:
    """The videos without captions that have frames in every one of the caches, and whose frames in the first are those
    of no video with captions: test videos that are found among the others are not trained on."""
    if not dataset.unlabelled:
        return UsableUnlabelled()
    known = set(frames.usable)
    captioned = {frames.digest(video.id) for video in dataset.videos if video.id in known}
    usable = known.intersection(*(cache.usable for cache in others))
    found = [video.id for video in dataset.unlabelled if video.id in usable]
    kept = tuple(video for video in found if frames.digest(video) not in captioned)
    return UsableUnlabelled(kept, len(dataset.unlabelled) - len(found), len(found) - len(kept))


def _split(texts: Sequence[Text], left_out: int) -> UsableSplit:
    videos = tuple(dict.fromkeys(text.video for text in texts))
    position = {video: k for k, video in enumerate(videos)}
    return UsableSplit(tuple(texts), videos, np.array([position[text.video] for text in texts], np.int64), left_out)
