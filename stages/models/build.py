"""Networks from their configuration; each kind is imported only when it is asked for."""

from importlib import import_module

from ...configs.schema import NetworkConfig
from .clip.catalog import named_sizes
from .clip.trunk import build_trunk
from .common.network import VideoTextNetwork, check_words

# Module and class of each kind.
KINDS = {
    "student": ("student", "Student"),
    "xclip": ("teachers.xclip", "XClip"),
    "xpool": ("teachers.xpool", "XPool"),
    "openclip": ("teachers.openclip", "OpenClip"),
    "ts2net": ("teachers.ts2net", "Ts2Net"),
    "drl": ("teachers.drl", "Drl"),
}


def build_network(config: NetworkConfig) -> VideoTextNetwork:
    """A network with fresh weights behind its trunk, drawn from torch's global generator.

    Raises:
        ConfigError: the trunk is unknown or cannot be used, or settings do not fit each other.
        CheckpointError: the trunk's weights cannot be had.
    """
    check_words(config.words, config.trunk.sizes or named_sizes(config.trunk.model))  # before weights are fetched
    return network_class(config.kind)(config, build_trunk(config.trunk))


def network_class(kind: str) -> type[VideoTextNetwork]:
    """The class of a kind of network."""
    module, name = KINDS[kind]
    found: type[VideoTextNetwork] = getattr(import_module(f".{module}", __package__), name)
    return found


def score_versions() -> dict[str, int]:
    """The score version of every kind of network."""
    return {kind: network_class(kind).score_version for kind in KINDS}
