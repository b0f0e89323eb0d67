"""Whole optimiser steps of recipe `official`, replayed in float64 against the published run."""

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.loading import load_config, shipped
from teachclip.configs.schema import TrainConfig
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.weights.names import our_name
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.step.optimizer import build_optimizer, parameter_groups

TOLERANCE = {"rtol": 0.0, "atol": 1e-9}
METHODS = {"pear": "pearson", "ce": "ce", "l1": "huber"}


def _network(golden):
    network = from_published({k: torch.from_numpy(v) for k, v in golden.group("state/").items()})
    return network.double().train()


def _recipe(meta) -> TrainConfig:
    """Recipe `official`, changed in what this run has of its own: the size of its rates, warm-up and methods."""
    recipe = shipped()["recipes/official"]
    published = load_config(recipe).train.optim
    changes = {
        "optim.lr": meta["lr"],
        "optim.trunk_lr": meta["lr"] * meta["coef_lr"],
        "optim.afa_lr": meta["lr"] * published.afa_lr / published.lr,
        "optim.warmup": meta["warmup_proportion"],
        "loss.coarse_kind": METHODS[meta["distill_method"]],
        "loss.fine_kind": METHODS[meta["fine_method"]],
    }
    if meta["distill_method"] == "ce":  # the published code's other weights, hard-coded for this method
        changes |= {"loss.infonce": 1, "loss.coarse": 10, "loss.fine": 1}
    return load_config(recipe, [f"train.{key}={value}" for key, value in changes.items()]).train


def _losses(golden, network, recipe: TrainConfig, batch: int):
    """The losses of one batch, computed as training does."""
    given = {k: torch.from_numpy(v) for k, v in golden.group(f"in/batch{batch}/").items()}
    videos = network.encode_videos(given["video"].double(), given["video_mask"])
    texts = network.encode_texts(given["input_ids"])
    y_c, y_f = torch.from_numpy(golden["in/y_c"][batch]), torch.from_numpy(golden["in/y_f"][batch])
    logits = network.score(texts, videos) * network.logit_scale.exp()
    # The published code passes no mask.
    assert not recipe.network.mask_padding
    assert not recipe.loss.mask_same_video
    labels = [Labels(scores, shares.log(), 1.0) for scores, shares in zip(y_c, y_f, strict=True)]
    return Losses(recipe.loss)(logits, videos["raw_weights"], labels)


@pytest.mark.golden("train_run")
def test_the_recipe_has_what_the_published_code_hard_codes(golden) -> None:
    meta, recipe = golden.meta, _recipe(golden.meta)
    assert recipe.optim.weight_decay == meta["optimizer"]["weight_decay"]
    assert recipe.optim.tensor_clip_norm == meta["optimizer"]["max_grad_norm"]
    network = _network(golden).config
    for key in ("kind", "pooling", "mask_padding", "pool_temperature", "normalise_frames"):
        assert getattr(recipe.network, key) == getattr(network, key)


@pytest.mark.golden("train_run")
def test_training_steps_equal_the_published_run(golden) -> None:
    meta, network, recipe = golden.meta, _network(golden), _recipe(golden.meta)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = build_optimizer(network, recipe.optim, meta["t_total"])
    log = {name: [] for name in ("loss", "gt", "distill", "fine")}
    for step in range(meta["n_batches"] * meta["epochs"]):
        parts = _losses(golden, network, recipe, step % meta["n_batches"])
        optimiser.zero_grad()
        parts.total.backward()
        norm = optimiser.step()
        for name, value in zip(log, parts[:4], strict=True):
            log[name].append(value.item())
        np.testing.assert_allclose(norm.item(), meta["grad_norm_before_global_clip"][step], **TOLERANCE)
        lrs = meta["lr_before_step"][step]
        np.testing.assert_allclose(sorted(optimiser.lrs.values()), lrs if len(lrs) > 1 else lrs * 3, **TOLERANCE)
        state = network.state_dict()
        for name, value in golden.group(f"out/step{step}/").items():
            np.testing.assert_allclose(state[our_name(name)].numpy(), value, **TOLERANCE, err_msg=f"{step} {name}")
    for name, values in log.items():
        np.testing.assert_allclose(values, golden[f"out/log/{name}"], **TOLERANCE, err_msg=name)
    _check_end(golden, start, network.state_dict())


def _check_end(golden, start, end) -> None:
    for name, value in golden.group("out/delta/").items():
        found = (end[our_name(name)] - start[our_name(name)]).numpy()
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-9, err_msg=name)  # the deltas are float32
    for name, value in golden.group("out/final_sum64/").items():
        np.testing.assert_allclose(end[our_name(name)].sum().item(), value, **TOLERANCE, err_msg=name)
    for name, value in golden.group("out/final_l2_64/").items():
        np.testing.assert_allclose(end[our_name(name)].norm().item(), value, **TOLERANCE, err_msg=name)


@pytest.mark.golden("train_run")
def test_groups_and_frozen_tensors_are_the_published_ones(golden) -> None:
    meta, network = golden.meta, _network(golden)
    config = _recipe(meta).optim
    build_optimizer(network, config, meta["t_total"])
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {our_name(name) for name in meta["frozen"]}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(parameter)]: (group["peak_lr"], group["weight_decay"])
        for group in parameter_groups(network, config)
        for parameter in group["params"]
    }
    for name, group in meta["group_of"].items():
        if our_name(name) not in frozen:
            told = meta["groups"][group]
            assert found.pop(our_name(name)) == pytest.approx((told["lr"], told["weight_decay"])), name
    assert not found
