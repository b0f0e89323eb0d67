"""Self-attention whose training on a GPU copies neither queries, keys and values nor their gradients."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.MultiheadAttention):
    """torch's module, its weights and names; where it is self-attention that is trained on a GPU, by other steps.

    torch's copies queries, keys and values after their product, and its backward pass fills three tensors of the size
    of all three with zeros and adds them up. Elsewhere it stays torch's, to the last bit.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """As torch's, batch first."""
        of_itself = query is key and key is value and not options.get("need_weights", True)
        if of_itself and query.is_cuda and torch.is_grad_enabled():
            return self.attend(query, options.get("attn_mask")), None
        return super().forward(query, key, value, **options)

    def attend(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention of x [N, L, width]; `mask` is added to the scores, [L, L] or [N * heads, L, L]."""
        batch, length, width = x.shape
        packed = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        queries, keys, values = packed.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        if mask is not None and mask.ndim == 3:
            mask = mask.view(batch, self.num_heads, length, length)
        attended = functional.scaled_dot_product_attention(queries, keys, values, mask)
        projected: Tensor = self.out_proj(attended.transpose(1, 2).reshape(batch, length, width))
        return projected


def use_light_attention(network: nn.Module) -> None:
    """Have every attention of torch's in `network` do as `SelfAttention` does; weights stay where they are."""
    for module in network.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = SelfAttention
