"""Batches of kept features as networks take them: experts of videos, words of captions (specs: experts 1).

Experts stand in the order of their names. A sequence is cut after its most tokens, a shorter one has zero rows behind;
a missing expert is all zero, and not available. A caption is cut after its most words and filled up likewise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....cache.experts.cache import FeatureCache
from ....cache.storage.identity import digest, text_digest
from ....configs.schema import Config
from ....errors import CacheMismatchError, ConfigError
from ....remedies import MakeFeatures, Remedy
from ..dataset import Dataset, Text

Array = NDArray[np.float32]


class ExpertSize(NamedTuple):
    """An expert's features: vectors of `width` numbers, `tokens` of them a video; tokens 0: one, the mean over time."""

    width: int
    tokens: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a video's features in a batch."""
        return (self.tokens, self.width) if self.tokens else (self.width,)


class ExpertSet:
    """Some experts of a data set's videos.

    Attributes:
        caches: their features, by name, sorted; sizes: how each of them comes.
        usable: ids of the videos that have one of them at least, in the order of the data set.
    """

    def __init__(self, caches: Mapping[str, FeatureCache], tokens: Mapping[str, int]) -> None:
        self.caches = {name: caches[name] for name in sorted(caches)}
        self.sizes = {name: ExpertSize(cache.width, tokens[name]) for name, cache in self.caches.items()}
        first = next(iter(self.caches.values()))
        self.usable = tuple(video for video in first.videos if self.available(video))

    @classmethod
    def open(cls, config: Config, tokens: Mapping[str, int]) -> "ExpertSet":
        """Some experts of `features.experts`.

        Args:
            tokens: by their names, how many rows of a video are wanted; 0: one vector.

        Raises:
            ConfigError: there is no such expert.
            CacheError: its features have not been made, or are damaged.
        """
        known = sorted(entry.name for entry in config.features.experts)
        if unknown := sorted(set(tokens) - set(known)):
            told = f"features.experts: no expert is called {', '.join(unknown)}"
            raise ConfigError(told, hint=f"there are: {', '.join(known) or 'none'}")
        return cls({name: FeatureCache.open(config.expert_folder(name)) for name in tokens}, tokens)

    def available(self, video: str) -> list[str]:
        """The experts that a video has."""
        return [name for name, cache in self.caches.items() if cache.has(video)]

    def digest(self, video: str) -> bytes:
        """16 bytes that stand for all features of a video."""
        return digest(*(f"{name}\0".encode() + cache.digest(video) for name, cache in self.caches.items()))

    def read(self, video: str) -> dict[str, Array]:
        """What a video has, by expert: [D], or [rows, D] of at most its most tokens.

        Raises:
            CacheError: it cannot be read, or is damaged.
        """
        return {name: self._read(name, video) for name in self.available(video)}

    def _read(self, name: str, video: str) -> Array:
        rows = self.caches[name].read_part(video, 0).astype(np.float32, copy=False)
        tokens = self.sizes[name].tokens
        if tokens:
            return rows[:tokens]
        return rows[0] if len(rows) == 1 else rows.mean(axis=0, dtype=np.float64).astype(np.float32)


class ExpertInputs:
    """Features of experts in the places of frames and their mask (`VideoInputs`)."""

    def __init__(self, experts: ExpertSet, videos: Sequence[str]) -> None:
        self.experts, self.videos = experts, videos
        sizes = [int(np.prod(size.shape)) for size in experts.sizes.values()]
        ends = np.cumsum(sizes).tolist()
        self._columns = {
            name: slice(end - size, end) for name, size, end in zip(experts.sizes, sizes, ends, strict=True)
        }
        self._width = ends[-1]

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(all experts' features side by side, each flat [V, P]; which are there [V, M] bool; NaN for times [V, M]).

        Raises:
            CacheError: features cannot be read, or are damaged.
        """
        names = list(self.experts.sizes)
        values = np.zeros((len(index), self._width), np.float32)
        there = np.zeros((len(index), len(names)), np.bool_)
        for row, k in enumerate(index):
            for name, array in self.experts.read(self.videos[k]).items():
                place = values[row, self._columns[name]]
                place[: array.size] = array.reshape(-1)
                there[row, names.index(name)] = True
        times = np.full(there.shape, np.nan)
        return torch.from_numpy(values), torch.from_numpy(there), torch.from_numpy(times)


class WordSet:
    """The words of a data set's captions by one text encoder.

    Attributes:
        cache: of them; width: D; words: so many a caption, W; fused: all captions of a video are one.
    """

    def __init__(self, cache: FeatureCache, words: int, fused: bool) -> None:
        self.cache, self.width, self.words, self.fused = cache, cache.width, words, fused
        self.usable = tuple(video for video in cache.videos if cache.has(video))

    @classmethod
    def open(cls, config: Config, name: str, dataset: Dataset, words: int = 30) -> "WordSet":
        """The words of text encoder `name`.

        Args:
            dataset: whose captions they must be of, each by itself or fused.
            words: so many of a caption are wanted.

        Raises:
            ConfigError: there is no such text encoder.
            CacheError: its words have not been made, or are damaged.
            CacheMismatchError: they are of other captions.
        """
        known = sorted(entry.name for entry in config.features.texts)
        if name not in known:
            told = f"features.texts: no text encoder is called {name}"
            raise ConfigError(told, hint=f"there are: {', '.join(known) or 'none'}")
        cache = FeatureCache.open(config.words_folder(name))
        refuse_other_captions(cache, dataset)
        return cls(cache, words, config.features.captions == "fused")

    def digest(self, video: str) -> bytes:
        """16 bytes that stand for the words of a video's captions."""
        return self.cache.digest(video)

    def inputs(self, texts: Sequence[Text]) -> "WordInputs":
        """The words of these texts, to be read."""
        return WordInputs(self, texts)

    def read(self, text: Text) -> Array:
        """The words [at most W, D] of a text.

        Raises:
            CacheError: they cannot be read, are damaged, or there are none.
        """
        if self.fused and self.cache.has(text.video):
            return np.concatenate(self.cache.read(text.video))[: self.words]
        return self.cache.read_part(text.video, int(text.id.rpartition("#")[2]))[: self.words]


class WordInputs:
    """Words [T, W, D] of T texts, read when they are indexed, as a tensor of token ids would be."""

    def __init__(self, words: WordSet, texts: Sequence[Text]) -> None:
        self.words, self.texts = words, texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Words [N, W, D] of the texts at these places, zero behind the last word of each.

        Raises:
            CacheError: they cannot be read, or are damaged.
        """
        chosen = range(len(self.texts))[index] if isinstance(index, slice) else index.tolist()
        found = np.zeros((len(chosen), self.words.words, self.words.width), np.float32)
        for row, k in enumerate(chosen):
            words = self.words.read(self.texts[k])
            found[row, : len(words)] = words
        return torch.from_numpy(found)


def captions_by_video(dataset: Dataset) -> dict[str, list[str]]:
    """The captions of each video that has any, in their order; of fused ones, what they were made of."""
    captions: dict[str, list[str]] = {}
    for text in dataset.unfused or dataset.texts:
        captions.setdefault(text.video, []).append(text.caption)
    return captions


def video_captions_digest(captions: Sequence[str]) -> bytes:
    """16 bytes that stand for the captions of one video, in their order."""
    return digest(*map(text_digest, captions))


def refuse_other_captions(cache: FeatureCache, dataset: Dataset) -> None:
    """Refuse words that were made of other captions than the data set has now.

    Raises:
        CacheMismatchError: names the first videos.
    """
    wrong = [
        f"{video}: {'other captions' if video in cache.statuses else 'no words'}"
        for video, captions in captions_by_video(dataset).items()
        if video not in cache.statuses or cache.source(video) != video_captions_digest(captions)
    ]
    if wrong:
        more = [f"... and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        hint = Remedy("bring the features up to date", MakeFeatures())
        what = "the words are of other captions than the data set has"
        raise CacheMismatchError(what, where=str(cache.folder), hint=hint, details=[*wrong[:5], *more])


def fused_captions(dataset: Dataset) -> Dataset:
    """The data set with one text a video: its captions one after the other (published for DiDeMo, ActivityNet)."""
    texts = tuple(Text(f"{video}#0", video, " ".join(each)) for video, each in captions_by_video(dataset).items())
    return replace(dataset, texts=texts, unfused=dataset.texts)
