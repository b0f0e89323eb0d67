"""A batch in chunks (train.chunk): the gradients of the batch at once, in the memory of a chunk."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import TrainConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.models.common.valid_frames import valid_places
from teachclip.stages.train.dataloader.batch import Batch, Known
from teachclip.stages.train.step.optimizer import build_optimizer
from teachclip.stages.train.step.training_step import Done, TrainingStep
from torch import Tensor

PAIRS, FRAMES, WORDS = 7, 4, 10
SIZES = {
    "image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 3,
    "text_width": 64, "text_layers": 2, "embed_dim": 64, "context_length": 16, "vocab_size": 100,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "student": {"mask_padding": True},
    "mean": {"pooling": "mean", "temporal_layers": 0},
    "xclip": {"kind": "xclip"},
    "drl": {"kind": "drl", "drl": {"cdcr": 2}},
    "drl-drawn": {"kind": "drl", "drl": {"cdcr": 1}},  # whose own loss draws random numbers
    "xpool": {"kind": "xpool", "temporal_layers": 0, "xpool": {"dropout": 0.0}},
    "ts2net": {"kind": "ts2net", "ts2net": {"shift_layers": [], "selected": 2, "sigma": 0.0}},
}
Watch = Callable[[VideoTextNetwork], None]
NOISY = {"kind": "ts2net", "ts2net": {"shift_layers": [], "selected": 2}}


def settings(network: dict[str, Any], **values: Any) -> TrainConfig:
    sizes = {"temporal_layers": 1, **network, "trunk": {"sizes": SIZES, "weights": None}}
    teachers = ["one"] if network.get("kind", "student") == "student" and "pooling" not in network else []
    return TrainConfig.model_validate(
        {"network": {**sizes, "words": WORDS, "frames": FRAMES}, "teachers": teachers, "device": "cpu",
         "loss": {"mask_same_video": True}, "optim": {"lr": 1e-3, "trunk_lr": 1e-3, "freeze": "none"}, **values}
    )  # fmt: skip


def batch(step: int, taught: bool, pairs: int = PAIRS, unlabelled: int = 0) -> Batch:
    """Random pairs, some of whose videos are short, and two of which share one; behind them videos without texts."""
    rng = np.random.default_rng(step)
    columns = pairs + unlabelled
    mask = torch.arange(FRAMES) < torch.from_numpy(rng.integers(1, FRAMES + 1, (columns, 1)))
    ids = torch.from_numpy(rng.integers(1, 90, (pairs, WORDS)))
    ids[torch.arange(pairs), torch.from_numpy(rng.integers(2, WORDS, pairs))] = 99  # EOT
    scores, frame_logits = (torch.from_numpy(rng.normal(size=(pairs, width))) for width in (columns, FRAMES))
    labels = Labels(scores, frame_logits, 20.0)
    videos = np.arange(pairs)
    videos[-1] = 0
    frames = torch.from_numpy(rng.integers(0, 256, (columns, FRAMES, 3, 32, 32), np.uint8))
    further: dict[str, Any] = {"unlabelled": np.arange(pairs, columns), "unlabelled_rows": slice(0, unlabelled)}
    known: Any = (valid_places(mask), Known.of(ids, mask))
    return Batch(
        step, np.arange(pairs), videos, slice(0, pairs), ids, frames, mask, *known, (labels,) * taught, {}, **further
    )


def taken(
    config: TrainConfig, steps: int, watch: Watch | None = None, pairs: int = PAIRS, unlabelled: int = 0
) -> tuple[VideoTextNetwork, list[Done]]:
    """The network after some steps in float64, and what is kept of them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        network = build_network(config.network).train()
        taught = bool(config.teachers)
        optimiser = build_optimizer(network, config.optim, 10)
        step = TrainingStep(network, optimiser, config, ())
        if watch is not None:
            watch(network)
        return network, [step(batch(number, taught, pairs, unlabelled)) for number in range(steps)]
    finally:
        torch.set_default_dtype(before)


def gradients(network: VideoTextNetwork) -> dict[str, Tensor]:
    """Those of the last step, of the parameters that have any."""
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("chunk", [1, 3, PAIRS])
@pytest.mark.parametrize("kind", NETWORKS)
def test_chunks_give_the_losses_gradients_and_weights_of_the_whole_batch(kind: str, chunk: int) -> None:
    (whole, done), (chunked, again) = (taken(settings(NETWORKS[kind], chunk=each), steps=2) for each in (None, chunk))
    for one, other in zip(done, again, strict=True):
        torch.testing.assert_close(tuple(one.parts), tuple(other.parts), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients(whole), gradients(chunked), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(whole.state_dict(), chunked.state_dict(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 5, PAIRS, PAIRS + 10, PAIRS + 11])
@pytest.mark.parametrize("kind", ["student", "mean"])
def test_videos_without_captions_come_in_chunks_too(kind: str, chunk: int) -> None:
    values = {"teachers": ["one"], "loss": {"mask_same_video": True, "fine": 1.0 if kind == "student" else 0.0}}
    (whole, done), (chunked, again) = (
        taken(settings(NETWORKS[kind], chunk=each, **values), steps=2, unlabelled=11) for each in (None, chunk)
    )
    for one, other in zip(done, again, strict=True):
        torch.testing.assert_close(tuple(one.parts), tuple(other.parts), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients(whole), gradients(chunked), rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(whole.state_dict(), chunked.state_dict(), rtol=1e-8, atol=1e-10)
    _, alone = taken(settings(NETWORKS[kind], **values), steps=1)
    assert float(alone[0].parts.coarse) != pytest.approx(float(done[0].parts.coarse), rel=1e-3)


def test_a_chunk_draws_the_same_noise_in_both_passes() -> None:
    encoded: list[Tensor] = []

    def watch(network: VideoTextNetwork) -> None:
        encode = network.encode_videos

        def watched(*arguments: Tensor) -> dict[str, Tensor]:
            features = encode(*arguments)
            encoded.append(features["frames"].detach().clone())
            return features

        network.encode_videos = watched  # type: ignore[method-assign]

    taken(settings(NOISY, chunk=3), 1, watch)
    first, second = encoded[:3], encoded[3:]
    assert [len(each) for each in first] == [3, 3, 1]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    chunked = torch.cat(first)
    encoded.clear()
    taken(settings(NOISY), 1, watch)
    torch.testing.assert_close(encoded[0][:3], chunked[:3])
    assert (encoded[0][3:] - chunked[3:]).abs().max() > 1e-6, "further chunks have noise of their own"


class _Kept:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Graphs:
    """Bytes that graphs keep, beside the parameters."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.parameters: set[int] = set()

    def keep(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        if tensor.untyped_storage().data_ptr() not in self.parameters:
            self.now += tensor.nbytes
            self.most = max(self.most, self.now)
            weakref.finalize(kept, self.forget, tensor.nbytes)
        return kept

    def forget(self, size: int) -> None:
        self.now -= size


def most_kept(chunk: int | None, unlabelled: int = 0) -> int:
    graphs = _Graphs()

    def watch(network: VideoTextNetwork) -> None:
        graphs.parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    with torch.autograd.graph.saved_tensors_hooks(graphs.keep, lambda kept: kept.tensor):
        taken(settings(NETWORKS["student"], chunk=chunk), 1, watch, pairs=32, unlabelled=unlabelled)
    return graphs.most


def test_memory_is_that_of_a_chunk() -> None:
    whole = most_kept(None)
    assert most_kept(8) < 0.3 * whole
    assert most_kept(2) < 0.1 * whole
    assert most_kept(8, unlabelled=64) < 1.3 * most_kept(8)
