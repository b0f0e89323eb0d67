"""Vectors cut short: a network whose `vector` is its first numbers alone, named `NAME@64`."""

import os
from collections.abc import Sequence
from pathlib import Path

from ...configs.schema import cut_name
from ...errors import CheckpointError, ConfigError
from .common.network import RetrievalNetwork, VideoTextNetwork


def split_width(name: str | Path) -> tuple[str, int | None]:
    """A model's name and the length to which its vectors are cut: of `runs/student@64`, unless a file is called so."""
    text = os.fspath(name)
    return (text, None) if Path(text).exists() else cut_name(text)


def shorten(network: RetrievalNetwork, width: int | None, name: str) -> None:
    """Cut a network's vectors to `width` numbers, of unit length again; None leaves them whole.

    Raises:
        CheckpointError: it has no single vector, or not so many numbers.
    """
    if width is None:
        return
    if not (network.one_vector and isinstance(network, VideoTextNetwork)):
        raise CheckpointError(f"a network of kind {network.config.kind} has no single vector to cut", where=name)
    most = int(network.trunk.embed_dim)
    if not 1 <= width <= most:
        raise CheckpointError(
            f"its vectors have {most} numbers, and cannot be cut to {width}", where=name, hint=f"name 1 to {most}"
        )
    network.width = width


def check_widths(network: VideoTextNetwork, widths: Sequence[int], key: str) -> None:
    """Refuse lengths to which the vectors of a network that is trained cannot be cut.

    Raises:
        ConfigError: naming what it has.
    """
    if widths and not network.one_vector:
        raise ConfigError(f"a network of kind {network.config.kind} has no single vector to cut", where=key)
    most = int(network.trunk.embed_dim)
    if wrong := [width for width in widths if width > most]:
        raise ConfigError(f"vectors have {most} numbers, and cannot be cut to {wrong[0]}", where=key)
