"""The student: what may change its vectors, what may not, and how it starts."""

import subprocess
import sys

import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.clip.pixels import normalise
from torch.nn.functional import normalize

POOLINGS = ("afa", "mean")


def _vector(network, frames, mask) -> torch.Tensor:
    return network.encode_videos(frames, mask)["vector"]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("temporal_layers", [0, 2])
def test_padding_does_not_change_a_video(make_network, clips, pooling, temporal_layers) -> None:
    """Neither what lies in padded slots, nor how many there are; not even through the ViT."""
    network = make_network(pooling=pooling, temporal_layers=temporal_layers).double()
    frames, mask = clips
    expected = _vector(network, frames, mask)
    pixels = normalise(frames, torch.float64)
    torch.testing.assert_close(_vector(network, pixels, mask), expected, rtol=0, atol=1e-12)
    longer = torch.cat([frames, frames[:, :2]], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(4, 2, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(_vector(network, longer, longer_mask), expected, rtol=0, atol=1e-12)
    for k, valid in enumerate(mask.sum(1)):
        alone = _vector(network, frames[k : k + 1, :valid], mask[k : k + 1, :valid])
        torch.testing.assert_close(alone, expected[k : k + 1], rtol=0, atol=1e-12)


def test_padding_takes_part_as_in_the_published_code_when_not_masked(make_network, clips) -> None:
    network = make_network(mask_padding=False).double()
    frames, mask = clips
    pixels = normalise(frames, torch.float64)
    blank = pixels * mask[:, :, None, None, None]
    padded = ~mask.all(1)
    # uint8 padding is blank after normalisation, whatever lies there.
    torch.testing.assert_close(_vector(network, frames, mask), _vector(network, blank, mask), rtol=0, atol=1e-12)
    difference = (_vector(network, pixels, mask) - _vector(network, blank, mask)).abs().amax(1)
    assert (difference[padded] > 1e-6).all()
    assert (difference[~padded] < 1e-12).all()


def test_a_video_with_one_frame_has_all_weight_on_it_and_finite_gradients(make_network, clips) -> None:
    network = make_network().train()
    frames, mask = clips
    videos = network.encode_videos(frames, mask)
    weights = network.frame_weights(videos, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert weights[2].tolist() == [1, 0, 0, 0, 0]
    assert network.pooling_weights(videos, mask)[~mask].eq(0).all()
    (videos["vector"].sum() + weights.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mask_padding", [True, False])
def test_cached_class_tokens_give_what_the_frames_give(make_network, clips, pooling, mask_padding) -> None:
    network = make_network(pooling=pooling, mask_padding=mask_padding).double()
    frames, mask = clips
    tokens = network.class_tokens(frames, mask)
    assert tokens.shape == (4, 5, network.trunk.width)
    torch.testing.assert_close(_vector(network, tokens, mask), _vector(network, frames, mask), rtol=0, atol=1e-12)


def test_vectors_are_unit_and_a_score_is_their_cosine(make_network, clips, ids) -> None:
    network = make_network().double()
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    for features in (texts, videos):
        torch.testing.assert_close(features["vector"].norm(dim=1), torch.ones(len(features["vector"])).double())
    cosines = torch.nn.functional.cosine_similarity(texts["vector"][:, None], videos["vector"][None], dim=-1)
    torch.testing.assert_close(network.score(texts, videos), cosines)


def test_the_papers_student_pools_with_the_weights_that_are_taught(make_network, clips) -> None:
    """phi(x) = sum of w_i phi_i, with one weight vector and frames as they are."""
    network = make_network(pool_temperature=1.0, normalise_frames=False).double()
    frames, mask = clips
    videos = network.encode_videos(frames, mask)
    phi = network.over_time(network.frame_features(frames, mask), mask)
    weighted = (network.frame_weights(videos, mask)[..., None] * phi).sum(1)
    torch.testing.assert_close(videos["vector"], normalize(weighted, dim=1))


def test_mean_pooling_has_no_frame_weights(make_network, clips, ids) -> None:
    network = make_network(pooling="mean")
    videos = network.encode_videos(*clips)
    assert set(videos) == {"vector"}
    assert network.frame_logits(network.encode_texts(ids[:4]), videos) is None
    assert not [name for name, _ in network.named_parameters() if name.startswith("afa")]


def test_a_student_that_teaches_gives_its_frame_scores(make_network, clips, ids) -> None:
    network = make_network()
    videos = network.encode_videos(*clips)
    assert network.frame_logits(network.encode_texts(ids[:4]), videos) is videos["raw_weights"]


def _fresh(sizes, **settings):
    config = NetworkConfig(trunk=TrunkConfig(sizes=sizes, weights=None), words=8, **settings)
    return build_network(config)


def test_the_temporal_transformer_starts_as_clips_text_tower(sizes) -> None:
    network = _fresh(sizes, temporal_layers=3, frames=20)
    temporal, text = network.temporal, network.trunk.transformer.resblocks
    assert temporal.positions.shape == (20, 64)
    torch.testing.assert_close(temporal.positions[:16], network.trunk.positional_embedding, rtol=0, atol=0)
    for block, source in zip(temporal.resblocks, text, strict=False):
        theirs = source.state_dict()
        for name, value in block.state_dict().items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)
    third = temporal.resblocks[2]
    assert third.mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert third.mlp.c_fc.bias.abs().max() == 0
    assert third.ln_1.weight.eq(1).all()


def test_the_temporal_transformer_starts_at_random_where_widths_differ(sizes) -> None:
    network = _fresh(sizes.model_copy(update={"text_width": 128}), temporal_layers=1, frames=4)
    assert network.temporal.positions.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.temporal.resblocks[0].attn.in_proj_weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_afa_starts_small_without_biases(sizes) -> None:
    afa = _fresh(sizes).afa
    assert afa.hidden.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert afa.hidden.bias.abs().max() == afa.score.bias.abs().max() == 0
    assert sum(parameter.numel() for parameter in afa.parameters()) == 64 * 64 + 64 + 64 + 1


@pytest.mark.parametrize("kind", ["student", "xclip"])
def test_the_seed_decides_the_weights(sizes, kind) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in _fresh(sizes, kind=kind).parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


def test_behind_frozen_class_tokens_the_rest_trains(make_network, clips) -> None:
    network = make_network().train()
    network.freeze_class_tokens()
    tokens = network.class_tokens(*clips)
    assert not tokens.requires_grad
    network.encode_videos(tokens, clips[1])["vector"].sum().backward()
    visual = [name for name, p in network.trunk.visual.named_parameters() if p.grad is not None]
    assert sorted(visual) == ["ln_post.bias", "ln_post.weight", "proj"]
    assert network.temporal.positions.grad is not None


def test_sentences_are_not_computed_beyond_the_last_eot(make_network, ids) -> None:
    """Captions are short and the word count generous: the text tower sees as many words as the longest caption."""
    network, seen = make_network(), []
    network.trunk.transformer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[1]))
    network.encode_texts(ids[:1])
    assert seen == [3]


def test_the_student_is_built_without_importing_any_teacher() -> None:
    code = (
        "import sys, torch\n"
        "from teachclip.configs.schema import *\n"
        "from teachclip.stages.models.build import build_network\n"
        "sizes = TrunkSizes(vision_layers=1, text_layers=1, vision_width=64, text_width=64, vocab_size=9)\n"
        "build_network(NetworkConfig(trunk=TrunkConfig(sizes=sizes, weights=None), temporal_layers=1))\n"
        "sys.exit([name for name in sys.modules if 'xclip' in name or 'teachers' in name] != [])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
