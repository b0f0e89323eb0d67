"""X-CLIP's score: pair by pair, in blocks, within memory."""

import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig, Ts2NetConfig
from teachclip.errors import CheckpointError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common import pair_blocks
from teachclip.stages.models.teachers import xclip


@pytest.fixture
def features(make_network, clips, ids):
    network = make_network(kind="xclip").double()
    with torch.no_grad():
        return network, network.encode_texts(ids), network.encode_videos(*clips)


def _part(features: dict, index) -> dict:
    return {key: value[index] for key, value in features.items()}


@pytest.mark.parametrize("pairs", [1, 2, 3, 7, 1000])
@torch.no_grad()
def test_the_block_size_does_not_change_a_score(features, monkeypatch, pairs) -> None:
    network, texts, videos = features
    whole = network.parts(texts, videos).mean()
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", pairs * 10 * 5 * 8)
    torch.testing.assert_close(network.score(texts, videos), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_pairs_score_does_not_depend_on_its_batch(features) -> None:
    network, texts, videos = features
    whole = network.score(texts, videos)
    for text in range(6):
        for video in range(4):
            alone = network.score(_part(texts, [text]), _part(videos, [video]))
            torch.testing.assert_close(alone, whole[text : text + 1, video : video + 1], rtol=0, atol=1e-12)


def test_gradients_do_not_depend_on_the_block_size(features, monkeypatch) -> None:
    network, texts, videos = features

    def gradient() -> torch.Tensor:
        network.zero_grad()
        network.score(texts, videos).square().sum().backward()
        return torch.cat(
            [p.grad.flatten() for name, p in network.named_parameters() if "weight" in name and p.grad is not None]
        )

    whole = gradient()
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", 1)
    torch.testing.assert_close(gradient(), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_no_tensor_grows_with_the_number_of_pairs(sizes, monkeypatch, largest_tensor) -> None:
    config = NetworkConfig(
        kind="xclip", trunk=TrunkConfig(sizes=sizes, weights=None), words=8, frames=4, temporal_layers=1
    )
    network = build_network(config).eval()
    texts = {"sentence": torch.randn(300, 64), "words": torch.randn(300, 8, 64)}
    videos = {"vector": torch.randn(200, 64), "frames": torch.randn(200, 4, 64)}
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", 1 << 18)
    with largest_tensor() as largest:
        network.score(texts, videos)
    assert largest.bytes <= texts["words"].nbytes < 300 * 200 * 8 * 4 * 4 / 10


@pytest.mark.parametrize("scale", [0.5, 3.0, 20.0])
@torch.no_grad()
def test_similarities_of_any_size_give_the_scores_of_the_formulas(features, scale) -> None:
    """Those beyond what exponentials may share take the way of each softmax by itself."""
    network, texts, videos = features
    network.local_mat_weight.mul_(scale)
    local = network._sides(texts)["local"] @ videos["frames"].flatten(0, 1).T
    assert (local.abs().max() < xclip.SAFE) == (scale < 1)
    assert xclip._can_be_shared(local) == (scale < 1)

    def attend(similarity: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:  # specs: X-CLIP 5
        return ((similarity / 0.01).softmax(dim=-1) @ matrix * similarity).sum(dim=-1)

    for name in ("word_mat_weight", "frame_mat_weight"):
        matrix = getattr(network, name)
        matrix.add_(0.1 * torch.randn_like(matrix))
    pairs = torch.einsum("tld,vfd->tvlf", texts["words"] @ network.local_mat_weight, videos["frames"])
    over_frames, over_words = network.frame_word_levels(texts["words"], videos["frames"])
    torch.testing.assert_close(over_words.mT, attend(pairs.mT, network.word_mat_weight), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(over_frames.mT, attend(pairs, network.frame_mat_weight), rtol=1e-12, atol=1e-12)


def test_frame_logits_are_cosines_of_pairs(features) -> None:
    network, texts, videos = features
    texts = _part(texts, slice(0, 4))
    expected = torch.stack([s @ f.T for s, f in zip(texts["sentence"], videos["frames"], strict=True)])
    torch.testing.assert_close(network.frame_logits(texts, videos), expected)


def test_a_fresh_network_attends_with_identity_matrices(sizes) -> None:
    config = NetworkConfig(
        kind="xclip", trunk=TrunkConfig(sizes=sizes, weights=None), words=8, frames=4, temporal_layers=1
    )
    matrices = {n: p for n, p in build_network(config).named_parameters() if "mat_weight" in n or "logit_weight" in n}
    assert len(matrices) == 8
    for matrix in matrices.values():
        torch.testing.assert_close(matrix.detach(), torch.eye(len(matrix)), rtol=0, atol=0)


def test_other_numbers_of_words_or_frames_are_refused(features, clips, ids) -> None:
    network, *_ = features
    with pytest.raises(CheckpointError, match=r"exactly 10 words.*given 9"):
        network.encode_texts(ids[:, :9])
    with pytest.raises(CheckpointError, match=r"exactly 5 frames.*given 4"):
        network.encode_videos(clips[0][:, :4], clips[1][:, :4])


@torch.no_grad()
def test_scores_stay_in_full_precision_inside_autocast(make_network, clips, ids) -> None:
    network = make_network(kind="xclip")
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    expected = network.score(texts, videos)
    with torch.autocast("cpu", torch.bfloat16):
        found = network.score(texts, videos)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["student", "xclip", "ts2net", "xpool", "drl", "openclip"])
def test_every_network_trains_in_bf16(make_network, clips, ids, kind) -> None:
    """What is compared stays float32 under autocast, and gradients are finite."""
    network = make_network(kind=kind, ts2net=Ts2NetConfig(shift_layers=())).train()
    with torch.autocast("cpu", torch.bfloat16):
        texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    floats = {k: v.dtype for k, v in [*texts.items(), *videos.items()] if v.is_floating_point()}
    vectors = {k: dtype for k, dtype in floats.items() if k in ("vector", "raw_weights", "matched", "weights")}
    assert set(vectors.values()) <= {torch.float32}
    scores = network.score(texts, videos)
    assert scores.dtype == torch.float32
    scores.diagonal().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
