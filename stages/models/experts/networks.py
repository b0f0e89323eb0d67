"""MoEE and CE: the score of a caption with a video is a mean over the video's experts (specs: experts 3-6).

A caption's words are pooled to one vector, which becomes a unit vector for each expert and says how much each counts.
A video's experts become unit vectors of the same widths: each by itself in MoEE; in CE after every expert has been
gated by all that the video has. The score is the weighted mean of the experts' cosines, over those that are there.

Notation: V videos, T texts, W words, M experts in the order of their sorted names, S the width that CE shares.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ....configs.schema import ExpertsConfig, NetworkConfig
from ..common.network import Features, RetrievalNetwork
from ..common.valid_frames import Frames
from .batch import ExpertBatch, ExpertShape, unpacked
from .layers import Gate, GatedUnit, NetVlad, Pairs, unit


class ExpertNetwork(RetrievalNetwork):
    """What MoEE and CE have in common. Videos come as `ExpertBatch.packed`, texts as words [T, W, width].

    `vectors` of videos and of texts are the experts' unit vectors side by side.

    Attributes:
        names: of the experts, sorted; widths: of their unit vectors; shapes: how their features come.
        without: settings that this kind of network does not have.
    """

    reads_padding = True
    without: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: NetworkConfig, widths: Sequence[int]) -> None:
        super().__init__(config)
        settings = self.experts
        self.names = sorted(settings.modalities)
        self.widths = list(widths)
        self.shapes = expert_shapes(settings)
        text = settings.text
        self.text_pooling = NetVlad(text.width, text.clusters, text.ghosts)
        self.text_units = nn.ModuleList(GatedUnit(self.text_pooling.numbers, width) for width in widths)
        self.mixture = nn.Linear(self.text_pooling.numbers, len(self.names))
        self.poolings = nn.ModuleDict(
            {
                str(k): NetVlad(settings.modalities[name].width, settings.modalities[name].clusters)
                for k, name in enumerate(self.names)
                if settings.modalities[name].tokens
            }
        )

    @property
    def experts(self) -> ExpertsConfig:
        """The settings of this kind of network."""
        return self.config.experts

    @property
    def logit_scale(self) -> Tensor:
        """0: scores are cosines, and nothing scales them."""
        return self.mixture.weight.new_zeros(())

    def settings(self) -> Sequence[Any]:
        """See `RetrievalNetwork`: which experts, what is made of their sequences, and options."""
        return [
            self.experts.model_dump(mode="json", exclude={"text": {"encoder"}, **dict.fromkeys(self.without, True)})
        ]

    def encode_videos(self, frames: Frames, mask: Tensor) -> Features:
        """Unit vectors of the experts [V, sum of widths], and which a video has [V, M].

        Args:
            frames, mask: the two tensors of `ExpertBatch.packed`; what a video lacks may hold anything.
        """
        assert isinstance(frames, Tensor)
        with torch.autocast(frames.device.type, enabled=False):
            batch = unpacked(frames.to(self.mixture.weight.dtype), mask.bool(), self.shapes)
            vectors = self.video_vectors(self.pooled(batch), batch.available)
        return {"vectors": torch.cat(vectors, dim=1), "available": batch.available}

    def encode_texts(self, ids: Tensor) -> Features:
        """Unit vectors for the experts [T, sum of widths], and the experts' weights [T, M], of words [T, W, width]."""
        with torch.autocast(ids.device.type, enabled=False):
            pooled = self.text_pooling(ids.to(self.mixture.weight.dtype))
            vectors = [unit(pooled) for unit in self.text_units]
            weights = self.mixture(pooled).softmax(dim=-1)
        if self.experts.fixed_weights:
            weights = torch.full_like(weights, 1 / len(self.names))
        return {"vectors": torch.cat(vectors, dim=1), "weights": weights}

    def score(self, texts: Features, videos: Features) -> Tensor:
        """See `RetrievalNetwork`: sums of cosines [T, V], weighted by the caption among the experts of the video.

        A video without any expert has no score: NaN.
        """
        vectors, own = texts["vectors"], videos["vectors"]
        if self.experts.keep_missing:
            return vectors @ own.T
        weights, available = texts["weights"], videos["available"].to(own.dtype)
        weighted = vectors * self._by_number(weights)
        there = own * self._by_number(available)
        return (weighted @ there.T) / (weights @ available.T)

    def _by_number(self, values: Tensor) -> Tensor:
        """What each expert has [N, M] at each number of its unit vector [N, sum of widths]."""
        return torch.cat([values[:, k : k + 1].expand(-1, width) for k, width in enumerate(self.widths)], dim=1)

    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """There are no frames."""
        return None

    def any_inputs(self, videos: int) -> tuple[Tensor, Tensor, Tensor]:
        """What this network takes, with any values: `ExpertBatch.packed` of videos that have all experts [V, P],
        [V, M], and the words of one text [1, W, D]."""
        numbers, text = sum(shape.numbers for shape in self.shapes.values()), self.experts.text
        made = self.mixture.weight.new_ones
        there = made((videos, len(self.names)), dtype=torch.bool)
        return made((videos, numbers)), there, made((1, text.words, text.width))

    def pooled(self, batch: ExpertBatch) -> list[Tensor]:
        """Of each expert one vector a video [V, D], sequences pooled; zeros of what a video lacks go in like others."""
        found = []
        for k, value in enumerate(batch.features.values()):
            missing = ~batch.available[:, k].view(-1, *[1] * (value.ndim - 1))
            whole = value.masked_fill(missing, 0)
            found.append(self.poolings[str(k)](whole) if str(k) in self.poolings else whole)
        return found

    @abstractmethod
    def video_vectors(self, pooled: Sequence[Tensor], available: Tensor) -> list[Tensor]:
        """The experts' unit vectors [V, width], of their pooled vectors and which a video has [V, M]."""


class Moee(ExpertNetwork):
    """MoEE: every expert goes through a gated unit of its own (specs: experts 5)."""

    without = ("shared", "gating", "include_self", "activation", "pair_layers", "pair_norm")

    def __init__(self, config: NetworkConfig) -> None:
        modalities = config.experts.modalities
        super().__init__(config, [modalities[name].width for name in sorted(modalities)])
        self.video_units = nn.ModuleList(
            GatedUnit(width, own) for width, own in zip(pooled_widths(self.experts), self.widths, strict=True)
        )

    def video_vectors(self, pooled: Sequence[Tensor], available: Tensor) -> list[Tensor]:
        """See `ExpertNetwork`."""
        return [unit(value) for unit, value in zip(self.video_units, pooled, strict=True)]


class CollaborativeExperts(ExpertNetwork):
    """CE: experts are reduced to one width and gate each other (specs: experts 4).

    With `gating: false`, or a single expert, each is gated by itself alone (published: `mimic_ce_dims`).
    """

    def __init__(self, config: NetworkConfig) -> None:
        settings = config.experts
        super().__init__(config, [settings.shared] * len(settings.modalities))
        self.gating = settings.gating and len(self.names) > 1
        self.reductions = nn.ModuleList(nn.Linear(width, settings.shared) for width in pooled_widths(settings))
        if self.gating:
            self.pairs = Pairs(settings.shared, settings.pair_layers, settings.pair_norm, settings.activation)
        self.gates = nn.ModuleList(Gate(settings.shared, with_others=self.gating) for _ in self.names)

    def video_vectors(self, pooled: Sequence[Tensor], available: Tensor) -> list[Tensor]:
        """See `ExpertNetwork`."""
        current = self.reduced(pooled)
        for k, gate in enumerate(self.gates):
            signal = self.signal(k, current, available) if self.gating else None
            current[k] = gate(current[k], signal)  # the experts behind it meet it as it is now
        return current

    def reduced(self, pooled: Sequence[Tensor]) -> list[Tensor]:
        """The experts' pooled vectors as unit vectors of the shared width."""
        return [unit(linear(value)) for linear, value in zip(self.reductions, pooled, strict=True)]

    def signal(self, expert: int, current: Sequence[Tensor], available: Tensor) -> Tensor:
        """What the experts of a video say of one of them [V, S]: the mean over those that it has; 0 if it lacks it."""
        partners = list(current)
        own = available[:, expert : expert + 1]
        if not self.experts.include_self:
            del partners[expert]
            available = torch.cat([available[:, :expert], available[:, expert + 1 :]], dim=1)
        said: Tensor = self.pairs(current[expert], torch.stack(partners))
        both = (available & own).T.to(said.dtype)  # [P, V]
        return (said * both[..., None]).sum(dim=0) / both.sum(dim=0).clamp(min=1)[:, None]


def expert_shapes(settings: ExpertsConfig) -> dict[str, ExpertShape]:
    """How the features of each expert come, by sorted name."""
    return {
        name: ExpertShape(settings.modalities[name].width, settings.modalities[name].tokens)
        for name in sorted(settings.modalities)
    }


def pooled_widths(settings: ExpertsConfig) -> list[int]:
    """Numbers of each expert's one vector a video, by sorted name."""
    return [
        expert.width * max(1, expert.clusters)
        for expert in (settings.modalities[name] for name in sorted(settings.modalities))
    ]
