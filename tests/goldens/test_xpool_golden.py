"""X-Pool against its own code and against TeachCLIP's copy of its head, every intermediate the goldens hold."""

import numpy as np
import pytest
import torch
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.teachers.xpool import TextConditionedPooling, XPool
from teachclip.stages.models.weights.names import our_name


def _network(golden, dtype=torch.float32) -> XPool:
    network = from_published({k: torch.from_numpy(v) for k, v in golden.group("state/").items()})
    assert isinstance(network, XPool)
    network.pooling.heads = golden.meta["heads"]["pool"]  # no checkpoint records them
    return network.to(dtype).eval()


def _close(found: torch.Tensor, expected: np.ndarray, atol: float, name: str) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=atol, err_msg=name)


def _part(features: dict, index) -> dict:
    return {key: value[index] for key, value in features.items()}


@pytest.mark.golden("original_xpool")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ids", ["in/input_ids", "in/input_ids_zero_pad"])
@torch.no_grad()
def test_teacher_equals_the_original(golden, ids, dtype) -> None:
    network, pooling = _network(golden, dtype), _network(golden, dtype).pooling
    pixels, ids = torch.from_numpy(golden["in/pixels"]).to(dtype), torch.from_numpy(golden[ids])
    mask = torch.ones(pixels.shape[:2], dtype=torch.bool)
    texts, videos = network.encode_texts(ids), network.encode_videos(pixels, mask)
    scores = network.score(texts, videos)
    frames = network.frame_features(pixels, mask)
    plain = pooling.videos(frames, None)
    weights = pooling.weights(texts, videos).transpose(1, 2)
    count, slots = mask.shape
    logits = network.frame_logits(  # of every pair, one after the other
        _part(texts, torch.arange(len(ids)).repeat(count)),
        _part(videos, torch.arange(count).repeat_interleave(len(ids))),
    )

    order, owner = golden["out/sims_eval_video_order"], golden["out/sims_eval_text_index"]
    evaluated = scores[owner.clip(min=0)][:, :, order].masked_fill(torch.from_numpy(owner < 0)[..., None], torch.nan)
    pairs = _part(texts, torch.from_numpy(golden["out/teachclip_pair_text_index"]))

    # The tolerances of the goldens' README.
    groups = (
        (4e-5, {
            "text_features": network.trunk.encode_sentences(ids), "frame_features": frames,
            "q": texts["query"], "k": videos["keys"], "v": plain["values"],
            "frame_text_logits": logits.view(count, -1, slots), "pooled": pooling.pooled(texts, plain).transpose(0, 1),
        }),
        (1e-5, {
            "frame_text_weights": weights,
            "teachclip_frame_weights": network.frame_logits(pairs, videos).softmax(-1),
        }),
        (2e-6, {"sims_text_video": scores, "sims_eval": evaluated}),
        (3e-5, {"teachclip_sims": network.score(pairs, videos) * network.logit_scale.exp()}),
    )  # fmt: skip
    inputs = {"sims_eval_text_index", "sims_eval_video_order", "teachclip_pair_text_index"}
    assert {name for _, group in groups for name in group} | inputs == set(golden.group("out/"))
    for atol, group in groups:
        for name, value in group.items():
            _close(value, golden[f"out/{name}"], atol, name)
    _close(pooling.plain_score(texts, plain), golden["out/sims_text_video"], 2e-6, "plain form")


@pytest.mark.golden("original_xpool")
@torch.no_grad()
def test_padding_of_captions_is_not_seen(golden) -> None:
    network = _network(golden)
    ours, theirs = (torch.from_numpy(golden[f"in/{name}"]) for name in ("input_ids_zero_pad", "input_ids"))
    assert not ours.equal(theirs)
    for name, value in network.encode_texts(ours).items():
        torch.testing.assert_close(network.encode_texts(theirs)[name], value, rtol=0, atol=1e-6)


@pytest.mark.golden("original_xpool")
@torch.no_grad()
def test_sizes_are_those_of_the_sidecar(golden) -> None:
    network, told = _network(golden), golden.meta["config"]
    sizes = network.trunk.sizes
    assert (sizes.image_size, sizes.patch_size, sizes.embed_dim) == (told["image"], told["patch"], told["embed_dim"])
    assert (sizes.vision_width, sizes.vision_layers) == (told["vis_width"], told["vis_layers"])
    assert (sizes.text_width, sizes.text_layers) == (told["txt_width"], told["txt_layers"])
    assert (sizes.context_length, sizes.vocab_size) == (told["ctx"], told["vocab"])
    assert network.trunk.visual.transformer.resblocks[0].attn.num_heads == golden.meta["heads"]["vision"]
    assert network.trunk.transformer.resblocks[0].attn.num_heads == golden.meta["heads"]["text"]
    assert {layer.eps for layer in network.modules() if isinstance(layer, torch.nn.LayerNorm)} == {
        *golden.meta["layer_norm_eps"].values()
    }
    assert network.temporal is None
    assert not network.config.mask_padding
    assert float(network.logit_scale.exp()) == pytest.approx(golden.meta["logit_scale_exp"], rel=1e-6)


@pytest.mark.golden("teacher_xpool_head")
@pytest.mark.parametrize(
    ("prefix", "dtype", "tolerance"), [("out64/", torch.float64, 1e-9), ("out/", torch.float32, 1e-4)]
)
@torch.no_grad()
def test_head_equals_the_copy_in_teachclip(golden, prefix, dtype, tolerance) -> None:
    state = {our_name(name): torch.from_numpy(value).to(dtype) for name, value in golden.group("state/").items()}
    scale = state.pop("trunk.logit_scale").exp()
    sentences, frames = (torch.from_numpy(golden[f"in/{name}"]).to(dtype) for name in ("text_feat", "frame_feat"))
    pooling = TextConditionedPooling(golden.meta["width"], heads=1, dropout=0.3).to(dtype).eval()
    pooling.load_state_dict({name.removeprefix("pooling."): value for name, value in state.items()})
    texts, videos = pooling.texts(sentences), pooling.videos(frames, None)
    outputs = {
        "y_c": pooling.score(texts, videos | pooling.condense(videos["values"])) * scale,
        "y_f": pooling.frame_logits(texts, videos).softmax(-1),
    }
    expected = golden.group(prefix)
    assert set(outputs) == set(expected)
    for name, value in outputs.items():
        bound = 1.0 if dtype == torch.float64 else max(1.0, float(np.abs(expected[name]).max()))
        _close(value, expected[name], tolerance * bound, name)
    _close(pooling.plain_score(texts, videos) * scale, expected["y_c"], tolerance * scale, "plain form")
