"""The model that makes a library's vectors: a student of ours, or plain CLIP by open_clip's names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ....cache.library.database import is_library
from ....cache.library.library import Library
from ....cache.library.rows import Model
from ....configs.schema import SHARED, PrepareConfig
from ....errors import DataError
from ...models.common.network import VideoTextNetwork
from ...models.named import FORM, OPENCLIP, NamedModel, named_model

TIMEOUT = 120.0  # seconds that a video may take for its next frames
type DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class VideoModel:
    """A network that makes one vector of a window, and how it is called."""

    name: str
    model: NamedModel

    @property
    def network(self) -> VideoTextNetwork:
        """In evaluation mode."""
        return self.model.network

    @property
    def digest(self) -> str:
        """Of what its vectors depend on."""
        return self.model.digest

    @property
    def described(self) -> Model:
        """As a library has it: runs and files by their whole path."""
        name = self.name if self.name.startswith((OPENCLIP, SHARED)) else str(Path(self.name).absolute())
        return Model(name, self.digest, self.network.vector_width, self.network.config.frames)


def load_model(name: str, device: torch.device) -> VideoModel:
    """The model of this name, as `named_model` has it.

    Raises:
        CheckpointError, ConfigError, UnreachableError: as `named_model`.
    """
    instead = f"name a student that it taught, or plain CLIP: {FORM}"
    elsewhere = f"name a run folder or a checkpoint that is there, or plain CLIP: {FORM}"
    return VideoModel(name, named_model(name, device, instead=instead, elsewhere=elsewhere))


def decoding(network: VideoTextNetwork, workers: int) -> PrepareConfig:
    """How the frames of a model's windows are decoded, on so many processes (0: one a core)."""
    frames = network.config.frames
    return PrepareConfig(**network.trunk.prepared, max_frames=frames, workers=workers, timeout=TIMEOUT)


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
        hint=f"name a run folder or a checkpoint, or plain CLIP: {FORM}",
    )
