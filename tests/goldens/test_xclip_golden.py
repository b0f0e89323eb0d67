"""X-CLIP against its own code and against TeachCLIP's copy, every intermediate the goldens hold."""

import numpy as np
import pytest
import torch
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.teachers.xclip import XClip


def _network(golden, dtype=torch.float32) -> XClip:
    network = from_published({k: torch.from_numpy(v) for k, v in golden.group("state/").items()})
    assert isinstance(network, XClip)
    return network.to(dtype).eval()


def _close(found: torch.Tensor, expected: np.ndarray, atol: float, name: str) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.golden("teacher_xclip")
@pytest.mark.parametrize(
    ("prefix", "dtype", "tolerance"), [("out64/", torch.float64, 1e-9), ("out/", torch.float32, 1e-4)]
)
@torch.no_grad()
def test_teacher_equals_the_copy_in_teachclip(golden, prefix, dtype, tolerance) -> None:
    network = _network(golden, dtype)
    pixels, mask = torch.from_numpy(golden["in/video"]).to(dtype), torch.from_numpy(golden["in/video_mask"])
    ids = torch.from_numpy(golden["in/input_ids"])
    words, sentence = network.trunk.encode_words(ids)
    texts, videos = network.encode_texts(ids), network.encode_videos(pixels, mask)
    outputs = {
        "text_feat": sentence,
        "word_feat": words,
        "frame_feat_trunk": network.frame_features(pixels, mask),
        "y_c": network.score(texts, videos) * network.logit_scale.exp(),
        "y_f": network.frame_logits(texts, videos).softmax(-1),
    }
    expected = golden.group(prefix)
    assert set(outputs) == set(expected)
    for name, value in outputs.items():
        scale = 1.0 if dtype == torch.float64 else max(1.0, float(np.abs(expected[name]).max()))
        _close(value, expected[name], tolerance * scale, name)


@pytest.mark.golden("original_xclip")
@torch.no_grad()
def test_teacher_equals_the_original(golden) -> None:
    network = _network(golden)
    pixels, mask = torch.from_numpy(golden["in/pixels"]), torch.from_numpy(golden["in/video_mask"])
    ids, own = torch.from_numpy(golden["in/input_ids"]), torch.from_numpy(golden["in/text_video_index"])
    scale = network.logit_scale.exp()
    words, sentence = network.trunk.encode_words(ids)
    frames = network.frame_features(pixels, mask)
    texts, videos = network.encode_texts(ids), network.encode_videos(pixels, mask)
    parts = network.parts(texts, videos)
    over_frames, over_words = network.frame_word_levels(texts["words"], videos["frames"])
    own_videos = {key: value[own] for key, value in videos.items()}
    unit = {  # vectors, cosines and weights of unit size
        "frame_feat": videos["frames"],
        "video_feat": videos["vector"],
        "sentence_feat": texts["sentence"],
        "word_feat": texts["words"],
        "frame_text_cos": torch.einsum("td,vfd->tvf", texts["sentence"], videos["frames"]),
        "tc/y_f": network.frame_logits(texts, own_videos).softmax(-1),
    }
    unit["frame_text_softmax"] = unit["frame_text_cos"].softmax(-1)
    raw = {
        "frame_feat_raw": frames,
        "temporal_feat": network.over_time(frames, mask),
        "word_feat_raw": words,
        "sentence_feat_raw": sentence,
        "fine_word_level": over_words.mT,
        "fine_frame_level": over_frames,
    }
    scores = {
        "score_eval": network.score(texts, videos) * scale,
        "score_train": network.train().score(texts, videos) * scale,
        "tc/y_c": network.score(texts, own_videos) * scale,
    }
    four = {
        "score_video_sentence": parts.video_sentence * scale,
        "score_video_word": parts.video_word * scale,
        "score_sentence_frame": parts.sentence_frame * scale,
        "score_frame_word": parts.frame_word * scale,
    }
    assert set(unit | raw | scores | four) == set(golden.group("out/"))
    # The tolerances of the goldens' README.
    for outputs, atol in ((unit, 1e-5), (raw, 5e-5), (scores, 2e-4), (four, 5e-4)):
        for name, value in outputs.items():
            _close(value, golden[f"out/{name}"], atol, name)


@pytest.mark.golden("original_xclip")
@torch.no_grad()
def test_sizes_are_those_of_the_sidecar(golden) -> None:
    network, told = _network(golden), golden.meta["config"]
    sizes = network.trunk.sizes
    assert (network.config.words, network.config.frames) == (told["max_words"], told["max_frames"])
    assert network.config.temporal_layers == told["cross_num_hidden_layers"]
    assert (sizes.image_size, sizes.patch_size) == (told["image_resolution"], told["patch_size"])
    assert (sizes.vision_layers, sizes.text_layers) == (told["vision_layers"], told["transformer_layers"])
    assert network.trunk.visual.transformer.resblocks[0].attn.num_heads == told["vision_heads"]
    assert network.trunk.transformer.resblocks[0].attn.num_heads == told["transformer_heads"]
    assert float(network.logit_scale) == pytest.approx(told["logit_scale_param"], abs=1e-6)
