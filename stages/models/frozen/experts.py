"""MoEE and CE as teachers: they score from features of experts and words, and have no frame scores."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...runtime.device import plain_float32
from ..checkpoints.files import network_digest
from ..common.network import Features
from ..experts.networks import ExpertNetwork


class ExpertTeacher:
    """A network on experts as a teacher (`teacher.Teacher`): in evaluation mode, without gradients, in float32.

    Args:
        words: gives the words [T, W, D] of captions; words_digest: stands for the text encoder.
    """

    frames, words, scale = 1, 0, 1.0

    def __init__(
        self, name: str, network: ExpertNetwork, words: Callable[[Sequence[str]], Tensor], words_digest: str
    ) -> None:
        self.name = name
        self.network = network.eval().requires_grad_(False)
        self.score_version = network.score_version
        self.weights_digest = hashlib.sha256(f"{network_digest(network)} {words_digest}".encode()).hexdigest()
        self._words = words

    @torch.no_grad()
    def encode_videos(self, frames: Tensor, mask: Tensor, times: Tensor) -> Features:
        """See `Teacher`; `frames` and `mask` are `ExpertBatch.packed`."""
        with plain_float32(self.network.logit_scale.device):
            return self.network.encode_videos(frames, mask)

    @torch.no_grad()
    def encode_texts(self, captions: Sequence[str]) -> Features:
        """See `Teacher`."""
        device = self.network.logit_scale.device
        with plain_float32(device):
            return self.network.encode_texts(self._words(captions).to(device))

    @torch.no_grad()
    def score(self, texts: Features, videos: Features) -> Tensor:
        """See `Teacher`."""
        with plain_float32(self.network.logit_scale.device):
            return self.network.score(texts, videos)

    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """There are none."""
        return None
