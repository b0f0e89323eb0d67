"""Frozen teachers: what stage one scores with and online teaching runs.

A teacher takes uint8 frames, their times and captions as strings; tokens, resolution and normalisation are its own.
A network of ours, an open_clip model as it is, one of transformers (dual_encoder.py), or a class of the user's own
(own.py). A re-ranker is none: it scores pairs, not all of them (cross_encoder.py).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from ....configs.schema import ExpertsConfig, NetworkConfig, TeacherConfig
from ....errors import CheckpointError, ConfigError, TeachclipError
from ....remedies import OTHER, Prepare, Remedy
from ...runtime.device import autocast, plain_float32
from ...runtime.reporting import Reporter
from ..build import KINDS, build_clip_network
from ..checkpoints.files import load_network, network_digest, trained_with
from ..checkpoints.published import FRAMES, WORDS, title_of
from ..clip.catalog import description, resolved
from ..clip.tokens import VOCABULARY
from ..common.network import Features, VideoTextNetwork
from ..experts.networks import ExpertNetwork
from .dual_encoder import DualEncoder
from .experts import ExpertTeacher
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

    def encode_texts(self, captions: Sequence[str]) -> Features:
        """See `Teacher`."""
        return self.encode_ids(self.network.needed_ids(self.tokenize(captions)))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids of captions [T, W], on the CPU."""
        return self.network.tokenize(captions)

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Features:
        """Features of texts by their token ids [T, W], as `VideoTextNetwork.needed_ids` gives them."""
        with self._encoding():
            return self.network.encode_texts(ids.to(self.network.logit_scale.device))

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
    """Whether several threads may call it at a time: of others' code nobody has promised that."""
    return not isinstance(teacher, OwnTeacher | DualEncoder)


type Words = Callable[[ExpertsConfig], tuple[Callable[[Sequence[str]], Tensor], str]]
"""For a network on experts, what gives the words [T, W, D] of captions, and what stands for their text encoder."""


def texts_encoder(teacher: Teacher) -> Callable[[Sequence[str]], Callable[[], Features]]:
    """What begins to encode captions, as far as the teacher's device is not needed, and gives what ends it."""

    def begin(captions: Sequence[str]) -> Callable[[], Features]:
        if isinstance(teacher, NetworkTeacher):
            return partial(teacher.encode_ids, teacher.network.needed_ids(teacher.tokenize(captions)))
        return partial(teacher.encode_texts, captions)

    return begin


def load_teacher(
    config: TeacherConfig,
    checkpoint: Path | None,
    device: str | torch.device = "cpu",
    reporter: Reporter | None = None,
    precision: Precision = "float32",
    words: Words | None = None,
) -> Teacher:
    """The teacher that `config` describes.

    Args:
        checkpoint: where `config.checkpoint` lies: a run folder (a trained student teaches, too), a file of ours, or
            a published one.
        precision: of a network of ours; a class of the user's own has its own.
        words: of captions, which a teacher on experts needs.

    Raises:
        CheckpointError: the checkpoint, or the open_clip model's weights, cannot be loaded.
        ConfigError: there is no such model, no such class, a library is not installed, or it is a re-ranker.
        PluginError: the class is not what a teacher should be.
    """
    if config.plugin is not None:
        return OwnTeacher(config, torch.device(device))
    if config.transformers is not None:
        return DualEncoder(config, torch.device(device))
    if config.cross_encoder is not None:
        raise ConfigError(
            f"teacher {config.name!r} is a re-ranker, which scores few pairs and gives no features: its scores teach "
            "from the store, and nothing else can be asked of it",
            where=f"score.teachers.{config.name}.cross_encoder",
        )
    if config.openclip is not None:
        network = _zero_shot(config, reporter).to(device)
    else:
        assert checkpoint is not None
        found = load_network(checkpoint, device, frames=config.frames, words=config.words)
        if isinstance(found, ExpertNetwork):
            return _on_experts(config, found, words)
        assert isinstance(found, VideoTextNetwork)
        network = found
    return NetworkTeacher(config.name, network, precision)


def _on_experts(config: TeacherConfig, network: ExpertNetwork, words: Words | None) -> Teacher:
    if words is None:
        raise ConfigError(
            f"teacher {config.name!r} is {title_of(network.config)}: it sees no frames and works from the score store "
            "alone",
            where="score.teachers",
        )
    return ExpertTeacher(config.name, network, *words(network.experts))


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
        settings = NetworkConfig(kind="openclip", trunk=trunk, frames=frames, words=words, temporal_layers=0)
        return build_clip_network(settings)
    except TeachclipError as error:  # which speaks of the network that is trained
        where = error.where and error.where.replace("train.network.trunk", key)
        hint = error.hint.replace("train.network.trunk", key) if isinstance(error.hint, str) else error.hint
        raise type(error)(error.what, where=where, hint=hint, details=error.details) from error
