"""Each teacher can be trained on any prepared data set, and then teaches like a downloaded one."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.configs.schema import Config
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

from ...conftest import TRUNK

SMALL_PATCHES = {
    "image_size": 32, "patch_size": 8, "vision_width": 64, "vision_layers": 2,
    "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16,
}  # fmt: skip
WIDE = {**TRUNK, "sizes": {**TRUNK["sizes"], "text_width": 64}}  # each learns, in a few steps
# Each with its own objective and noise; sizes for a trunk of two blocks. Token shift needs more than four patches.
TS2NET = {"trunk": {"sizes": SMALL_PATCHES, "weights": None}}
NETWORKS: dict[str, dict[str, Any]] = {
    "xclip": {},
    "ts2net": {**TS2NET, "ts2net": {"shift_layers": (0, 1), "selected": 2, "samples": 20}},
    "xpool": {"xpool": {"dropout": 0.3}},
    "drl": {"drl": {"cdcr": 3, "cdcr_weight": 0.1}},
    "openclip": {},
}
KINDS = sorted(NETWORKS)
LOSSES = ("loss", "infonce", "auxiliary", "coarse", "fine")


def lines(config: Config, kind: str) -> list[dict[str, Any]]:
    return [line for line in RunFolder(config.run_folder).metrics() if line["kind"] == kind]


def losses(config: Config) -> torch.Tensor:
    return torch.tensor([[line[key] for key in LOSSES] for line in lines(config, "train")])


def teacher(world: Any, kind: str, run: str, network: dict[str, Any] | None = None, **settings: Any) -> Config:
    network = {"kind": kind, "trunk": WIDE, **NETWORKS[kind], **(network or {})}
    return world.config(train={"run": f"runs/{run}-{kind}", "network": network, "epochs": 4, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_is_trained_scores_and_teaches(world: Any, kind: str) -> None:
    config = teacher(world, kind, "teacher", epochs=8)
    result = train(config)
    first, last = losses(config)[:3].mean(dim=0), losses(config)[-3:].mean(dim=0)
    assert last[1] < 0.9 * first[1], "InfoNCE falls"
    chosen = next(line for line in lines(config, "val") if line["step"] == result.best["step"])
    again = evaluate(world.config(evaluate={"run": f"runs/teacher-{kind}", "split": "val"}))
    assert again.t2v == pytest.approx(chosen["t2v"]), "training validates without noise"

    scoring = {"teachers": [{"name": kind, "checkpoint": f"runs/teacher-{kind}"}], "store": f"by-{kind}.zarr"}
    scoring |= {"shard_texts": 32, "coarse": "float32"}
    (scored,) = score(world.config(score=dict(scoring))).teachers
    assert scored.own_ranks is not None
    trained = evaluate(world.config(evaluate={"run": f"runs/teacher-{kind}", "split": "train"})).t2v
    assert (scored.own_ranks.mean, scored.own_ranks.r1) == pytest.approx((trained["mnr"], trained["r1"]))
    taught = {"run": f"runs/student-of-{kind}", "teachers": [kind], "epochs": 8}
    student = world.config(score=dict(scoring), train=taught)
    train(student)
    first, last = losses(student)[:3].mean(dim=0), losses(student)[-3:].mean(dim=0)
    assert last[3] < first[3], "the coarse loss falls"
    assert last[4] < first[4], "the fine loss falls"


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_teacher_goes_on_to_the_same_bits(world: Any, train_until: Any, kind: str) -> None:
    whole, stopped = teacher(world, kind, "whole"), teacher(world, kind, "stopped")
    train(whole)
    for steps in (7, 4):
        train_until(stopped, steps)
    train(stopped)
    first, second = (load_file(config.run_folder / "best.safetensors") for config in (whole, stopped))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(losses(whole), losses(stopped))


@pytest.mark.parametrize("kind", ["xclip", "xpool", "drl", "openclip"])
def test_behind_a_frozen_trunk_a_teacher_learns_from_cached_class_tokens(world: Any, kind: str) -> None:
    frozen = teacher(world, kind, "frozen", trunk="frozen")
    full = teacher(world, kind, "full", max_steps=1)
    for config in (frozen, full):
        train(config)
    torch.testing.assert_close(losses(frozen)[:1], losses(full), rtol=1e-5, atol=1e-6)
    before, after = (load_file(config.run_folder / "best.safetensors") for config in (full, frozen))
    same = teacher(world, kind, "frozen-once", trunk="frozen", max_steps=1)
    train(same)
    before = load_file(same.run_folder / "best.safetensors")
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    blocks = {key for key in before if "visual.transformer" in key or "visual.conv1" in key}
    assert blocks
    assert not blocks & moved
    assert moved


def test_ts2net_cannot_have_a_frozen_trunk(world: Any) -> None:
    with pytest.raises(ValueError, match=r"train\.trunk: TS2-Net reads every patch"):
        teacher(world, "ts2net", "frozen", trunk="frozen")


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("xpool", {"xpool": {"dropout": 0.0}}),
        ("ts2net", {"ts2net": {"shift_layers": (0, 1), "selected": 2, "samples": 20, "sigma": 0.0}}),
    ],
)
def test_noise_is_on_in_training(world: Any, kind: str, network: dict[str, Any]) -> None:
    """Another dropout or another noise gives another first loss, from the same weights and pairs."""
    with_noise = teacher(world, kind, "noise", max_steps=1)
    other = teacher(world, kind, "other-noise", network, max_steps=1)
    for config in (with_noise, other):
        train(config)
    assert losses(with_noise)[0, 0] != losses(other)[0, 0]


def test_noise_is_on_when_training_starts_from_a_checkpoint(world: Any) -> None:
    train(teacher(world, "xpool", "begun", max_steps=1))
    still = {"max_steps": 2, "init": "runs/begun-xpool", "optim": {"lr": 1e-12, "trunk_lr": 0.0}}
    first, second = (teacher(world, "xpool", f"noise-{seed}", seed=seed, batch_size=28, **still) for seed in (1, 2))
    for config in (first, second):
        train(config)
    # All pairs in every batch and weights that stay: only dropout tells one seed and one step from another.
    assert abs(losses(first)[0, 0] - losses(second)[0, 0]) > 1e-3
    assert abs(losses(first)[0, 0] - losses(first)[1, 0]) > 1e-3


def test_the_objective_of_drl_has_its_channel_decorrelation(world: Any) -> None:
    with_it = teacher(world, "drl", "cdcr", max_steps=1)
    without = teacher(world, "drl", "no-cdcr", {"drl": {"cdcr": 0}}, max_steps=1)
    for config in (with_it, without):
        train(config)
    total, infonce, auxiliary, *_ = losses(with_it)[0]
    assert auxiliary > 0
    torch.testing.assert_close(total, infonce + auxiliary)
    assert losses(without)[0, 2] == 0
    assert losses(without)[0, 1] == infonce
