"""Perturbed top-k: the expected choice of the k largest scores under noise, and noise that a video always draws alike.

After Cordonnier et al. 2021, Differentiable Patch Selection for Image Recognition (specs: TS2-Net 2).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

# Multipliers and shifts of the SplitMix64 generator; int64 arithmetic wraps around on every device.
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
_WORD = 8  # bytes


def perturbed_top_k(scores: Tensor, noise: Tensor, selected: int, sigma: float) -> Tensor:
    """Soft choices of the largest of P scores: row j is where the j-th chosen index, in ascending order, falls.

    Args:
        scores: [..., P].
        noise: standard normal draws [..., samples, P].
        selected: k, how many are chosen.
        sigma: what the noise is multiplied with; with 0 the choice is hard and has no gradient.

    Returns:
        [..., k, P], the mean over the samples; every row sums to 1. The gradient is the estimate
        E[choice x noise] / sigma of the expectation's, from the same samples: every entry of the Jacobian. A listing
        of this operation that is often copied keeps only those of a patch's own score; the specs do not say which of
        the two TS2-Net trains with. Scores are not affected.
    """
    return cast(Tensor, _PerturbedTopK.apply(scores, noise, selected, sigma))


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, noise: Tensor, selected: int, sigma: float) -> Tensor:
        chosen = (scores.unsqueeze(-2) + sigma * noise).topk(selected, sorted=False).indices.sort().values
        chosen = chosen.transpose(-1, -2)
        ctx.save_for_backward(chosen, noise)
        ctx.sigma = sigma
        # Whole numbers, so that the order of the additions does not matter.
        counts = scores.new_zeros(*chosen.shape[:-1], scores.shape[-1])
        counts.scatter_add_(-1, chosen, counts.new_ones(()).expand_as(chosen))
        return counts / noise.shape[-2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        if not ctx.sigma:
            return None, None, None, None
        chosen, noise = ctx.saved_tensors
        worth = grads[0].gather(-1, chosen).sum(dim=-2)  # of each sample's choice
        mean = (worth.unsqueeze(-2) @ noise.to(worth.dtype)).squeeze(-2) / noise.shape[-2]
        return mean / ctx.sigma, None, None, None


def seeded_noise(seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal draws [V, *shape] on `device`, each video's from its own seed.

    They are drawn on the CPU, in float32, so that every device has the same.
    """
    draws = torch.empty(len(seeds), *shape, pin_memory=device.type == "cuda")
    for seed, drawn in zip(seeds, draws, strict=True):
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), out=drawn)
    return draws.to(device, non_blocking=True)


def video_seeds(frames: Tensor, mask: Tensor) -> list[int]:
    """A 64-bit hash of each video's frames [V, F, 3, S, S] and mask [V, F]; the same on every device.

    Padded uint8 frames count as blank, whatever they hold, as they do for the trunk; of other types every byte counts.
    """
    valid = mask.bool()
    if frames.dtype == torch.uint8:
        frames = frames * valid[:, :, None, None, None]
    content = torch.cat([frames.flatten(1).contiguous().view(torch.uint8), valid.to(torch.uint8)], dim=1)
    words = torch.nn.functional.pad(content, (0, -content.shape[1] % _WORD)).view(torch.int64)
    keys = torch.arange(1, words.shape[1] + 1, device=words.device) * _STEP
    return cast(list[int], _scrambled(_scrambled(words + keys).sum(dim=1)).tolist())


def _scrambled(words: Tensor) -> Tensor:
    """SplitMix64's finaliser, one to one on 64 bits."""
    words = (words ^ _right(words, 30)) * _FIRST
    words = (words ^ _right(words, 27)) * _SECOND
    return words ^ _right(words, 31)


def _right(words: Tensor, bits: int) -> Tensor:
    """Shifted right as if unsigned."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)
