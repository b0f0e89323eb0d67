"""What models make of a split, query by query: ranks, frame weights and the cost of a search, for the report."""

import time
from collections.abc import Iterable

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


class View:
    """One model's view of a split: T texts and V videos, each video encoded once.

    Args:
        network: the model.
        split: its texts; inputs: its videos.
    """

    def __init__(self, network: VideoTextNetwork, split: Split, inputs: VideoInputs, reporter: Reporter) -> None:
        self.network, self.split = network, split
        self.videos = encode_videos(network, inputs, reporter)
        self.mask = inputs.read(np.arange(len(inputs.videos)))[1].bool()

    @torch.inference_mode()
    def ranks(self, texts: np.ndarray) -> np.ndarray:
        """Rank of each text's own video among all V, 1 is best; among equal scores the expected one. [T]"""
        ranks = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[start : start + TEXTS_AT_ONCE]
            scores = self.network.score(self._encode(part), self.videos).cpu()
            ranks.append(_ranks(scores, self._own(part)))
        return torch.cat(ranks).numpy()

    @torch.inference_mode()
    def weights(self, texts: np.ndarray, temperature: float) -> np.ndarray | None:
        """What the frames of each text's own video count [T, F]; None for a model that does not weigh frames.

        Args:
            temperature: of the softmax over frame-text scores; padding is left out.
        """
        own = self._own(texts)
        logits = self.network.frame_logits(self._encode(texts), {key: value[own] for key, value in self.videos.items()})
        if logits is None:
            return None
        logits = (logits.float().cpu() / temperature).masked_fill(~self.mask[own], -torch.inf)
        weights: np.ndarray = logits.softmax(dim=1).numpy()
        return weights

    @torch.inference_mode()
    def cost(self) -> Cost:
        """Of searching the V videos: measured on some texts, one at a time."""
        texts = self._encode(np.arange(min(TIMED_QUERIES, len(self.split.texts))))
        seconds = []
        for number in range(len(next(iter(texts.values())))):
            text = {key: value[number : number + 1] for key, value in texts.items()}
            began = time.perf_counter()
            self.network.score(text, self.videos).cpu()
            seconds.append(time.perf_counter() - began)
        numbers = sum(value[0].numel() for key, value in self.videos.items() if key != "raw_weights")
        return Cost(STORED_BYTES * numbers, float(np.median(seconds)), len(self.split.videos))

    def _own(self, texts: np.ndarray) -> Tensor:
        return torch.from_numpy(self.split.text_video[texts])

    def _encode(self, texts: np.ndarray) -> Features:
        captions = [self.split.texts[text].caption for text in texts]
        ids = tokenize(captions, self.network.config.words)[0]
        return self.network.encode_texts(ids.to(self.network.logit_scale.device))


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
        chosen += [(why, text) for text in first_of_videos(order, count, text_video, seen)]
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


def first_of_videos(order: Iterable[np.integer], count: int, text_video: np.ndarray, seen: set[int]) -> list[int]:
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
