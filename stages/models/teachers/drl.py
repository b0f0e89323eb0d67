"""DRL: every word meets its best frame and every frame its best word (specs: DRL)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....configs.schema import NetworkConfig
from ....errors import CheckpointError
from ..clip.base import Trunk
from ..common.network import Features, VideoTextNetwork, masked_mean
from ..common.pair_blocks import block_bytes, video_blocks
from ..common.temporal import INIT_STD
from ..common.valid_frames import Frames
from .cdcr import cdcr

TEXTS_AT_A_TIME = 32
"""Of like length: fewer have less padding between them, more are fewer kernels and larger products."""


class Drl(VideoTextNetwork):
    """The DRL teacher, as published.

    Padded words and frames have similarity 0, not -inf, and take part in both maxima, so a score depends on the number
    of word and frame slots, which are fixed. That rule is the definition: `mask_padding` changes nothing.

    `config.drl.interaction` chooses between the weighted token-wise interaction (wti), its unweighted form (ti) and
    the dot product of a sentence with the mean frame (dp); the latter two have no weight networks.
    """

    needs = ("words",)
    reads_padding = True

    def __init__(self, config: NetworkConfig, trunk: Trunk) -> None:
        super().__init__(config, trunk)
        self.text_weight_fc: nn.Module | None = None
        self.video_weight_fc: nn.Module | None = None
        if config.drl.interaction == "wti":
            self.text_weight_fc = _weight_network(trunk.embed_dim, config.drl.layers)
            self.video_weight_fc = _weight_network(trunk.embed_dim, config.drl.layers)

    def settings(self) -> Sequence[Any]:
        drl = self.config.drl
        return (drl.interaction, drl.frame_scores, self.config.words, self.config.frames)

    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """What `video_features` says, of frames as `frame_features` takes them.

        Raises:
            CheckpointError: another number of frame slots than config.frames.
        """
        self._refuse_other(mask.shape[1], self.config.frames, "frames a video")
        clip_frames = self.frame_features(frames, mask)
        return self.video_features(self.over_time(clip_frames, mask), mask, clip_frames)

    def encode_texts(self, ids: Tensor) -> Features:
        """What `text_features` says, of token ids [T, W] whose last valid one is EOT, the largest.

        Raises:
            CheckpointError: another number of word slots than config.words.
        """
        self._refuse_other(ids.shape[1], self.config.words, "words a caption")
        words, _ = self.trunk.encode_words(ids)
        return self.text_features(words, torch.arange(ids.shape[1], device=ids.device) <= ids.argmax(1, keepdim=True))

    def video_features(self, phi: Tensor, mask: Tensor, clip_frames: Tensor) -> Features:
        """What is compared, of frames after (phi) and before (clip_frames) the temporal transformer [V, F, D].

        Returns:
            `frames` [V, F, D], unit length, padding included; `weights` beta [V, F], 0 in padding; `mask` [V, F];
            for frame scores `trunk` also `clip_frames` [V, F, D], for dp also `vector` [V, D], unit length.
            A video without a valid frame has zero weights and scores 0.
        """
        with torch.autocast(phi.device.type, enabled=False):
            phi, mask = phi.to(self.trunk.dtype), mask.bool()
            frames = functional.normalize(phi, dim=-1)
            features = {"frames": frames, "weights": _weights(self.video_weight_fc, phi, mask), "mask": mask}
            if self.config.drl.frame_scores == "trunk":
                features["clip_frames"] = functional.normalize(clip_frames, dim=-1)
            if self.config.drl.interaction == "dp":
                features["vector"] = functional.normalize(masked_mean(frames, mask), dim=-1)
            return features

    def text_features(self, words: Tensor, mask: Tensor) -> Features:
        """What is compared, of word features [T, W, D], not normalised, and valid words [T, W].

        Returns:
            `words` [T, W, D], unit length, padding included; `weights` alpha [T, W], 0 in padding; `mask` [T, W];
            `sentence` [T, D], the last valid word.
        """
        with torch.autocast(words.device.type, enabled=False):
            mask = mask.bool()
            unit = functional.normalize(words, dim=-1)
            sentence = unit[torch.arange(len(unit), device=unit.device), mask.sum(1) - 1]
            weights = _weights(self.text_weight_fc, words, mask)
            return {"words": unit, "weights": weights, "mask": mask, "sentence": sentence}

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Raw scores [T, V]: in training `plain_score`, as for the texts' lengths a GPU would have to be waited for; in
        evaluation equal to it, in blocks of texts of like length without their common padding.

        Source: specs, DRL 7. In evaluation no tensor grows with T x V x W x F.
        """
        if self.training:
            return self.plain_score(texts, videos)
        with torch.autocast(texts["words"].device.type, enabled=False):
            if self.config.drl.interaction == "dp":
                return texts["sentence"] @ videos["vector"].T
            lengths, order = texts["mask"].sum(1).sort(stable=True)
            longest = lengths.tolist()
            frame_blocks = list(_frame_blocks(videos, self.config.words))
            rows = []
            for start in range(0, len(order), TEXTS_AT_A_TIME):
                part = order[start : start + TEXTS_AT_A_TIME]
                text_block = _text_block(texts, part, longest[start : start + TEXTS_AT_A_TIME][-1])
                rows.append(torch.cat([_token_wise(text_block, block) for block in frame_blocks], dim=1))
            return torch.cat(rows)[order.argsort()]

    def plain_score(self, texts: Features, videos: Features) -> Tensor:
        """Raw scores [T, V] as defined (specs: DRL 4), over all slots and in one piece; `score` equals it."""
        with torch.autocast(texts["words"].device.type, enabled=False):
            if self.config.drl.interaction == "dp":
                return texts["sentence"] @ videos["vector"].T
            sim_TVWF = self.similarities(texts, videos)
            of_words = torch.einsum("tvw,tw->tv", sim_TVWF.amax(3), texts["weights"])
            of_frames = torch.einsum("tvf,vf->tv", sim_TVWF.amax(2), videos["weights"])
            return (of_words + of_frames) / 2

    def similarities(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, V, W, F] of every word with every frame; 0 in padded slots."""
        words = _without_padding(texts["words"], texts["mask"])
        frames = _without_padding(videos["frames"], videos["mask"])
        return torch.einsum("twd,vfd->tvwf", words, frames)

    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """Frame-text scores [T, F] of text i with video i: cosines, before softmax (specs: DRL 5, candidates A to C).

        config.drl.frame_scores: `temporal`, the sentence with frames after the temporal transformer; `trunk`, with
        CLIP's frames; both with padded frames too. `best-word`: every frame's largest similarity, 0 for a padded one.
        """
        with torch.autocast(texts["words"].device.type, enabled=False):
            if self.config.drl.frame_scores == "best-word":
                words = _without_padding(texts["words"], texts["mask"])
                frames = _without_padding(videos["frames"], videos["mask"])
                return (frames @ words.mT).amax(2)
            frames = videos["frames" if self.config.drl.frame_scores == "temporal" else "clip_frames"]
            return torch.einsum("td,tfd->tf", texts["sentence"], frames)

    @property
    def has_auxiliary_loss(self) -> bool:
        return self.config.drl.cdcr > 0

    def auxiliary_loss(self, texts: Features, videos: Features) -> Tensor | None:
        """CDCR times `cdcr_weight`; None for `cdcr: 0`."""
        drl = self.config.drl
        return drl.cdcr_weight * cdcr(drl, texts, videos) if drl.cdcr else None

    def _refuse_other(self, found: int, wanted: int, what: str) -> None:
        if found != wanted:
            raise CheckpointError(f"this DRL takes exactly {wanted} {what}, padded; it is given {found}")


def _weight_network(width: int, layers: int) -> nn.Module:
    """One raw weight per vector: `layers` Linear layers with ReLU between them, the last to 1."""
    modules: list[nn.Module] = []
    for _ in range(layers - 1):
        modules += [nn.Linear(width, width), nn.ReLU()]
    modules.append(nn.Linear(width, 1))
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=INIT_STD)
            nn.init.zeros_(module.bias)
    return modules[0] if layers == 1 else nn.Sequential(*modules)  # published names have no index for one layer


def _weights(network: nn.Module | None, vectors: Tensor, mask: Tensor) -> Tensor:
    """Weights [N, M] of vectors [N, M, D], not normalised: softmax over valid slots, or even; 0 in padding."""
    raw = vectors.new_zeros(mask.shape) if network is None else network(vectors).squeeze(-1)
    # The lowest finite number rather than -inf: no valid slot would make NaN.
    return raw.masked_fill(~mask, torch.finfo(raw.dtype).min).softmax(-1) * mask


def _without_padding(vectors: Tensor, mask: Tensor) -> Tensor:
    """Vectors [N, M, D], zero in padded slots, so that their similarities are."""
    return vectors * mask.unsqueeze(2)


def _text_block(texts: Features, part: Tensor, longest: int) -> Features:
    """Texts at `part`, cut to their `longest`; `floor` [n, 1, 1] is 0 for a text that has padded slots, else -inf."""
    mask = texts["mask"][part]
    return {
        "words": _without_padding(texts["words"][part, :longest], mask[:, :longest]),
        "weights": texts["weights"][part, :longest],
        "floor": texts["weights"].new_zeros(len(part), 1, 1).masked_fill(mask.all(1)[:, None, None], float("-inf")),
    }


def _frame_blocks(videos: Features, words: int) -> Iterator[Features]:
    """`frames` [F, v, D], zero in padding, and `weights` [F, v]: frames first, so that maxima run over whole rows.

    A block is small enough for its frames, which every block of texts reads again, and their similarities together.
    """
    frames = videos["frames"]
    bytes_per_frame = (TEXTS_AT_A_TIME * words + frames.shape[2]) * frames.element_size()
    bytes_per_video = frames.shape[1] * bytes_per_frame
    for block in video_blocks(videos, max(1, block_bytes(frames) // bytes_per_video)):
        mask, frames = block["mask"], block["frames"]
        if mask.is_cuda or not mask.all():  # a GPU would have to be waited for
            frames = _without_padding(frames, mask)
        yield {"frames": frames.transpose(0, 1).contiguous(), "weights": block["weights"].T}


def _token_wise(texts: Features, videos: Features) -> Tensor:
    """Scores [n, v] of a block of texts with a block of videos (specs: DRL 7)."""
    words, frames = texts["words"], videos["frames"]
    sim_nWFv = (words.flatten(0, 1) @ frames.flatten(0, 1).T).view(*words.shape[:2], *frames.shape[:2])
    of_words = (sim_nWFv.amax(2) * texts["weights"].unsqueeze(2)).sum(1)
    best_words = torch.maximum(sim_nWFv.amax(1), texts["floor"])
    return (of_words + (best_words * videos["weights"]).sum(1)) / 2
