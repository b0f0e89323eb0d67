"""CLIP as it is: the mean of a video's frames, without parameters of its own (CLIP4Clip's mean pooling)."""

import torch
from torch import Tensor
from torch.nn import functional

from ..common.network import Features, VideoTextNetwork, masked_mean
from ..common.valid_frames import Frames


class OpenClip(VideoTextNetwork):
    """Cosines of sentences with videos; a video is the mean of its unit frames, padded ones left out.

    There is no temporal transformer, so the order of the frames is not seen. With an open_clip model's weights this
    is a teacher that needs no training and no checkpoint of anybody else's; it can be trained all the same.
    """

    one_vector = True

    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """`vector` [V, D] and `frames` [V, F, D], unit length."""
        features = self.frame_features(frames, mask)
        with torch.autocast(features.device.type, enabled=False):
            unit = functional.normalize(features, dim=-1)
            return {"vector": functional.normalize(masked_mean(unit, mask), dim=-1), "frames": unit}

    def encode_texts(self, ids: Tensor) -> Features:
        """`vector` [T, D], unit length."""
        return {"vector": functional.normalize(self.trunk.encode_sentences(ids), dim=-1)}

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, V]."""
        with torch.autocast(texts["vector"].device.type, enabled=False):
            return texts["vector"] @ videos["vector"].T

    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, F] of sentence i with the frames of video i; of padded frames too."""
        return torch.einsum("td,tfd->tf", texts["vector"], videos["frames"])
