"""The network of a search: a student, which makes one vector of a video and one of a sentence."""

from pathlib import Path

import torch

from ..errors import CheckpointError
from .models.checkpoints import load_network
from .models.network import VideoTextNetwork


def load_embedder(path: Path, device: torch.device) -> VideoTextNetwork:
    """The student of a run folder or checkpoint, in evaluation mode.

    Raises:
        CheckpointError: it cannot be loaded, or is a teacher, whose scores are not those of two vectors.
    """
    network = load_network(path)
    if network.config.kind != "student":
        raise CheckpointError(
            f"this is a network of kind {network.config.kind}: it compares every word with every frame and has no "
            "single vector per video, so it cannot search",
            where=str(path),
            hint="search with a student: --set search.run=runs/student",
        )
    return network.to(device).eval()
