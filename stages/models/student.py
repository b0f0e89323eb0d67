"""The student: CLIP4Clip with attentional frame-feature aggregation (AFA), or with mean pooling.

One unit vector per video and per text; a score is their dot product.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...configs.schema import NetworkConfig
from .clip.base import Trunk
from .common.network import Features, VideoTextNetwork, masked_mean
from .common.temporal import INIT_STD
from .common.valid_frames import Frames


class AttentionalAggregation(nn.Module):
    """AFA (TeachCLIP equations 2 and 3; specs: TeachCLIP 1.4): one score per frame, Linear, ReLU, Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        for layer in (self.hidden, self.score):
            nn.init.normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Raw scores [V, F], before softmax, of frames phi [V, F, D] that are not normalised."""
        scores: Tensor = self.score(functional.relu(self.hidden(frames)))
        return scores.squeeze(-1)


class Student(VideoTextNetwork):
    """The light student (specs: TeachCLIP 1).

    `config` chooses between the published code and the paper: `mask_padding` leaves padded frames out of both
    softmaxes (code: no), `pool_temperature` is that of the pooling weights (code: 0.1, paper: 1), `normalise_frames`
    makes frames unit length before they are pooled (code: yes, paper: no).
    """

    one_vector = True

    def __init__(self, config: NetworkConfig, trunk: Trunk) -> None:
        super().__init__(config, trunk)
        self.afa = AttentionalAggregation(trunk.embed_dim) if config.pooling == "afa" else None

    def settings(self) -> tuple[object, ...]:
        config = self.config
        return (config.pooling, config.mask_padding, config.pool_temperature, config.normalise_frames)

    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """`vector` [V, D], unit length; with AFA also `raw_weights` [V, F], its scores before softmax."""
        return self._pooled(self._phi(frames, mask), mask)

    def encode_with_frames(self, frames: Frames, mask: Tensor) -> Features:
        """As `encode_videos`, and `frames` [V, F, D]: those behind the temporal transformer, unit length."""
        phi = self._phi(frames, mask)
        return self._pooled(phi, mask) | {"frames": functional.normalize(phi, dim=-1)}

    def _phi(self, frames: Frames, mask: Tensor) -> Tensor:
        return self.over_time(self.frame_features(frames, mask), mask).to(self.trunk.dtype)

    def _pooled(self, phi: Tensor, mask: Tensor) -> Features:
        with torch.autocast(phi.device.type, enabled=False):
            if self.afa is None:
                return {"vector": functional.normalize(self.pool(phi, mask), dim=-1)}
            raw = self.afa(phi)
            return {"vector": functional.normalize(self.pool(phi, mask, raw), dim=-1), "raw_weights": raw}

    def encode_texts(self, ids: Tensor) -> Features:
        """`vector` [T, D], unit length."""
        return {"vector": functional.normalize(self.trunk.encode_sentences(ids), dim=-1)}

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, V]."""
        return texts["vector"] @ videos["vector"].T

    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """AFA's raw scores [T, F]: what a student that teaches knows of frames; they do not depend on the text."""
        return videos.get("raw_weights")

    def pool(self, phi: Tensor, mask: Tensor, raw: Tensor | None = None) -> Tensor:
        """One vector per video [V, D], not normalised: what the published code stores.

        Args:
            phi: frames after the temporal transformer [V, F, D].
            mask: valid frames [V, F].
            raw: AFA's scores [V, F]; None for the mean over valid frames.
        """
        frames = functional.normalize(phi, dim=-1) if self.config.normalise_frames else phi
        if raw is None:
            return masked_mean(frames, mask)
        weights = self._softmax(raw / self.config.pool_temperature, mask)
        return torch.einsum("vf,vfd->vd", weights, frames)

    def frame_weights(self, videos: Features, mask: Tensor) -> Tensor:
        """AFA's weights [V, F] at temperature 1, the ones that the fine loss teaches."""
        return self._softmax(videos["raw_weights"], mask)

    def pooling_weights(self, videos: Features, mask: Tensor) -> Tensor:
        """AFA's weights [V, F] at `pool_temperature`, the ones that make the video's vector."""
        return self._softmax(videos["raw_weights"] / self.config.pool_temperature, mask)

    def _softmax(self, raw: Tensor, mask: Tensor) -> Tensor:
        if self.config.mask_padding:
            raw = raw.masked_fill(~mask.bool(), float("-inf"))
        return raw.softmax(dim=-1)
