"""What a step does otherwise than the published code, for a GPU's sake: the same numbers."""

import pytest
import torch
from open_clip.transformer import QuickGELU as PublishedQuickGELU
from teachclip.stages.models.build import KINDS as EVERY
from teachclip.stages.models.clip.pixels import MEAN, STD, normalise, scaled
from teachclip.stages.models.clip.quick_gelu import QuickGELU
from teachclip.stages.models.common.valid_frames import ValidFrames, valid_places
from teachclip.stages.models.teachers.cdcr import _cross, _random_slots

KINDS = [kind for kind in EVERY if kind not in ("ce", "moee")]  # those that have a trunk


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_quick_gelu_has_open_clips_bits_and_keeps_its_input_alone(dtype: torch.dtype) -> None:
    given, gradient = 3 * torch.randn(2, 500, dtype=dtype)
    found, kept = [], []
    for activation in (PublishedQuickGELU(), QuickGELU()):
        x, saved = given.clone().requires_grad_(), list[torch.Tensor]()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, into=saved: into.append(tensor) or tensor, lambda x: x
        ):
            y = activation(x)
        y.backward(gradient)
        found.append((y.detach(), x.grad))
        kept.append({tensor.data_ptr() for tensor in saved} - {x.data_ptr()})
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
    assert kept[0]
    assert not kept[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_has_it_everywhere(make_network, kind: str) -> None:
    settings = {"ts2net": {"shift_layers": (), "samples": 5}} if kind == "ts2net" else {}
    modules = list(make_network(kind=kind, **settings).modules())
    assert any(isinstance(module, QuickGELU) for module in modules)
    assert not any(isinstance(module, PublishedQuickGELU) for module in modules)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ts2net"])
@torch.no_grad()
def test_frames_whose_places_are_known_give_the_same_bits(make_network, clips, kind: str) -> None:
    network = make_network(kind=kind)
    frames, mask = clips
    known = network.encode_videos(ValidFrames(frames, valid_places(mask)), mask)
    for name, expected in network.encode_videos(frames, mask).items():
        assert torch.equal(known[name], expected), name


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_ids_without_padding_give_the_same_features(make_network, ids, kind: str) -> None:
    settings = {"ts2net": {"shift_layers": (), "samples": 5}} if kind == "ts2net" else {}
    network = make_network(kind=kind, **settings)
    ids = ids[:2]  # shorter than there is room
    taken = network.take_ids(ids)
    assert (taken.shape == ids.shape) == network.reads_padding
    for name, expected in network.encode_texts(ids).items():
        assert torch.equal(network.encode_texts(taken)[name], expected), name


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_pixels_of_a_gpus_one_kernel_are_those_of_the_cpu(dtype: torch.dtype, close: float) -> None:
    frames = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    found = scaled(frames, mean, std, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), normalise(frames), rtol=close, atol=close)


def test_slots_are_drawn_as_multinomial_draws_them() -> None:
    mask = torch.arange(7) < torch.tensor([[7], [1], [3], [5]])
    for seed in range(20):
        torch.manual_seed(seed)
        found = _random_slots(mask)
        torch.manual_seed(seed)
        assert torch.equal(found, torch.multinomial(mask.float(), 1).squeeze(1))


def test_what_counts_for_nothing_is_as_if_it_were_not_there() -> None:
    vectors, matches = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    matches[..., 2] = 0.7  # a channel that does not vary
    weights, valid = torch.rand(5, 6, dtype=torch.float64), torch.rand(5, 6) > 0.4
    picked, others = vectors[valid], matches[valid]
    picked = (picked - picked.mean(0)) / picked.std(0)
    others = torch.where(others.std(0) > 1e-6, (others - others.mean(0)) / others.std(0), 0)
    expected = (picked * weights[valid].unsqueeze(1)).T @ others
    torch.testing.assert_close(_cross(vectors, matches, valid, weights), expected)
    torch.testing.assert_close(_cross(vectors, matches, valid), picked.T @ others)
