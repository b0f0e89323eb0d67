"""Frozen teachers: what stage one scores with and online teaching runs.

A teacher takes uint8 frames, their times and captions as strings; tokens, resolution and normalisation are its own.
A network of ours, an open_clip model as it is, or a class of the user's own (own.py).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from ....configs.schema import NetworkConfig, TeacherConfig
from ....errors import CheckpointError, ConfigError, TeachclipError
from ....remedies import OTHER, Prepare, Remedy
from ...runtime.device import autocast, plain_float32
from ...runtime.reporting import Reporter
from ..build import KINDS, build_network
from ..checkpoints.files import load_network, network_digest, trained_with
from ..checkpoints.published import FRAMES, WORDS
from ..clip.catalog import description, resolved
from ..clip.tokens import VOCABULARY
from ..common.network import Features, VideoTextNetwork
from .own import OwnTeacher


class Teacher(Protocol):
    """What stage one asks of a teacher. Notation: T texts, V videos, F frame slots, S image size.

    Attributes:
        name: its name in the score store.
        score_version: raised by hand whenever the same weights give other scores than before.
        frames, words: slots a video and a caption are padded to, on which scores may depend; words 0: no limit.
        scale: exp(logit_scale); a soft label is score x scale.
        weights_digest: hash of everything the scores depend on beside frames and captions.
    """

    name: str
    score_version: int
    frames: int
    words: int
    scale: float
    weights_digest: str

    def encode_videos(self, frames: Tensor, mask: Tensor, times: Tensor) -> Features:
        """Features of uint8 frames [V, F, 3, S, S], valid frames [V, F] and their seconds [V, F] (NaN in padding)."""
        ...

    def encode_texts(self, captions: Sequence[str]) -> Features:
        """Features of T captions."""
        ...

    def score(self, texts: Features, videos: Features) -> Tensor:
        """Raw scores [T, V]; no pair depends on another."""
        ...

    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """Frame-text scores [T, F] of text i with video i, before softmax, finite in padding too, or None."""
        ...


Precision = Literal["float32", "bf16"]


class NetworkTeacher:
    """Any network of ours as a teacher: in evaluation mode, without gradients.

    Args:
        precision: of the encoders; their features and the scores are float32. What is kept is made in float32.
    """

    def __init__(self, name: str, network: VideoTextNetwork, precision: Precision = "float32") -> None:
        self.name, self.precision = name, precision
        self.network = network.eval().requires_grad_(False)
        self.score_version = network.score_version
        self.frames, self.words = network.config.frames, network.config.words
        self.scale = float(network.logit_scale.exp())
        self.weights_digest = network_digest(network)
        if not network.reads_captions:
            raise CheckpointError(
                f"teacher {name!r} knows {network.trunk.vocab_size} tokens, captions have {VOCABULARY}"
            )

    @torch.no_grad()
    def encode_videos(self, frames: Tensor, mask: Tensor, times: Tensor) -> Features:
        """See `Teacher`; times are not used.

        Raises:
            CheckpointError: frames of another number or size than the network takes.
        """
        size = self.network.trunk.image_size
        if frames.shape[1] != self.frames or frames.shape[-1] != size:
            raise CheckpointError(
                f"teacher {self.name!r} takes {self.frames} frames of {size} pixels; "
                f"these are {frames.shape[1]} of {frames.shape[-1]}",
                hint=self._other_frames,
            )
        with self._encoding():
            return self.network.encode_videos(frames, mask)

    @torch.no_grad()
    def encode_texts(self, captions: Sequence[str]) -> Features:
        """See `Teacher`."""
        return self.encode_ids(self.network.take_ids(self.tokenize(captions)))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids of captions [T, W], on the CPU."""
        return self.network.tokenize(captions)

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Features:
        """Features of texts whose token ids [T, W] are on the network's device (`VideoTextNetwork.take_ids`)."""
        with self._encoding():
            return self.network.encode_texts(ids)

    def _encoding(self) -> AbstractContextManager[object]:
        device = self.network.logit_scale.device
        return autocast(device, "bf16") if self.precision == "bf16" else plain_float32(device)

    @torch.no_grad()
    def score(self, texts: Features, videos: Features) -> Tensor:
        """See `Teacher`."""
        with plain_float32(self.network.logit_scale.device):
            return self.network.score(texts, videos)

    @torch.no_grad()
    def frame_logits(self, texts: Features, videos: Features) -> Tensor | None:
        """See `Teacher`."""
        with plain_float32(self.network.logit_scale.device):
            return self.network.frame_logits(texts, videos)

    def refuse_resized(self, resize_mode: str, interpolation: str) -> None:
        """Refuse frames that were resized otherwise than its trunk wants them.

        Raises:
            CheckpointError: naming both.
        """
        wanted = self.network.trunk.pixels
        if (resize_mode, interpolation) != (wanted.resize_mode, wanted.interpolation):
            raise CheckpointError(
                f"teacher {self.name!r} takes frames resized by {wanted.resize_mode}, {wanted.interpolation}; "
                f"these are by {resize_mode}, {interpolation}",
                hint=self._other_frames,
            )

    @property
    def _other_frames(self) -> Remedy:
        own = {f"prepare.{key}": value for key, value in self.network.trunk.prepared.items()}
        return Remedy(
            "set its `frames`, where its checkpoint does not record how many, or prepare others for it and "
            "name them as its `prepared`",
            Prepare({"prepare.max_frames": self.frames, **own, "prepare.frames": OTHER}),
        )


def refuse_resized(teacher: Teacher, resize_mode: str, interpolation: str) -> None:
    """Refuse frames that were resized otherwise than a network of ours wants them; others see to their frames alone.

    Raises:
        CheckpointError: naming both.
    """
    if isinstance(teacher, NetworkTeacher):
        teacher.refuse_resized(resize_mode, interpolation)


def may_be_shared(teacher: Teacher) -> bool:
    """Whether several threads may call it at a time: of a class of the user's own nobody has promised that."""
    return not isinstance(teacher, OwnTeacher)


def load_teacher(
    config: TeacherConfig,
    checkpoint: Path | None,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    reporter: Reporter | None = None,
) -> Teacher:
    """The teacher that `config` describes.

    Args:
        checkpoint: where `config.checkpoint` lies: a run folder (a trained student teaches, too), a file of ours, or
            a published one.
        precision: of a network of ours; a class of the user's own has its own.

    Raises:
        CheckpointError: the checkpoint, or the open_clip model's weights, cannot be loaded.
        ConfigError: there is no such open_clip model, or no such class.
        PluginError: the class is not what a teacher should be.
    """
    if config.plugin is not None:
        return OwnTeacher(config, torch.device(device))
    if config.openclip is not None:
        network = _zero_shot(config, reporter).to(device)
    else:
        assert checkpoint is not None
        network = load_network(checkpoint, device, frames=config.frames, words=config.words)
    return NetworkTeacher(config.name, network, precision)


def trained_alone(name: str) -> AbstractContextManager[None]:
    """Where training makes the checkpoint that is missing: it is a teacher's, whom nobody teaches."""
    kind = name if name in KINDS and name != "student" else "xclip"
    return trained_with({"train.network.kind": kind, "train.teachers": "[]", "train.init": "null"})


def _zero_shot(config: TeacherConfig, reporter: Reporter | None) -> VideoTextNetwork:
    """An open_clip model as it is (network kind `openclip`)."""
    assert config.openclip is not None
    key = f"score.teachers.{config.name}.openclip"
    if config.openclip.weights is None:
        raise ConfigError("an open_clip model without weights knows nothing", where=f"{key}.weights")
    try:
        trunk = resolved(config.openclip, reporter)
        most = description(trunk).context_length
        frames, words = config.frames or FRAMES, config.words or min(WORDS, most)
        if words > most:  # told before any weights are fetched
            raise ConfigError(
                f"{words} words are asked for; this model has {most} at most",
                where=f"score.teachers.{config.name}.words",
            )
        return build_network(NetworkConfig(kind="openclip", trunk=trunk, frames=frames, words=words, temporal_layers=0))
    except TeachclipError as error:  # which speaks of the network that is trained
        where = error.where and error.where.replace("train.network.trunk", key)
        hint = error.hint.replace("train.network.trunk", key) if isinstance(error.hint, str) else error.hint
        raise type(error)(error.what, where=where, hint=hint, details=error.details) from error
