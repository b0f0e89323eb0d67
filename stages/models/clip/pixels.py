"""uint8 frames as CLIP sees them: scaled and normalised."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(frames: "torch.Tensor", dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """uint8 frames [..., 3, S, S] -> pixels as CLIP takes them, float32 unless `dtype` says otherwise.

    On a GPU by one kernel, into what its autocast would cast them to: the same numbers but for float32's rounding.
    """
    import torch

    mean, std = _constants(dtype or torch.float32, frames.device)
    if frames.device.type != "cuda":
        return frames.to(mean.dtype).div_(255).sub_(mean).div_(std)
    computed = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else mean.dtype
    return scaled(frames, mean, std, computed)


def scaled(frames: "torch.Tensor", mean: "torch.Tensor", std: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """(frames / 255 - mean) / std by one kernel, which reads uint8 and writes `dtype`."""
    import torch

    pixels = torch.empty(frames.shape, dtype=dtype, device=frames.device)
    return torch.addcmul(-mean / std, frames, 1 / (255 * std), out=pixels)


@cache
def _constants(dtype: "torch.dtype", device: "torch.device") -> tuple["torch.Tensor", ...]:
    """MEAN and STD [3, 1, 1]; copied to a GPU once, as it waits for such a copy."""
    import torch

    with torch.inference_mode(False):
        return tuple(torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1) for values in (MEAN, STD))
