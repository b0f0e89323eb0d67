"""DRL against its own code: features, every step of the score, frame-text candidates, and CDCR with gradients."""

import numpy as np
import pytest
import torch
from teachclip.configs.schema import DrlConfig, NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.common.network import Features
from teachclip.stages.models.teachers.cdcr import cdcr
from teachclip.stages.models.teachers.drl import Drl
from teachclip.stages.train.losses.contrastive import info_nce
from torch import Tensor

# The tolerances of the goldens' README.
SCORES, WEIGHTS, FEATURES, SCALED, CDCR = 2e-6, 1e-5, 4e-5, 3e-5, 1e-4

whole = pytest.mark.golden("original_drl", having="in/video")
heads = pytest.mark.golden("original_drl", having="out/arch1/sims_eval")


def _close(found: Tensor, expected: np.ndarray, atol: float, name: str) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=atol, err_msg=name)


def _network(golden, **settings) -> Drl:
    """The published network; `settings` change what its weights compute."""
    state = {k: torch.from_numpy(v) for k, v in golden.group("state/").items()}
    words, frames = golden["in/text_ids"].shape[1], golden["in/video"].shape[1]
    network = from_published(state, words=words, frames=frames)
    assert isinstance(network, Drl)
    drl = DrlConfig.model_validate(network.config.drl.model_dump() | {"cdcr": 0} | settings)
    other = Drl(network.config.model_copy(update={"drl": drl}), network.trunk)
    other.load_state_dict({k: v for k, v in network.state_dict().items() if k in other.state_dict()})
    return other.eval()


def _features(network: Drl, golden) -> tuple[Features, Features]:
    pixels, mask = torch.from_numpy(golden["in/video"]), torch.from_numpy(golden["in/video_mask"])
    return network.encode_texts(torch.from_numpy(golden["in/text_ids"])), network.encode_videos(pixels, mask)


def _frame_logits(network: Drl, golden) -> Tensor:
    """[T, V, F], of every text with every video."""
    texts, videos = _features(network, golden)
    count = len(texts["words"])
    columns = [{key: value[v : v + 1].repeat_interleave(count, 0) for key, value in videos.items()}
               for v in range(len(videos["frames"]))]  # fmt: skip
    return torch.stack([network.frame_logits(texts, column) for column in columns], dim=1)


@whole
@torch.no_grad()
def test_features_and_weights(golden) -> None:
    network = _network(golden)
    pixels, mask = torch.from_numpy(golden["in/video"]), torch.from_numpy(golden["in/video_mask"])
    words, sentence = network.trunk.encode_words(torch.from_numpy(golden["in/text_ids"]))
    frames = network.frame_features(pixels, mask)
    phi = network.over_time(frames, mask)
    texts, videos = _features(network, golden)
    for name, value in {"text_feat": words, "sentence_feat": sentence, "frame_feat_clip": frames, "video_feat": phi,
                        "text_weight_logits": network.text_weight_fc(words).squeeze(-1),
                        "video_weight_logits": network.video_weight_fc(phi).squeeze(-1)}.items():  # fmt: skip
        _close(value, golden[f"out/{name}"], FEATURES, name)
    for name, value in {"text_weight": texts["weights"], "video_weight": videos["weights"]}.items():
        _close(value, golden[f"out/{name}"], WEIGHTS, name)
    np.testing.assert_array_equal(texts["mask"].numpy(), golden["in/text_mask"].astype(bool))


@whole
@torch.no_grad()
def test_scores(golden) -> None:
    network = _network(golden)
    texts, videos = _features(network, golden)
    sim_TVWF = network.similarities(texts, videos)
    for name, value in {"token_frame_sims": sim_TVWF, "t2v_max": sim_TVWF.amax(3), "v2t_max": sim_TVWF.amax(2),
                        "sims_eval": network.score(texts, videos)}.items():  # fmt: skip
        _close(value, golden[f"out/{name}"], SCORES, name)
    _close(network.plain_score(texts, videos), golden["out/sims_eval"], SCORES, "plain form")
    scale = network.logit_scale.exp()
    _close(network.train().score(texts, videos) * scale, golden["out/sims_train"], SCALED, "sims_train")


@whole
@pytest.mark.parametrize("interaction", ["ti", "dp"])
@torch.no_grad()
def test_interactions_without_weights(golden, interaction) -> None:
    network = _network(golden, interaction=interaction)
    assert not any("weight_fc" in name for name in network.state_dict())
    texts, videos = _features(network, golden)
    _close(network.score(texts, videos), golden[f"out/sims_eval_{interaction}"], SCORES, interaction)
    _close(network.plain_score(texts, videos), golden[f"out/sims_eval_{interaction}"], SCORES, "plain form")


@whole
@torch.no_grad()
def test_candidates_of_frame_scores(golden) -> None:
    padded = ~torch.from_numpy(golden["in/video_mask"]).bool()
    found = {}
    for scores, logits, softmax in (
        ("temporal", "frame_text_logits", "frame_text_softmax"),
        ("trunk", "frame_text_logits_clip", "frame_text_softmax_clip"),
        ("best-word", "v2t_max", "frame_text_maxword_softmax"),
    ):
        values = _frame_logits(_network(golden, frame_scores=scores), golden)
        _close(values, golden[f"out/{logits}"], SCORES, logits)
        found[softmax] = values.softmax(-1)
        found[f"{softmax}_masked"] = values.masked_fill(padded, float("-inf")).softmax(-1)
    expected = {name: golden[f"out/{name}"] for name in found if f"out/{name}" in golden}
    assert len(expected) == 5
    for name, values in expected.items():
        _close(found[name], values, WEIGHTS, name)


@whole
def test_every_output_of_the_golden_is_compared(golden) -> None:
    compared = {
        "text_feat", "sentence_feat", "frame_feat_clip", "video_feat", "text_weight_logits", "video_weight_logits",
        "text_weight", "video_weight", "token_frame_sims", "t2v_max", "v2t_max", "sims_eval", "sims_train",
        "sims_eval_ti", "sims_eval_dp", "frame_text_logits", "frame_text_softmax", "frame_text_softmax_masked",
        "frame_text_logits_clip", "frame_text_softmax_clip", "frame_text_maxword_softmax",
        "frame_text_maxword_softmax_masked",
    }  # fmt: skip
    assert set(golden.group("out/")) == compared


@whole
@torch.no_grad()
def test_sizes_are_those_of_the_sidecar(golden) -> None:
    network, told = _network(golden), golden.meta["heads"]
    assert network.config.drl.layers == golden.meta["drl_config"]["wti_arch"]
    assert network.config.temporal_layers == golden.meta["temporal_layers"]
    assert network.trunk.visual.transformer.resblocks[0].attn.num_heads == told["vision"]
    assert network.trunk.transformer.resblocks[0].attn.num_heads == told["text"]
    assert network.temporal.resblocks[0].attn.num_heads == told["temporal"]
    assert float(network.logit_scale.exp()) == pytest.approx(golden.meta["logit_scale_exp"], rel=1e-6)


def _heads(golden, layers: int, variant: int = 0) -> Drl:
    """The golden's weight networks behind a trunk of their width."""
    told, width = golden.meta["cdcr"], golden["in/text_feat"].shape[-1]
    sizes = TrunkSizes(image_size=16, patch_size=16, vision_width=64, vision_layers=1, text_width=64, text_layers=1,
                       embed_dim=width, context_length=4, vocab_size=9)  # fmt: skip
    drl = DrlConfig(layers=layers, cdcr=variant, cdcr_alpha1=told["alpha1"], cdcr_alpha2=told["alpha2"],
                    cdcr_weight=told["lambda"])  # fmt: skip
    trunk = TrunkConfig(sizes=sizes, weights=None)
    network = build_network(NetworkConfig(kind="drl", trunk=trunk, words=4, temporal_layers=0, drl=drl))
    assert isinstance(network, Drl)
    state = {k.replace("clip.", "trunk."): torch.from_numpy(v) for k, v in golden.group(f"state/arch{layers}/").items()}
    if "trunk.logit_scale" in state:
        state["trunk.logit_scale"] = state["trunk.logit_scale"].reshape(())
    own = network.state_dict()
    assert {k for k in own if "weight_fc" in k} == set(state) - {"trunk.logit_scale"}
    network.load_state_dict(own | state)
    return network


@heads
@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_weight_networks_of_one_two_and_three_layers(golden, layers) -> None:
    network = _heads(golden, layers)
    texts = network.text_features(*(torch.from_numpy(golden[f"in/text_{part}"]) for part in ("feat", "mask")))
    frames, mask = (torch.from_numpy(golden[f"in/video_{part}"]) for part in ("feat", "mask"))
    videos = network.video_features(frames, mask, frames)
    for score in (network.score, network.plain_score):
        _close(score(texts, videos), golden[f"out/arch{layers}/sims_eval"], SCORES, score.__name__)


@heads
@pytest.mark.parametrize("variant", [0, 1, 2, 3])
def test_training_losses_and_their_gradients(golden, variant) -> None:
    network, out = _heads(golden, 2, variant), golden.group(f"out/cdcr{variant}/")
    pairs = torch.from_numpy(golden["in/pairs"])
    words = torch.from_numpy(golden["in/text_feat"])[: len(pairs)].requires_grad_()
    frames = torch.from_numpy(golden["in/video_feat"])[pairs].requires_grad_()
    mask = torch.from_numpy(golden["in/video_mask"])[pairs]
    texts = network.text_features(words, torch.from_numpy(golden["in/text_mask"])[: len(pairs)])
    videos = network.video_features(frames, mask, frames)

    infonce = info_nce(network.logit_scale.exp() * network.score(texts, videos))
    total = infonce
    if variant:
        told = network.config.drl
        slots = tuple(torch.from_numpy(golden[f"in/cdcr1_{kind}_index"]) for kind in ("text", "video"))
        loss = cdcr(told, texts, videos, slots if variant == 1 else None)
        total = infonce + told.cdcr_weight * loss
        if variant > 1:  # nothing is drawn
            torch.testing.assert_close(network.auxiliary_loss(texts, videos), told.cdcr_weight * loss)
        _close(loss, out["cdcr_loss"].reshape(()), CDCR, "cdcr_loss")
        of_loss = torch.autograd.grad(loss, (words, frames), retain_graph=True)
        _close(of_loss[0], out["cdcr_grad_text"], CDCR, "cdcr_grad_text")
        _close(of_loss[1], out["cdcr_grad_video"], CDCR, "cdcr_grad_video")
    else:
        assert network.auxiliary_loss(texts, videos) is None
    _close(infonce, out["sim_loss"].reshape(()), CDCR, "sim_loss")
    _close(total, out["total"].reshape(()), CDCR, "total")
    of_total = torch.autograd.grad(total, (words, frames))
    _close(of_total[0], out["total_grad_text"], CDCR, "total_grad_text")
    _close(of_total[1], out["total_grad_video"], CDCR, "total_grad_video")
