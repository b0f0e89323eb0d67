"""What every network that compares texts with videos offers: students and teachers, with a CLIP trunk and without."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....configs.schema import NetworkConfig
from ....errors import ConfigError
from ....remedies import Change, Remedy
from ..clip.base import Trunk
from ..clip.described import Described
from ..clip.pixels import normalise
from ..clip.tokens import without_padding
from .temporal import TemporalTransformer
from .valid_frames import Frames, ValidFrames, valid_places

Features = dict[str, Tensor]
Need = Literal["words", "patches"]
_GIVEN = {  # by which trunks, in words
    "words": "a plain ViT, or a model whose text tower reads from left to right and ends at CLIP's end of text: EVA, "
    "ViTamin, PE-Core, ConvNeXt and ResNet have one",
    "patches": "a plain ViT, such as ViT-B-32-quickgelu",
}


class RetrievalNetwork(nn.Module, ABC):
    """Encodes T texts and V videos, and scores every pair of them.

    Attributes:
        config: the network's configuration.
        score_version: raised by hand whenever the same weights give other scores than before.
        one_vector: texts and videos are one unit vector each, the feature `vector`, and a score is their dot product.
        width: to which a `vector` is cut, for networks of one vector; None: it is whole.
        reads_padding: what a text's features are depends on how many word slots there are, used or not.
    """

    score_version: ClassVar[int] = 1
    one_vector: ClassVar[bool] = False
    reads_padding: bool = True
    width: int | None = None

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def settings(self) -> Sequence[Any]:
        """Settings that change what the same weights compute, as JSON values; part of the network's digest."""
        return ()

    @property
    @abstractmethod
    def logit_scale(self) -> Tensor:
        """The logarithm of the scale: logits = exp(logit_scale) x score."""

    @abstractmethod
    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """What is compared with texts, per video; first dimension V. What `frames` and `mask` are is the network's."""

    @abstractmethod
    def encode_texts(self, ids: Tensor) -> Features:
        """What is compared with videos, per text; first dimension T. `ids` are token ids [T, W], or words [T, W, D]."""

    @abstractmethod
    def score(self, texts: Features, videos: Features) -> Tensor:
        """Raw scores [T, V], without exp(logit_scale); no pair depends on another."""

    def needed_ids(self, ids: Tensor) -> Tensor:
        """`ids` on the CPU without columns that this network would not read."""
        return ids

    def take_ids(self, ids: Tensor) -> Tensor:
        """`ids` from the CPU on this network's device, as `needed_ids` gives them."""
        return self.needed_ids(ids).to(self.logit_scale.device)

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether `auxiliary_loss` gives one: texts' features are gathered for nothing else."""
        return False

    def auxiliary_loss(self, texts: Features, videos: Features) -> Tensor | None:
        """What this network's own training adds to the losses, weighted, for b texts and, in order, their videos."""
        return None

    @abstractmethod
    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """Frame-text scores [T, F] of text i with video i, before softmax; None when there are none."""


class VideoTextNetwork(RetrievalNetwork):
    """A CLIP trunk, a temporal transformer, and a score between T texts and V videos.

    Notation: F frame slots, W word slots, D embed_dim, S image size. A mask is True (or 1) where a frame is valid;
    padded slots come last. With `temporal_layers: 0` there is no temporal transformer (published header `meanP`).

    Attributes:
        config: the network's configuration, the trunk's make resolved, and the word slots that it reads.
        needs: what of a trunk it cannot do without, beside features of frames and sentences.
        reads_padding: what a text's features are depends on how many word slots there are, used or not; or its last
            word is not told by its id, which is up to the trunk.
    """

    needs: ClassVar[tuple[Need, ...]] = ()
    reads_padding: bool = False

    def __init__(self, config: NetworkConfig, trunk: Trunk) -> None:
        words = trunk.word_slots(config.words)
        check_words(words, trunk.context_length)
        super().__init__(config.model_copy(update={"trunk": trunk.recorded(config.trunk), "words": words}))
        self.trunk = trunk
        self.reads_padding = self.reads_padding or not trunk.words
        self.temporal: TemporalTransformer | None = None
        if config.temporal_layers:
            positions = max(trunk.context_length, config.frames)
            self.temporal = TemporalTransformer(trunk.embed_dim, config.temporal_layers, positions)
            self.temporal.initialise(trunk)

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of the scale: logits = exp(logit_scale) x score."""
        return self.trunk.logit_scale

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids int64 [T, W] of captions, cut and padded to the network's slots."""
        return self.trunk.tokenizer(captions, self.config.words)

    def tokenize_telling(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids [T, W] of sentences that people ask with, and which of them are longer than the slots hold [T]."""
        return self.trunk.tokenizer.telling(sentences, self.config.words)

    @property
    def reads_captions(self) -> bool:
        """Whether its text tower knows the tokens that captions are made of."""
        return self.trunk.vocab_size >= self.trunk.tokenizer.vocabulary

    @property
    def vector_width(self) -> int:
        """Numbers of a `vector`."""
        return self.width or int(self.trunk.embed_dim)

    def unit(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] at unit length, cut to `width` where it is set."""
        return functional.normalize(vectors[..., : self.width], dim=-1)

    def freeze_class_tokens(self) -> None:
        """Train only what lies behind the visual trunk's class tokens, which can then be cached."""
        self.trunk.freeze_class_tokens()

    def class_tokens(self, frames: Frames, mask: Tensor) -> Tensor:
        """Class tokens of every frame slot, the trunk's output before `ln_post` and projection.

        Args:
            frames: uint8 [V, F, 3, S, S], normalised here, where padded slots are zero after normalisation, with or
                without their valid places, for which a GPU is waited; or float pixels [V, F, 3, S, S], used as they
                are, padded slots too.
            mask: valid frames [V, F].

        Returns:
            [V, F, width]. A padded uint8 slot is the same blank image everywhere, so it is computed once.
        """
        pixels, slots = self.images(frames, mask)
        return self.trunk.class_tokens(pixels)[slots]

    def images(self, frames: Frames, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The images that have to be computed [N, 3, S, S], of frames as `class_tokens` takes them, and which of them
        stands in each slot [V, F]."""
        every, places = frames if isinstance(frames, ValidFrames) else (frames, None)
        every = every.flatten(0, 1)
        if every.dtype != torch.uint8:
            return every, torch.arange(mask.numel(), device=mask.device).view_as(mask)
        valid = mask.bool()
        places = valid_places(valid) if places is None else places
        innermost = self.trunk.has_channels_last
        pixels = partial(normalise, dtype=self.trunk.dtype, pixels=self.trunk.pixels, channels_last=innermost)
        if len(places) == len(every) and every.is_cuda:  # on a CPU last bits would be others, of very few images
            return pixels(every), torch.arange(len(every), device=mask.device).view_as(mask)
        images = pixels(every[places])
        blank = images.new_zeros((1, *images.shape[1:]))
        if innermost:
            blank = blank.to(memory_format=torch.channels_last)
        slots = valid.flatten().cumsum(0).view_as(valid) - 1
        return torch.cat([images, blank]), slots.masked_fill(~valid, len(images))

    def frame_features(self, frames: Frames, mask: Tensor) -> Tensor:
        """Frame features [V, F, D], not normalised, of frames as `class_tokens` takes them, or of class tokens
        [V, F, width] computed earlier."""
        if isinstance(frames, Tensor) and frames.ndim == 3:
            return self.trunk.project(frames)
        return self.trunk.project(self.class_tokens(frames, mask))

    def over_time(self, frame_features: Tensor, mask: Tensor) -> Tensor:
        """phi [V, F, D]: frame features after the temporal transformer and its outer residual."""
        return frame_features if self.temporal is None else self.temporal(frame_features, mask)

    @abstractmethod
    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """See `RetrievalNetwork`; `frames` as in `frame_features`, `mask` of valid frames [V, F]."""

    def encode_with_frames(self, frames: Frames, mask: Tensor) -> Features:
        """As `encode_videos`; where a video is one vector, `frames` [V, F, D] are those that were pooled to it, unit
        length: how near a sentence is to each."""
        return self.encode_videos(frames, mask)

    def needed_ids(self, ids: Tensor) -> Tensor:
        """See `RetrievalNetwork`."""
        return ids if self.reads_padding else without_padding(ids)


def check_words(words: int, most: int) -> None:
    """Refuse more word slots than the `most` that the trunk's text tower has positions for.

    Raises:
        ConfigError: naming both.
    """
    if words > most:
        raise ConfigError(
            f"{words} words are asked for; this trunk's text tower has {most} positions",
            where="train.network.words",
            hint=Remedy("ask for fewer words", Change({"train.network.words": most})),
        )


def refuse_without(kind: str, needs: Sequence[Need], trunk: Described, model: str) -> None:
    """Refuse a trunk that does not give what a kind of network compares.

    Raises:
        ConfigError: naming what, and which trunks do.
    """
    for need in needs:
        if not getattr(trunk, need):
            raise ConfigError(
                f"{kind} compares {need}, and the trunk {model} ({trunk.family}) gives features of "
                f"{'sentences' if need == 'words' else 'frames'} alone",
                where="train.network.trunk.model",
                hint=f"take {_GIVEN[need]}; or the kind student, xpool or openclip",
            )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean [V, D] over the valid slots of [V, F, D]; zero for a video without any."""
    weights = mask.to(values.dtype)
    total = weights.sum(dim=1, keepdim=True)
    return torch.einsum("vf,vfd->vd", weights / total.clamp_min(1.0), values)
