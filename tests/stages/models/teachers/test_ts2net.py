"""TS2-Net: shifted tokens, its score against the specification pair by pair, training, and what it refuses."""

import pytest
import torch
from teachclip.configs.schema import Ts2NetConfig
from teachclip.errors import ConfigError
from teachclip.stages.models.checkpoints.files import load_network, network_digest, save_network
from teachclip.stages.models.clip.pixels import normalise
from teachclip.stages.models.clip.trunk import shift_tokens
from teachclip.stages.models.common import pair_blocks
from teachclip.stages.models.common.temporal import TemporalTransformer


@pytest.fixture
def make_ts2net(make_network, sizes):
    """`make_ts2net(shift_layers=(1,), samples=50, ...)`: 17 tokens a frame, three visual blocks."""

    def make(seed: int = 0, **special: object):
        fine = sizes.model_copy(update={"patch_size": 8, "vision_layers": 3})
        special = Ts2NetConfig(**{"shift_layers": (1,), "samples": 50} | special)
        return make_network(fine, seed, kind="ts2net", ts2net=special)

    return make


@pytest.fixture
def features(make_ts2net, clips, ids):
    network = make_ts2net().double()
    with torch.no_grad():
        return network, network.encode_texts(ids), network.encode_videos(*clips)


def _part(features: dict, index) -> dict:
    return {key: value[index] for key, value in features.items()}


@pytest.mark.parametrize("tokens", [7, 17, 21, 50])
def test_tokens_come_from_the_neighbouring_frames(tokens) -> None:
    before = torch.randn(2, 4, tokens, 3, generator=torch.Generator().manual_seed(0))
    after, step = shift_tokens(before), tokens // 7
    previous, following = range(1, tokens, step), range(4, tokens, step)
    for frame in range(4):
        for token in range(tokens):
            source = frame
            if token in following and frame < 3:  # written last
                source = frame + 1
            elif token in previous and frame > 0:
                source = frame - 1
            assert after[:, frame, token].equal(before[:, source, token])


@torch.no_grad()
def test_a_shifted_block_mixes_neighbours_and_no_others(make_ts2net) -> None:
    network = make_ts2net(shift_layers=(1,)).double()
    pixels = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    slots = torch.arange(6).view(1, 6)
    before = network.trunk.all_tokens(pixels, slots, (1,))
    pixels[2] += 1
    after = network.trunk.all_tokens(pixels, slots, (1,))
    changed = (before - after).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [False, True, True, True, False, False]


@torch.no_grad()
def test_without_neighbours_or_shift_tokens_are_those_of_the_plain_trunk(make_ts2net) -> None:
    trunk = make_ts2net().double().trunk
    pixels = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    plain = trunk.all_tokens(pixels, torch.tensor([[3, 1], [1, 0]]))
    assert plain.shape == (2, 2, 17, 64)
    torch.testing.assert_close(plain[:, :, 0].flatten(0, 1), trunk.encode_frames(pixels[[3, 1, 1, 0]]))
    alone = trunk.all_tokens(pixels, torch.tensor([[3], [1]]), (0, 2))
    torch.testing.assert_close(alone[:, 0], plain[0])


@pytest.mark.parametrize("shift_layers", [(), (0,), (1, 2)])
@torch.no_grad()
def test_padded_frames_count_as_blank_images(make_ts2net, clips, shift_layers) -> None:
    """Of uint8 frames the blank one is computed once before the shift; of pixels every slot is."""
    network = make_ts2net(shift_layers=shift_layers).double()
    frames, mask = clips
    pixels = normalise(frames, torch.float64) * mask[:, :, None, None, None]
    torch.testing.assert_close(network.tokens(frames, mask), network.tokens(pixels, mask), rtol=0, atol=1e-12)
    if shift_layers:  # a blank frame beside the last valid one is not the same as none
        cut = network.tokens(pixels[1:2, :3], mask[1:2, :3])
        assert (network.tokens(frames, mask)[1, 2] - cut[0, 2]).abs().max() > 1e-3


@pytest.mark.parametrize(("valid", "used"), [(12, 12), (9, 12), (8, 8), (5, 8), (4, 4), (1, 4)])
@torch.no_grad()
def test_the_mask_is_tiled(make_ts2net, valid, used) -> None:
    """With 12 frames: 9 or more valid ones mask nothing, 5 to 8 drop every third frame, fewer keep every third."""
    network, mask = make_ts2net(), (torch.arange(12) < valid)[None]
    matched = network.encode_videos(torch.zeros(1, 12, 3, 32, 32, dtype=torch.uint8), mask)["matched"][0]
    kept = {12: range(12), 8: [0, 1, 3, 4, 6, 7, 9, 10], 4: [0, 3, 6, 9]}[used]
    assert matched.nonzero().flatten().tolist() == list(kept)
    assert [bool(mask[0, j % 12]) for j in range(48)] == network.tiled(mask)[0].tolist()


@torch.no_grad()
def test_positions_begin_anew_after_the_last(make_network) -> None:
    trunk = make_network().trunk
    short = TemporalTransformer(64, 2, 6).double()
    short.initialise(trunk)
    long = TemporalTransformer(64, 2, 15).double()
    long.load_state_dict(short.state_dict() | {"positions": short.positions.repeat(3, 1)[:15]})
    frames, mask = torch.randn(2, 15, 64, dtype=torch.float64), torch.arange(15) < torch.tensor([[15], [7]])
    torch.testing.assert_close(short(frames, mask), long(frames, mask), rtol=0, atol=0)


@torch.no_grad()
def test_scores_are_those_of_the_specification(features) -> None:
    network, texts, videos = features
    found = network.score(texts, videos)
    for t, sentence in enumerate(texts["sentence"]):
        for v, (frames, matched) in enumerate(zip(videos["frames"], videos["matched"], strict=True)):
            cosines = frames @ sentence
            sharp = cosines * matched / (cosines * matched).square().sum().sqrt()
            used = matched.bool()
            weights = (4 * sharp[used]).softmax(0)
            assert float(found[t, v]) == pytest.approx(float((weights * cosines[used]).sum()), abs=1e-12)
    own = _part(videos, [0, 1, 2, 3, 0, 1])
    expected = (own["frames"] * texts["sentence"][:, None]).sum(-1)
    torch.testing.assert_close(network.frame_logits(texts, own), expected)


@pytest.mark.parametrize("pairs", [1, 2, 3, 7, 1000])
@torch.no_grad()
def test_the_block_size_does_not_change_a_score(features, monkeypatch, pairs) -> None:
    network, texts, videos = features
    whole = network.score(texts, videos)
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", pairs * 5 * 8)
    torch.testing.assert_close(network.score(texts, videos), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_autocast_leaves_scores_in_full_precision(make_ts2net, clips, ids) -> None:
    network = make_ts2net()
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    expected = network.score(texts, videos)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.score(texts, videos).equal(expected)
        half = network.encode_videos(*clips)
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert (half["frames"] - videos["frames"]).abs().max() < 0.2


def test_training_moves_every_weight(make_ts2net, clips, ids) -> None:
    network = make_ts2net(samples=200).train()
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(12):
        logits = 20 * network.score(network.encode_texts(ids[:4]), network.encode_videos(*clips))
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
        assert all(p.grad.abs().max() > 0 for p in network.selector.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    still = {name for name, value in network.named_parameters() if value.equal(before[name])}
    assert still == {"trunk.logit_scale"}  # not in this loss


def test_a_saved_network_is_the_same(make_ts2net, clips, tmp_path) -> None:
    network = make_ts2net()
    save_network(network, tmp_path / "ts2net.safetensors")
    loaded = load_network(tmp_path / "ts2net.safetensors").eval()
    assert loaded.config == network.config
    with torch.no_grad():
        assert loaded.encode_videos(*clips)["frames"].equal(network.encode_videos(*clips)["frames"])


def test_every_setting_is_part_of_the_digest(make_ts2net) -> None:
    others = [{}, {"shift_layers": ()}, {"selected": 2}, {"samples": 49}, {"sigma": 0.1}]
    assert len({network_digest(make_ts2net(**special)) for special in others}) == len(others)


def test_settings_that_the_trunk_cannot_bear_are_refused(make_ts2net, make_network) -> None:
    with pytest.raises(ConfigError, match=r"names block 10; this trunk has 3(.|\n)*shift_layers=\[1,2\]"):
        make_ts2net(shift_layers=(10, 11))
    with pytest.raises(ConfigError, match=r"needs 7 tokens a frame; this trunk has 5"):
        make_network(kind="ts2net", ts2net=Ts2NetConfig(shift_layers=(1,)))
    with pytest.raises(ConfigError, match=r"selected asks for 5 patches of a frame; this trunk has 4"):
        make_network(kind="ts2net", ts2net=Ts2NetConfig(shift_layers=(), selected=5))


def test_cached_class_tokens_are_refused(make_ts2net) -> None:
    with pytest.raises(ConfigError, match=r"all tokens(.|\n)*train\.trunk=full"):
        make_ts2net().encode_videos(torch.zeros(4, 5, 128), torch.ones(4, 5))
