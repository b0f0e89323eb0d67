"""CLIP as it is: cosines with the mean of the valid frames."""

import open_clip
import pytest
import torch
from teachclip.configs.schema import TeacherConfig
from teachclip.errors import ConfigError
from teachclip.stages.models.checkpoints.files import load_network, network_digest, save_network
from teachclip.stages.models.frozen.teacher import load_teacher
from torch.nn import functional


@torch.no_grad()
def test_scores_are_cosines_with_the_mean_of_valid_unit_frames(make_network, clips, ids) -> None:
    network = make_network(kind="openclip").double()
    frames, mask = clips
    features, sentences = network.frame_features(frames, mask), network.trunk.encode_sentences(ids)
    means = [functional.normalize(f[m], dim=-1).mean(dim=0) for f, m in zip(features, mask, strict=True)]
    expected = functional.cosine_similarity(sentences[:, None], torch.stack(means)[None], dim=-1)
    scores = network.score(network.encode_texts(ids), network.encode_videos(frames, mask))
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_padding_is_left_out_whatever_mask_padding_says(make_network, clips, ids) -> None:
    _, mask = clips
    tokens = torch.randn(4, 5, 128)
    others = torch.where(mask[..., None], tokens, torch.randn_like(tokens))
    for mask_padding in (True, False):
        network = make_network(kind="openclip", mask_padding=mask_padding)
        texts = network.encode_texts(ids)
        scores, changed = (network.score(texts, network.encode_videos(frames, mask)) for frames in (tokens, others))
        torch.testing.assert_close(changed, scores, rtol=0, atol=1e-6)


@torch.no_grad()
def test_frame_scores_are_cosines_of_pairs(make_network, clips, ids) -> None:
    network = make_network(kind="openclip").double()
    texts = {key: value[:4] for key, value in network.encode_texts(ids).items()}
    features, sentences = network.frame_features(*clips), network.trunk.encode_sentences(ids[:4])
    expected = functional.cosine_similarity(sentences[:, None], features, dim=-1)
    found = network.frame_logits(texts, network.encode_videos(*clips))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_it_has_no_parameters_but_its_trunks_and_trains(make_network, clips, ids) -> None:
    network = make_network(kind="openclip").train()
    assert all(name.startswith("trunk.") for name, _ in network.named_parameters())
    with torch.autocast("cpu", torch.bfloat16):
        texts, videos = network.encode_texts(ids[:4]), network.encode_videos(*clips)
    assert {value.dtype for value in (*texts.values(), *videos.values())} == {torch.float32}
    logits = network.logit_scale.exp() * network.score(texts, videos)
    functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_a_saved_network_scores_the_same(make_network, clips, ids, tmp_path) -> None:
    network = make_network(kind="openclip")
    save_network(network, tmp_path / "clip.safetensors")
    loaded = load_network(tmp_path / "clip.safetensors").eval()
    assert network_digest(loaded) == network_digest(network)
    scores = [each.score(each.encode_texts(ids), each.encode_videos(*clips)) for each in (network, loaded)]
    assert scores[0].equal(scores[1])


def test_more_words_than_positions_are_told_before_weights_are_fetched(monkeypatch) -> None:
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: pytest.fail("fetched"))
    config = TeacherConfig(name="t", openclip={"model": "ViT-B-32-quickgelu"}, words=78)
    with pytest.raises(ConfigError, match=r"score.teachers.t.words: 78 words are asked for; this model has 77 at most"):
        load_teacher(config, None)
