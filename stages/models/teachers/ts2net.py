"""TS2-Net: tokens shifted between neighbouring frames, and the patches of each frame that say most (specs: TS2-Net).

Notation beside the other networks': N tokens of a frame, of which the first is the class token and P = N - 1 are
patches; K patches selected per frame.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....configs.schema import NetworkConfig, Ts2NetConfig
from ....errors import ConfigError
from ....remedies import Change, Remedy
from ..clip.base import Trunk
from ..clip.trunk import ClipTrunk, shift_step
from ..common.network import Features, VideoTextNetwork
from ..common.pair_blocks import score_in_blocks
from ..common.temporal import INIT_STD
from ..common.valid_frames import Frames, ValidFrames
from .perturbed_top_k import perturbed_top_k, seeded_noise, video_seeds

SHARPNESS = 4.0  # of the softmax over frames that weighs their cosines
MASKED = -1e18


class TokenSelector(nn.Module):
    """How much each patch says, given its frame's class token (specs: TS2-Net 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, half, bias=False)
        self.pair = nn.Linear(2 * half, half, bias=False)
        self.score = nn.Linear(half, 1, bias=False)
        for layer in (self.own, self.pair, self.score):
            nn.init.normal_(layer.weight, std=INIT_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores [..., P] within (-1, 1) of the patches among tokens [..., N, D], not normalised."""
        own = functional.gelu(self.own(self.norm(tokens)))
        frame, patches = own[..., :1, :].expand_as(own[..., 1:, :]), own[..., 1:, :]
        pair = functional.gelu(self.pair(torch.cat([patches, frame], dim=-1)))
        scores: Tensor = self.score(pair).squeeze(-1)
        return scores.tanh()


class Ts2Net(VideoTextNetwork):
    """The TS2-Net teacher.

    `config.ts2net.shift_layers` tells the authors' network (10 and 11, whatever the trunk's depth) from the one that
    TeachCLIP runs (none). Its frame mask is tiled over the tokens instead of repeated for each, which is the published
    definition, whatever `mask_padding` says: of F frames, frame f is matched where entry (1 + K) f mod F of the mask is
    valid, and temporal attention sees token j where entry j mod F is.

    The noise of the selection is part of the network in evaluation too. There it comes from a generator seeded by each
    video's own frames and mask, so features do not depend on batch, order or device; in training from torch's global
    generator. With `sigma: 0` nothing trains the selector.

    Raises:
        ConfigError: shifted blocks that the trunk does not have, too few tokens to shift, or fewer patches than are
            selected.
    """

    needs = ("patches",)

    def __init__(self, config: NetworkConfig, trunk: Trunk) -> None:
        assert isinstance(trunk, ClipTrunk)
        _refuse_unfit(config.ts2net, trunk)
        super().__init__(config, trunk)
        self.selector = TokenSelector(trunk.embed_dim)

    def settings(self) -> Sequence[Any]:
        special = self.config.ts2net
        return (list(special.shift_layers), special.selected, special.samples, special.sigma)

    def encode_videos(self, frames: Frames, mask: Tensor, noise: Tensor | None = None) -> Features:
        """`frames` [V, F, D], unit length, from after the temporal transformer, and `matched` [V, F], 1 where a frame
        takes part in the score.

        Args:
            frames, mask: as `class_tokens` takes them.
            noise: standard normal draws [V, F, samples, P] in place of its own.

        Raises:
            ConfigError: the frames are class tokens.
        """
        # First: a GPU is asked for seeds while it has nothing else to do, and the CPU draws while it encodes.
        seeds = self.seeds(frames, mask) if noise is None else ()
        tokens = self.tokens(frames, mask)
        with torch.autocast(tokens.device.type, enabled=False):
            scores = self.selector(tokens)
            if noise is None:
                noise = self.noise(seeds, scores)
            selected = self.select(tokens, self.indicator(scores, noise))
        phi = self.frames_over_time(selected, mask).to(self.trunk.dtype)
        matched = self.tiled(mask)[:, :: 1 + self.config.ts2net.selected]
        return {"frames": functional.normalize(phi, dim=-1), "matched": matched.to(phi.dtype)}

    def encode_texts(self, ids: Tensor) -> Features:
        """`sentence` [T, D], unit length."""
        return {"sentence": functional.normalize(self.trunk.encode_sentences(ids), dim=-1)}

    def tokens(self, frames: Frames, mask: Tensor) -> Tensor:
        """All tokens of every frame slot [V, F, N, D], not normalised; `frames` as `class_tokens` takes them."""
        if isinstance(frames, Tensor) and frames.ndim == 3:
            raise ConfigError(
                "TS2-Net selects among all tokens of a frame and cannot work on cached class tokens",
                hint=Remedy("train the trunk too", Change({"train.trunk": "full"})),
            )
        return self.trunk.all_tokens(*self.images(frames, mask), self.config.ts2net.shift_layers)

    def seeds(self, frames: Frames, mask: Tensor) -> Sequence[int]:
        """Of each video's noise; none where it comes from torch's generator, or there is none."""
        if self.training or not self.config.ts2net.sigma:
            return ()
        return video_seeds(frames.frames if isinstance(frames, ValidFrames) else frames, mask)

    def noise(self, seeds: Sequence[int], scores: Tensor) -> Tensor:
        """Standard normal draws [V, F, samples, P] for patch scores [V, F, P]; without sigma one sample of zeros."""
        special = self.config.ts2net
        if not special.sigma:
            return scores.new_zeros(*scores.shape[:2], 1, scores.shape[2])
        shape = (scores.shape[1], special.samples, scores.shape[2])
        if self.training:
            return torch.randn(len(scores), *shape, device=scores.device)
        return seeded_noise(seeds, shape, scores.device)

    def indicator(self, scores: Tensor, noise: Tensor) -> Tensor:
        """Soft choices [V, F, K, P] of patches with scores [V, F, P] under noise [V, F, samples, P]."""
        return perturbed_top_k(scores, noise, self.config.ts2net.selected, self.config.ts2net.sigma)

    def select(self, tokens: Tensor, indicator: Tensor) -> Tensor:
        """Class token and selected patches of each frame [V, F (1 + K), D], frame by frame."""
        selected = torch.einsum("vfkp,vfpd->vfkd", indicator, tokens[:, :, 1:])
        return torch.cat([tokens[:, :, :1], selected], dim=2).flatten(1, 2)

    def tiled(self, mask: Tensor) -> Tensor:
        """The mask [V, F (1 + K)] as the published code widens [V, F] to tokens: entry j is that of frame j mod F."""
        return mask.repeat(1, 1 + self.config.ts2net.selected)

    def frames_over_time(self, selected: Tensor, mask: Tensor) -> Tensor:
        """phi [V, F, D], not normalised: the class tokens among the selected ones, after the temporal transformer."""
        return self.over_time(selected, self.tiled(mask))[:, :: 1 + self.config.ts2net.selected]

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Raw scores [T, V] (specs: TS2-Net 4); computed in blocks, so that no tensor grows with T x V x F."""
        frames = videos["frames"]
        with torch.autocast(frames.device.type, enabled=False):
            return score_in_blocks(_match, texts, videos, frames.shape[1] * frames.element_size())

    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, F] of sentence i with all frames of video i, padded ones too (specs: TS2-Net 5)."""
        return torch.einsum("td,tfd->tf", texts["sentence"], videos["frames"])


def _match(texts: Features, videos: Features) -> Tensor:
    """Scores of every pair in one piece; frames come before videos, which is how reductions over them are fast."""
    frames, matched = videos["frames"].transpose(0, 1), videos["matched"].T.bool()
    cosines = (texts["sentence"] @ frames.flatten(0, 1).T).view(-1, *matched.shape)
    lengths: Tensor = torch.linalg.vector_norm(cosines * matched, dim=1, keepdim=True)
    weights = (SHARPNESS * cosines / lengths).masked_fill(~matched, MASKED).softmax(dim=1)
    return (weights * cosines).sum(dim=1)


def _refuse_unfit(special: Ts2NetConfig, trunk: ClipTrunk) -> None:
    sizes = trunk.sizes
    absent = [layer for layer in special.shift_layers if layer >= sizes.vision_layers]
    if absent:
        raise ConfigError(
            f"ts2net.shift_layers names block {absent[0]}; this trunk has {sizes.vision_layers}, counted from 0",
            hint=Remedy("name others", Change({"train.network.ts2net.shift_layers": _last_two(sizes.vision_layers)})),
        )
    patches = (sizes.image_size // sizes.patch_size) ** 2
    if special.shift_layers:
        shift_step(1 + patches)
    if special.selected > patches:
        raise ConfigError(
            f"ts2net.selected asks for {special.selected} patches of a frame; this trunk has {patches}",
            hint=Remedy("select fewer", Change({"train.network.ts2net.selected": patches})),
        )


def _last_two(layers: int) -> str:
    return "[" + ",".join(map(str, range(max(0, layers - 2), layers))) + "]"
