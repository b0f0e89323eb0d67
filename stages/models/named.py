"""Models that embed, by the names that people give them: a run folder, a checkpoint, or an open_clip model as it is."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import open_clip
import torch
from torch import Tensor

from ...configs.schema import SHARED, NetworkConfig, TrunkConfig
from ...errors import CheckpointError, ConfigError, TeachclipError, UnreachableError
from ...remedies import Hint, Remedy
from ..runtime.reporting import Reporter
from .build import build_clip_network
from .checkpoints.files import load_clip_network, network_digest
from .checkpoints.published import FRAMES, title_of
from .checkpoints.trunks import is_bare_trunk
from .clip.catalog import description, resolved
from .clip.hub import HUB
from .clip.tokens import VOCABULARY
from .common.network import VideoTextNetwork
from .shortened import shorten, split_width
from .weights.files import read_weights

OPENCLIP = "openclip:"
"""Before an open_clip model and its weights: `openclip:MODEL/TAG`, `openclip:MODEL/PATH`."""

_EXAMPLE = f"{OPENCLIP}ViT-B-32-quickgelu/openai"
FORM = f"{OPENCLIP}MODEL/WEIGHTS, such as {_EXAMPLE}, where WEIGHTS may be a file"
"""How an open_clip model is named, in words."""

_TRAINED = "train.network"
type Tokenizer = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


class NamedModel(NamedTuple):
    """A network that makes one unit vector of a video and one of a sentence (`VideoTextNetwork.one_vector`).

    Attributes:
        network: in float32 and evaluation mode; to be called without gradients.
        tokenize: T sentences -> token ids int64 [T, W], and which of them are longer than what it reads, bool [T].
        digest: of its weights and of what they compute: vectors of equal digests can be compared.
        description: what it is, in words.
    """

    network: VideoTextNetwork
    tokenize: Tokenizer
    digest: str
    description: str


def named_model(
    name: str | Path,
    device: str | torch.device = "cpu",
    reporter: Reporter | None = None,
    *,
    instead: Hint = "name a student's run folder or file; this network can teach one",
    elsewhere: Hint | None = None,
) -> NamedModel:
    """The student, or plain CLIP, of this name.

    Args:
        name: a run folder, a checkpoint (ours or a published one), or `openclip:MODEL/TAG` or `openclip:MODEL/PATH`, an
            open_clip model as it is with the mean of a video's frames; an absolute path stands behind two slashes.
            `@64` behind any of these cuts vectors to their first 64 numbers.
        reporter: is told what a published checkpoint is, of tensors that are left out, and of an activation that a
            model has not by its name.
        instead: what helps where it is a teacher; elsewhere: where it is not there and nothing near it is; by default
            it is to be trained.

    Raises:
        CheckpointError: it is not there, cannot be loaded or fetched, or is a teacher, whose scores are not those of
            two vectors.
        ConfigError: open_clip has no such model, or no such weights of it.
        UnreachableError: it is a model of the hub, which does not answer.
    """
    asked, (name, width) = str(name), split_width(name)
    plain = name.startswith(OPENCLIP)
    network = _plain_clip(name, reporter) if plain else _checkpoint(Path(name), reporter, elsewhere)
    config, trunk = network.config, network.trunk
    if not network.one_vector:
        raise CheckpointError(
            f"this is a network of kind {config.kind}: it compares every word with every frame and has no "
            "single vector per video, so it cannot search",
            where=name,
            hint=instead,
        )
    shorten(network, width, asked)
    if not network.reads_captions:
        raise CheckpointError(f"it knows {trunk.vocab_size} tokens, sentences have {VOCABULARY}", where=name)
    network = network.to(device).eval()  # weights that require no gradient would be multiplied to other last bits
    takes = f"{config.frames} frames of {trunk.image_size} pixels, {network.vector_width} numbers a vector"
    described = f"{asked}: {title_of(config)}; {takes}"
    digest = network_digest(network) if width is None else f"{network_digest(network)}@{width}"
    return NamedModel(network, network.tokenize_telling, digest, described)


def _checkpoint(path: Path, reporter: Reporter | None, elsewhere: Hint | None) -> VideoTextNetwork:
    try:
        return load_clip_network(path, reporter=reporter)
    except CheckpointError as error:
        hint: Hint | None = None
        if not path.exists():
            to_be_trained = isinstance(error.hint, Remedy)
            hint = _as_plain_clip(path) or (elsewhere if to_be_trained else None)
        elif error.hint is None and _is_plain_clip(path):
            hint = f"it is a CLIP without anything around it: say of which model, {OPENCLIP}MODEL/{path}"
        if hint is None:
            raise
        raise CheckpointError(error.what, where=error.where, hint=hint, details=error.details) from error


def _as_plain_clip(path: Path) -> str | None:
    """What a path that is not there may mean: an open_clip model without `openclip:` before it, or another hub name."""
    if str(path).startswith(HUB):
        name = str(path).removeprefix(HUB)
        return f"a teachclip model on the hub is named {SHARED}{name}, an open_clip model {OPENCLIP}{HUB}{name}/FILE"
    return f"plain CLIP is named {FORM}" if path.parts[:1] and path.parts[0] in open_clip.list_models() else None


def _is_plain_clip(path: Path) -> bool:
    with suppress(CheckpointError):
        return is_bare_trunk(read_weights(path).tensors)
    return False


def _plain_clip(name: str, reporter: Reporter | None) -> VideoTextNetwork:
    """An open_clip model as it is (network kind `openclip`)."""
    parts = name.removeprefix(OPENCLIP).split("/")
    of_model = 2 if parts[0].startswith(HUB) else 1  # hf-hub:org/repo
    model, weights = "/".join(parts[:of_model]), "/".join(parts[of_model:])
    if not model or not weights:
        raise ConfigError(
            f"an open_clip model is named with its weights, {OPENCLIP}MODEL/TAG or {OPENCLIP}MODEL/PATH",
            where=name,
            hint=f"the form is {FORM}",
        )
    try:
        trunk = resolved(TrunkConfig(model=model, weights=weights), reporter)
        model = trunk.model
        words = description(trunk).context_length
        return build_clip_network(
            NetworkConfig(kind="openclip", trunk=trunk, frames=FRAMES, words=words, temporal_layers=0)
        )
    except TeachclipError as error:  # which may speak of the network that is trained
        where = name if error.where is None or error.where.startswith(_TRAINED) else error.where
        hint = error.hint
        if isinstance(hint, str) and _TRAINED in hint:
            hint = f"fetch it on another machine, and name the file: {OPENCLIP}{model}/PATH"
        elif isinstance(error, UnreachableError):  # whose hint is of the trunk's settings
            hint = f"check the network, or choose one of open_clip's own models, such as {_EXAMPLE}"
        raise type(error)(error.what, where=where, hint=hint, details=error.details) from error
