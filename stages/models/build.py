"""Networks from their configuration; each kind is imported only when it is asked for."""

from importlib import import_module
from typing import Any, cast

from ...configs.schema import NetworkConfig
from ...errors import ConfigError
from ..runtime.reporting import Reporter
from .clip.catalog import description, resolved
from .clip.loading import build_trunk
from .common.network import RetrievalNetwork, VideoTextNetwork, check_words, refuse_without

# Module and class of each kind.
KINDS = {
    "student": ("student", "Student"),
    "xclip": ("teachers.xclip", "XClip"),
    "xpool": ("teachers.xpool", "XPool"),
    "openclip": ("teachers.openclip", "OpenClip"),
    "ts2net": ("teachers.ts2net", "Ts2Net"),
    "drl": ("teachers.drl", "Drl"),
    "ce": ("experts.networks", "CollaborativeExperts"),
    "moee": ("experts.networks", "Moee"),
}
_CAME_LATER = ("ce", "moee")


def build_network(config: NetworkConfig, reporter: Reporter | None = None) -> RetrievalNetwork:
    """A network with fresh weights, behind its trunk where it has one, drawn from torch's global generator.

    Args:
        reporter: is told where a trunk is built with the activation of its weights.

    Raises:
        ConfigError: the trunk is unknown or cannot be used, or settings do not fit each other.
        CheckpointError: the trunk's weights cannot be had.
    """
    kind: Any = network_class(config.kind)
    if config.on_experts:
        return cast(RetrievalNetwork, kind(config))
    trunk = resolved(config.trunk, reporter)
    told = description(trunk)
    if not told.reads_all:  # before weights are fetched
        check_words(config.words, told.context_length)
    refuse_without(config.kind, kind.needs, told, trunk.model)
    return cast(RetrievalNetwork, kind(config.model_copy(update={"trunk": trunk}), build_trunk(trunk)))


def build_clip_network(config: NetworkConfig) -> VideoTextNetwork:
    """As `build_network`, of a network that has a trunk and looks at frames.

    Raises:
        ConfigError: as `build_network`; also a network on expert features.
    """
    network = build_network(config)
    if not isinstance(network, VideoTextNetwork):
        raise ConfigError(
            f"this is of networks that look at frames, and {config.kind} sees features computed beforehand",
            where="train.network.kind",
        )
    return network


def network_class(kind: str) -> type[RetrievalNetwork]:
    """The class of a kind of network."""
    module, name = KINDS[kind]
    found: type[RetrievalNetwork] = getattr(import_module(f".{module}", __package__), name)
    return found


def score_versions() -> dict[str, int]:
    """The score version of every kind of network; of those that came later, once it has risen: digests that stood
    before they came stay as they are."""
    versions = {kind: network_class(kind).score_version for kind in KINDS}
    return {kind: version for kind, version in versions.items() if kind not in _CAME_LATER or version > 1}
