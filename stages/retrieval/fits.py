"""Whether prepared frames fit a network."""

from pathlib import Path

from ...cache.frames.cache import FrameCache
from ...errors import CacheError
from ...remedies import Change, Prepare, Remedy
from ..models.common.network import VideoTextNetwork


def check_fits(network: VideoTextNetwork, cache: FrameCache, folder: Path) -> None:
    """Refuse frames of another number or size than the network takes.

    Raises:
        CacheError: naming the two settings that disagree.
    """
    wanted = {"prepare.max_frames": network.config.frames, "prepare.image_size": network.trunk.sizes.image_size}
    found = {"prepare.max_frames": cache.max_frames, "prepare.image_size": cache.image_size}
    differing = [
        f"{key}: the network takes {wanted[key]}, the frames have {found[key]}"
        for key in wanted
        if wanted[key] != found[key]
    ]
    if differing:
        own = f"frames-{network.config.frames}x{network.trunk.sizes.image_size}"
        raise CacheError(
            "these frames do not fit the network",
            where=str(folder),
            details=differing,
            hint=Remedy(
                "prepare frames for it in a folder of their own, and name that from then on",
                Prepare({**wanted, "prepare.frames": own}),
                then=Change({"prepare.frames": own}),
            ),
        )
