"""What models make of a split, query by query: ranks, frame weights and the cost of a search, for the report."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..stages.data.tokens import tokenize
from ..stages.inputs import VideoInputs
from ..stages.models.network import Features, VideoTextNetwork
from ..stages.reporting import Reporter
from ..stages.retrieval import encode_videos
from ..stages.splits import Split
from .report import Cost

TEXTS_AT_ONCE = 128
TIMED_QUERIES = 12
STORED_BYTES = 2  # float16
RESAMPLINGS = 1000


@dataclass(frozen=True)
class View:
    """One model's view of T texts and V videos.

    Attributes:
        ranks: rank of each text's own video [T], 1 is best; among equal scores the expected one.
        weights: what each frame of a text's own video counts [T, F], padding 0; None for a model without such weights.
        cost: of searching the V videos.
    """

    ranks: np.ndarray
    weights: np.ndarray | None
    cost: Cost


@torch.inference_mode()
def view_split(
    network: VideoTextNetwork, split: Split, inputs: VideoInputs, temperature: float, reporter: Reporter
) -> View:
    """Rank the videos of `split` for each of its texts, and weigh the frames of the text's own one.

    Args:
        inputs: the videos of `split`.
        temperature: of the softmax that makes weights of frame-text scores; padding is left out.
    """
    videos = encode_videos(network, inputs, reporter)
    mask = inputs.read(np.arange(len(inputs.videos)))[1].bool()
    ids = tokenize(split.captions, network.config.words)[0].to(network.logit_scale.device)
    ranks, weights = [], []
    for start in range(0, len(ids), TEXTS_AT_ONCE):
        own = torch.from_numpy(split.text_video[start : start + TEXTS_AT_ONCE])
        texts = network.encode_texts(ids[start : start + TEXTS_AT_ONCE])
        ranks.append(_ranks(network.score(texts, videos).cpu(), own))
        logits = network.frame_logits(texts, {key: value[own] for key, value in videos.items()})
        if logits is not None:
            weights.append((logits.float().cpu() / temperature).masked_fill(~mask[own], -torch.inf).softmax(dim=1))
    return View(
        torch.cat(ranks).numpy(),
        torch.cat(weights).numpy() if weights else None,
        _cost(network, network.encode_texts(ids[:TIMED_QUERIES]), videos, len(inputs.videos)),
    )


def choose_examples(before: np.ndarray, after: np.ndarray, text_video: np.ndarray) -> list[tuple[str, int]]:
    """Texts worth a look, no video twice: two that gained most ranks, by ratio, one that lost most, two by lot.

    Args:
        before, after: ranks of two models [T].
        text_video: index of each text's own video [T].

    Returns:
        (why it was chosen, index of the text).
    """
    gain = np.log(before) - np.log(after)
    by_gain = np.argsort(-gain, kind="stable")
    lot = np.random.default_rng(0).permutation(len(gain))
    seen: set[int] = set()
    chosen = []
    for why, order, count in (("gained most", by_gain, 2), ("lost most", by_gain[::-1], 1), ("drawn by lot", lot, 2)):
        chosen += [(why, text) for text in _first(order, count, text_video, seen)]
    return chosen


def gain_interval(before: np.ndarray, after: np.ndarray, text_video: np.ndarray) -> tuple[float, float]:
    """Where 95 % of the differences in SumR lie when the videos are drawn again with replacement.

    Args:
        before, after: ranks of two models [T].
        text_video: index of each text's own video [T]; the captions of a video are drawn together.
    """
    recall_before, recall_after = (sum(100.0 * (np.floor(ranks) <= k) for k in (1, 5, 10)) for ranks in (before, after))
    videos = int(text_video.max()) + 1
    gained = np.bincount(text_video, recall_after - recall_before, videos)
    texts = np.bincount(text_video, minlength=videos)
    drawn = np.random.default_rng(0).integers(videos, size=(RESAMPLINGS, videos))
    gains = gained[drawn].sum(axis=1) / texts[drawn].sum(axis=1)
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


def _first(order: Iterable[np.integer], count: int, text_video: np.ndarray, seen: set[int]) -> list[int]:
    """The first `count` texts of videos that are not in `seen`, which grows."""
    found: list[int] = []
    for text in order:
        video = int(text_video[text])
        if len(found) < count and video not in seen:
            seen.add(video)
            found.append(int(text))
    return found


def _ranks(scores: Tensor, own: Tensor) -> Tensor:
    of_own = scores.gather(1, own[:, None])
    above = (scores > of_own).sum(dim=1)
    equal = (scores == of_own).sum(dim=1) - 1
    return 1.0 + above.double() + equal.double() / 2


def _cost(network: VideoTextNetwork, texts: Features, videos: Features, count: int) -> Cost:
    seconds = []
    for number in range(len(next(iter(texts.values())))):
        text = {key: value[number : number + 1] for key, value in texts.items()}
        began = time.perf_counter()
        network.score(text, videos).cpu()
        seconds.append(time.perf_counter() - began)
    numbers = sum(value[0].numel() for key, value in videos.items() if key != "raw_weights")
    return Cost(STORED_BYTES * numbers, float(np.median(seconds)), count)
