"""DRL's channel decorrelation regularisation (CDCR), in training (specs: DRL 4).

Matched unit vectors of texts and videos should agree channel by channel (the diagonal of their D x D cross-correlation
is 1), and need not repeat one another across channels (off the diagonal it is 0).
"""

import torch
from torch import Tensor

from ....configs.schema import DrlConfig
from ..common.network import Features

FLAT = 1e-6  # a channel of unit vectors that varies less is one value and float32 rounding


def cdcr(config: DrlConfig, texts: Features, videos: Features, slots: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The penalty of B texts and, in order, their videos, without its weight; a scalar.

    config.cdcr says which vectors are matched: 1, a random word of every text with a random frame of its video;
    2, every word with its best frame and every frame with its best word; 3, as 2, weighted like the score. A best slot
    is that of the largest similarity, where padded slots hold 0, so it can be a padded one.

    Args:
        texts, videos: features of `Drl`.
        slots: word [B] and frame [B] of every pair for variant 1; by default drawn from torch's global generator.
    """
    with torch.autocast(texts["words"].device.type, enabled=False):
        if config.cdcr == 1:
            correlation = _of_random_slots(texts, videos, slots)
        else:
            correlation = _of_best_slots(texts, videos, weighted=config.cdcr == 3)
        diagonal = correlation.diagonal()
        off_diagonal = correlation.square().sum() - diagonal.square().sum()
        return config.cdcr_alpha1 * (diagonal - 1).square().sum() + config.cdcr_alpha2 * off_diagonal


def _of_random_slots(texts: Features, videos: Features, slots: tuple[Tensor, Tensor] | None) -> Tensor:
    word, frame = slots or (_random_slots(texts["mask"]), _random_slots(videos["mask"]))
    pairs = torch.arange(len(word), device=word.device)
    return _cross(texts["words"][pairs, word], videos["frames"][pairs, frame]) / len(pairs)


def _random_slots(mask: Tensor) -> Tensor:
    return torch.multinomial(mask.float(), 1).squeeze(1)


def _of_best_slots(texts: Features, videos: Features, *, weighted: bool) -> Tensor:
    words, frames = texts["words"], videos["frames"]
    valid_words, valid_frames = texts["mask"], videos["mask"]
    sim_BWF = (words * valid_words.unsqueeze(2)) @ (frames * valid_frames.unsqueeze(2)).mT
    best_frames, best_words = _gather(frames, sim_BWF.argmax(2)), _gather(words, sim_BWF.argmax(1))
    of_words = words[valid_words], best_frames[valid_words]
    of_frames = frames[valid_frames], best_words[valid_frames]
    if weighted:
        by_word = _cross(*of_words, texts["weights"][valid_words])
        by_frame = _cross(*of_frames, videos["weights"][valid_frames])
        return (by_word + by_frame) / (2 * len(words))
    return (_cross(*of_words) / len(of_words[0]) + _cross(*of_frames) / len(of_frames[0])) / 2


def _gather(vectors: Tensor, slots: Tensor) -> Tensor:
    """Of vectors [B, N, D] those at slots [B, M]: [B, M, D]."""
    return vectors.gather(1, slots.unsqueeze(2).expand(-1, -1, vectors.shape[2]))


def _cross(vectors: Tensor, matches: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over N vectors [N, D] and their matches of the products [D, D] of standardised channels.

    Rows are the channels of `vectors`: words in one of the two lists, frames in the other, as published.
    """
    vectors, matches = _standardise(vectors), _standardise(matches)
    return (vectors if weights is None else vectors * weights.unsqueeze(1)).T @ matches


def _standardise(vectors: Tensor) -> Tensor:
    """Channels of vectors [N, D] with mean 0 and unbiased variance 1; 0 where they do not vary.

    The published code divides by zero there, as when every frame's best word is SOT, which is the same in all texts.
    """
    deviation = vectors.std(0)
    return torch.where(deviation > FLAT, (vectors - vectors.mean(0)) / deviation.clamp_min(FLAT), 0)
