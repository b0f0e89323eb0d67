"""The model that makes a library's vectors: a student of ours, or plain CLIP by open_clip's names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import open_clip
import torch

from ....cache.library.database import is_library
from ....cache.library.library import Library
from ....cache.library.rows import Model
from ....configs.schema import NetworkConfig, PrepareConfig, TrunkConfig
from ....errors import CheckpointError, ConfigError, DataError, TeachclipError, UnreachableError
from ....remedies import Hint
from ...models.build import build_network
from ...models.checkpoints.files import load_network, network_digest
from ...models.clip.catalog import named_sizes
from ...models.common.network import VideoTextNetwork

OPENCLIP = "openclip:"
"""Before an open_clip model and its weights: `openclip:ViT-B-32/openai`, `openclip:ViT-B-32/FILE`."""

TIMEOUT = 120.0  # seconds that a video may take for its next frames
FRAMES = 12  # of a window of plain CLIP; a student has its own
ONE_VECTOR = ("student", "openclip")  # kinds of networks that make one vector of a video
type DeviceName = Literal["auto", "cpu", "cuda"]

_QUICK = "-quickgelu"
_FORM = f"{OPENCLIP}MODEL/WEIGHTS, such as {OPENCLIP}ViT-B-32/openai, where WEIGHTS may be a file"


@dataclass(frozen=True)
class VideoModel:
    """A network in evaluation mode that makes one vector of a window, its digest, and how it is called."""

    name: str
    network: VideoTextNetwork
    digest: str

    @property
    def described(self) -> Model:
        """As a library has it: runs and files by their whole path."""
        name = self.name if self.name.startswith(OPENCLIP) else str(Path(self.name).absolute())
        return Model(name, self.digest, self.network.trunk.embed_dim, self.network.config.frames)


def load_model(name: str, device: torch.device) -> VideoModel:
    """The model of this name.

    Args:
        name: a run folder, a checkpoint, or `openclip:MODEL/WEIGHTS`, whose vectors are the mean of unit frames.

    Raises:
        CheckpointError: it cannot be loaded, or is a teacher; its weights cannot be fetched.
        ConfigError: open_clip has no such model or weights.
        UnreachableError: it is a model of the hub, which does not answer.
    """
    network = _plain_clip(name) if name.startswith(OPENCLIP) else _ours(name)
    return VideoModel(name, network.to(device).eval(), network_digest(network))


def decoding(network: VideoTextNetwork, workers: int) -> PrepareConfig:
    """How the frames of a model's windows are decoded, on so many processes (0: one a core)."""
    size, frames = network.trunk.sizes.image_size, network.config.frames
    return PrepareConfig(image_size=size, max_frames=frames, workers=workers, timeout=TIMEOUT)


def model_of(folder: Path) -> str:
    """The name of the model that a library had last.

    Raises:
        DataError: there is no library, or it is empty.
    """
    if is_library(folder):
        with Library.open(folder) as library:
            return library.model.name
    raise DataError(
        "no model is named, and there is no index here yet that has one",
        where=str(folder),
        hint=f"name a run folder or a checkpoint, or plain CLIP: {_FORM}",
    )


def _ours(name: str) -> VideoTextNetwork:
    try:
        network = load_network(Path(name))
    except CheckpointError as error:
        if Path(name).exists():
            raise
        hint = f"name a run folder or a checkpoint that is there, or plain CLIP: {_FORM}"
        raise CheckpointError("there is no such model", where=name, hint=_near(name) or hint) from error
    if network.config.kind not in ONE_VECTOR:
        raise CheckpointError(
            f"that is a teacher ({network.config.kind}): it compares every word with every frame, and has no vector of "
            "a video",
            where=name,
            hint=f"name a student that it taught, or plain CLIP: {_FORM}",
        )
    return network


def _near(name: str) -> str | None:
    """What a name without `openclip:` may mean."""
    model = name.partition("/")[0]
    return f"plain CLIP is named {_FORM}" if model in open_clip.list_models() else None


def _plain_clip(name: str) -> VideoTextNetwork:
    model, slash, weights = name.removeprefix(OPENCLIP).partition("/")
    if not slash or not weights:
        raise ConfigError("the weights are not named", where=name, hint=f"the form is {_FORM}")
    try:
        if not Path(weights).exists() and _is_quick(model, weights):
            model += _QUICK
        trunk = TrunkConfig(model=model, weights=weights)
        words = named_sizes(model).context_length
        config = NetworkConfig(kind="openclip", trunk=trunk, frames=FRAMES, words=words, temporal_layers=0)
        return build_network(config)
    except (ConfigError, CheckpointError, UnreachableError) as error:
        raise type(error)(error.what, where=name, details=error.details, hint=_instead(error)) from error


def _is_quick(model: str, tag: str) -> bool:
    """Whether these weights are of the same model with the activation that OpenAI trained with."""
    found = open_clip.get_pretrained_cfg(model, tag)
    return bool(found and found.get("quick_gelu")) and f"{model}{_QUICK}" in open_clip.list_models()


def _instead(error: TeachclipError) -> Hint | None:
    """What helps, without the settings of a configuration, which there is none of."""
    if isinstance(error, CheckpointError) and "cannot be downloaded" in error.what:
        return f"fetch the file on another machine and name it here: {OPENCLIP}MODEL/FILE"
    if isinstance(error, UnreachableError):
        return f"check the network, or name a file that is here: {OPENCLIP}MODEL/FILE"
    return error.hint
