"""Every network's training step on a GPU that is not there: devices, precisions, and where the CPU would wait."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import TrainConfig
from teachclip.stages.data.video_inputs import MemoryInputs, encoded
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.models.common.valid_frames import valid_places
from teachclip.stages.train.dataloader.batch import Batch, Known
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.step.optimizer import build_optimizer
from teachclip.stages.train.step.training_step import TrainingStep
from torch import Tensor

PAIRS, FRAMES, WORDS, SIDE = 6, 4, 10, 32
SIZES = {
    "image_size": SIDE, "patch_size": 8, "vision_width": 64, "vision_layers": 2, "vision_heads": 2,
    "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16, "vocab_size": 100,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "student": {},
    "student, padding masked": {"mask_padding": True},
    "student, mean": {"pooling": "mean", "temporal_layers": 0},
    "openclip": {"kind": "openclip", "temporal_layers": 0},
    "xclip": {"kind": "xclip"},
    "ts2net": {"kind": "ts2net", "ts2net": {"shift_layers": [0, 1], "selected": 2, "samples": 5}},
    "xpool": {"kind": "xpool", "temporal_layers": 0},
    "drl": {"kind": "drl", "drl": {"cdcr": 3}},
    "drl, cdcr 2": {"kind": "drl", "drl": {"cdcr": 2}},
    "drl, cdcr 1": {"kind": "drl", "drl": {"cdcr": 1}},
    "drl, ti": {"kind": "drl", "drl": {"interaction": "ti", "cdcr": 0}},
    "drl, dp": {"kind": "drl", "drl": {"interaction": "dp", "cdcr": 0}},
    "ce": {"kind": "ce"},
    "moee": {"kind": "moee"},
}
EXPERTS = {
    "modalities": {"appearance": {"width": 24}, "audio": {"width": 16, "tokens": 3, "clusters": 2}},
    "text": {"width": 12, "words": WORDS, "clusters": 3},
    "shared": 20,
}
NUMBERS = 24 + 3 * 16  # of a video's experts
OPTIMISERS = {"adamw": {}, "adam": {"weight_decay": 0.0}, "bert-adam": {"tensor_clip_norm": 1.0}}
# What a step waits for, by network: nothing. Who has to add something says what here, and tests fail once it is gone.
FORWARD: dict[str, dict[str, int]] = {}
BACKWARD: dict[str, dict[str, int]] = {}
# At most so many kernels has a step before its backward pass in bf16, and so many bytes it saves for it, by network.
# Other releases of torch may take a few more. Who needs fewer writes them down, too.
BUDGET = {
    "student": (250, 1_508_362),
    "student, padding masked": (250, 1_508_362),
    "student, mean": (198, 1_340_818),
    "openclip": (201, 1_341_010),
    "xclip": (289, 1_671_000),
    "ts2net": (253, 3_280_370),
    "xpool": (210, 1_418_194),
    "drl": (346, 1_762_672),
    "drl, cdcr 2": (348, 1_741_184),
    "drl, cdcr 1": (312, 1_616_280),
    "drl, ti": (246, 1_570_236),
    "drl, dp": (246, 1_545_288),
    "ce": (215, 47_656),
    "moee": (155, 27_896),
}
LOSSES = {0: 16, 1: 73, 3: 175}  # kernels of the losses, forward, by the number of teachers
MORE, LESS = 1.02, 0.95  # of a budget


def on_experts(name: str) -> bool:
    return name in ("ce", "moee")


def settings(name: str, teachers: int = 1, **values: Any) -> TrainConfig:
    network = {"temporal_layers": 1, "words": WORDS, "frames": FRAMES, **NETWORKS[name]}
    network |= {"experts": EXPERTS} if on_experts(name) else {"trunk": {"sizes": SIZES, "weights": None}}
    values |= {"chunk": None} if on_experts(name) else {}
    names = [f"teacher-{k}" for k in range(teachers)]
    loss = {"mask_same_video": True, "fine": 1.0 if "raw" in name or name.startswith("student") else 0.0}
    return TrainConfig.model_validate(
        {"network": network, "teachers": names, "loss": loss, "batch_size": PAIRS, "device": "cpu", **values}
    )


def batch(name: str = "student") -> Batch:
    """Pairs as they come from the batch loader, some of whose videos are short, or lack an expert."""
    rng = np.random.default_rng(0)
    if on_experts(name):
        mask = torch.from_numpy(rng.random((PAIRS, len(EXPERTS["modalities"]))) < 0.7)
        ids, frames = torch.randn(PAIRS, WORDS, EXPERTS["text"]["width"]), torch.randn(PAIRS, NUMBERS)
    else:
        mask = torch.arange(FRAMES) < torch.from_numpy(rng.integers(1, FRAMES + 1, (PAIRS, 1)))
        ids = torch.from_numpy(rng.integers(1, 90, (PAIRS, WORDS)))
        ids[torch.arange(PAIRS), torch.from_numpy(rng.integers(2, WORDS, PAIRS))] = 99  # EOT
        frames = torch.from_numpy(rng.integers(0, 256, (PAIRS, FRAMES, 3, SIDE, SIDE), np.uint8))
    labels = Labels(torch.rand(PAIRS, PAIRS), torch.rand(PAIRS, FRAMES), 20.0)
    pairs, known = np.arange(PAIRS), Known.of(ids, mask)
    return Batch(0, pairs, pairs, slice(0, PAIRS), ids, frames, mask, valid_places(mask), known, (labels,), {})


def step_of(network: VideoTextNetwork, config: TrainConfig) -> TrainingStep:
    return TrainingStep(network.train(), build_optimizer(network, config.optim, 10), config, ())


def with_zeros_as_gradients(
    network: VideoTextNetwork, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object] = bool
) -> None:
    def backward(total: Tensor) -> None:
        assert total.requires_grad
        before()
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_stays_on_the_gpu_and_the_cpu_does_not_wait(
    name: str, precision: str, fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(name, precision=precision)
    with fake_cuda.made():
        network = build_network(config.network)
        step = step_of(network, config)
    seen: list[Tensor] = []
    watch_features(network, seen)
    taken: list[int] = []
    with_zeros_as_gradients(network, monkeypatch, lambda: taken.extend((counted.kernels, saved.bytes)))
    given = batch(name).pinned()
    with fake_cuda.used(network) as (counted, saved):
        done = step(given.to(fake_cuda.device))
    assert {tensor.device for tensor in (*seen, *done.parts, done.norm)} == {fake_cuda.device}
    assert {tensor.dtype for tensor in seen if tensor.is_floating_point()} == {torch.float32}
    assert {what: count for what, count in counted.stalls.items() if count} == FORWARD.get(name, {})
    if precision == "bf16":
        for found, budget in zip(taken, BUDGET[name], strict=True):
            assert LESS * budget <= found <= MORE * budget


def test_encoding_videos_never_makes_the_cpu_wait(fake_cuda: Any) -> None:
    """For validation, evaluation, an index: frames lie in page-locked memory, whoever reads them."""
    config = settings("student").network
    with fake_cuda.made():
        network = build_network(config).eval()
    given = batch()
    videos = MemoryInputs(
        [str(k) for k in range(PAIRS)], given.frames.numpy(), given.mask.numpy(), np.zeros((PAIRS, FRAMES))
    )
    index, device = np.arange(PAIRS), fake_cuda.device
    with fake_cuda.used(network) as (counted, _), torch.no_grad():
        for _, made in encoded(videos, index, lambda frames, mask, _: network.encode_videos(frames, mask), device, 2):
            assert {value.device for value in made.values()} == {device}
    assert not counted.stalls["a copy"]
    assert counted.kernels


def test_pixels_are_made_with_channels_innermost_by_the_same_kernels(
    fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where convolutions have them so: else cuDNN would turn all pixels round."""
    kernels = {}
    for channels_last in (False, True):
        config = settings("student")
        with fake_cuda.made():
            network = build_network(config.network)
            step = step_of(network, config)
        network.trunk.has_channels_last = channels_last
        with_zeros_as_gradients(network, monkeypatch)
        convolved: list[Tensor] = []
        network.trunk.visual.conv1.register_forward_pre_hook(lambda _, given, seen=convolved: seen.extend(given))
        given = batch().pinned()
        with fake_cuda.used(network) as (counted, _):
            step(given.to(fake_cuda.device))
        (pixels,) = convolved
        assert pixels.is_contiguous(memory_format=torch.channels_last) == channels_last
        kernels[channels_last] = counted.kernels
    assert kernels[True] <= kernels[False] + 1  # the blank image


def watch_features(network: VideoTextNetwork, seen: list[Tensor]) -> None:
    """Have what the network's encoders give put into `seen`."""
    for method in ("encode_texts", "encode_videos"):

        def encode(*arguments: Any, encoder: Any = getattr(network, method)) -> dict[str, Tensor]:  # noqa: B008
            features: dict[str, Tensor] = encoder(*arguments)
            seen.extend(features.values())
            return features

        setattr(network, method, encode)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_backward_pass_does_not_wait(name: str, watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, counted, backward = settings(name), watched(), Tensor.backward

    def watched_backward(total: Tensor) -> None:
        with counted:
            backward(total)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Tensor, "backward", watched_backward)
    step_of(build_network(config.network), config)(batch(name))
    assert {what: count for what, count in counted.stalls.items() if count} == BACKWARD.get(name, {})


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_stays_on_the_gpu(optimiser: str, fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("student", optim={"optimiser": optimiser, **OPTIMISERS[optimiser]})
    with fake_cuda.made():
        network = build_network(config.network)
        step = step_of(network, config)
    with_zeros_as_gradients(network, monkeypatch)
    given = batch().pinned()
    with fake_cuda.used(network) as (counted, _):
        for _ in range(2):
            assert step(given.to(fake_cuda.device)).norm.device == fake_cuda.device
    assert not counted.stalls.total()


@pytest.mark.parametrize("teachers", LOSSES)
def test_losses_stay_on_the_gpu_and_take_few_kernels(teachers: int, fake_cuda: Any) -> None:
    config = settings("student", teachers)
    with fake_cuda.made():
        scores, raw_weights = (torch.rand(PAIRS, width, requires_grad=True) for width in (PAIRS, FRAMES))
        labels = [Labels(torch.rand(PAIRS, PAIRS), torch.rand(PAIRS, FRAMES), 20.0) for _ in range(teachers)]
        same = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
    with fake_cuda.used(torch.nn.Module()) as (counted, _):
        parts = Losses(config.loss, config.teachers)(20 * scores, raw_weights, labels, None, same, student_scale=20.0)
    assert {part.device for part in parts} == {fake_cuda.device}
    assert not counted.stalls.total()
    assert LESS * LOSSES[teachers] <= counted.kernels <= MORE * LOSSES[teachers]
