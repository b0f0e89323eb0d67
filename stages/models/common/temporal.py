"""The temporal transformer over a video's frames (specs: TeachCLIP 1.3, X-CLIP 3)."""

from functools import partial
from typing import Any

import torch
from open_clip.transformer import LayerNorm, Transformer
from torch import Tensor, nn

from ..clip.attention import use_light_attention
from ..clip.base import Trunk
from ..clip.quick_gelu import QuickGELU
from ..clip.trunk import head_count

LAYER_NORM_EPS = 1e-12  # not CLIP's 1e-5: the published code takes another LayerNorm class here
MASKED = -1e6  # added to the scores of padded frames
INIT_STD = 0.02


class TemporalTransformer(nn.Module):
    """Pre-norm QuickGELU blocks over frame features plus learned positions; outer residual; no final LayerNorm."""

    def __init__(self, width: int, layers: int, positions: int) -> None:
        super().__init__()
        self.heads = head_count(width)
        blocks: Any = Transformer(
            width,
            layers,
            self.heads,
            act_layer=QuickGELU,
            norm_layer=partial(LayerNorm, eps=LAYER_NORM_EPS),
        )
        self.positions = nn.Parameter(torch.empty(positions, width))
        use_light_attention(blocks)
        self.resblocks: nn.ModuleList = blocks.resblocks

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """phi [V, F, D] of frame features [V, F, D] and valid frames [V, F]; the residual leaves out the positions."""
        return self.transform(frames, mask) + frames

    def transform(self, frames: Tensor, mask: Tensor) -> Tensor:
        """The transformer's output [V, F, D], before the outer residual."""
        videos, slots = mask.shape
        bias = ((~mask.bool()).to(frames.dtype) * MASKED)[:, None, None, :]
        bias = bias.expand(videos, self.heads, slots, slots).reshape(-1, slots, slots)
        # As TeachCLIP has it, positions begin anew when there are more slots than rows.
        x = frames + self.positions[torch.arange(slots, device=frames.device) % len(self.positions)]
        for block in self.resblocks:
            x = block(x, attn_mask=bias)
        return x

    @torch.no_grad()
    def initialise(self, trunk: Trunk) -> None:
        """Start from CLIP's text tower: its positions, and layer i from its layer i, where the widths agree (and the
        layers are of this make, which other trunks' may not be).

        Everything without such a source is normal(0, 0.02), biases 0, LayerNorm the identity.
        """
        _initialise_afresh(self)
        if trunk.text_blocks is None:
            return
        positions, blocks = trunk.text_blocks
        if positions.shape[1] != self.positions.shape[1] or _shapes(blocks[0]) != _shapes(self.resblocks[0]):
            return
        rows = min(len(self.positions), len(positions))
        self.positions[:rows] = positions[:rows]
        for block, source in zip(self.resblocks, blocks, strict=False):
            for target, value in zip(block.parameters(), source.parameters(), strict=True):
                target.copy_(value)


def _shapes(block: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in block.parameters()]


def _initialise_afresh(module: nn.Module) -> None:
    """Weights normal(0, 0.02), biases 0, LayerNorm the identity."""
    for name, parameter in module.named_parameters():
        if "bias" in name:
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, INIT_STD)
