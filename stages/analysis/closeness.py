"""How close weights over a video's frames come to others: correlation, divergence, the same first frame.

Notation: N videos (or texts with their videos), F frame slots, of which some are valid. Padded slots take no part.
"""

from dataclasses import dataclass

import numpy as np

ROWS_AT_ONCE = 8192
FLAT = 1e-12  # weights whose variance is below this have no order


@dataclass(frozen=True)
class Closeness:
    """Means over N videos of at least two frames, of one network's weights and a target's (a teacher's).

    Attributes:
        name: whose weights.
        pearson, spearman: correlation over a video's frames, 0 where one side does not vary; None where these weights
            vary for no video.
        kl: Kullback-Leibler divergence of the weights from the target, in nats; 0 where they are equal.
        top1: share of videos whose heaviest frame is the target's; among equals, by chance.
    """

    name: str
    pearson: float | None
    spearman: float | None
    kl: float
    top1: float


def closeness(name: str, weights: np.ndarray, target: np.ndarray, valid: np.ndarray) -> Closeness:
    """Compare weights [N, F] with a target [N, F] over valid frames [N, F], at least two in every row.

    Both are scaled to sum to 1 over the valid frames.
    """
    sums = np.zeros(4)
    varies = False
    for start in range(0, len(valid), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        mask = valid[part]
        ours, theirs = normalised(weights[part], mask), normalised(target[part], mask)
        pearson = correlation(ours, theirs, mask)
        spearman = correlation(ranks(ours, mask), ranks(theirs, mask), mask)
        divergence = np.where(theirs > 0, theirs * (_log(theirs) - _log(ours)), 0).sum(1)
        sums += [values.sum() for values in (pearson, spearman, divergence, _same_first(ours, theirs, mask))]
        varies = varies or bool((_centred(ours, mask) ** 2).sum(1).max(initial=0) > FLAT)
    pearson_mean, spearman_mean, kl, top1 = (sums / len(valid)).tolist()
    return Closeness(name, pearson_mean if varies else None, spearman_mean if varies else None, kl, top1)


def normalised(weights: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Weights [N, F] as float64, 0 in padding, with sum 1 over the valid frames of each row."""
    kept = np.where(valid, weights, 0).astype(np.float64)
    scaled: np.ndarray = kept / kept.sum(1, keepdims=True)
    return scaled


def softmax_over(valid: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Softmax [N, F] of logits over the valid frames, 0 in padding; a row without any is 0."""
    shifted = np.where(valid, logits, -np.inf).astype(np.float64)
    highest = shifted.max(1, keepdims=True)
    powers = np.exp(shifted - np.where(np.isfinite(highest), highest, 0))
    weights: np.ndarray = powers / np.maximum(powers.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    return weights


def total_variation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Half the sum of absolute differences [N] of weights [N, F]: 0 for equal ones, 1 for weights apart."""
    distance: np.ndarray = np.abs(a.astype(np.float64) - b).sum(1) / 2
    return distance


def correlation(a: np.ndarray, b: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pearson correlation [N] of rows [N, F] over the valid frames; 0 where one side does not vary."""
    first, second = _centred(a, valid), _centred(b, valid)
    product, squares = (first * second).sum(1), (first**2).sum(1) * (second**2).sum(1)
    varies = ((first**2).sum(1) > FLAT) & ((second**2).sum(1) > FLAT)
    return np.where(varies, product / np.sqrt(np.where(varies, squares, 1)), 0.0)


def ranks(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Ranks [N, F] from 1 among the valid frames of a row, equal values sharing their mean rank; 0 in padding."""
    others = valid[:, None, :]
    below = ((values[:, None, :] < values[:, :, None]) & others).sum(2)
    equal = ((values[:, None, :] == values[:, :, None]) & others).sum(2)
    return np.where(valid, below + (equal + 1) / 2, 0.0)


def _centred(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    kept = np.where(valid, values, 0).astype(np.float64)
    mean = kept.sum(1, keepdims=True) / valid.sum(1, keepdims=True)
    return np.where(valid, kept - mean, 0.0)


def _log(weights: np.ndarray) -> np.ndarray:
    logarithm: np.ndarray = np.log(np.maximum(weights, np.finfo(np.float32).tiny))
    return logarithm


def _same_first(ours: np.ndarray, theirs: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The chance [N] that one of our heaviest frames is one of theirs."""
    first, second = ((each == each.max(1, keepdims=True)) & valid for each in (ours, theirs))
    chance: np.ndarray = (first & second).sum(1) / first.sum(1)
    return chance
