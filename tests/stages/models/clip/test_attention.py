"""Self-attention by other steps than torch's: the same numbers, the same gradients."""

from collections.abc import Callable

import pytest
import torch
from teachclip.stages.models.clip.attention import SelfAttention, use_light_attention
from torch import Tensor, nn

VIDEOS, LENGTH, WIDTH, HEADS = 3, 5, 16, 4


def causal() -> Tensor:
    return torch.full((LENGTH, LENGTH), float("-inf"), dtype=torch.float64).triu_(1)


def of_each_video() -> Tensor:
    valid = torch.arange(LENGTH) < torch.tensor([5, 2, 3])[:, None]
    bias = ((~valid).double() * -1e6)[:, None, None, :]
    return bias.expand(VIDEOS, HEADS, LENGTH, LENGTH).reshape(-1, LENGTH, LENGTH)


@pytest.mark.parametrize("mask", [lambda: None, causal, of_each_video])
def test_the_numbers_and_gradients_are_torchs(mask: Callable[[], Tensor | None]) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    nn.init.normal_(attention.in_proj_bias)
    names = list(attention.state_dict())
    given = torch.randn(VIDEOS, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(VIDEOS, LENGTH, WIDTH, dtype=torch.float64)

    def gradients(values: Tensor) -> list[Tensor]:
        return [values.detach(), *torch.autograd.grad((values * weights).sum(), [given, *attention.parameters()])]

    expected = gradients(attention(given, given, given, need_weights=False, attn_mask=mask())[0])
    use_light_attention(attention)
    assert isinstance(attention, SelfAttention)
    assert list(attention.state_dict()) == names
    for found, wanted in zip(gradients(attention.attend(given, mask())), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
