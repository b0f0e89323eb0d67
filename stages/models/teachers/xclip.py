"""X-CLIP: text and video compared at four grains (specs: X-CLIP)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....configs.schema import NetworkConfig
from ....errors import CheckpointError
from ..clip.base import Trunk
from ..common.network import Features, VideoTextNetwork, masked_mean
from ..common.pair_blocks import score_in_blocks
from ..common.valid_frames import Frames

TEMPERATURE = 0.01  # of the attention over similarities
SAFE = 60.0  # exponentials of less, times what a learned matrix holds, are far from float32's ends


@dataclass(frozen=True)
class XClipParts:
    """The four parts of the score, each [T, V] without exp(logit_scale); the score is their mean."""

    video_sentence: Tensor
    video_word: Tensor
    sentence_frame: Tensor
    frame_word: Tensor

    def mean(self) -> Tensor:
        return (self.video_sentence + self.video_word + self.sentence_frame + self.frame_word) / 4


class XClip(VideoTextNetwork):
    """The X-CLIP teacher, as published.

    Its learned matrices fix the number of words W and frames F: inputs are padded to exactly these. Padding is masked
    only in the temporal transformer and in the video vector; padded words and frames take part in every softmax of
    the score, whatever `mask_padding` says.
    """

    needs = ("words",)
    reads_padding = True

    def __init__(self, config: NetworkConfig, trunk: Trunk) -> None:
        super().__init__(config, trunk)
        width, words, frames = trunk.embed_dim, config.words, config.frames
        self.global_mat_weight = _identity(width)
        self.local_mat_weight = _identity(width)
        self.word_logit_weight = _identity(words)
        self.word_mat_weight = _identity(words)
        self.word_mat_weight2 = _identity(words)
        self.frame_logit_weight = _identity(frames)
        self.frame_mat_weight = _identity(frames)
        self.frame_mat_weight2 = _identity(frames)

    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """`vector` [V, D] and `frames` [V, F, D] (from before the temporal transformer), unit length."""
        self._refuse_other(mask.shape[1], self.config.frames, "frames a video")
        features = self.frame_features(frames, mask)
        phi = self.over_time(features, mask)
        with torch.autocast(phi.device.type, enabled=False):
            vector = masked_mean(functional.normalize(phi.to(self.trunk.dtype), dim=-1), mask)
            return {"vector": functional.normalize(vector, dim=-1), "frames": functional.normalize(features, dim=-1)}

    def encode_texts(self, ids: Tensor) -> Features:
        """`sentence` [T, D] and `words` [T, W, D], padding included, unit length."""
        self._refuse_other(ids.shape[1], self.config.words, "words a caption")
        words, sentence = self.trunk.encode_words(ids)
        return {"sentence": functional.normalize(sentence, dim=-1), "words": functional.normalize(words, dim=-1)}

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Raw scores [T, V]; computed in blocks, so that no tensor grows with T x V x W x F."""
        bytes_per_pair = self.config.words * self.config.frames * videos["frames"].element_size()
        return score_in_blocks(lambda *block: self._parts(*block).mean(), self._sides(texts), videos, bytes_per_pair)

    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, F] of sentence i with the frames of video i (y_f before softmax; padded frames too)."""
        return torch.einsum("td,tfd->tf", texts["sentence"], videos["frames"])

    def parts(self, texts: Features, videos: Features) -> XClipParts:
        """The four parts of the score of every pair, in one piece (specs: X-CLIP 5)."""
        return self._parts(self._sides(texts), videos)

    def frame_word_levels(self, words: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frame-word similarities of words [T, W, D] and frames [V, F, D] attended over frames [T, W, V], and over
        words [T, F, V]."""
        over_frames, over_words = self._levels(words @ self.local_mat_weight / TEMPERATURE, frames.transpose(0, 1))
        return over_frames * TEMPERATURE, over_words * TEMPERATURE

    def _sides(self, texts: Features) -> Features:
        """What pairs need of texts: all that is compared below a softmax is divided by its temperature here, once, and
        what comes out is multiplied by it, so that no tensor of pairs is."""
        sentence, words = texts["sentence"], texts["words"]
        with torch.autocast(words.device.type, enabled=False):
            return {
                "whole": sentence @ self.global_mat_weight,
                "sentence": sentence / TEMPERATURE,
                "words": words / TEMPERATURE,
                "local": words @ self.local_mat_weight / TEMPERATURE,
            }

    def _parts(self, sides: Features, videos: Features) -> XClipParts:
        with torch.autocast(videos["vector"].device.type, enabled=False):
            vector, frames = videos["vector"].T, videos["frames"].transpose(0, 1).contiguous()
            over_frames, over_words = self._levels(sides["local"], frames)
            of_sentence = (sides["sentence"] @ frames.flatten(0, 1).T).view(-1, *frames.shape[:2])
            of_frames, of_words = (
                _attend(over_words, self.frame_mat_weight2),
                _attend(over_frames, self.word_mat_weight2),
            )
            return XClipParts(
                video_sentence=sides["whole"] @ vector,
                video_word=_attend(sides["words"] @ vector, self.word_logit_weight) * TEMPERATURE,
                sentence_frame=_attend(of_sentence, self.frame_logit_weight) * TEMPERATURE,
                frame_word=(of_frames + of_words) * (TEMPERATURE / 2),
            )

    def _levels(self, local: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """As `frame_word_levels`, of words that know their matrix and temperature, and frames [F, V, D].

        Videos come last in all that is compared: attention along a dimension before them is what vectorises.
        """
        similarity = local @ frames.flatten(0, 1).T
        by_word = similarity.view(*local.shape[:2], *frames.shape[:2])
        if _can_be_shared(similarity):
            exponentials = similarity.exp()
            over_words = _attend_by(exponentials, similarity, self.word_mat_weight)
            over_frames = _attend_by(exponentials.view_as(by_word), by_word, self.frame_mat_weight)
        else:
            over_words = _attend(similarity, self.word_mat_weight)
            over_frames = _attend(by_word, self.frame_mat_weight)
        return over_frames, over_words.view(-1, *frames.shape[:2])

    def _refuse_other(self, found: int, wanted: int, what: str) -> None:
        if found != wanted:
            raise CheckpointError(f"this X-CLIP takes exactly {wanted} {what}, padded; it is given {found}")


def _identity(size: int) -> nn.Parameter:
    return nn.Parameter(torch.eye(size))


def _attend(similarity: Tensor, matrix: Tensor) -> Tensor:
    """Attention over similarities [..., N, V] along N words or frames, with a learned matrix [N, N]; [..., V].

    The similarities and what comes out are in units of the temperature.
    """
    weights = matrix.T @ similarity.softmax(dim=-2)
    return (weights * similarity).sum(dim=-2)


def _can_be_shared(similarity: Tensor) -> bool:
    """Whether the softmaxes over words and over frames may share their exponentials, neither less its own maximum.

    On a CPU, where exponentials are what a pair takes beside its products; a GPU would have to be waited for.
    """
    if similarity.device.type != "cpu":
        return False
    low, high = similarity.detach().aminmax()
    return bool(low > -SAFE) and bool(high < SAFE)


def _attend_by(exponentials: Tensor, similarity: Tensor, matrix: Tensor) -> Tensor:
    """As `_attend`, of similarities whose exponentials are known; they are divided by their sum last."""
    with_sum = torch.cat([matrix, matrix.new_ones(len(matrix), 1)], dim=1).T
    mixed = with_sum @ exponentials
    return (mixed[..., :-1, :] * similarity).sum(dim=-2) / mixed[..., -1, :]
