"""Each process of several reads its own rows of the same batches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.label_threads import LabelThreads
from teachclip.stages.data.video_inputs import FrameInputs
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.runtime.launch import rank_rows
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.train.dataloader.batch import Batch, BatchLoader
from teachclip.stages.train.dataloader.sampler import BatchSampler
from teachclip.stages.train.training_data import open_training_data

type Readers = Callable[[int, int], BatchLoader]


@pytest.fixture(scope="module")
def readers(world: Any) -> Readers:
    """Makes the reader of a rank, of a number of ranks."""
    config = world.config(train={"teachers": ["xclip"], "loss": {"fine": 1.0}})
    material = open_training_data(config, Silent())
    split = material.train

    def make(rank: int, ranks: int) -> BatchLoader:
        return BatchLoader(
            ids=tokenize(split.captions, 10)[0],
            text_video=split.text_video,
            inputs=FrameInputs(material.frames, split.videos),
            labels=LabelThreads([teacher.reader for teacher in material.cached]),
            teacher_frames={config.frames_folder: FrameInputs(material.frames, split.videos)},
            pin=False,
            rank=rank,
            ranks=ranks,
        )

    return make


@pytest.mark.parametrize(("size", "ranks"), [(8, 1), (8, 2), (7, 4), (9, 4), (240, 8)])
def test_ranks_share_a_batch_as_array_split_does(size: int, ranks: int) -> None:
    parts = np.array_split(np.arange(size), ranks)
    for rank, part in enumerate(parts):
        np.testing.assert_array_equal(np.arange(size)[rank_rows(size, rank, ranks)], part)


def whole(readers: Readers, item: tuple[int, np.ndarray]) -> Batch:
    return readers(0, 1)(item)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_rows_of_all_ranks_are_the_batch_of_one(readers: Readers, ranks: int) -> None:
    for item in BatchSampler(28, 8, seed=1).steps(0, 2):
        batch = whole(readers, item)
        assert batch.rows == slice(0, 8)
        parts = [readers(rank, ranks)(item) for rank in range(ranks)]
        for part in parts:
            np.testing.assert_array_equal(part.texts, batch.texts)
            np.testing.assert_array_equal(part.videos, batch.videos)
            assert part.labels[0].coarse.shape == (len(part.ids), 8)
            for one, all_of_it in zip(part.uint8_frames.values(), batch.uint8_frames.values(), strict=True):
                assert torch.equal(one[0], all_of_it[0])
        for name in ("ids", "frames", "mask"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name)), name
        coarse = np.concatenate([part.labels[0].coarse for part in parts])
        np.testing.assert_array_equal(coarse, batch.labels[0].coarse)
        logits = [part.labels[0].frame_logits for part in parts]
        assert batch.labels[0].frame_logits is not None
        np.testing.assert_array_equal(
            np.concatenate([each for each in logits if each is not None]), batch.labels[0].frame_logits
        )
        assert [part.texts[part.rows].tolist() for part in parts] == [
            each.tolist() for each in np.array_split(batch.texts, ranks)
        ]
