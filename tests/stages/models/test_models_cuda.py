"""The networks on a GPU: the numbers of the CPU, within memory."""

import pytest
import torch
from teachclip.configs.schema import OptimConfig
from teachclip.stages.train.step.optimizer import build_optimizer

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", ["student", "xclip", "xpool", "drl", "openclip"])
@torch.no_grad()
def test_scores_on_the_gpu_are_those_of_the_cpu(make_network, clips, ids, kind) -> None:
    network = make_network(kind=kind).double()
    expected = network.score(network.encode_texts(ids), network.encode_videos(*clips))
    network.cuda()
    frames, mask = (tensor.cuda() for tensor in clips)
    found = network.score(network.encode_texts(ids.cuda()), network.encode_videos(frames, mask))
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-9)


def test_bf16_training_gives_float32_vectors(make_network, clips, ids) -> None:
    network = make_network().cuda().train()
    frames, mask = (tensor.cuda() for tensor in clips)
    with torch.autocast("cuda", torch.bfloat16):
        videos, texts = network.encode_videos(frames, mask), network.encode_texts(ids.cuda())
    assert {value.dtype for value in (*videos.values(), *texts.values())} == {torch.float32}
    torch.testing.assert_close(videos["vector"].norm(dim=1), torch.ones(4, device="cuda"))
    network.score(texts, videos).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
def test_xclip_scores_many_pairs_within_memory(make_network) -> None:
    network = make_network(kind="xclip", words=10, frames=5).cuda()
    texts = {"sentence": torch.randn(4000, 64), "words": torch.randn(4000, 10, 64)}
    videos = {"vector": torch.randn(4000, 64), "frames": torch.randn(4000, 5, 64)}
    texts, videos = ({key: value.cuda() for key, value in part.items()} for part in (texts, videos))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    network.score(texts, videos)
    assert torch.cuda.max_memory_allocated() - before < 1 << 30 < 4000 * 4000 * 10 * 5 * 4


@torch.no_grad()
def test_xpool_scores_many_pairs_within_memory(make_network) -> None:
    network = make_network(kind="xpool").cuda()
    texts = network.pooling.texts(torch.randn(4000, 64, device="cuda"))
    videos = network.pooling.videos(torch.randn(4000, 12, 64, device="cuda"), None)
    videos |= network.pooling.condense(videos.pop("values"))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    network.score(texts, videos)
    assert torch.cuda.max_memory_allocated() - before < 1 << 30 < 4000 * 4000 * 3 * 12 * 4


def test_xpool_trains_in_full_precision(make_network) -> None:
    network = make_network(kind="xpool").cuda().train()
    frames = torch.randint(0, 256, (4, 5, 3, 32, 32), dtype=torch.uint8, device="cuda")
    ids = torch.tensor([[298, 5, 299, 0]] * 4, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        texts, videos = network.encode_texts(ids), network.encode_videos(frames, torch.ones(4, 5, device="cuda"))
    assert {value.dtype for value in (*videos.values(), *texts.values())} == {torch.float32}
    network.score(texts, videos).diagonal().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "bert-adam"])
def test_optimisers_go_on_from_a_state_saved_on_the_cpu(make_network, optimiser, tmp_path) -> None:
    config = OptimConfig(optimiser=optimiser, trunk_lr=1e-3, weight_decay=0.0)
    network = make_network().cuda()
    steps = build_optimizer(network, config, 10)

    def step(network, steps) -> None:
        steps.zero_grad()
        sum((p.square()).sum() for p in network.parameters()).backward()
        steps.step()

    step(network, steps)
    torch.save((network.state_dict(), steps.state_dict()), tmp_path / "state")
    step(network, steps)
    weights, state = torch.load(tmp_path / "state", map_location="cpu", weights_only=True)
    other = make_network(seed=1).cuda()
    other.load_state_dict(weights)
    again = build_optimizer(other, config, 10)
    again.load_state_dict(state)
    step(other, again)
    for mine, theirs in zip(other.parameters(), network.parameters(), strict=True):
        assert mine.equal(theirs)
