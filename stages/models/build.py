"""Networks from their configuration; each kind is imported only when it is asked for."""

from importlib import import_module

from ...configs.schema import NetworkConfig
from ..runtime.reporting import Reporter
from .clip.catalog import description, resolved
from .clip.loading import build_trunk
from .common.network import VideoTextNetwork, check_words, refuse_without

# Module and class of each kind.
KINDS = {
    "student": ("student", "Student"),
    "xclip": ("teachers.xclip", "XClip"),
    "xpool": ("teachers.xpool", "XPool"),
    "openclip": ("teachers.openclip", "OpenClip"),
    "ts2net": ("teachers.ts2net", "Ts2Net"),
    "drl": ("teachers.drl", "Drl"),
}


def build_network(config: NetworkConfig, reporter: Reporter | None = None) -> VideoTextNetwork:
    """A network with fresh weights behind its trunk, drawn from torch's global generator.

    Args:
        reporter: is told where a trunk is built with the activation of its weights.

    Raises:
        ConfigError: the trunk is unknown or cannot be used, or settings do not fit each other.
        CheckpointError: the trunk's weights cannot be had.
    """
    trunk = resolved(config.trunk, reporter)
    kind, told = network_class(config.kind), description(trunk)
    if not told.reads_all:  # before weights are fetched
        check_words(config.words, told.context_length)
    refuse_without(config.kind, kind.needs, told, trunk.model)
    return kind(config.model_copy(update={"trunk": trunk}), build_trunk(trunk))


def network_class(kind: str) -> type[VideoTextNetwork]:
    """The class of a kind of network."""
    module, name = KINDS[kind]
    found: type[VideoTextNetwork] = getattr(import_module(f".{module}", __package__), name)
    return found


def score_versions() -> dict[str, int]:
    """The score version of every kind of network."""
    return {kind: network_class(kind).score_version for kind in KINDS}
