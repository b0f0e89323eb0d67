"""The perturbed top-k: its expectation, its gradient, and noise that belongs to a video."""

import math

import pytest
import torch
from teachclip.configs.schema import Ts2NetConfig
from teachclip.stages.models.teachers import ts2net
from teachclip.stages.models.teachers.perturbed_top_k import perturbed_top_k, seeded_noise, video_seeds
from torch.nn import functional


@pytest.fixture
def make_ts2net(make_network, sizes):
    def make(**special: object):
        fine = sizes.model_copy(update={"patch_size": 8})
        return make_network(fine, kind="ts2net", ts2net=Ts2NetConfig(shift_layers=(1,), **special))

    return make


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def test_choices_are_counted_in_the_order_of_their_places() -> None:
    scores, noise = _noise(2, 3, 9), _noise(2, 3, 40, 9)
    found = perturbed_top_k(scores, noise, 3, 0.5)
    places = (scores[:, :, None] + 0.5 * noise).topk(3).indices.sort().values
    torch.testing.assert_close(found, functional.one_hot(places, 9).float().mean(dim=2))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3, 3))


def test_without_sigma_the_choice_is_hard_and_teaches_nothing() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.2, 0.8]], requires_grad=True)
    found = perturbed_top_k(scores, torch.zeros(1, 1, 4), 2, 0.0)
    assert found.tolist() == [[[0, 1, 0, 0], [0, 0, 0, 1]]]
    (found.sum() + 0 * scores.sum()).backward()
    assert scores.grad.tolist() == [[0, 0, 0, 0]]


def test_its_gradient_is_that_of_the_expectation_where_that_is_known() -> None:
    """The larger of two: the first one with probability Phi(difference / (sqrt(2) sigma))."""
    sigma, samples = 0.5, 400_000
    scores = torch.tensor([[0.3, 0.1]], dtype=torch.float64, requires_grad=True)
    found = perturbed_top_k(scores, _noise(1, samples, 2), 1, sigma)
    z = 0.2 / (math.sqrt(2) * sigma)
    assert float(found.detach()[0, 0, 0]) == pytest.approx((1 + math.erf(z / math.sqrt(2))) / 2, abs=0.004)
    found[0, 0, 0].backward()
    density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / (math.sqrt(2) * sigma)
    assert scores.grad[0].tolist() == pytest.approx([density, -density], abs=0.012)


def test_its_gradient_is_the_slope_of_the_expectation() -> None:
    sigma, samples, step = 0.5, 200_000, 0.1
    scores, worth = torch.tensor([0.3, 0.0, 0.5, -0.2, 0.1]), _noise(3, 5)
    noise = _noise(samples, 5)

    def value(scores: torch.Tensor) -> torch.Tensor:
        return (worth * perturbed_top_k(scores, noise, 3, sigma)).sum()

    leaf = scores.clone().requires_grad_()
    value(leaf).backward()
    for place in range(5):
        nudge = step * functional.one_hot(torch.tensor(place), 5)
        slope = float(value(scores + nudge) - value(scores - nudge)) / (2 * step)
        assert float(leaf.grad[place]) == pytest.approx(slope, abs=0.04), place
    assert leaf.grad.abs().max() > 0.3


def noise_of(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return seeded_noise(video_seeds(frames, mask), (5, 20, 16), frames.device)


@torch.no_grad()
def test_seeds_are_asked_for_before_a_gpu_is_given_the_trunk_to_do(make_ts2net, clips, monkeypatch) -> None:
    """Else the CPU would wait until the trunk is done, and draw while the GPU does nothing."""
    network, order = make_ts2net(), []
    network.trunk.visual.conv1.register_forward_hook(lambda *_: order.append("trunk"))

    def seeds(*given: torch.Tensor) -> list[int]:
        order.append("seeds")
        return video_seeds(*given)

    monkeypatch.setattr(ts2net, "video_seeds", seeds)
    network.encode_videos(*clips)
    assert order == ["seeds", "trunk"]


@torch.no_grad()
def test_a_videos_noise_does_not_depend_on_its_company(clips) -> None:
    frames, mask = clips
    whole = noise_of(frames, mask)
    order = [2, 0, 3, 1, 2]
    assert noise_of(frames[order], mask[order]).equal(whole[order])
    for video in range(4):
        assert noise_of(frames[video : video + 1], mask[video : video + 1]).equal(whole[video : video + 1])
    assert len(set(video_seeds(frames, mask))) == 4
    assert whole.mean().abs() < 0.05
    assert abs(float(whole.std()) - 1) < 0.05


def test_seeds_are_of_what_a_video_shows(clips) -> None:
    frames, mask = clips
    seeds = video_seeds(frames, mask)
    padding = frames.clone()
    padding[~mask] = 7
    assert video_seeds(padding, mask.long()) == seeds  # padded frames are blank, whatever they hold
    assert not set(video_seeds(frames, torch.ones_like(mask))[1:]) & set(seeds)
    for place in ((1, 0, 0, 0, 0), (1, 2, 2, 31, 31)):
        other = frames.clone()
        other[place] ^= 128
        assert [a == b for a, b in zip(video_seeds(other, mask), seeds, strict=True)] == [True, False, True, True]
    assert video_seeds(frames.flip(3), mask) != seeds
    pixels = torch.randn(4, 5, 3, 32, 32)
    changed = pixels.clone()
    changed[0, 0, 0, 0, 0] = changed[0, 0, 0, 0, 0].nextafter(torch.tensor(9.0))
    assert [a == b for a, b in zip(video_seeds(pixels, mask), video_seeds(changed, mask), strict=True)] == [
        False, True, True, True,
    ]  # fmt: skip


def _scrambled(z: int) -> int:
    """SplitMix64's output function, after its published definition."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_seeds_are_exact() -> None:
    """Plain whole numbers, so that every device, and every later release, makes the same noise."""
    frames = (torch.arange(2 * 3 * 3 * 5 * 5) % 251).to(torch.uint8).view(2, 3, 3, 5, 5)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    expected = []
    for video, valid in zip(frames * mask[:, :, None, None, None], mask, strict=True):
        content = bytes(video.flatten().tolist() + valid.tolist())
        words = [int.from_bytes(content[start : start + 8], "little") for start in range(0, len(content), 8)]
        keyed = [(word + (k + 1) * 0x9E3779B97F4A7C15) % 2**64 for k, word in enumerate(words)]
        seed = _scrambled(sum(map(_scrambled, keyed)) % 2**64)
        expected.append(seed - 2**64 if seed >= 2**63 else seed)
    assert video_seeds(frames, mask) == expected


@pytest.mark.parametrize("pixels", [False, True])
@torch.no_grad()
def test_evaluation_repeats_and_leaves_the_global_generator_alone(make_ts2net, clips, ids, pixels) -> None:
    network = make_ts2net(samples=50)
    frames, mask = clips
    frames = frames.float().div(255) if pixels else frames
    state = torch.random.get_rng_state()
    whole = network.encode_videos(frames, mask)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(1)
    assert network.encode_videos(frames, mask)["frames"].equal(whole["frames"])
    order = [3, 1, 1]
    some = network.encode_videos(frames[order], mask[order])
    torch.testing.assert_close(some["frames"], whole["frames"][order], rtol=0, atol=1e-6)
    assert some["matched"].equal(whole["matched"][order])


@torch.no_grad()
def test_training_draws_from_the_global_generator(make_ts2net, clips) -> None:
    network = make_ts2net(samples=50).train()
    torch.manual_seed(3)
    first = network.encode_videos(*clips)["frames"]
    second = network.encode_videos(*clips)["frames"]
    torch.manual_seed(3)
    assert network.encode_videos(*clips)["frames"].equal(first)
    assert not first.equal(second)


@torch.no_grad()
def test_noise_can_be_given(make_ts2net, clips) -> None:
    network = make_ts2net(samples=50).train()
    noise = _noise(4, 5, 30, 16)
    first = network.encode_videos(*clips, noise=noise)["frames"]
    assert network.encode_videos(*clips, noise=noise)["frames"].equal(first)
    assert not network.encode_videos(*clips, noise=-noise)["frames"].equal(first)


@pytest.mark.gpu
@torch.no_grad()
def test_the_gpu_draws_and_scores_as_the_cpu(make_ts2net, clips, ids) -> None:
    frames, mask = clips
    assert video_seeds(frames.cuda(), mask.cuda()) == video_seeds(frames, mask)
    pixels = torch.randn(4, 5, 3, 32, 32)
    assert video_seeds(pixels.cuda(), mask.cuda()) == video_seeds(pixels, mask)
    noise = noise_of(frames.cuda(), mask.cuda())
    assert noise.is_cuda
    assert noise.cpu().equal(noise_of(frames, mask))
    network = make_ts2net().double()
    expected = network.score(network.encode_texts(ids), network.encode_videos(frames, mask))
    network.cuda()
    videos = network.encode_videos(frames.cuda(), mask.cuda())
    found = network.score(network.encode_texts(ids.cuda()), videos)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-9)
    network.float()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        videos = network.encode_videos(frames.cuda(), mask.cuda())
    found = network.score(network.encode_texts(ids.cuda()), videos)
    # Only where two patches are level to float32's last bits could one sample in 500 choose otherwise.
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=1e-5)
