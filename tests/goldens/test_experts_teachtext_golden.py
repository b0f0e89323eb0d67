"""Whole steps of TeachText with its own networks: student, three cached teachers, losses, RAdam, schedule."""

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import LossConfig, OptimConfig
from teachclip.stages.models.experts.batch import ExpertBatch
from teachclip.stages.models.experts.published import published_expert_name
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.step.optimizer import build_optimizer, schedule

from .experts_material import batch_from_raw, network_of

TOLERANCE = {"rtol": 0.0, "atol": 1e-9}


def _steps(golden) -> int:
    return len({key.split("/")[1] for key in golden.keys if key.startswith("in/step")})


def _teachers(golden, step: int) -> list[torch.Tensor]:
    """[text, video] per teacher: the sum over its experts of text times video, without weights."""
    found = []
    for teacher, experts in enumerate(golden.meta["config"]["teacher_experts"]):
        texts = {name: golden[f"in/step{step}/teacher{teacher}/text_embds/{name}"][:, 0] for name in experts}
        videos = {name: golden[f"in/teacher{teacher}/vid_embds/{name}"].astype(float) for name in experts}
        found.append(torch.from_numpy(sum(texts[name] @ videos[name].T for name in experts)))
    return found


def _losses(golden) -> Losses:
    said = golden.meta["config"]
    return Losses(
        LossConfig(
            infonce=1.0,
            contrastive="max-margin",
            margin=said["loss"]["margin"],
            fix_norm=said["loss"]["fix_norm"],
            coarse=said["distil"]["weight"],
            coarse_kind="huber",
            coarse_on="cosines",
            teachers="mean-similarity",
            fine=0.0,
        )
    )


def _optim(golden) -> OptimConfig:
    said = golden.meta["config"]["optimizer"]
    return OptimConfig(
        optimiser="radam",
        lr=said["lr"],
        weight_decay=said["weight_decay"],
        schedule="per-epoch",
        epoch_factor=golden.meta["config"]["lr_after_epoch"] / said["lr"],
        clip_norm=None,
    )


def _batch(golden, network) -> ExpertBatch:
    experts = {name: torch.from_numpy(golden[f"in/experts/{name}"]).double() for name in network.names}
    there = np.stack([golden[f"in/ind/{name}"] for name in network.names], axis=1)
    return ExpertBatch(experts, torch.from_numpy(there).bool())


@pytest.mark.golden("original_experts_teachtext")
def test_an_epoch(golden) -> None:
    network, losses, optim = network_of(golden).train(), _losses(golden), _optim(golden)
    batch = _batch(golden, network)  # missing experts are NaN in it
    missing = {f"in/experts/{name}" for name, value in batch.features.items() if value.isnan().any()}
    assert missing == set(golden.meta["nan_arrays"])
    steps = _steps(golden)
    optimiser = build_optimizer(network, optim, steps, steps)
    totals = []
    for step in range(steps):
        teachers = _teachers(golden, step)
        if step == 0:
            for k, found in enumerate(teachers):
                np.testing.assert_allclose(found, golden[f"out/step0/teacher{k}_sims"], **TOLERANCE)
        optimiser.zero_grad()
        words = torch.from_numpy(golden[f"in/step{step}/text"][:, 0]).double()
        scores = network.score(network.encode_texts(words), network.encode_videos(*batch.packed()))
        parts = losses(scores, None, [Labels(each, None, 1.0) for each in teachers], student_scale=1.0)
        found = {
            "student_sims": scores,
            "aggregated_sims": torch.stack(teachers).mean(dim=0),
            "ranking_loss": parts.infonce,
            "distil_loss": parts.coarse,
            "total_loss": parts.total,
        }
        for name, value in found.items():
            wanted = golden[f"out/step{step}/{name}"].reshape(value.shape)
            np.testing.assert_allclose(value.detach().numpy(), wanted, err_msg=f"{name} {step}", **TOLERANCE)
        parts.total.backward()
        if step == 0:
            for key, parameter in network.named_parameters():
                wanted = golden[f"grad/{published_expert_name(key, network.config)}"]
                np.testing.assert_allclose(parameter.grad, wanted, err_msg=key, **TOLERANCE)
        totals.append(parts.total.item())
        optimiser.step()
    for key, value in network.state_dict().items():
        wanted = golden[f"after_{steps}_steps/{published_expert_name(key, network.config)}"]
        np.testing.assert_allclose(value, wanted, err_msg=key, **TOLERANCE)
    assert np.mean(totals) == pytest.approx(golden.meta["mean_loss_of_the_epoch"], abs=1e-9)
    after = optim.lr * schedule(optim, steps, steps, steps)
    assert after == pytest.approx(golden.meta["config"]["lr_after_epoch"], abs=1e-12)
    assert optimiser.lrs == {"rest": optim.lr}


@pytest.mark.golden("original_experts_teachtext")
def test_the_student_has_fewer_experts_than_a_teacher(golden) -> None:
    """What the steps above show beside: only the matrices meet."""
    own = set(network_of(golden).names)
    assert any(set(experts) - own for experts in golden.meta["config"]["teacher_experts"])
    assert batch_from_raw(golden, golden.meta["config"]["train_videos"][:1]).available.shape == (1, len(own))
