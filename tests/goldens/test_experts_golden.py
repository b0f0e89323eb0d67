"""TeachText's MoEE and CE, from raw features to optimiser steps, against the published code in float64."""

import math
import re

import numpy as np
import pytest
import torch
from teachclip.configs.schema import OptimConfig
from teachclip.stages.models.experts.networks import CollaborativeExperts
from teachclip.stages.models.experts.published import published_expert_name
from teachclip.stages.train.losses.contrastive import max_margin
from teachclip.stages.train.step.optimizer import build_optimizer

from .experts_material import (
    batch_from_raw,
    eval_captions,
    fused_from_raw,
    network_of,
    train_videos,
    words_from_raw,
)

both = pytest.mark.golden("original_experts_moee", "original_experts_ce")
TOLERANCE = {"rtol": 0.0, "atol": 1e-9}
SINGLE = {"rtol": 0.0, "atol": 2e-6}  # float32


def _close(found, wanted, name: str = "", tolerance=TOLERANCE) -> None:
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(found, wanted, err_msg=name, **tolerance)


def _own(golden) -> torch.Tensor:
    """One text a video: row i belongs to column i."""
    return torch.from_numpy(golden["in/train/text"][:, 0]).double()


def _split(features: dict[str, torch.Tensor], widths) -> list[torch.Tensor]:
    return list(features["vectors"].split(list(widths), dim=1))


@both
def test_batches_from_raw_features(golden) -> None:
    said = golden.meta["config"]
    for way, videos in (("train", train_videos(golden)), ("eval", said["val_videos"])):
        batch = batch_from_raw(golden, videos)
        assert list(batch.features) == said["experts_sorted"]
        for k, (expert, value) in enumerate(batch.features.items()):
            wanted, there = golden[f"in/{way}/experts/{expert}"], golden[f"in/{way}/ind/{expert}"]
            if way == "train" and not said["experts"][expert]["flaky"]:
                assert there.all()
            np.testing.assert_array_equal(value, np.nan_to_num(wanted))
            np.testing.assert_array_equal(batch.available[:, k], there.astype(bool))
    picked = list(zip(train_videos(golden), golden["in/train/picked_caption"], strict=True))
    np.testing.assert_array_equal(words_from_raw(golden, picked), golden["in/train/text"][:, 0])
    words = words_from_raw(golden, eval_captions(golden))
    np.testing.assert_array_equal(words, golden["in/eval/text"].reshape(words.shape))
    np.testing.assert_array_equal(fused_from_raw(golden, train_videos(golden)), golden["in/fused/train_text"][:, 0])
    np.testing.assert_array_equal(fused_from_raw(golden, said["val_videos"]), golden["in/fused/eval_text"][:, 0])


@both
@pytest.mark.parametrize("way", ["eval", "train"])
def test_every_intermediate(golden, way: str) -> None:
    network = network_of(golden).train(way == "train")
    videos = golden.meta["config"]["val_videos"] if way == "eval" else train_videos(golden)
    batch = batch_from_raw(golden, videos)
    words = words_from_raw(golden, eval_captions(golden)) if way == "eval" else _own(golden)
    seen: dict[str, torch.Tensor] = {}
    for k, expert in enumerate(network.names):
        if str(k) in network.poolings:
            _close(
                network.poolings[str(k)].assignment(batch.features[expert]), golden[f"out/{way}/assignment/{expert}"]
            )
    _close(network.text_pooling.assignment(words), golden[f"out/{way}/assignment/text"])
    _close(network.text_pooling(words), golden[f"out/{way}/text_pooled"].reshape(len(words), -1))
    pooled = network.pooled(batch)
    for expert, value in zip(network.names, pooled, strict=True):
        if f"out/{way}/pooled/{expert}" in golden:
            _close(value, golden[f"out/{way}/pooled/{expert}"], expert)
    if isinstance(network, CollaborativeExperts) and network.gating:
        for expert, value in zip(network.names, network.reduced(pooled), strict=True):
            _close(value, golden[f"out/{way}/reduced/{expert}"], expert)
        for expert, gate in zip(network.names, network.gates, strict=True):
            gate.register_forward_hook(lambda _, given, __, expert=expert: seen.update({expert: given[1]}))
    videos_made = network.encode_videos(*batch.packed())
    for expert, value in seen.items():
        _close(value, golden[f"out/{way}/gate/{expert}"], expert)
    texts_made = network.encode_texts(words)
    for k, expert in enumerate(network.names):
        _close(_split(videos_made, network.widths)[k], golden[f"out/{way}/vid_embd/{expert}"], expert)
        wanted = golden[f"out/{way}/text_embd/{expert}"]
        _close(_split(texts_made, network.widths)[k], wanted.reshape(len(words), -1), expert)
    weights = golden[f"out/{way}/moe_weights"].reshape(len(words), -1)
    _close(texts_made["weights"], weights)
    there = texts_made["weights"][:, None] * videos_made["available"]
    _close(there / there.sum(dim=2, keepdim=True), golden[f"out/{way}/weights_renormalised"])


@both
def test_scores_and_both_merges(golden) -> None:
    said = golden.meta["config"]
    for dtype, tolerance in ((torch.float64, TOLERANCE), (torch.float32, SINGLE)):
        network = network_of(golden, dtype=dtype)
        words = words_from_raw(golden, eval_captions(golden), dtype)
        batch = batch_from_raw(golden, said["val_videos"], dtype)
        with torch.no_grad():
            scores = network.score(network.encode_texts(words), network.encode_videos(*batch.packed()))
        assert scores.dtype == dtype
        _close(scores, golden["out/eval/sims_indep"], tolerance=tolerance)
        mean = scores.view(len(said["val_videos"]), -1, scores.shape[1]).mean(dim=1)
        _close(mean, golden["out/eval/sims_avg"], tolerance=tolerance)
        first = scores[:: said["test_captions_per_video"]]
        loss = max_margin(first, said["loss"]["margin"], said["loss"]["fix_norm"])
        _close(loss, golden["out/eval/first_query_loss"].item(), tolerance=tolerance)


VARIANTS = {
    "keep_missing": {"keep_missing": True},
    "no_self": {"include_self": False},
    "relu": {"activation": "relu"},
    "mimic_ce_dims": {"gating": False},
    "freeze_weights": {"fixed_weights": True},
}


@both
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_option_changed(golden, variant: str) -> None:
    key = f"out/eval/variant/{variant}/sims_indep"
    if key not in golden:
        pytest.skip(f"{golden.path.name} has no such variant")
    network = network_of(golden, **VARIANTS[variant])
    batch = batch_from_raw(golden, golden.meta["config"]["val_videos"])
    words = words_from_raw(golden, eval_captions(golden))
    with torch.no_grad():
        made = network.encode_videos(*batch.packed())
        scores = network.score(network.encode_texts(words), made)
    _close(scores, golden[key])
    for k, expert in enumerate(network.names):
        if (embedded := f"out/eval/variant/{variant}/vid_embd/{expert}") in golden:
            _close(_split(made, network.widths)[k], golden[embedded], expert)


def _train_loss(network, golden, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    said = golden.meta["config"]
    batch = batch_from_raw(golden, train_videos(golden))
    scores = network.score(network.encode_texts(words), network.encode_videos(*batch.packed()))
    scores = scores.view(scores.shape[1], -1, scores.shape[1]).mean(dim=1)  # the captions of each video
    return scores, max_margin(scores, said["loss"]["margin"], said["loss"]["fix_norm"])


@both
def test_training_losses_gradients_and_statistics(golden) -> None:
    network = network_of(golden).train()
    scores, loss = _train_loss(network, golden, _own(golden))
    _close(scores, golden["out/train/sims"])
    _close(loss, golden["out/train/ranking_loss"].item())
    for key, value in network.state_dict().items():
        wanted = f"buffers_after_1_forward/{published_expert_name(key, network.config)}"
        if wanted in golden:
            _close(value, golden[wanted], wanted)
    loss.backward()
    found = {published_expert_name(key, network.config): p.grad for key, p in network.named_parameters()}
    gradients = golden.group("grad/")
    assert found.keys() == gradients.keys()
    for key, value in gradients.items():
        _close(found[key], value, key)


@both
def test_two_captions_a_video_in_training(golden) -> None:
    words = torch.from_numpy(golden["in/train2/text"]).double().flatten(0, 1)
    scores, loss = _train_loss(network_of(golden).train(), golden, words)
    _close(scores, golden["out/train2/sims_avg"])
    _close(loss, golden["out/train2/ranking_loss"].item())


@both
def test_optimiser_steps(golden) -> None:
    """Every state that the file holds, and the scores after the last step."""
    network, said = network_of(golden).train(), golden.meta["config"]["optimizer"]
    settings = OptimConfig(
        optimiser="radam", lr=said["lr"], weight_decay=said["weight_decay"], schedule="per-epoch", clip_norm=None
    )
    optimiser = build_optimizer(network, settings, said["steps"], said["steps"])
    states = {int(key.split("_")[1]) for key in golden.keys if re.match(r"after_\d+_steps/", key)}
    assert max(states) == said["steps"]
    for step in range(said["steps"]):
        optimiser.zero_grad()
        loss = _train_loss(network, golden, _own(golden))[1]
        _close(loss, golden["out/radam/losses"][step], f"loss of step {step}")
        loss.backward()
        optimiser.step()
        state = {published_expert_name(k, network.config): v for k, v in network.state_dict().items()}
        for key, value in golden.group(f"after_{step + 1}_steps/").items():
            _close(state[key], value, key)
    network.eval()
    batch = batch_from_raw(golden, golden.meta["config"]["val_videos"])
    with torch.no_grad():
        words = words_from_raw(golden, eval_captions(golden))
        scores = network.score(network.encode_texts(words), network.encode_videos(*batch.packed()))
    _close(scores, golden[f"out/radam/sims_eval_after_{said['steps']}"])


@both
def test_a_video_without_any_expert_has_no_score(golden) -> None:
    network = network_of(golden)
    values, there = batch_from_raw(golden, golden.meta["config"]["val_videos"]).packed()
    there[0] = False
    scores = network.score(network.encode_texts(_own(golden)), network.encode_videos(values, there))
    assert scores[:, 0].isnan().all()
    assert scores[:, 1:].isfinite().all()


def test_initialisation() -> None:
    """Spreads of section 10: clusters 1/sqrt(D), linear layers uniform within 1/sqrt(fan_in)."""
    from teachclip.configs.schema import NetworkConfig
    from teachclip.stages.models.build import build_network

    experts = {"modalities": {"a": {"width": 64, "tokens": 4, "clusters": 32}, "b": {"width": 48}}}
    experts |= {"text": {"width": 100, "words": 5, "clusters": 30, "ghosts": 1}, "shared": 64}
    torch.manual_seed(0)
    network = build_network(NetworkConfig.model_validate({"kind": "ce", "experts": experts}))
    state = network.state_dict()
    assert state["text_pooling.clusters"].std().item() == pytest.approx(0.1, rel=0.05)
    assert state["poolings.0.centres"].std().item() == pytest.approx(1 / 8, rel=0.05)
    bound = 1 / math.sqrt(48)
    assert state["reductions.1.weight"].abs().max().item() == pytest.approx(bound, rel=0.01)
