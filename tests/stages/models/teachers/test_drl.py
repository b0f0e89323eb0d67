"""DRL: the score in blocks is the plain one, padding counts as zero, and training moves the weight networks."""

import pytest
import torch
from teachclip.configs.loading import load_config
from teachclip.errors import CheckpointError, ConfigError
from teachclip.stages.models.checkpoints.files import load_network, network_digest, save_network
from teachclip.stages.models.common import pair_blocks
from teachclip.stages.models.teachers import drl
from teachclip.stages.train.losses.contrastive import info_nce
from torch import Tensor

WORDS, FRAMES = 10, 5  # of `make_network`
EVEN = {"interaction": "ti", "cdcr": 0}
DOT = {"interaction": "dp", "cdcr": 0}


@pytest.fixture
def material() -> dict[str, Tensor]:
    """Features of 43 texts and 31 videos with every number of valid slots, not normalised."""
    generator = torch.Generator().manual_seed(3)
    return {
        "words": torch.randn(43, WORDS, 64, generator=generator),
        "word_mask": torch.arange(WORDS) < (torch.arange(43) % (WORDS - 2) + 3)[:, None],
        "frames": torch.randn(31, FRAMES, 64, generator=generator),
        "frame_mask": torch.arange(FRAMES) < (torch.arange(31) % FRAMES + 1)[:, None],
    }


def _features(network, material) -> tuple[dict, dict]:
    frames = material["frames"]
    texts = network.text_features(material["words"], material["word_mask"])
    return texts, network.video_features(frames, material["frame_mask"], frames)


def _part(features: dict, index) -> dict:
    return {key: value[index] for key, value in features.items()}


@pytest.mark.parametrize("settings", [{}, {"layers": 1}, {"layers": 3}, EVEN, DOT])
@torch.no_grad()
def test_the_score_is_the_plain_one(make_network, material, settings) -> None:
    network = make_network(kind="drl", drl=settings)
    texts, videos = _features(network, material)
    torch.testing.assert_close(network.score(texts, videos), network.plain_score(texts, videos), rtol=0, atol=3e-7)


@pytest.mark.parametrize("settings", [{}, EVEN])
def test_its_gradients_are_the_plain_ones(make_network, material, settings) -> None:
    network = make_network(kind="drl", drl=settings).double()
    leaves = {key: material[key].double().requires_grad_() for key in ("words", "frames")}
    weight_networks = [parameter for name, parameter in network.named_parameters() if "weight_fc" in name]
    pulls = torch.randn(43, 31, dtype=torch.float64)

    def gradients(score) -> tuple[Tensor, ...]:
        loss = (score(*_features(network, material | leaves)) * pulls).sum()
        return torch.autograd.grad(loss, [*leaves.values(), *weight_networks])

    for found, expected in zip(gradients(network.score), gradients(network.plain_score), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("texts_at_a_time", [1, 5, 100])
@pytest.mark.parametrize("block_bytes", [1, 1 << 16])
@torch.no_grad()
def test_blocks_do_not_change_a_score(make_network, material, monkeypatch, texts_at_a_time, block_bytes) -> None:
    network = make_network(kind="drl").double()
    material |= {key: material[key].double() for key in ("words", "frames")}
    texts, videos = _features(network, material)
    expected = network.plain_score(texts, videos)
    monkeypatch.setattr(drl, "TEXTS_AT_A_TIME", texts_at_a_time)
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", block_bytes)
    torch.testing.assert_close(network.score(texts, videos), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_pairs_score_does_not_depend_on_its_batch(make_network, clips, ids) -> None:
    network = make_network(kind="drl").double()
    texts, videos = network.encode_texts(ids), network.encode_videos(*clips)
    whole = network.score(texts, videos)
    for text in range(len(ids)):
        for video in range(len(clips[0])):
            alone = network.score(_part(texts, [text]), _part(videos, [video]))
            torch.testing.assert_close(alone, whole[text : text + 1, video : video + 1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_no_tensor_grows_with_the_number_of_pairs(make_network, monkeypatch, largest_tensor) -> None:
    network = make_network(kind="drl")
    texts = network.text_features(torch.randn(300, WORDS, 64), torch.ones(300, WORDS))
    videos = network.video_features(torch.randn(200, FRAMES, 64), torch.ones(200, FRAMES), torch.empty(0))
    monkeypatch.setitem(pair_blocks.BLOCK_BYTES, "cpu", 1 << 16)
    with largest_tensor() as largest:
        network.score(texts, videos)
    inputs = max(value.numel() * value.element_size() for value in videos.values())
    assert largest.bytes <= max(inputs, 300 * 200 * 4) < 300 * 200 * WORDS * FRAMES * 4


@pytest.mark.parametrize(
    ("words", "frames", "expected"),
    [(WORDS, FRAMES, -1.0), (WORDS - 1, FRAMES, -0.5), (WORDS, FRAMES - 1, -0.5), (WORDS - 1, 1, 0.0)],
)
@torch.no_grad()
def test_padding_is_a_similarity_of_zero(make_network, words, frames, expected) -> None:
    """Every word is the opposite of every frame: only a padded slot on the other side is better."""
    network, one = make_network(kind="drl"), torch.randn(64)
    texts = network.text_features(one.expand(1, WORDS, 64), torch.arange(WORDS)[None] < words)
    videos = network.video_features(-one.expand(1, FRAMES, 64), torch.arange(FRAMES)[None] < frames, -one)
    for score in (network.score, network.plain_score):
        assert float(score(texts, videos)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("settings", [{}, EVEN, DOT])
@torch.no_grad()
def test_a_video_without_frames_scores_zero(make_network, material, settings) -> None:
    network = make_network(kind="drl", drl=settings)
    material["frame_mask"][4] = False
    texts, videos = _features(network, material)
    for score in (network.score(texts, videos), network.plain_score(texts, videos)):
        assert score.isfinite().all()
        assert (score[:, 4] == 0).all()


def test_other_numbers_of_words_or_frames_are_refused(make_network, clips, ids) -> None:
    network = make_network(kind="drl")
    with pytest.raises(CheckpointError, match=r"exactly 10 words.*given 9"):
        network.encode_texts(ids[:, :9])
    with pytest.raises(CheckpointError, match=r"exactly 5 frames.*given 4"):
        network.encode_videos(clips[0][:, :4], clips[1][:, :4])


@torch.no_grad()
def test_words_up_to_the_end_of_a_text_are_valid(make_network, ids) -> None:
    texts = make_network(kind="drl").encode_texts(ids)
    assert texts["mask"].sum(1).tolist() == [3, 5, 10, 4, 7, 6]
    assert (texts["weights"][~texts["mask"]] == 0).all()
    torch.testing.assert_close(texts["weights"].sum(1), torch.ones(6))


@torch.no_grad()
def test_frame_scores_by_name(make_network, clips, ids) -> None:
    cosine = torch.nn.functional.cosine_similarity
    frames, mask = clips
    for name in ("temporal", "trunk", "best-word"):
        network = make_network(kind="drl", drl={"frame_scores": name})
        texts, videos = network.encode_texts(ids[:4]), network.encode_videos(frames, mask)
        words, sentence = network.trunk.encode_words(ids[:4])
        before = network.frame_features(frames, mask)
        after = network.over_time(before, mask)
        if name == "best-word":
            every = cosine(words[:, :, None], after[:, None], dim=-1) * texts["mask"][:, :, None] * mask[:, None]
            expected = every.amax(1)
            assert (expected[~mask] == 0).all()
        else:
            expected = cosine(sentence[:, None], after if name == "temporal" else before, dim=-1)
        torch.testing.assert_close(network.frame_logits(texts, videos), expected)


@torch.no_grad()
def test_scores_stay_in_full_precision_inside_autocast(make_network, clips, ids) -> None:
    network = make_network(kind="drl")
    texts, videos = network.encode_texts(ids[:4]), network.encode_videos(*clips)
    functions = (network.score, network.plain_score, network.frame_logits, network.auxiliary_loss)
    expected = [function(texts, videos) for function in functions]
    with torch.autocast("cpu", torch.bfloat16):
        found = [function(texts, videos) for function in functions]
        assert network.encode_texts(ids)["weights"].dtype == torch.float32
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0)


@pytest.mark.parametrize("variant", [0, 1, 2, 3])
def test_training_steps_are_finite_and_move_the_weight_networks(make_network, clips, ids, variant) -> None:
    network = make_network(kind="drl", drl={"cdcr": variant, "cdcr_alpha2": 0.06}).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    before = {name: value.clone() for name, value in network.state_dict().items() if "weight_fc" in name}
    losses = []
    for _ in range(4):
        texts, videos = network.encode_texts(ids[:4]), network.encode_videos(*clips)
        loss = info_nce(network.logit_scale.exp() * network.score(texts, videos))
        auxiliary = network.auxiliary_loss(texts, videos)
        assert (auxiliary is None) == (variant == 0)
        total = loss if auxiliary is None else loss + auxiliary
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.detach())
    assert torch.stack(losses).isfinite().all()
    assert losses[-1] < losses[0]
    # A bias before a softmax is the only one that cannot matter.
    for name, value in before.items():
        assert name.endswith("2.bias") or not network.state_dict()[name].equal(value), name


@pytest.mark.parametrize("variant", [1, 2, 3])
def test_channels_that_do_not_vary_decorrelate_without_nan(make_network, material, variant) -> None:
    """An untrained network may find SOT the best word of every frame, and SOT is the same in every text."""
    network = make_network(kind="drl", drl={"cdcr": variant, "cdcr_alpha2": 0.06})
    words = material["words"][:1, :1].repeat(31, WORDS, 1).requires_grad_()
    texts, videos = _features(network, material | {"words": words, "word_mask": material["word_mask"][:31]})
    loss = network.auxiliary_loss(texts, videos)
    loss.backward()
    assert loss.isfinite()
    assert words.grad.isfinite().all()
    assert words.grad.abs().max() < 1e3


def test_random_words_and_frames_come_from_the_global_generator(make_network, material) -> None:
    network = make_network(kind="drl", drl={"cdcr": 1})
    texts, videos = _features(network, material)
    texts = _part(texts, slice(31))

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return network.auxiliary_loss(texts, videos)

    assert drawn(1).equal(drawn(1))
    assert not drawn(1).equal(drawn(2))


def test_random_words_and_frames_are_valid_ones(make_network, material) -> None:
    network = make_network(kind="drl", drl={"cdcr": 1})
    material = {key: value[:31] for key, value in material.items()}
    padded = {"words": ~material["word_mask"][..., None], "frames": ~material["frame_mask"][..., None]}
    spoilt = material | {key: material[key].masked_fill(where, torch.nan) for key, where in padded.items()}
    for _ in range(5):
        assert network.auxiliary_loss(*_features(network, spoilt)).isfinite()


@pytest.mark.parametrize("interaction", ["ti", "dp"])
def test_weighted_decorrelation_without_weights_is_refused(tmp_path, interaction) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"train:\n  network:\n    kind: drl\n    drl:\n      interaction: {interaction}\n")
    with pytest.raises(ConfigError, match=rf"cdcr: 3 takes the weights .* {interaction} .*set cdcr to 0, 1 or 2"):
        load_config(path)
    assert load_config(path, ["train.network.drl.cdcr=2"]).train.network.drl.interaction == interaction


@pytest.mark.parametrize("settings", [{}, {"layers": 1}, {"layers": 3}, EVEN, DOT, {"frame_scores": "trunk"}])
@torch.no_grad()
def test_a_saved_network_computes_the_same(make_network, clips, ids, settings, tmp_path) -> None:
    network = make_network(kind="drl", drl=settings)
    save_network(network, tmp_path / "drl.safetensors")
    other = load_network(tmp_path / "drl.safetensors")
    assert network_digest(other) == network_digest(network)
    for function in ("score", "frame_logits"):
        found, expected = (
            getattr(one, function)(one.encode_texts(ids[:4]), one.encode_videos(*clips)) for one in (other, network)
        )
        torch.testing.assert_close(found, expected)


def test_settings_that_change_scores_change_the_digest(make_network) -> None:
    changed = [{}, {"drl": EVEN}, {"drl": DOT}, {"drl": {"frame_scores": "trunk"}}, {"words": 9}, {"frames": 4}]
    digests = {network_digest(make_network(kind="drl", **settings)) for settings in changed}
    assert len(digests) == len(changed)
    assert network_digest(make_network(kind="drl", drl={"cdcr": 0})) in digests  # of training only


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"cdcr": 2}, {}, EVEN, DOT])
@torch.no_grad()
def test_the_gpu_computes_what_the_cpu_does(make_network, clips, ids, settings) -> None:
    network = make_network(kind="drl", drl=settings).double()

    def outputs(device: str) -> list[Tensor]:
        network.to(device)
        frames, mask = (value.to(device) for value in clips)
        texts, videos = network.encode_texts(ids.to(device)), network.encode_videos(frames, mask)
        own = _part(texts, slice(4))
        found = [network.score(texts, videos), network.plain_score(texts, videos), network.frame_logits(own, videos)]
        loss = network.auxiliary_loss(own, videos)
        return [value.cpu() for value in (found if loss is None else [*found, loss])]

    for found, expected in zip(outputs("cuda"), outputs("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
