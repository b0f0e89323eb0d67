"""What every trunk offers: features of frames and of sentences, and, where it has any, of words and patches."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ....configs.schema import PixelConfig, TrunkConfig, TrunkSizes
from .pixels import CLIP_PIXELS
from .tokenizers import ClipTokenizer, Tokenizer


class Trunk(nn.Module, ABC):
    """The image and the text tower of a network. Notation: N images, T texts, W words, D embed_dim, S image size.

    Attributes:
        visual: the image tower; logit_scale: the logarithm of the scale, a scalar.
        pixels: how it wants its frames; tokenizer: what makes token ids of captions.
        sizes: of a plain ViT, which the checkpoint of a network records; towers: open_clip's description of others.
        image_size: S; width: numbers that a frozen trunk keeps of a frame; embed_dim: D.
        context_length: words that it reads at most; reads_all: it reads just so many, padding too, whatever is asked.
        vocab_size: tokens that it knows.
        has_channels_last: its convolutions want channels innermost, and pixels are made so.
        words: `encode_words` can be had; patches: `all_tokens` can.
    """

    sizes: TrunkSizes | None = None
    towers: dict[str, Any] | None = None
    reads_all: bool = False
    has_channels_last: bool = False
    words: bool = False
    patches: ClassVar[bool] = False

    visual: Any
    logit_scale: nn.Parameter
    tokenizer: Tokenizer
    image_size: int
    width: int
    embed_dim: int
    context_length: int
    vocab_size: int

    def __init__(self, pixels: PixelConfig = CLIP_PIXELS, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.pixels = pixels
        self.tokenizer = tokenizer or ClipTokenizer()

    @abstractmethod
    def class_tokens(self, pixels: Tensor) -> Tensor:
        """What `project` makes frame features of, [N, width], of normalised images [N, 3, S, S]."""

    @abstractmethod
    def project(self, tokens: Tensor) -> Tensor:
        """Frame features [..., D], not normalised, of class tokens [..., width]; in the weights' precision."""

    @abstractmethod
    def encode_sentences(self, ids: Tensor) -> Tensor:
        """Sentence features [T, D], not normalised, of token ids [T, W]."""

    @abstractmethod
    def freeze_class_tokens(self) -> None:
        """Stop training everything that class tokens depend on; what is behind them goes on."""

    @abstractmethod
    def recompute(self) -> None:
        """Keep less for the backward pass, which computes the rest again (gradient checkpointing)."""

    @abstractmethod
    def channels_last(self) -> None:
        """Convolutions with channels innermost, as tensor cores want it."""

    @abstractmethod
    def compiled(self) -> Sequence[nn.Module]:
        """The modules that torch.compile takes one by one."""

    @abstractmethod
    def run_compiled(self) -> None:
        """Run one of these on something small."""

    @property
    @abstractmethod
    def identity(self) -> list[object]:
        """Settings that change what the same weights compute, as JSON values."""

    @property
    @abstractmethod
    def frame_identity(self) -> list[object]:
        """Those that class tokens depend on."""

    @abstractmethod
    def frame_weights(self) -> Iterable[tuple[str, Tensor]]:
        """The weights that class tokens depend on, by name."""

    @property
    @abstractmethod
    def text_blocks(self) -> tuple[Tensor, nn.ModuleList] | None:
        """Positions [W, text width] and transformer blocks of the text tower; None where it has other ones."""

    def encode_words(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Word features [T, W, D] and sentence features [T, D], not normalised, of token ids [T, W]; of trunks with
        `words`; a network that needs them refuses others before."""
        raise TypeError("this trunk gives no words")

    def all_tokens(self, pixels: Tensor, slots: Tensor, shift_layers: Collection[int] = ()) -> Tensor:
        """Every token of every frame [V, F, tokens, D], not normalised; of trunks with `patches`; as `encode_words`."""
        raise TypeError("this trunk gives no patches")

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Frame features [N, D], not normalised, of normalised images [N, 3, S, S]."""
        return self.project(self.class_tokens(pixels))

    def word_slots(self, words: int) -> int:
        """W, where `words` slots are asked for."""
        return self.context_length if self.reads_all else words

    def recorded(self, given: TrunkConfig) -> TrunkConfig:
        """`given` as a checkpoint records it: all that the trunk is built of, but its weights."""
        own = None if self.pixels == CLIP_PIXELS else self.pixels
        return TrunkConfig(
            model=given.model, sizes=self.sizes, towers=self.towers, pixels=own, tag=given.tag, weights=None
        )

    @property
    def prepared(self) -> dict[str, int | str]:
        """How frames are prepared for it, by the keys of section `prepare`."""
        pixels = self.pixels
        return {
            "image_size": self.image_size,
            "resize_mode": pixels.resize_mode,
            "interpolation": pixels.interpolation,
        }

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.logit_scale.dtype
