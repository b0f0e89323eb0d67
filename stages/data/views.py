"""What a network sees of a data set: frames of its videos, or features of experts; and the words of its captions."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.cache import FrameCache
from ...cache.storage.identity import JSON, identity_digest
from ...configs.schema import Config, ExpertsConfig
from ...errors import ConfigError, DataError
from ...remedies import Change, Remedy
from .dataset import Dataset, read_dataset
from .experts.inputs import ExpertInputs, ExpertSet, WordSet, fused_captions
from .video_inputs import FrameInputs, VideoInputs

EXPERT = "features."  # before an expert's name, in what scores were made from


class ExpertView:
    """Features of some experts (`VideoView`): a video can be seen when it has one of them, and its captions words.

    Args:
        worded: the videos whose captions have words; None: it does not matter.
    """

    max_frames = 1  # a slot, which nothing is in

    def __init__(self, experts: ExpertSet, worded: Collection[str] | None = None) -> None:
        self.experts = experts
        known = set(experts.usable if worded is None else worded)
        self.usable = tuple(video for video in experts.usable if video in known)
        self.identity: dict[str, JSON] = {
            name: identity_digest(cache.identity) for name, cache in experts.caches.items()
        }

    @classmethod
    def open(cls, config: Config, tokens: Mapping[str, int], worded: Collection[str] | None = None) -> "ExpertView":
        """The experts of these names, of which a network takes so many rows of a video (0: one vector).

        Raises:
            As `ExpertSet.open`.
        """
        return cls(ExpertSet.open(config, tokens), worded)

    def digest(self, video: str) -> bytes:
        """See `VideoView`."""
        return self.experts.digest(video)

    def times(self, videos: Sequence[str]) -> np.ndarray[Any, Any]:
        """See `VideoView`."""
        return np.full((len(videos), self.max_frames), np.nan)


type View = FrameCache | ExpertView
"""What networks see: frames, or features of experts."""


def network_experts(config: Config, experts: ExpertsConfig, dataset: Dataset, encoder: str | None = None) -> ExpertView:
    """What a network on experts sees, of videos whose captions have words.

    Args:
        dataset: whose captions they are, as `texts_of` gives it.
        encoder: whose words they have, where the network does not say.

    Raises:
        CacheError: features have not been made, or are damaged.
        ConfigError: there is no such expert, or one is of another width than the network takes; names them.
    """
    words = open_words(config, experts, dataset, encoder)
    view = ExpertView.open(config, {name: each.tokens for name, each in experts.modalities.items()}, set(words.usable))
    wrong = [
        f"{name}: {cache.width} numbers, and the network takes {experts.modalities[name].width}"
        for name, cache in view.experts.caches.items()
        if cache.width and cache.width != experts.modalities[name].width
    ]
    if wrong:
        raise ConfigError(
            "features are of another width than the network's experts",
            where=str(config.expert_folder("")),
            details=wrong,
            hint="set train.network.experts.modalities as the features are, or make features of that width",
        )
    return view


def stored_experts(config: Config, identity: Mapping[str, JSON]) -> ExpertView | None:
    """What a teacher saw that scored from experts, by what its scores were made from; None for one that saw frames.

    Raises:
        CacheError: features have not been made, or are damaged.
        ConfigError: there is no such expert any more.
    """
    names = [key.removeprefix(EXPERT) for key in identity if key.startswith(EXPERT)]
    return ExpertView.open(config, dict.fromkeys(names, 0)) if names else None


def student_view(config: Config, dataset: Dataset) -> View:
    """What the network that is trained sees of the videos of `dataset` (`texts_of`).

    Raises:
        CacheError: it has not been made, or is damaged.
        ConfigError: as `network_experts` and `open_words`.
    """
    network = config.train.network
    if not network.on_experts:
        return FrameCache.open(config.frames_folder)
    return network_experts(config, network.experts, dataset)


def view_identity(view: View) -> dict[str, JSON]:
    """What scores were made from, as far as it is of the videos."""
    start = EXPERT if isinstance(view, ExpertView) else "prepare."
    return {f"{start}{key}": value for key, value in view.identity.items()}


def view_inputs(view: View, videos: Sequence[str], *, pin: bool = False) -> VideoInputs:
    """What is read of these videos, batch by batch; frames, with `pin`, into page-locked memory."""
    return ExpertInputs(view.experts, videos) if isinstance(view, ExpertView) else FrameInputs(view, videos, pin)


def texts_of(config: Config) -> Dataset:
    """The data set of `config.data`; with `features.captions: fused` all captions of a video are one text."""
    dataset = read_dataset(config.data)
    return fused_captions(dataset) if config.features.captions == "fused" else dataset


def open_words(config: Config, experts: ExpertsConfig, dataset: Dataset, encoder: str | None = None) -> WordSet:
    """The words that a network on experts reads.

    Args:
        dataset: whose captions they are of, as `texts_of` gives it.
        encoder: whose they are, where the network does not say.

    Raises:
        ConfigError: nobody says by which text encoder; there is no such one; or its words are of another width.
        CacheError: they have not been made, or are damaged.
        CacheMismatchError: they are of other captions.
    """
    name = encoder or experts.text.encoder
    if name is None:
        known = ", ".join(each.name for each in config.features.texts) or "none"
        raise ConfigError(
            f"which text encoder's words does it read? features.texts has: {known}",
            where="train.network.experts.text.encoder",
            hint=Remedy("name one", Change({"train.network.experts.text.encoder": "NAME"})),
        )
    found = WordSet.open(config, name, dataset, experts.text.words)
    if found.width and found.width != experts.text.width:
        raise ConfigError(
            f"words of {name} have {found.width} numbers, and the network takes {experts.text.width}",
            where="train.network.experts.text.width",
            hint=Remedy("set it as the words are", Change({"train.network.experts.text.width": found.width})),
        )
    return found


def words_of(words: WordSet, dataset: Dataset) -> Callable[[Sequence[str]], Tensor]:
    """Gives, for captions of a data set, their words [T, W, D]."""
    texts = {text.caption: text for text in dataset.texts}

    def found(captions: Sequence[str]) -> Tensor:
        if unknown := [caption for caption in captions if caption and caption not in texts]:
            raise DataError(f"no words were made of {unknown[0]!r}")
        own = [texts[caption] for caption in captions if caption]
        there = iter(words.inputs(own)[:]) if own else iter(())
        empty = words.inputs([])[:].new_zeros(words.words, words.width)
        return torch.stack([next(there) if caption else empty for caption in captions])

    return found
