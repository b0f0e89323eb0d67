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
    words, frames = texts["words"][pairs, word].unsqueeze(1), videos["frames"][pairs, frame].unsqueeze(1)
    return _cross(words, frames, torch.ones_like(words[..., 0], dtype=torch.bool)) / len(pairs)


def _random_slots(mask: Tensor) -> Tensor:
    """A valid slot of each row [B], all as likely: torch.multinomial's draws, without its questions to a GPU."""
    weights = mask.float()
    return (weights / torch.empty_like(weights).exponential_()).argmax(1)


def _of_best_slots(texts: Features, videos: Features, *, weighted: bool) -> Tensor:
    words, frames = texts["words"], videos["frames"]
    valid_words, valid_frames = texts["mask"], videos["mask"]
    sim_BWF = (words * valid_words.unsqueeze(2)) @ (frames * valid_frames.unsqueeze(2)).mT
    best_frames, best_words = _gather(frames, sim_BWF.argmax(2)), _gather(words, sim_BWF.argmax(1))
    if weighted:
        by_word = _cross(words, best_frames, valid_words, texts["weights"])
        by_frame = _cross(frames, best_words, valid_frames, videos["weights"])
        return (by_word + by_frame) / (2 * len(words))
    by_word = _cross(words, best_frames, valid_words) / valid_words.sum()
    return (by_word + _cross(frames, best_words, valid_frames) / valid_frames.sum()) / 2


def _gather(vectors: Tensor, slots: Tensor) -> Tensor:
    """Of vectors [B, N, D] those at slots [B, M]: [B, M, D]."""
    return vectors.gather(1, slots.unsqueeze(2).expand(-1, -1, vectors.shape[2]))


def _cross(vectors: Tensor, matches: Tensor, valid: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over the valid ones of vectors [B, N, D] and their matches of the products [D, D] of standardised channels.

    Rows are the channels of `vectors`: words in one of the two lists, frames in the other, as published. Others count
    with a weight of zero: to pick them out, a GPU would have to count them first.
    """
    counts = valid.flatten().unsqueeze(1).to(vectors.dtype)
    vectors, matches = (_standardise(each.flatten(0, 1), counts) for each in (vectors, matches))
    return (vectors if weights is None else vectors * weights.reshape(-1, 1)).T @ matches


def _standardise(vectors: Tensor, counts: Tensor) -> Tensor:
    """Channels of vectors [N, D] with mean 0 and unbiased variance 1 over those that count [N, 1]; 0 where they do not
    vary, and for the others.

    The published code divides by zero there, as when every frame's best word is SOT, which is the same in all texts.
    """
    number = counts.sum()
    centred = (vectors - (vectors * counts).sum(0) / number) * counts
    variance = centred.square().sum(0) / (number - 1).clamp_min(1)
    return torch.where(variance > FLAT**2, centred * variance.clamp_min(FLAT**2).rsqrt(), 0)
