"""The student against the published code, every intermediate the goldens hold."""

import numpy as np
import pytest
import torch
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.student import Student

# float64 against float64: absolute; float32 against float32: relative to the array's largest value.
PRECISIONS = {"out64/": (torch.float64, 1e-9), "out/": (torch.float32, 1e-4)}


def _network(golden, dtype, **changes) -> Student:
    network = from_published({k: torch.from_numpy(v) for k, v in golden.group("state/").items()}, **changes)
    assert isinstance(network, Student)
    return network.to(dtype).eval()


def _outputs(golden, dtype, *, pooling: str, temporal: bool) -> dict[str, torch.Tensor]:
    """What the published forward pass computes on its way, under the goldens' names."""
    network = _network(golden, dtype, pooling=pooling)
    assert (network.temporal is not None) == temporal
    pixels, mask = torch.from_numpy(golden["in/video"]).to(dtype), torch.from_numpy(golden["in/video_mask"])
    ids = torch.from_numpy(golden["in/input_ids"])
    _, sentence = network.trunk.encode_words(ids)
    texts, videos = network.encode_texts(ids), network.encode_videos(pixels, mask)
    outputs = {"text_feat": sentence, "text_emb": texts["vector"]}
    frames = network.frame_features(pixels, mask)
    outputs["frame_feat_trunk"] = frames
    scores = network.score(texts, videos) * network.logit_scale.exp()
    if pooling == "mean":
        return outputs | {"sim_meanpool": scores, "video_emb_meanpool": videos["vector"]}
    phi = network.over_time(frames, mask)
    raw = videos["raw_weights"]
    return outputs | {
        "temporal_transformer_out": network.temporal.transform(frames, mask),
        "frame_feat_temporal": phi,
        "afa_raw": raw,
        "afa_weights_T1": network.frame_weights(videos, mask),
        "afa_pool_weights_T0.1": network.pooling_weights(videos, mask),
        "video_feat_afa": network.pool(phi, mask, raw),
        "video_emb_afa": videos["vector"],
        "sim_afa": scores,
    }


def _compare(golden, prefix: str, outputs: dict[str, torch.Tensor]) -> set[str]:
    """Compare what both have; returns the golden names that were compared."""
    dtype, tolerance = PRECISIONS[prefix]
    expected = golden.group(prefix)
    compared = set(outputs) & set(expected)
    for name in compared:
        assert outputs[name].dtype == dtype
        atol = tolerance * (1.0 if dtype == torch.float64 else float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(outputs[name].numpy(), expected[name], rtol=0, atol=atol, err_msg=name)
    return compared


@pytest.mark.golden("student_afa")
@pytest.mark.parametrize("prefix", PRECISIONS)
@torch.no_grad()
def test_afa_student_equals_the_published_code(golden, prefix) -> None:
    dtype, _ = PRECISIONS[prefix]
    compared = _compare(golden, prefix, _outputs(golden, dtype, pooling="afa", temporal=True))
    compared |= _compare(golden, prefix, _outputs(golden, dtype, pooling="mean", temporal=True))
    assert compared == set(golden.group(prefix))


@pytest.mark.golden("student_meanp")
@pytest.mark.parametrize("prefix", PRECISIONS)
@torch.no_grad()
def test_mean_pool_student_without_temporal_transformer_equals_the_published_code(golden, prefix) -> None:
    dtype, _ = PRECISIONS[prefix]
    compared = _compare(golden, prefix, _outputs(golden, dtype, pooling="mean", temporal=False))
    assert compared == set(golden.group(prefix))


@pytest.mark.golden("student_afa")
def test_gradients_flow_through_training_mode_as_through_evaluation(golden) -> None:
    """torch takes other attention kernels without gradients; both give the same numbers."""
    network = _network(golden, torch.float64).train()
    pixels, mask = torch.from_numpy(golden["in/video"]).double(), torch.from_numpy(golden["in/video_mask"])
    videos = network.encode_videos(pixels, mask)
    np.testing.assert_allclose(videos["vector"].detach().numpy(), golden["out64/video_emb_afa"], rtol=0, atol=1e-9)
    (videos["vector"].sum() + videos["raw_weights"].sum()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    used_by_videos = [name for name in without if name.startswith(("trunk.visual", "temporal", "afa"))]
    assert used_by_videos == []
