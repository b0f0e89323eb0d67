"""Bytes of a training step."""

import pytest
import torch
from teachclip.configs.schema import TrainConfig
from teachclip.stages.analysis.cost.memory import TrainingMemory, _loss, training_memory
from teachclip.stages.models.build import build_network
from teachclip.stages.train.step.memory import Saved, prepared

CPU = torch.device("cpu")
TRUNK = {
    "sizes": {
        "image_size": 24, "patch_size": 8, "vision_width": 64, "vision_layers": 2, "text_width": 64,
        "text_layers": 1, "embed_dim": 64, "context_length": 8, "vocab_size": 50,
    },
    "weights": None,
}  # fmt: skip


def settings(batch: int = 6, kind: str = "student", **changes: object) -> TrainConfig:
    pooling = changes.pop("pooling", "afa")
    network = {"trunk": TRUNK, "kind": kind, "words": 6, "frames": 4, "temporal_layers": 1, "pooling": pooling,
               "ts2net": {"shift_layers": [], "samples": 5}}  # fmt: skip
    return TrainConfig.model_validate({"network": network, "batch_size": batch, **changes})


def counted(**changes: object) -> TrainingMemory:
    return training_memory("network", settings(**changes), "float32", CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"teachers": ["one"], "unlabelled": 9},
        {"pooling": "mean"},
        {"trunk": "frozen"},
        {"optim": {"freeze": "none"}},
        {"recompute": True},
    ],
)
def test_counting_without_memory_sees_what_a_real_step_saves(changes: dict[str, object]) -> None:
    chosen = settings(**changes)  # type: ignore[arg-type]
    network = prepared(build_network(chosen.network), chosen)
    saved = Saved(list(network.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        _loss(network, chosen, "float32", CPU)
    # Of whole-number frames one blank image more is encoded, for padded slots: the 25th here.
    assert counted(**changes).saved == pytest.approx(saved.bytes, rel=0.05)


def test_videos_without_captions_are_counted_as_videos_and_as_no_texts() -> None:
    taught: dict[str, object] = {"teachers": ["one"]}
    few, more = counted(**taught), counted(**taught, unlabelled=6)
    both = counted(batch=12, **taught)
    assert (few.unlabelled, more.unlabelled) == (0, 6)
    assert few.saved < more.saved < both.saved, "six pairs more would be six texts more, too"
    assert more.weights == few.weights


def test_every_storage_is_counted_once_and_parameters_not_at_all() -> None:
    weight = torch.nn.Parameter(torch.randn(5, 7))
    saved = Saved([weight])
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        hidden = (torch.randn(3, 5) @ weight).tanh()  # saves the input [3, 5], the weight, and its result [3, 7]
        (hidden * hidden.flip(0)).sum() + (hidden.T * 2).sum()  # saves the result again, and its mirror image [3, 7]
    assert saved.bytes == 4 * (3 * 5 + 3 * 7 + 3 * 7)


def test_the_parts_add_up() -> None:
    found = counted()
    assert found.weights == 4 * found.parameters
    assert (found.gradients, found.optimiser) == (4 * found.trained, 8 * found.trained)
    assert found.trained < found.parameters  # published: patches and embeddings are frozen
    assert found.counted == found.weights + found.gradients + found.optimiser + found.saved
    assert found.measured is None
    assert counted(optim={"freeze": "none"}).trained == found.parameters


def test_what_is_saved_grows_with_the_batch_and_not_with_the_weights() -> None:
    once, twice, thrice = (counted(batch=batch, trunk="frozen") for batch in (8, 16, 24))
    # Scores of b x b pairs grow faster, and are few.
    assert twice.saved - once.saved == pytest.approx(thrice.saved - twice.saved, rel=0.02)
    assert once.weights == twice.weights


def test_afa_takes_its_two_layers_and_little_else() -> None:
    afa, mean = counted(), counted(pooling="mean")
    assert afa.parameters - mean.parameters == 64 * 64 + 64 + 64 + 1
    assert 0 < afa.saved - mean.saved < 0.05 * mean.saved


def test_bf16_saves_less_and_recomputed_blocks_and_a_frozen_trunk_much_less() -> None:
    assert counted(recompute=True).saved < 0.6 * counted().saved
    assert training_memory("network", settings(), "bf16", CPU).saved < 0.8 * counted().saved
    assert counted(trunk="frozen").saved < 0.4 * counted().saved


@pytest.mark.parametrize("kind", ["xclip", "ts2net", "xpool", "drl", "openclip"])
def test_teachers_that_are_trained_are_counted(kind: str) -> None:
    assert counted(kind=kind).saved > 0


@pytest.mark.gpu
def test_a_gpu_measures_at_least_what_has_to_be_there() -> None:
    found = training_memory("network", settings(batch=32), "float32", torch.device("cuda"))
    assert found.measured is not None
    assert found.weights + found.gradients + found.optimiser < found.measured < 3 * found.counted
