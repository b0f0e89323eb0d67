"""Options that make training faster or smaller: the same gradients, and a word where they cannot be had."""

from collections.abc import Callable

import pytest
import torch
from teachclip.errors import TrainingError
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.train.step.speed import prepare_for_speed
from torch import Tensor

type Make = Callable[..., VideoTextNetwork]


def gradients(network: VideoTextNetwork, videos: int = 3) -> dict[str, Tensor]:
    """Of the scores of a few texts with as many videos, by name."""
    draw = torch.Generator().manual_seed(videos)
    frames = torch.randint(0, 256, (videos, 5, 3, 32, 32), generator=draw, dtype=torch.uint8)
    mask = torch.arange(5) < torch.tensor([5, 3, 4, 1, 2])[:videos, None]
    ids = torch.randint(1, 200, (videos, 10), generator=draw)
    ids[:, 0], ids[:, 7], ids[:, 8:] = 298, 299, 0
    network.train().zero_grad()
    scores = network.score(network.encode_texts(ids), network.encode_videos(frames, mask))
    scores.square().sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


class Kept:
    """Bytes that the graph keeps for the backward pass, weights aside."""

    def __init__(self, network: VideoTextNetwork) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        self.storages: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


def kept_bytes(network: VideoTextNetwork) -> int:
    kept = Kept(network)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        gradients(network)
    return kept.bytes


@pytest.mark.parametrize("kind", ["student", "ts2net"])
def test_recomputed_blocks_give_the_same_gradients(make_network: Make, kind: str) -> None:
    settings = {"kind": kind, "ts2net": {"shift_layers": (), "samples": 8, "sigma": 0.0}}
    plain, recomputed = make_network(**settings), make_network(**settings)
    prepare_for_speed(recomputed, recompute=True)
    expected = gradients(plain)
    for name, value in gradients(recomputed).items():
        assert torch.equal(value, expected[name]), name


def test_recomputed_blocks_keep_less(make_network: Make) -> None:
    plain, recomputed = make_network(temporal_layers=0), make_network(temporal_layers=0)
    prepare_for_speed(recomputed, recompute=True)
    assert kept_bytes(recomputed) < 0.7 * kept_bytes(plain)


def test_channels_last_gives_the_same_gradients(make_network: Make) -> None:
    plain, changed = make_network(), make_network()
    prepare_for_speed(changed, channels_last=True)
    assert changed.trunk.visual.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    seen: list[torch.Tensor] = []
    changed.trunk.visual.conv1.register_forward_pre_hook(lambda _, given: seen.extend(given))
    expected = gradients(plain)
    for name, value in gradients(changed).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert all(pixels.is_contiguous(memory_format=torch.channels_last) for pixels in seen)


@pytest.fixture
def nothing_compiled() -> None:
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks itself
@pytest.mark.usefixtures("nothing_compiled")
def test_compiled_blocks_give_the_same_gradients(make_network: Make) -> None:
    plain, compiled = make_network(), make_network()
    prepare_for_speed(compiled, compile=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for videos in (3, 5):
        expected = gradients(plain, videos)
        for name, value in gradients(compiled, videos).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.usefixtures("nothing_compiled")
def test_a_machine_that_cannot_compile_says_so(make_network: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(TrainingError, match="does not work here"):
        prepare_for_speed(make_network(temporal_layers=0), compile=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.usefixtures("nothing_compiled")
def test_towers_training_and_validation_stay_below_the_limit_of_recompiled_variants(
    make_network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._dynamo

    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block, dynamic: compile(block, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    network, frames = make_network(), torch.zeros(2, 5, 3, 32, 32, dtype=torch.uint8)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    prepare_for_speed(network, compile=True)
    for videos in (3, 5, 2):
        gradients(network, videos)
        for mode in (torch.no_grad, torch.inference_mode):  # a chunk's first pass, and validation
            with mode():
                network.encode_videos(frames, mask)
                network.eval().encode_videos(frames[:1], mask[:1])
