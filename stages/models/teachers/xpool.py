"""X-Pool: every sentence pools the frames of every video by an attention of its own (specs: X-Pool)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....configs.schema import NetworkConfig
from ..clip.base import Trunk
from ..clip.trunk import head_count
from ..common.network import Features, VideoTextNetwork
from ..common.pair_blocks import score_in_blocks
from ..common.valid_frames import Frames

LAYER_NORM_EPS = 1e-5
MASKED = -1e4  # added to the logits of padded frames; finite, since caches refuse what is not


class TextConditionedPooling(nn.Module):
    """The cross-attention that pools frames for a text, and the cosine with what it makes (specs: X-Pool 3, 4 and 8).

    Texts and frames enter un-normalised. With h heads a pair has N = h F attention weights; each head's sum to one.
    Everything starts as the identity. There is no residual from the text or from the frames.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = head_count(width, heads)
        self.query, self.key, self.value = _identity(width), _identity(width), _identity(width)
        self.out, self.linear = _identity(width), _identity(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, eps=LAYER_NORM_EPS) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def texts(self, sentences: Tensor) -> Features:
        """Of sentence features [T, D]: `sentence` [T, D], unit length, and `query` [T, D]."""
        return {"sentence": functional.normalize(sentences, dim=-1), "query": self.query(self.norm1(sentences))}

    def videos(self, frames: Tensor, mask: Tensor | None) -> Features:
        """Of frame features [V, F, D]: `keys` and `values` [V, F, D], and `padding` [V, F].

        `padding` is what is added to attention logits: 0, or MASKED where the mask [V, F] is given and not set.
        """
        normed = self.norm1(frames)
        padding = frames.new_zeros(frames.shape[:2])
        if mask is not None:
            padding = padding.masked_fill(~mask.bool(), MASKED)
        return {"keys": self.key(normed), "values": self.value(normed), "padding": padding}

    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """[T, F] of pairs i, i, whose softmax over the frames is the attention; see `XPool.frame_logits`."""
        keys, queries = self._split(videos["keys"]), self._split(self._scaled(texts["query"]))
        logits = torch.einsum("the,tfhe->thf", queries, keys) + videos["padding"][:, None]
        if self.heads == 1:
            return logits[:, 0]
        return logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(self.heads)

    def weights(self, texts: Features, videos: Features) -> Tensor:
        """Attention weights [V, N, T] of every pair, the heads of a pair one after the other."""
        count, slots, _ = videos["keys"].shape
        keys = self._split(videos["keys"]).flatten(0, 1).transpose(0, 1)
        queries = self._split(self._scaled(texts["query"])).permute(1, 2, 0)
        padding = videos["padding"].flatten()[:, None]
        logits = torch.baddbmm(padding, keys, queries).view(self.heads, count, slots, -1)
        return logits.softmax(dim=2).transpose(0, 1).flatten(1, 2)

    def pooled(self, texts: Features, videos: Features) -> Tensor:
        """What every text makes of every video [T, V, D], not normalised; the plain form, with dropout in training."""
        values = self._split(videos["values"])
        weights = self.weights(texts, videos).view(len(values), self.heads, values.shape[1], -1)
        attended = torch.einsum("vhft,vfhe->tvhe", weights, values).flatten(2)
        hidden = self.norm2(self.out(attended))
        pooled: Tensor = self.norm3(hidden + self.dropout(self.linear(hidden)))
        return pooled

    def plain_score(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, V] of sentences with what they make of videos."""
        return torch.einsum("td,tvd->tv", texts["sentence"], functional.normalize(self.pooled(texts, videos), dim=-1))

    def condense(self, values: Tensor) -> Features:
        """What the quadratic form needs of values [V, F, D] (specs: X-Pool 8).

        After the softmax only the weights a [N] of a pair are its own. LN2's input is a sum of rows u weighted by a,
        LN3's one of rows p and of one row that all videos share, and so the pooled vector is one of `rows`
        r [V, N, D], of the shared one and of LN3's bias. Variances and lengths are `quadratic` [V, 3, N, N] in a,
        by the Gram matrices of u, p and r, plus `linear` [V, 3, N]: p and r with the shared row, r with the bias.
        """
        weight = self._split(self.out.weight)  # [D, h, D / h]
        attended = torch.einsum("vfhe,dhe->vhfd", self._split(values), weight).flatten(1, 2)
        u = _centred(attended + self.out.bias / self.heads)
        p = _centred(self._mix(self.norm2.weight * u))
        r = self.norm3.weight * p
        shared_p, shared_r = self._shared_rows()
        return {
            "rows": r,
            "quadratic": torch.stack([x @ x.mT for x in (u, p, r)], dim=1),
            "linear": torch.stack([p @ shared_p, r @ shared_r, r @ self.norm3.bias], dim=1),
        }

    def score(self, texts: Features, videos: Features) -> Tensor:
        """The cosines of `plain_score` from condensed videos, in one piece; 2 N D + 4 N^2 multiply-adds a pair."""
        a = self.weights(texts, videos)
        sentences = texts["sentence"].T
        dot = ((videos["rows"].flatten(0, 1) @ sentences).view_as(a) * a).sum(dim=1)
        forms = (videos["quadratic"].flatten(1, 2) @ a).view(len(a), 3, *a.shape[1:])
        u_u, p_p, r_r = (forms * a[:, None]).sum(dim=2).unbind(1)
        p_shared, r_shared, r_bias = (videos["linear"] @ a).unbind(1)
        shared_p, shared_r = self._shared_rows()
        bias, width = self.norm3.bias, self.norm3.weight.numel()
        # What LN2 and LN3 multiply by; rounding may take a variance of zero below it.
        two = (u_u.clamp_min(0) / width + LAYER_NORM_EPS).rsqrt()
        spread = two * (two * p_p + 2 * p_shared) + shared_p @ shared_p
        three = (spread.clamp_min(0) / width + LAYER_NORM_EPS).rsqrt()
        both = two * three
        squares = both * (both * r_r + 2 * (three * r_shared + r_bias))
        squares = squares + three * (three * (shared_r @ shared_r) + 2 * (shared_r @ bias)) + bias @ bias
        dot = both * dot + three * (shared_r @ sentences) + bias @ sentences
        return (dot * squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt()).mT

    def _shared_rows(self) -> tuple[Tensor, Tensor]:
        """Rows [D] of p and of r that every pair has with weight one after LN2."""
        p = _centred(self._mix(self.norm2.bias) + self.linear.bias)
        return p, self.norm3.weight * p

    def _mix(self, hidden: Tensor) -> Tensor:
        return hidden + hidden @ self.linear.weight.T

    def _split(self, features: Tensor) -> Tensor:
        """[..., D] as [..., h, D / h]."""
        return features.view(*features.shape[:-1], self.heads, -1)

    def _scaled(self, queries: Tensor) -> Tensor:
        return queries / math.sqrt(queries.shape[-1] / self.heads)


class XPool(VideoTextNetwork):
    """The X-Pool teacher: a text's own cross-attention over the frames, and its cosine with the result.

    There is no temporal transformer and no frame position: the order of the frames is not seen. A text is its
    sentence feature alone. The published code has no padded frames, and TeachCLIP's copy lets them take part as
    blank images; with `mask_padding` they are left out of the attention.

    In training a pair is computed as published, with dropout. In evaluation everything per video is done once, and a
    pair costs 12.8 K multiply-adds in place of 537 K (12 frames, one head): the same numbers but for rounding.
    """

    def __init__(self, config: NetworkConfig, trunk: Trunk) -> None:
        super().__init__(config, trunk)
        self.pooling = TextConditionedPooling(trunk.embed_dim, config.xpool.heads, config.xpool.dropout)

    def settings(self) -> tuple[object, ...]:
        return (self.config.mask_padding, self.config.xpool.heads)

    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """`keys` [V, F, D] and `padding` [V, F]; with them `values` [V, F, D] in training, or what they are condensed
        to in evaluation (`TextConditionedPooling.condense`)."""
        features = self.frame_features(frames, mask)
        with torch.autocast(features.device.type, enabled=False):
            videos = self.pooling.videos(features, mask if self.config.mask_padding else None)
            if self.training:
                return videos
            values = videos.pop("values")
            return {**videos, **self.pooling.condense(values)}

    def encode_texts(self, ids: Tensor) -> Features:
        """`sentence` [T, D], unit length, and `query` [T, D]."""
        sentences = self.trunk.encode_sentences(ids)
        with torch.autocast(sentences.device.type, enabled=False):
            return self.pooling.texts(sentences)

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, V]: the plain form for videos encoded in training, else the quadratic one, in blocks."""
        with torch.autocast(videos["keys"].device.type, enabled=False):
            if "values" in videos:
                return self.pooling.plain_score(texts, videos)
            forms = videos["quadratic"]  # times weights, a block's largest tensor
            bytes_per_pair = 3 * forms.shape[-1] * forms.element_size()
            return score_in_blocks(self.pooling.score, texts, videos, bytes_per_pair)

    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """Attention logits [T, F] of text i over the frames of video i; their softmax is y_f, the attention weights.

        With several heads, the logarithm of the mean of the heads' weights.
        """
        with torch.autocast(videos["keys"].device.type, enabled=False):
            return self.pooling.frame_logits(texts, videos)


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=-1, keepdim=True)
