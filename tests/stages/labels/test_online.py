"""A teacher inside the step: its frames and words come with the batch, and its precision is chosen."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.label_threads import LabelThreads
from teachclip.configs.schema import Config
from teachclip.stages.data.video_inputs import DeviceFrames, FrameInputs
from teachclip.stages.labels.online import OnlineTeacher, online_teachers, teacher_inputs
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.train.dataloader.batch import Batch, BatchLoader
from teachclip.stages.train.training_data import TrainingData, open_training_data
from torch import Tensor

CPU = torch.device("cpu")
TEXTS = np.array([0, 3, 5, 8])


@pytest.fixture(scope="module")
def config(world: Any) -> Config:
    made: Config = world.config(train={"teachers": ["xclip"], "teaching": "online"})
    return made


@pytest.fixture(scope="module")
def data(config: Config) -> TrainingData:
    return open_training_data(config, Silent())


def teacher(config: Config, data: TrainingData, **train: Any) -> OnlineTeacher:
    config = config.model_copy(update={"train": config.train.model_copy(update=train)})
    (made,) = online_teachers(config, data.train, data.frames, data.seen, CPU, Silent())
    return made


def loader(config: Config, data: TrainingData, made: OnlineTeacher) -> BatchLoader:
    split = data.train
    return BatchLoader(
        ids=tokenize(split.captions, 10)[0],
        text_video=split.text_video,
        inputs=FrameInputs(data.frames, split.videos),
        labels=LabelThreads([]),
        teacher_frames=teacher_inputs([made], data.seen, split.videos, pin=False),
        pin=False,
        students=config.frames_folder,
        teacher_ids={made.name: made.ids_of},
    )


def labels(made: OnlineTeacher, batch: Batch) -> Any:
    return made.labels(
        batch.texts, batch.videos, batch.uint8_frames[made.folder], batch.teacher_ids.get(made.name), CPU
    )


def test_the_step_neither_moves_frames_nor_reads_captions(
    config: Config, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = teacher(config, data)
    read = loader(config, data, made)
    batch = read((0, TEXTS))
    expected = labels(made, batch)
    to = Tensor.to

    def moved(tensor: Tensor, *where: Any, **how: Any) -> Tensor:
        assert tensor.dtype != torch.uint8 or where[0] not in (CPU, "cpu"), "frames come with the batch"
        return to(tensor, *where, **how)

    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(made.teacher, "encode_texts", None)
    found = labels(made, batch)
    assert torch.equal(found.coarse, expected.coarse)
    assert found.frame_logits is not None


def test_one_cache_is_read_and_moved_once(config: Config, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    read = loader(config, data, teacher(config, data))
    batch = read((0, TEXTS))
    assert batch.uint8_frames[config.frames_folder][0] is batch.frames
    moved: list[int] = []
    to = Tensor.to

    def counted(tensor: Tensor, *where: Any, **how: Any) -> Tensor:
        moved.append(tensor.data_ptr())
        return to(tensor, *where, **how).clone()

    monkeypatch.setattr(Tensor, "to", counted)
    after = batch.to(CPU)
    assert after.uint8_frames[config.frames_folder][0] is after.frames
    assert moved.count(batch.frames.data_ptr()) == 1


def test_frames_that_are_kept_on_a_gpu_are_the_teachers_too(config: Config, data: TrainingData) -> None:
    read = loader(config, data, teacher(config, data))
    frames, mask, times = read.inputs.read(np.arange(len(data.train.videos)))
    resident = replace(read, inputs=DeviceFrames(frames, mask.numpy(), times.numpy()))
    given, expected = resident((0, TEXTS)).to(CPU), read((0, TEXTS))
    assert given.uint8_frames[config.frames_folder][0] is given.frames
    assert torch.equal(given.frames, expected.frames)


def test_of_several_processes_each_gets_the_frames_of_all_videos(config: Config, data: TrainingData) -> None:
    batch = replace(loader(config, data, teacher(config, data)), rank=1, ranks=2)((0, TEXTS))
    assert len(batch.frames) == 2
    assert len(batch.uint8_frames[config.frames_folder][0]) == len(TEXTS)
    assert len(batch.teacher_ids["xclip"]) == len(TEXTS)


def test_its_precision_is_that_of_its_encoders(config: Config, data: TrainingData) -> None:
    plain, rough = (teacher(config, data, online_precision=precision) for precision in ("float32", "bf16"))
    batch = loader(config, data, plain)((0, TEXTS))
    exact, found = labels(plain, batch), labels(rough, batch)
    assert found.coarse.dtype == found.frame_logits.dtype == torch.float32
    assert not torch.equal(found.coarse, exact.coarse)
    torch.testing.assert_close(found.coarse, exact.coarse, rtol=0.05, atol=0.05)


def test_its_precision_is_part_of_a_run_that_it_teaches(config: Config) -> None:
    def digest(**train: Any) -> str:
        settings = config.train.model_copy(update=train)
        return open_training_data(config.model_copy(update={"train": settings}), Silent()).identity()["teacher xclip"]

    assert digest() == digest(online_precision="float32") != digest(online_precision="bf16")
