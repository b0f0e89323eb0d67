"""Training from a store of blocks: batches of one block each, every caption once an epoch, a run that goes on."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, CacheMismatchError
from teachclip.remedies import RemoveScores, Score
from teachclip.stages.labels.cached import batch_groups
from teachclip.stages.labels.denoise import denoise
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.dataloader.sampler import BatchSampler
from teachclip.stages.train.stage import train

GROUPS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 4], [50, 33, 16, 5, 1]))


def test_without_groups_the_order_is_what_it_was() -> None:
    order = BatchSampler(100, 8, 3)
    expected = np.random.default_rng([3, 1]).permutation(100)
    steps = dict(order.steps(0, 30))
    assert (order.steps_per_epoch, order.left_over) == (12, 4)
    for step in range(12, 24):
        np.testing.assert_array_equal(steps[step], expected[(step - 12) * 8 : (step - 11) * 8])
    np.testing.assert_array_equal(steps[0], np.random.default_rng([3, 0]).permutation(100)[:8])


def test_each_batch_is_of_one_group_and_every_text_comes_once() -> None:
    order = BatchSampler(len(GROUPS), 8, 3, GROUPS)
    assert order.steps_per_epoch == 6 + 4 + 2 + 1
    assert order.left_over == 2 + 1 + 0 + 0 + 1
    epochs = [[batch for _, batch in order.steps(e * 13, (e + 1) * 13)] for e in range(4)]
    for batches in epochs:
        assert all(len(set(GROUPS[batch])) == 1 for batch in batches)
        drawn = np.concatenate(batches)
        assert len(np.unique(drawn)) == len(drawn) == len(GROUPS) - order.left_over
        assert sorted(map(len, batches)) == [5, *[8] * 12]
    sequences = [tuple(GROUPS[batch[0]] for batch in batches) for batches in epochs]
    assert len(set(sequences)) > 1, "groups come in another order in another epoch"
    assert all(np.count_nonzero(np.diff(sequence)) > 4 for sequence in sequences), "groups take turns"
    left = [set(range(len(GROUPS))) - set(np.concatenate(batches).tolist()) for batches in epochs]
    assert left[0] != left[1], "others are left out in another epoch"


def test_the_order_goes_on_anywhere() -> None:
    order = BatchSampler(len(GROUPS), 8, 3, GROUPS)
    whole = dict(order.steps(0, 40))
    for step, batch in BatchSampler(len(GROUPS), 8, 3, GROUPS).steps(17, 40):
        np.testing.assert_array_equal(batch, whole[step])


class _Teacher:
    """What `batch_groups` asks of a cached teacher: a name, and a reader with groups."""

    def __init__(self, name: str, groups: np.ndarray | None) -> None:
        self.name, self.reader, self.groups = name, self, groups


def test_teachers_must_agree_on_blocks(tmp_path: Any) -> None:
    groups = np.array([2, 2, 0, 0, 1])
    same = _Teacher("b", np.array([0, 0, 1, 1, 2]))
    dense, one = _Teacher("dense", None), _Teacher("a", groups)
    found = batch_groups([dense, one, same], tmp_path)  # type: ignore[list-item]
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 2])
    assert batch_groups([dense], tmp_path) is None  # type: ignore[list-item]
    with pytest.raises(CacheMismatchError, match="a and c were scored in other blocks") as caught:
        batch_groups([one, _Teacher("c", np.array([0, 0, 1, 1, 1]))], tmp_path)  # type: ignore[list-item]
    assert caught.value.hint.actions == (RemoveScores(str(tmp_path), "c"), Score())
    with pytest.raises(CacheError, match="no block of videos has two captions"):
        batch_groups([_Teacher("lonely", np.arange(5))], tmp_path)  # type: ignore[list-item]


def student(world: Any, run: str, store: str, **settings: Any) -> Config:
    return world.config(score={"store": store}, train={"run": f"runs/{run}", "teachers": ["xclip"], **settings})


@pytest.fixture(scope="module")
def blocks(world: Any) -> str:
    score(world.config(score={"store": "blocks.zarr", "layout": "blocks", "block_videos": 8, "coarse": "float32"}))
    return "blocks.zarr"


def losses(config: Config) -> list[float]:
    return [line["loss"] for line in RunFolder(config.run_folder).metrics() if line["kind"] == "train"]


def test_a_student_learns_from_blocks_and_goes_on_after_a_kill(world: Any, train_until: Any, blocks: str) -> None:
    config = student(world, "blocks-whole", blocks, epochs=4)
    result = train(config)
    assert (result.blocks, result.steps) == (2, 4 * 2)  # 14 captions in each block of 7, batches of 8
    assert np.mean(losses(config)[-3:]) < np.mean(losses(config)[:3])
    stopped = student(world, "blocks-stopped", blocks, epochs=4)
    train_until(stopped, 3)
    train(stopped)
    first, second = (load_file(each.run_folder / "best.safetensors") for each in (config, stopped))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert losses(config) == losses(stopped)


def test_labels_within_a_block_are_those_of_a_dense_store(world: Any, blocks: str) -> None:
    """One block of all videos: the same batches in another order of steps, so the same first losses."""
    score(world.config(score={"store": "one.zarr", "layout": "blocks", "block_videos": 99, "coarse": "float32"}))
    configs = [student(world, f"one-{k}", store, max_steps=2) for k, store in enumerate(("one.zarr", "exact.zarr"))]
    assert [train(config).blocks for config in configs] == [1, 1]
    assert losses(configs[0]) == pytest.approx(losses(configs[1]), abs=1e-5)


def test_ranks_among_all_videos_need_a_dense_store(world: Any, blocks: str) -> None:
    with pytest.raises(CacheError, match="ranks among all videos") as caught:
        denoise(student(world, "blocks-denoised", blocks))
    assert caught.value.hint.action == Score({"score.layout": "dense"})


def test_a_run_is_not_resumed_with_other_blocks(world: Any, train_until: Any, blocks: str) -> None:
    config = student(world, "blocks-changed", "blocks-changed.zarr", epochs=4)
    score(world.config(score={"store": "blocks-changed.zarr", "layout": "blocks", "block_videos": 8}))
    train_until(config, 3)
    score(world.config(score={"store": "blocks-changed.zarr", "layout": "dense"}))
    with pytest.raises(CacheMismatchError, match="groups of batches"):
        train(config)
