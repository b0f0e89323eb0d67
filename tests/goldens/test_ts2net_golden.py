"""TS2-Net against its authors' code and against TeachCLIP's copy, every intermediate the goldens hold."""

import numpy as np
import pytest
import torch
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.teachers.ts2net import Ts2Net


def _network(state, dtype=torch.float32, **settings) -> Ts2Net:
    network = from_published({key: torch.from_numpy(value) for key, value in state.items()})
    assert isinstance(network, Ts2Net)
    special = network.config.ts2net.model_copy(update=settings)
    network.config = network.config.model_copy(update={"ts2net": special})
    return network.to(dtype).eval()


def _close(found: torch.Tensor, expected: np.ndarray, atol: float, name: str) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=atol, err_msg=name)


def _inputs(golden, dtype=torch.float32) -> tuple[torch.Tensor, ...]:
    pixels = "in/pixels" if "in/pixels" in golden else "in/video"
    values = [torch.from_numpy(golden[key]) for key in (pixels, "in/video_mask", "in/input_ids")]
    return values[0].to(dtype), *values[1:]


def _of(videos: dict, index: torch.Tensor) -> dict:
    return {key: value[index] for key, value in videos.items()}


@pytest.mark.golden("teacher_ts2net")
@pytest.mark.parametrize(
    ("prefix", "dtype", "tolerance"), [("out64/", torch.float64, 1e-9), ("out/", torch.float32, 1e-4)]
)
@torch.no_grad()
def test_teacher_equals_the_copy_in_teachclip(golden, prefix, dtype, tolerance) -> None:
    network = _network(golden.group("state/"), dtype, sigma=0.0)  # the noise was zero there
    assert network.config.ts2net.shift_layers == ()
    pixels, mask, ids = _inputs(golden, dtype)
    tokens = network.tokens(pixels, mask)
    scores = network.selector(tokens)
    selected = network.select(tokens, network.indicator(scores, network.noise(network.seeds(pixels, mask), scores)))
    texts, videos = network.encode_texts(ids), network.encode_videos(pixels, mask)
    outputs = {
        "text_feat": network.trunk.encode_sentences(ids),
        "selected_tokens": selected,
        "frame_cls_after_temporal": network.frames_over_time(selected, mask),
        "y_c": network.score(texts, videos) * network.logit_scale.exp(),
        "y_f": network.frame_logits(texts, videos).softmax(-1),
    }
    expected = golden.group(prefix)
    assert set(outputs) == set(expected)
    for name, value in outputs.items():
        scale = 1.0 if dtype == torch.float64 else max(1.0, float(np.abs(expected[name]).max()))
        _close(value, expected[name], tolerance * scale, name)


@pytest.mark.golden("original_ts2net")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_teacher_equals_the_original(golden, dtype) -> None:
    network = _network(golden.group("state/"), dtype)
    pixels, mask, ids = _inputs(golden, dtype)
    noise, own = torch.from_numpy(golden["in/topk_noise"]).float(), torch.from_numpy(golden["in/text_video_index"])
    tokens = network.tokens(pixels, mask)
    scores = network.selector(tokens)
    indicator = network.indicator(scores, noise)
    selected = network.select(tokens, indicator)
    texts, videos = network.encode_texts(ids), network.encode_videos(pixels, mask, noise)
    scale = network.logit_scale.exp()
    y_c = network.score(texts, videos) * scale
    trained = network.train().encode_videos(pixels, mask, noise)
    cosines = torch.einsum("td,vfd->tvf", texts["sentence"], videos["frames"])
    choice = {"topk_indicator": indicator, "match_mask": videos["matched"]}
    unit = {
        "frame_feat": videos["frames"],
        "sentence_feat": texts["sentence"],
        "frame_text_cos": cosines,
        "frame_text_softmax": cosines.softmax(-1),
        "tc/y_f": network.frame_logits(texts, _of(videos, own)).softmax(-1),
        "selector_score": scores,
    }
    raw = {
        "cls_feat_raw": tokens[:, :, 0],
        "patch_feat_raw_video0": tokens[0, :, 1:],
        "selected_tokens": selected,
        "temporal_tokens": network.temporal.transform(selected, network.tiled(mask)),
        "frame_feat_raw": network.frames_over_time(selected, mask),
        "sentence_feat_raw": network.trunk.encode_sentences(ids),
    }
    logits = {
        "score_eval": y_c,
        "score_train": network.score(texts, trained) * scale,
        "score_global": y_c,
        "tc/y_c": network.score(texts, _of(videos, own)) * scale,
    }
    elsewhere = {name for name in golden.group("out/") if name.startswith(("hard/", "stats/", "tc_published/"))}
    assert set(choice | unit | raw | logits) == set(golden.group("out/")) - elsewhere
    # The tolerances of the goldens' README.
    for outputs, atol in ((choice, 1e-6), (unit, 1e-5), (raw, 5e-5), (logits, 2e-4)):
        for name, value in outputs.items():
            _close(value, golden[f"out/{name}"], atol, name)


@pytest.mark.golden("original_ts2net")
@torch.no_grad()
def test_without_noise_it_is_the_hard_choice(golden) -> None:
    network = _network(golden.group("state/"), sigma=0.0)
    pixels, mask, ids = _inputs(golden)
    tokens = network.tokens(pixels, mask)
    scores = network.selector(tokens)
    indicator = network.indicator(scores, network.noise(network.seeds(pixels, mask), scores))
    videos = network.encode_videos(pixels, mask)
    y_c = network.score(network.encode_texts(ids), videos) * network.logit_scale.exp()
    outputs = {
        "topk_indicator": (indicator, 1e-6),
        "selected_tokens": (network.select(tokens, indicator), 5e-5),
        "frame_feat": (videos["frames"], 1e-5),
        "score_eval": (y_c, 2e-4),
    }
    assert set(outputs) == set(golden.group("out/hard/"))
    for name, (value, atol) in outputs.items():
        _close(value, golden[f"out/hard/{name}"], atol, name)


@pytest.mark.golden("original_ts2net")
@torch.no_grad()
def test_as_teachclip_publishes_it_the_shift_is_missing(golden) -> None:
    """The shifted blocks' weights are not found there, so they keep CLIP's, and nothing is shifted."""
    state = {key: value for key, value in golden.group("state/").items() if ".attn.net." not in key}
    state |= {f"clip.{key}": value for key, value in golden.group("clipstate/").items()}
    network = _network(state)
    assert network.config.ts2net.shift_layers == ()
    pixels, mask, ids = _inputs(golden)
    noise, own = torch.from_numpy(golden["in/topk_noise"]).float(), torch.from_numpy(golden["in/text_video_index"])
    texts, videos = network.encode_texts(ids), _of(network.encode_videos(pixels, mask, noise), own)
    _close(network.score(texts, videos) * network.logit_scale.exp(), golden["out/tc_published/y_c"], 2e-4, "y_c")
    _close(network.frame_logits(texts, videos).softmax(-1), golden["out/tc_published/y_f"], 1e-5, "y_f")


@pytest.mark.golden("original_ts2net")
@torch.no_grad()
def test_its_own_noise_scatters_scores_as_the_originals(golden) -> None:
    network = _network(golden.group("state/"))
    pixels, mask, ids = _inputs(golden)
    tokens, texts = network.tokens(pixels, mask), network.encode_texts(ids)
    scores = network.selector(tokens)
    network.train()  # noise from the global generator
    torch.manual_seed(0)
    draws = []
    for _ in range(64):
        selected = network.select(tokens, network.indicator(scores, network.noise(network.seeds(pixels, mask), scores)))
        frames = torch.nn.functional.normalize(network.frames_over_time(selected, mask), dim=-1)
        matched = network.tiled(mask)[:, :: 1 + network.config.ts2net.selected]
        draws.append(network.score(texts, {"frames": frames, "matched": matched}) * network.logit_scale.exp())
    drawn = torch.stack(draws)
    mean, std = (torch.from_numpy(golden[f"out/stats/score_noise_{name}"]) for name in ("mean", "std"))
    error = (2 / len(draws)) ** 0.5 * std  # of the difference of two means
    assert ((drawn.mean(0) - mean).abs() < 5 * error + 2e-4).all()
    # The deviation of 64 normal draws is known to 9 %: two may differ by half only by a mistake.
    assert (drawn.std(0) - std).abs().le(0.5 * std + 2e-4).all()
    # What evaluation draws, per video, is one more draw.
    once = network.eval().encode_videos(pixels, mask)
    once = network.score(texts, once) * network.logit_scale.exp()
    assert ((once - mean).abs() < 5 * std + 2e-4).all()


@pytest.mark.golden("original_ts2net")
def test_sizes_and_shift_are_those_of_the_sidecar(golden) -> None:
    network, told = _network(golden.group("state/")), golden.meta["config"]
    special, sizes = network.config.ts2net, network.trunk.sizes
    assert list(special.shift_layers) == told["shift_blocks"]
    assert (special.selected, special.samples) == (told["visual_topk"], told["topk_samples"])
    assert special.sigma == told["topk_sigma"]
    assert network.config.temporal_layers == told["cross_num_hidden_layers"]
    assert (sizes.vision_layers, sizes.text_layers) == (told["vision_layers"], told["transformer_layers"])
    assert network.trunk.visual.transformer.resblocks[0].attn.num_heads == told["vision_heads"]
