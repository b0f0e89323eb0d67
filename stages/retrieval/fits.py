"""Whether prepared frames fit a network."""

from collections.abc import Mapping
from pathlib import Path

from ...cache.frames.cache import FrameCache
from ...configs.schema import PrepareConfig
from ...errors import CacheError
from ...remedies import Change, Prepare, Remedy
from ..models.common.network import VideoTextNetwork

_USUAL = {f"prepare.{key}": PrepareConfig.model_fields[key].default for key in ("resize_mode", "interpolation")}


def check_fits(network: VideoTextNetwork, cache: FrameCache, folder: Path | str) -> None:
    """Refuse frames of another number or size than the network takes, or resized otherwise than its trunk's were.

    Raises:
        CacheError: naming the two settings that disagree.
    """
    trunk = {f"prepare.{key}": value for key, value in network.trunk.prepared.items()}
    wanted: dict[str, int | str] = {"prepare.max_frames": network.config.frames, **trunk}
    found: dict[str, int | str] = {
        "prepare.max_frames": cache.max_frames,
        "prepare.image_size": cache.image_size,
        "prepare.resize_mode": cache.resize_mode,
        "prepare.interpolation": cache.interpolation,
    }
    differing = [
        f"{key}: the network takes {wanted[key]}, the frames have {found[key]}"
        for key in wanted
        if wanted[key] != found[key]
    ]
    if differing:
        own = f"frames-{network.config.frames}x{network.trunk.image_size}"
        own += "".join(f"-{value}" for key, value in wanted.items() if value != _USUAL.get(key, value))
        raise CacheError(
            "these frames do not fit the network",
            where=str(folder),
            details=differing,
            hint=Remedy(
                "prepare frames for it in a folder of their own, and name that from then on",
                Prepare({**_said(wanted, found), "prepare.frames": own}),
                then=Change({"prepare.frames": own}),
            ),
        )


def _said(wanted: Mapping[str, int | str], found: Mapping[str, int | str]) -> dict[str, int | str]:
    """The settings to be given: how frames are resized only where it is not as ever."""
    return {
        key: value
        for key, value in wanted.items()
        if key not in _USUAL or (value, found[key]) != (_USUAL[key], _USUAL[key])
    }
