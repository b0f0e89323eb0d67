"""Retrieval of a whole split: encode, compare in blocks, count ranks.

Of several processes each encodes its share of the videos and of every block's texts; all count the same scores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ..data.video_inputs import VIDEOS_AT_ONCE, VideoInputs, encoded
from ..models.common.network import Features, VideoTextNetwork
from ..runtime.device import plain_float32
from ..runtime.processes import World
from ..runtime.reporting import Reporter
from .metrics import Metrics, Scores, Ties, retrieval_metrics

KEPT_BYTES = 1 << 30


def join_features(parts: Sequence[Features]) -> Features:
    """Features of consecutive videos or texts, as one."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


@torch.no_grad()
def encode_videos(network: VideoTextNetwork, inputs: VideoInputs, reporter: Reporter) -> Features:
    """Features of all videos of `inputs`, on the network's device."""
    device, world, videos = network.logit_scale.device, World.current(), len(inputs.videos)
    own = world.some_rows(videos)
    index = np.arange(own.start, own.stop)
    parts = []

    def encode(frames: Tensor, mask: Tensor, times: Tensor) -> Features:
        return network.encode_videos(frames, mask)

    with reporter.progress("encode videos", len(index), "video") as progress:
        for batch, features in encoded(inputs, index, encode, device, VIDEOS_AT_ONCE):
            parts.append(features)
            progress.advance(len(batch))
    return {key: world.gather(value, videos) for key, value in join_features(parts).items()}


def measure(
    network: VideoTextNetwork,
    ids: Tensor,
    text_video: np.ndarray,
    inputs: VideoInputs,
    reporter: Reporter,
    *,
    block: int = 512,
    ties: Ties = "fair",
) -> dict[str, Metrics]:
    """Text-to-video and video-to-text metrics of a split.

    Args:
        ids: token ids [T, W]; text_video: index of each text's own video [T]; inputs: the V videos.
        block: texts and videos compared at a time, so that memory does not grow with T x V.

    Raises:
        TeachclipError: a score is not a number.
    """
    with comparing(network, inputs, reporter) as scores_of:
        return retrieval_metrics(scores_of(ids), text_video, len(inputs.videos), ties=ties, block=block)


@contextmanager
def comparing(
    network: VideoTextNetwork, inputs: VideoInputs, reporter: Reporter
) -> Iterator[Callable[[Tensor], Scores]]:
    """Yields what gives, for token ids [T, W], the raw scores (without exp(logit_scale)) of these texts with the videos
    of `inputs`, which are encoded once."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), plain_float32(network.logit_scale.device):
        world, videos = World.current(), encode_videos(network, inputs, reporter)

        def scores_of(ids: Tensor) -> Scores:
            encoded = _TextBlocks(network, ids)

            def scores(texts: np.ndarray, columns: slice) -> np.ndarray:
                chosen = {name: value[columns] for name, value in videos.items()}
                own = network.score(encoded[texts[world.some_rows(len(texts))]], chosen)
                return world.gather(own.double(), len(texts)).cpu().numpy()

            return scores

        yield scores_of
    network.train(was_training)


class _TextBlocks:
    """Features of blocks of texts; each is encoded once as long as they fit into KEPT_BYTES, else when it is asked for.

    One text of X-CLIP brings all its words: 59,800 captions would take 4 GB.
    """

    def __init__(self, network: VideoTextNetwork, ids: Tensor) -> None:
        self.network, self.ids = network, ids
        self.kept: dict[bytes, Features] = {}
        self.bytes = 0
        self.last: tuple[bytes, Features] = (b"", {})

    def __getitem__(self, texts: np.ndarray) -> Features:
        key = texts.tobytes()
        if key == self.last[0]:
            return self.last[1]
        if key not in self.kept:
            features = self.network.encode_texts(self.network.take_ids(self.ids[torch.from_numpy(texts)]))
            self.last = (key, features)
            self.bytes += sum(value.nbytes for value in features.values())
            if self.bytes <= KEPT_BYTES:
                self.kept[key] = features
            return features
        return self.kept[key]
