"""QuickGELU, which keeps of its input and output only the input for the backward pass."""

from typing import Any, cast

import torch
from open_clip.transformer import QuickGELU as PublishedQuickGELU
from torch import Tensor, nn

SLOPE = 1.702


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as CLIP has it: the bits of open_clip's module, forward and backward.

    That one keeps the sigmoid beside its input; of 2,880 images in ViT-B/32 that is 10.6 GB more in bf16.
    """

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _QuickGELU.apply(x))


class _QuickGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _sigmoid(x).mul_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,), (x,) = gradients, ctx.saved_tensors
        sigmoid = _sigmoid(x)
        inner = torch.ops.aten.sigmoid_backward(gradient * x, sigmoid)
        return sigmoid.mul_(gradient).add_(inner.mul_(SLOPE))


def _sigmoid(x: Tensor) -> Tensor:
    return (x * SLOPE).sigmoid_()


def use_light_quick_gelu(network: nn.Module) -> None:
    """Put this QuickGELU in the place of open_clip's, wherever `network` has it; it has no weights."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, PublishedQuickGELU):
                setattr(module, name, QuickGELU())
