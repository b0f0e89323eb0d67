"""TeachText's aggregation, Huber distillation and ranking loss, with gradients, and what its caption masks pick.

`in/moe`, `out/moe_sims` are its expert mixture: the architecture of its networks, which this package does not have.
"""

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import LossConfig
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.losses.teaching import mean_similarity

TOLERANCE = {"rtol": 0.0, "atol": 2e-6}  # the goldens' for cosines; they are float32, computed here in float64


def _teacher_sims(golden) -> list[torch.Tensor]:
    """[text, video] per teacher: the sum over its experts of text times video."""
    sims = []
    for teacher in range(golden.meta["teachers"]):
        texts = golden.group(f"in/teacher{teacher}/text_embds/")  # per expert [B, 1, d]
        videos = golden.group(f"in/teacher{teacher}/vid_embds/")  # per expert [B, d]
        sims.append(torch.from_numpy(sum(texts[key][:, 0].astype(float) @ videos[key].T for key in texts)))
    return sims


def _config(golden, **changes) -> LossConfig:
    """TeachText's settings."""
    return LossConfig(
        infonce=1.0,
        contrastive="max-margin",
        margin=golden.meta["margin"],
        coarse=golden.meta["distil_weight"],
        coarse_kind="huber",
        coarse_on="cosines",
        teachers="mean-similarity",
        fine=0.0,
        mask_same_video=False,
        **changes,
    )


def _parts(golden, student: torch.Tensor, config: LossConfig, scale: float):
    """The losses of scores that carry logit scales, as those of a network here do."""
    sims = _teacher_sims(golden)
    scales = [scale * (k + 1) for k in range(len(sims))]
    labels = [Labels(sim, None, own) for sim, own in zip(sims, scales, strict=True)]
    return Losses(config)(student * scale, None, labels, student_scale=scale)


@pytest.mark.golden("original_teachtext")
def test_teachers_scores_and_their_mean(golden) -> None:
    sims = _teacher_sims(golden)
    for teacher, sim in enumerate(sims):
        np.testing.assert_allclose(sim.numpy(), golden[f"out/teacher{teacher}_sims"], **TOLERANCE)
    mean = mean_similarity(sims, "raw")
    np.testing.assert_allclose(mean.numpy(), golden["out/aggregated_sims"], **TOLERANCE)


@pytest.mark.golden("original_teachtext")
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_losses_and_gradients(golden, scale: float) -> None:
    student = torch.from_numpy(golden["in/student_sims"]).double().requires_grad_()
    parts = _parts(golden, student, _config(golden), scale)
    plain = _parts(golden, student, _config(golden, fix_norm=False), scale)
    found = {
        "distil": parts.coarse,
        "ranking": parts.infonce,
        "total": parts.total,
        "ranking_no_fix_norm": plain.infonce,
    }
    for name, loss in found.items():
        value = "ranking_loss_no_fix_norm" if name == "ranking_no_fix_norm" else f"{name}_loss"
        np.testing.assert_allclose(loss.item(), golden[f"out/{value}"].item(), **TOLERANCE, err_msg=name)
        gradient = torch.autograd.grad(loss, student, retain_graph=True)[0].numpy()
        np.testing.assert_allclose(gradient, golden[f"out/grad_{name}"], **TOLERANCE, err_msg=name)


@pytest.mark.golden("original_teachtext")
def test_gradients_in_float32(golden) -> None:
    student = torch.from_numpy(golden["in/student_sims"]).requires_grad_()
    labels = [Labels(sim.float(), None, 1.0) for sim in _teacher_sims(golden)]
    parts = Losses(_config(golden))(student, None, labels)
    np.testing.assert_allclose(parts.total.item(), golden["out/total_loss"].item(), **TOLERANCE)
    np.testing.assert_allclose(torch.autograd.grad(parts.total, student)[0], golden["out/grad_total"], **TOLERANCE)


@pytest.mark.golden("original_teachtext")
@pytest.mark.parametrize("kind", ["masked", "unmasked"])
def test_captions_are_picked_uniformly_among_those_a_mask_keeps(golden, kind: str) -> None:
    """What a mask means. The rule that makes masks is not published; stages/labels/denoise.py has its own."""
    masks = golden.group("in/caption_mask/")
    picks = golden[f"out/picked_caption_{kind}"]
    draws = np.random.RandomState(golden.meta["seed"])
    for epoch, video in np.ndindex(picks.shape):
        mask = masks[f"v{video}"]
        among = {"p": mask / mask.sum()} if kind == "masked" else {}
        assert kind == "unmasked" or mask[picks[epoch, video]]
        assert picks[epoch, video] == draws.choice(len(mask), size=1, **among)[0]
        draws.random_sample()  # the published loader's next draw is for dropping words
