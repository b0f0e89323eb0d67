"""uint8 frames as a trunk sees them: scaled and normalised."""

from functools import cache
from typing import TYPE_CHECKING

from ....configs.schema import PixelConfig

if TYPE_CHECKING:
    import torch

CLIP_PIXELS = PixelConfig()
"""As OpenAI's weights were trained, and all that say nothing else."""

MEAN, STD = CLIP_PIXELS.mean, CLIP_PIXELS.std


def normalise(
    frames: "torch.Tensor",
    dtype: "torch.dtype | None" = None,
    pixels: PixelConfig = CLIP_PIXELS,
    channels_last: bool = False,
) -> "torch.Tensor":
    """uint8 frames [..., 3, S, S] -> pixels as the trunk takes them, float32 unless `dtype` says otherwise.

    On a GPU by one kernel, into what its autocast would cast them to: the same numbers but for float32's rounding.

    Args:
        channels_last: of frames [N, 3, S, S], channels come innermost in memory.
    """
    import torch

    mean, std = _constants(pixels.mean, pixels.std, dtype or torch.float32, frames.device)
    if frames.device.type != "cuda":
        layout = torch.channels_last if channels_last else torch.preserve_format
        return frames.to(mean.dtype, memory_format=layout).div_(255).sub_(mean).div_(std)
    computed = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else mean.dtype
    return scaled(frames, mean, std, computed, channels_last)


def scaled(
    frames: "torch.Tensor",
    mean: "torch.Tensor",
    std: "torch.Tensor",
    dtype: "torch.dtype",
    channels_last: bool = False,
) -> "torch.Tensor":
    """(frames / 255 - mean) / std by one kernel, which reads uint8 and writes `dtype`."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = torch.empty(frames.shape, dtype=dtype, device=frames.device, memory_format=layout)
    return torch.addcmul(-mean / std, frames, 1 / (255 * std), out=pixels)


@cache
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: "torch.dtype", device: "torch.device"
) -> tuple["torch.Tensor", ...]:
    """Both [3, 1, 1]; copied to a GPU once, as it waits for such a copy."""
    import torch

    with torch.inference_mode(False):
        return tuple(torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1) for values in (mean, std))
