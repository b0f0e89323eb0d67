"""X-Pool: the quadratic form is the plain one, padding, dropout, memory and work."""

import pytest
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.errors import ConfigError
from teachclip.stages.models.checkpoints.files import load_network, network_digest, save_network
from teachclip.stages.models.common import pair_blocks
from teachclip.stages.models.teachers.xpool import TextConditionedPooling
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def _random(pooling: TextConditionedPooling) -> TextConditionedPooling:
    """Weights far from the identity, and biases."""
    for parameter in pooling.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return pooling


@pytest.fixture
def make_xpool(make_network):
    def make(dtype=torch.float64, **settings):
        network = make_network(kind="xpool", **settings)
        _random(network.pooling)
        return network.to(dtype)

    return make


def _plain(network, clips) -> dict:
    """Videos in the form that training compares."""
    mask = clips[1] if network.config.mask_padding else None
    return network.pooling.videos(network.frame_features(*clips), mask)


def _part(features: dict, index) -> dict:
    return {key: value[index] for key, value in features.items()}


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 6e-7)])
@torch.no_grad()
def test_the_quadratic_form_is_the_plain_one(make_xpool, clips, ids, heads, mask_padding, dtype, tolerance) -> None:
    network = make_xpool(dtype, mask_padding=mask_padding, xpool={"heads": heads})
    texts = network.encode_texts(ids)
    plain = network.pooling.plain_score(texts, _plain(network, clips))
    assert plain.std() > 0.02
    found = network.score(texts, network.encode_videos(*clips))
    torch.testing.assert_close(found, plain, rtol=0, atol=tolerance)


@torch.no_grad()
def test_one_frame(make_xpool, clips, ids) -> None:
    network, clip = make_xpool(), tuple(tensor[:, :1] for tensor in clips)
    texts, videos = network.encode_texts(ids), network.encode_videos(*clip)
    plain = network.pooling.plain_score(texts, _plain(network, clip))
    torch.testing.assert_close(network.score(texts, videos), plain, rtol=0, atol=1e-12)
    assert network.frame_logits(_part(texts, slice(4)), videos).shape == (4, 1)


@torch.no_grad()
def test_features_of_other_sizes() -> None:
    pooling = _random(TextConditionedPooling(512, 1, 0.3)).eval()
    for size in (1e-3, 1.0, 30.0):
        texts = pooling.texts(size * torch.randn(40, 512))
        videos = pooling.videos(size * torch.randn(30, 12, 512), None)
        found = pooling.score(texts, videos | pooling.condense(videos["values"]))
        torch.testing.assert_close(found, pooling.plain_score(texts, videos), rtol=0, atol=6e-7)


@torch.no_grad()
def test_values_that_cancel_give_finite_scores() -> None:
    """Rounding takes variances of zero below it."""
    pooling = TextConditionedPooling(64, 1, 0.3).eval()
    pooling.key.weight.zero_()
    texts, videos = pooling.texts(torch.randn(8, 64)), pooling.videos(torch.randn(200, 12, 64), None)
    values = 100 * torch.randn(200, 11, 64)
    videos |= pooling.condense(torch.cat([values, -values.sum(dim=1, keepdim=True)], dim=1))
    weights = pooling.weights(texts, videos)
    variances = ((videos["quadratic"].flatten(1, 2) @ weights).view(200, 3, 12, 8) * weights[:, None]).sum(dim=2) / 64
    assert (variances[:, :2] < -1e-5).any(dim=0).all()
    assert pooling.score(texts, videos).isfinite().all()


@torch.no_grad()
def test_a_pooled_vector_of_zero_scores_zero() -> None:
    pooling = TextConditionedPooling(64, 1, 0.3).eval()
    pooling.norm3.weight.zero_()
    texts, videos = pooling.texts(torch.randn(8, 64)), pooling.videos(torch.randn(5, 12, 64), None)
    for scores in (
        pooling.plain_score(texts, videos),
        pooling.score(texts, videos | pooling.condense(videos["values"])),
    ):
        assert scores.equal(torch.zeros(8, 5))


@torch.no_grad()
def test_several_heads_are_torchs_attention() -> None:
    pooling = _random(TextConditionedPooling(64, 4, 0.3)).double().eval()
    attention = torch.nn.MultiheadAttention(64, 4, batch_first=True).double()
    attention.in_proj_weight.copy_(torch.cat([layer.weight for layer in (pooling.query, pooling.key, pooling.value)]))
    attention.in_proj_bias.copy_(torch.cat([layer.bias for layer in (pooling.query, pooling.key, pooling.value)]))
    attention.out_proj.load_state_dict(pooling.out.state_dict())
    sentences, frames = torch.randn(8, 64).double(), torch.randn(5, 6, 64).double()
    queries = pooling.norm1(sentences).expand(5, -1, -1)
    hidden = pooling.norm2(attention(queries, *[pooling.norm1(frames)] * 2, need_weights=False)[0]).transpose(0, 1)
    expected = pooling.norm3(hidden + pooling.linear(hidden))
    found = pooling.pooled(pooling.texts(sentences), pooling.videos(frames, None))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask_padding", [True, False])
@torch.no_grad()
def test_padded_frames_take_part_only_as_published(make_xpool, clips, ids, mask_padding) -> None:
    network = make_xpool(mask_padding=mask_padding)
    _, mask = clips
    texts = network.encode_texts(ids)
    tokens = torch.randn(4, 5, 128, dtype=torch.float64)
    others = torch.where(mask[..., None], tokens, torch.randn_like(tokens))
    scores, changed = (network.score(texts, network.encode_videos(frames, mask)) for frames in (tokens, others))
    padded = ~mask.all(dim=1)
    assert changed[:, ~padded].equal(scores[:, ~padded])
    assert torch.allclose(changed, scores, rtol=0, atol=1e-12) == mask_padding
    weights = network.frame_logits(_part(texts, slice(4)), network.encode_videos(tokens, mask)).softmax(-1)
    assert (weights[~mask] == 0).all() == mask_padding


@torch.no_grad()
def test_a_video_without_frames_has_finite_scores(make_xpool, clips, ids) -> None:
    network = make_xpool()
    videos = network.encode_videos(clips[0], torch.zeros_like(clips[1]))
    texts = network.encode_texts(ids)
    assert network.score(texts, videos).isfinite().all()
    assert network.frame_logits(_part(texts, slice(4)), videos).isfinite().all()


@torch.no_grad()
def test_the_order_of_frames_is_not_seen(make_xpool, clips, ids) -> None:
    network = make_xpool()
    texts = network.encode_texts(ids)
    forward, backward = (
        network.encode_videos(*(tensor[:, o] for tensor in clips)) for o in (range(5), [4, 3, 2, 1, 0])
    )
    torch.testing.assert_close(network.score(texts, forward), network.score(texts, backward), rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 4])
@torch.no_grad()
def test_frame_logits_are_of_the_mean_attention(make_xpool, clips, ids, heads) -> None:
    network = make_xpool(xpool={"heads": heads})
    texts, videos = _part(network.encode_texts(ids), slice(4)), network.encode_videos(*clips)
    weights = network.pooling.weights(texts, videos).view(4, heads, 5, 4).mean(dim=1)
    own = weights.diagonal(dim1=0, dim2=2).T
    logits = network.frame_logits(texts, videos)
    torch.testing.assert_close(logits.softmax(dim=-1), own, rtol=0, atol=1e-12)
    if heads > 1:
        torch.testing.assert_close(logits.exp(), own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pairs", [1, 2, 7, 1000])
@torch.no_grad()
def test_the_block_size_does_not_change_a_score(make_xpool, clips, ids, monkeypatch, pairs) -> None:
    network = make_xpool()
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    whole = network.pooling.score(texts, videos)
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", pairs * 3 * 5 * 8)
    torch.testing.assert_close(network.score(texts, videos), whole, rtol=0, atol=1e-13)


@torch.no_grad()
def test_a_pairs_score_does_not_depend_on_its_batch(make_xpool, clips, ids) -> None:
    network = make_xpool()
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    whole = network.score(texts, videos)
    for text in range(6):
        for video in range(4):
            alone = network.score(_part(texts, [text]), _part(videos, [video]))
            torch.testing.assert_close(alone, whole[text : text + 1, video : video + 1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_pair_costs_12_8_thousand_multiply_adds_in_place_of_537() -> None:
    pooling = TextConditionedPooling(512, 1, 0.3).eval()
    texts, videos = pooling.texts(torch.randn(300, 512)), pooling.videos(torch.randn(200, 12, 512), None)
    condensed = videos | pooling.condense(videos["values"])
    work = {}
    for name, score, features in (("plain", pooling.plain_score, videos), ("quadratic", pooling.score, condensed)):
        with FlopCounterMode(display=False) as counter:
            score(texts, features)
        work[name] = counter.get_total_flops() / 2 / (300 * 200)
    assert work["plain"] == pytest.approx(537e3, rel=0.01)
    assert work["quadratic"] < 12.8e3


@torch.no_grad()
def test_no_tensor_grows_with_the_number_of_pairs(make_xpool, largest_tensor, monkeypatch) -> None:
    network = make_xpool(torch.float32)
    texts, videos = network.pooling.texts(torch.randn(300, 64)), network.pooling.videos(torch.randn(200, 5, 64), None)
    videos |= network.pooling.condense(videos.pop("values"))
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", 1 << 18)
    with largest_tensor() as largest:
        network.score(texts, videos)
    assert largest.bytes <= 1 << 18 < 300 * 200 * 5 * 4


def test_training_is_the_plain_form_with_dropout(make_xpool, clips, ids, largest_tensor) -> None:
    network = make_xpool(torch.float32, xpool={"dropout": 0.3}).train()

    def step() -> torch.Tensor:
        torch.manual_seed(7)
        return network.score(network.encode_texts(ids), network.encode_videos(*clips))

    first, again = step(), step()
    assert first.equal(again)
    assert not first.allclose(network.score(network.encode_texts(ids), network.encode_videos(*clips)))
    torch.nn.functional.cross_entropy(first[:4], torch.arange(4)).backward()
    without = {"trunk.logit_scale"} | {name for name, p in network.named_parameters() if p.grad is not None}
    assert without == {name for name, _ in network.named_parameters()}
    assert all(p.grad.isfinite().all() for p in network.pooling.parameters())
    assert all((p.grad != 0).any() for name, p in network.pooling.named_parameters() if name != "key.bias")
    network.eval()
    with torch.no_grad():
        torch.manual_seed(7)
        assert step().equal(step())
        assert not step().allclose(first)
        network.train().pooling.dropout.p = 0.0
        plain = step()
        torch.testing.assert_close(
            network.eval().score(network.encode_texts(ids), network.encode_videos(*clips)), plain
        )


@torch.no_grad()
def test_dropout_is_on_what_the_last_layer_adds(make_xpool, clips, ids) -> None:
    network = make_xpool().train()
    network.pooling.dropout.p = 1.0
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    dropped = network.score(texts, videos)
    for parameter in network.pooling.linear.parameters():
        parameter.zero_()
    torch.testing.assert_close(network.eval().score(texts, videos), dropped)


def test_memory_of_training(largest_tensor) -> None:
    """No tensor of a pair holds frames times width."""
    pooling = TextConditionedPooling(64, 2, 0.3)
    with largest_tensor() as largest:
        texts, videos = pooling.texts(torch.randn(40, 64)), pooling.videos(torch.randn(40, 12, 64), None)
        pooling.plain_score(texts, videos).sum().backward()
    assert largest.bytes <= 40 * 40 * 64 * 4


@torch.no_grad()
def test_scores_stay_in_full_precision_inside_autocast(make_xpool, clips, ids) -> None:
    network = make_xpool(torch.float32)
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    expected = network.score(texts, videos)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.score(texts, videos).equal(expected)
        features = network.encode_texts(ids) | network.encode_videos(*clips)
    assert {value.dtype for value in features.values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["xpool", "openclip"])
def test_there_is_no_temporal_transformer_whatever_a_recipe_says(make_network, kind) -> None:
    assert NetworkConfig(kind=kind, temporal_layers=4).temporal_layers == 0
    assert make_network(kind=kind, temporal_layers=2).temporal is None


def test_a_fresh_pooling_is_the_identity_of_the_published_size() -> None:
    pooling = TextConditionedPooling(512, 1, 0.3)
    assert sum(parameter.numel() for parameter in pooling.parameters()) == 1_316_352
    for layer in (pooling.query, pooling.key, pooling.value, pooling.out, pooling.linear):
        assert layer.weight.equal(torch.eye(512))
        assert not layer.bias.any()


def test_heads_that_do_not_divide_the_width_are_refused(make_network) -> None:
    with pytest.raises(ConfigError, match="width of 64 cannot be divided among 3"):
        make_network(kind="xpool", xpool={"heads": 3})


@torch.no_grad()
def test_a_saved_network_scores_the_same(make_xpool, clips, ids, tmp_path) -> None:
    network = make_xpool(torch.float32, xpool={"heads": 2})
    save_network(network, tmp_path / "xpool.safetensors")
    loaded = load_network(tmp_path / "xpool.safetensors").eval()
    assert network_digest(loaded) == network_digest(network)
    scores = [each.score(each.encode_texts(ids), each.encode_videos(*clips)) for each in (network, loaded)]
    assert scores[0].equal(scores[1])


@pytest.mark.parametrize("other", [{"mask_padding": False}, {"xpool": {"heads": 2}}])
def test_settings_that_change_scores_change_the_digest(make_network, other) -> None:
    assert network_digest(make_network(kind="xpool")) != network_digest(make_network(kind="xpool", **other))
    dropout = {"xpool": {"dropout": 0.4}}
    assert network_digest(make_network(kind="xpool")) == network_digest(make_network(kind="xpool", **dropout))
