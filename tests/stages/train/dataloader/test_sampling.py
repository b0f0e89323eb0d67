"""Which captions make up a batch: each once per epoch, whatever the number of processes, whenever the run was left."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.configs.loading import load_config, shipped
from teachclip.stages.runtime.launch import rank_rows
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.dataloader.sampler import BatchSampler, VideoSampler
from teachclip.stages.train.stage import train


@st.composite
def orders(draw: Any) -> BatchSampler:
    """Orders of up to 60 captions, some in groups of at least two."""
    texts = draw(st.integers(2, 60))
    groups = None
    if draw(st.booleans()) and texts >= 4:
        groups = np.arange(texts) % draw(st.integers(1, texts // 2))
    return BatchSampler(texts, draw(st.integers(2, texts)), draw(st.integers(0, 2**31)), groups)


def epoch(order: BatchSampler, number: int) -> list[np.ndarray]:
    first = number * order.steps_per_epoch
    return [texts for _, texts in order.steps(first, first + order.steps_per_epoch)]


@settings(deadline=None)
@given(orders(), st.integers(0, 5))
def test_each_caption_comes_once_per_epoch_but_for_those_left_to_others(order: BatchSampler, number: int) -> None:
    drawn = np.concatenate(epoch(order, number))
    assert len(np.unique(drawn)) == len(drawn) == order.texts - order.left_over
    assert order.left_over < order.batch_size * (1 if order.groups is None else order.groups.max() + 1)
    assert all(len(batch) <= order.batch_size for batch in epoch(order, number))


@settings(deadline=None, max_examples=30)
@given(orders())
def test_over_epochs_all_captions_come_up(order: BatchSampler) -> None:
    """An epoch leaves out less than half of a group, so that 40 epochs leave out one with a chance below 1e-12."""
    drawn = np.concatenate([np.concatenate(epoch(order, number)) for number in range(45)])
    assert len(np.unique(drawn)) == order.texts


@settings(deadline=None)
@given(orders(), st.data())
def test_a_run_that_goes_on_draws_what_the_whole_run_draws(order: BatchSampler, data: st.DataObject) -> None:
    stop = 3 * order.steps_per_epoch
    start = data.draw(st.integers(0, stop))
    whole, rest = list(order.steps(0, stop))[start:], list(order.steps(start, stop))
    assert [step for step, _ in rest] == list(range(start, stop))
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(whole, rest, strict=True))


@settings(deadline=None)
@given(orders(), st.integers(1, 8))
def test_the_processes_of_a_run_share_its_batches(order: BatchSampler, ranks: int) -> None:
    for batch in epoch(order, 0):
        shares = [batch[rank_rows(len(batch), rank, ranks)] for rank in range(ranks)]
        assert np.array_equal(np.concatenate(shares), batch)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 100))
def test_epochs_and_seeds_shuffle_differently(texts: int, seed: int) -> None:
    texts += 20
    first, second, other = BatchSampler(texts, 8, seed), BatchSampler(texts, 8, seed), BatchSampler(texts, 8, seed + 1)
    assert np.array_equal(np.concatenate(epoch(first, 0)), np.concatenate(epoch(second, 0)))
    assert not np.array_equal(np.concatenate(epoch(first, 0)), np.concatenate(epoch(first, 1)))
    assert not np.array_equal(np.concatenate(epoch(first, 0)), np.concatenate(epoch(other, 0)))


def first_losses(config: Any) -> dict[str, float]:
    line: dict[str, float] = RunFolder(config.run_folder).metrics()[0]
    return line


def test_captions_of_one_video_leave_infonce_and_stay_in_the_coarse_loss(world: Any) -> None:
    """Batches of all 28 captions: each video is there twice."""
    lines = {}
    for masked in (True, False):
        settings = {"teachers": ["xclip"], "batch_size": 28, "max_steps": 1, "loss": {"mask_same_video": masked}}
        config = world.config(train={**settings, "run": f"runs/same-video-{masked}"})
        train(config)
        lines[masked] = first_losses(config)
    assert lines[True]["infonce"] < lines[False]["infonce"] - 0.01
    torch.testing.assert_close(
        [lines[True][key] for key in ("coarse", "fine")], [lines[False][key] for key in ("coarse", "fine")]
    )


def test_official_keeps_the_published_sampling() -> None:
    """Drop-last, every (video, caption) pair by itself, captions of one video against each other."""
    official, default = (load_config(shipped()[f"recipes/{name}"]) for name in ("official", "default"))
    assert not official.train.loss.mask_same_video
    assert default.train.loss.mask_same_video
    assert BatchSampler(180_000, official.train.batch_size, official.train.seed).left_over == 0
    assert BatchSampler(190, 120, 42).steps_per_epoch == 1
    assert BatchSampler(190, 120, 42).left_over == 70


def test_batches_of_groups_come_mixed_and_those_of_no_groups_as_they_were_drawn() -> None:
    """A run goes on with the order that it began with, so that this order never changes."""
    groups = np.repeat(np.arange(4), 10)
    order = BatchSampler(40, 5, 3, groups)
    batches = epoch(order, 0)
    of_group = [int(groups[batch[0]]) for batch in batches]
    assert all((groups[batch] == group).all() for batch, group in zip(batches, of_group, strict=True))
    assert sorted(of_group) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert of_group != sorted(of_group)
    drawn = np.random.default_rng([3, 1]).permutation(40)
    np.testing.assert_array_equal(np.concatenate(epoch(BatchSampler(40, 5, 3), 1)), drawn)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=4, max_size=30), st.integers(2, 9), st.integers(0, 2**31), st.booleans())
def test_each_video_comes_once_per_epoch_with_one_of_its_texts(
    captions: list[int], size: int, seed: int, grouped: bool
) -> None:
    text_video = np.random.default_rng(0).permutation(np.repeat(np.arange(len(captions)), captions))
    groups = text_video % 2 if grouped else None
    order = VideoSampler(text_video, min(size, len(captions)), seed, groups)
    steps = list(order.steps(0, 2 * order.steps_per_epoch))
    for number in (0, 1):
        epoch = [texts for step, texts in steps if order.epoch(step) == number]
        videos = text_video[np.concatenate(epoch)]
        assert len(np.unique(videos)) == len(videos) == len(captions) - order.left_over
        assert groups is None or all(len(set(groups[texts])) == 1 for texts in epoch)
    middle = order.steps_per_epoch
    for (step, texts), (again, same) in zip(steps[middle:], order.steps(middle, 2 * middle), strict=True):
        assert step == again
        np.testing.assert_array_equal(texts, same)  # wherever a run was left


def test_texts_of_a_video_are_drawn_alike_often() -> None:
    text_video = np.array([0, 1, 0, 0, 1, 2])
    order = VideoSampler(text_video, 3, 5)
    counts = np.bincount(np.concatenate([texts for _, texts in order.steps(0, 6000)]))
    np.testing.assert_allclose(counts / 6000, [1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 2, 1], atol=0.03)
