"""Networks from their configuration; each kind is imported only when it is asked for."""

from ...configs.schema import NetworkConfig
from .clip import build_trunk
from .network import VideoTextNetwork


def build_network(config: NetworkConfig) -> VideoTextNetwork:
    """A network with fresh weights behind its trunk, drawn from torch's global generator.

    Raises:
        ConfigError: the trunk is unknown or cannot be used.
        CheckpointError: the trunk's weights cannot be had.
    """
    trunk = build_trunk(config.trunk)
    if config.kind == "xclip":
        from .xclip import XClip

        return XClip(config, trunk)
    from .student import Student

    return Student(config, trunk)


def score_versions() -> dict[str, int]:
    """The score version of every kind of network."""
    from .student import Student
    from .xclip import XClip

    return {"student": Student.score_version, "xclip": XClip.score_version}
