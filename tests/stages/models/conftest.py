"""Tiny networks; nothing here needs weights from anywhere."""

from collections.abc import Callable

import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.network import VideoTextNetwork
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = TrunkSizes(
    image_size=32,
    patch_size=16,
    vision_width=128,
    vision_layers=2,
    text_width=64,
    text_layers=2,
    embed_dim=64,
    context_length=16,
    vocab_size=300,
)


@pytest.fixture
def sizes() -> TrunkSizes:
    return SIZES


@pytest.fixture
def make_network() -> Callable[..., VideoTextNetwork]:
    """`make_network(kind=..., sizes=..., seed=0, **NetworkConfig fields)`: random, in evaluation mode."""

    def make(sizes: TrunkSizes = SIZES, seed: int = 0, **settings: object) -> VideoTextNetwork:
        torch.manual_seed(seed)
        settings = {"words": 10, "frames": 5, "temporal_layers": 2} | settings
        config = NetworkConfig(trunk=TrunkConfig(sizes=sizes, weights=None), **settings)
        return _liven(build_network(config)).eval()

    return make


def _liven(network: VideoTextNetwork) -> VideoTextNetwork:
    """Give every bias, LayerNorm and identity matrix values of its own, so that nothing cancels by accident."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim and (parameter.ndim == 1 or "mat_weight" in name or "logit_weight" in name):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 frames [4, 5, 3, 32, 32] with noise even in padded slots, and their mask: 5, 3, 1, 4 valid frames."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (4, 5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return frames, torch.arange(5) < torch.tensor([[5], [3], [1], [4]])


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids [6, 10]: SOT 298, words, EOT 299, padded with 0; 1 to 8 words."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, 298, (6, 10), generator=generator)
    for row, words in enumerate((1, 3, 8, 2, 5, 4)):
        ids[row, 0], ids[row, words + 1], ids[row, words + 2 :] = 298, 299, 0
    return ids


class _Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        if isinstance(result, torch.Tensor):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


@pytest.fixture
def largest_tensor() -> type[_Largest]:
    """`with largest_tensor() as largest:` measures `largest.bytes`."""
    return _Largest
