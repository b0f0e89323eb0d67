"""Frames and labels on their way to the step: kept in memory or streamed, read by whichever process, the same bits."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.reading.label_threads import LabelThreads
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import TrainConfig
from teachclip.errors import ConfigError, TrainingError
from teachclip.stages.data.video_inputs import DeviceFrames, FrameInputs, MemoryInputs
from teachclip.stages.labels.cached import CachedTeacher, label_source
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.runtime.processes import World
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.dataloader import resident_frames
from teachclip.stages.train.dataloader.batch import Batch, BatchLoader
from teachclip.stages.train.dataloader.resident_frames import MARGIN, frame_inputs
from teachclip.stages.train.dataloader.sampler import BatchSampler
from teachclip.stages.train.dataloader.to_device import on_device
from teachclip.stages.train.stage import train
from teachclip.stages.train.step.memory import count_step, encoded_at_once
from teachclip.stages.train.training_data import TrainingData, open_training_data

CPU = torch.device("cpu")
PAIRS_80_GB = 300


@pytest.fixture(scope="module")
def cache(world: Any) -> FrameCache:
    return FrameCache.open(world.config().frames_folder)


@pytest.fixture(scope="module")
def material(world: Any) -> TrainingData:
    return open_training_data(world.config(train={"teachers": ["xclip"]}), Silent())


@pytest.fixture(scope="module")
def teachers(material: TrainingData) -> tuple[CachedTeacher, ...]:
    return material.cached


@pytest.fixture(scope="module")
def reader(material: TrainingData) -> BatchLoader:
    """Streams frames, and reads labels in its own process."""
    split = material.train
    inputs = FrameInputs(material.frames, split.videos)
    labels = LabelThreads([teacher.reader for teacher in material.cached])
    return BatchLoader(tokenize(split.captions, 10)[0], split.text_video, inputs, labels, {}, pin=False)


def items(steps: int = 3) -> Iterator[tuple[int, np.ndarray]]:
    return BatchSampler(28, 8, seed=1).steps(0, steps)


def same(ours: Batch, theirs: Batch) -> None:
    """Assert that two batches hold the same."""
    for name in ("ids", "frames", "mask"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for one, other in zip(ours.labels, theirs.labels, strict=True):
        assert torch.equal(one.coarse, other.coarse)
        assert one.scale == other.scale
        assert one.frame_logits is not None
        assert other.frame_logits is not None
        assert torch.equal(one.frame_logits, other.frame_logits)


def kept(where: Any, cache: FrameCache, videos: Any) -> Any:
    return frame_inputs(where, cache, videos, CPU, World(), Silent())


def test_frames_in_memory_are_those_that_are_streamed(cache: FrameCache, reader: BatchLoader) -> None:
    videos = reader.inputs.videos  # type: ignore[union-attr]
    host = kept("host", cache, videos)
    assert isinstance(host, MemoryInputs)
    every = np.arange(len(videos))
    for ours, theirs in zip(host.read(every), reader.inputs.read(every), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    for item in items():
        same(replace(reader, inputs=host)(item), reader(item))


def test_frames_on_a_device_are_taken_when_the_batch_goes_there(cache: FrameCache, reader: BatchLoader) -> None:
    videos = reader.inputs.videos  # type: ignore[union-attr]
    frames, mask, times = reader.inputs.read(np.arange(len(videos)))
    on = DeviceFrames(frames, mask.numpy(), times.numpy())
    for rank, ranks in ((0, 1), (1, 3)):
        theirs = replace(reader, rank=rank, ranks=ranks)
        for item in items():
            batch = replace(theirs, inputs=on)(item)
            assert batch.frames.numel() == 0
            same(batch.to(CPU), theirs(item))


def test_labels_of_another_process_are_the_same(reader: BatchLoader, teachers: tuple[CachedTeacher, ...]) -> None:
    with label_source("process", teachers, CPU) as process:
        assert isinstance(process, LabelProcess)
        for rank in range(2):
            ours = replace(reader, labels=process, rank=rank, ranks=2)
            for item in items():
                same(ours(item), replace(reader, rank=rank, ranks=2)(item))


@pytest.mark.parametrize(
    ("how", "device", "wanted"),
    [("auto", "cpu", False), ("auto", "cuda", True), ("thread", "cuda", False), ("process", "cpu", True)],
)
def test_who_reads_labels(teachers: tuple[CachedTeacher, ...], how: Any, device: str, wanted: bool) -> None:
    with label_source(how, teachers, torch.device(device)) as source:
        assert isinstance(source, LabelProcess if wanted else LabelThreads)
    with label_source(how, (), torch.device(device)) as source:
        assert isinstance(source, LabelThreads)


def test_training_is_the_same_however_it_is_fed(world: Any) -> None:
    """And a finished run is the same run under other names of these settings."""
    ways: dict[str, dict[str, str]] = {
        "fed": {"label_reader": "thread", "frames": "stream"},
        "fed-otherwise": {"label_reader": "process", "frames": "host"},
    }
    losses = []
    for run, settings in ways.items():
        train(world.config(train={"run": f"runs/{run}", "teachers": ["xclip"], **settings}))
        lines = RunFolder(world.root / "work/runs" / run).metrics()
        losses.append([(line["loss"], line["coarse"], line["fine"]) for line in lines if line["kind"] == "train"])
    assert losses[0] == losses[1]
    assert losses[0]
    again = world.config(train={"run": "runs/fed", "teachers": ["xclip"], **ways["fed-otherwise"]})
    assert train(again).already_done


def test_training_says_that_its_label_process_was_killed(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = LabelProcess.start

    def killed(process: LabelProcess, *places: np.ndarray) -> object:
        os.kill(process.pid, 9)
        return start(process, *places)

    monkeypatch.setattr(LabelProcess, "start", killed)
    config = world.config(train={"run": "runs/reader-killed", "teachers": ["xclip"], "label_reader": "process"})
    with pytest.raises(TrainingError, match="killed: SIGKILL"):
        train(config)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_preempted_program_leaves_no_process_and_no_noise(world: Any) -> None:
    settings = {"run": "runs/reader-preempted", "teachers": ["xclip"], "epochs": 10_000, "checkpoint_seconds": 1e-6}
    config = world.config(train={**settings, "label_reader": "process", "tensorboard": False})
    path = config.work / "preempted.yaml"
    path.write_text(dump_config(config))
    program = subprocess.Popen(
        [sys.executable, "-m", "teachclip", "train", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not RunFolder(config.run_folder).states:
        assert program.poll() is None, program.communicate()
        time.sleep(0.05)
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    assert any(b"label_process" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    os.killpg(program.pid, signal.SIGTERM)
    _, errors = program.communicate(timeout=120)
    assert program.returncode == 0, errors
    assert "Traceback" not in errors
    assert "label_process" not in errors
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_what_auto_chooses(cache: FrameCache, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 22 * 4 * 3 * 32 * 32
    videos = cache.usable[:22]
    step = 1000 * size
    free = {"cuda": size + int(MARGIN * step), "cpu": 4 * size}
    monkeypatch.setattr(resident_frames, "_free", lambda device: free[device.type])
    jpeg = FrameCache({**cache.identity, "storage": "jpeg"}, [])

    def chosen(where: FrameCache, device: str) -> str:
        return resident_frames._choice(size, where, torch.device(device), World(), lambda: step)

    assert len(videos) == 22
    assert chosen(cache, "cuda") == chosen(jpeg, "cuda") == "device"
    assert (chosen(cache, "cpu"), chosen(jpeg, "cpu")) == ("stream", "host")
    free["cuda"] -= 1
    assert (chosen(cache, "cuda"), chosen(jpeg, "cuda")) == ("stream", "host")
    free["cpu"] -= 1
    assert chosen(jpeg, "cpu") == "stream"


@pytest.mark.parametrize(("pairs", "chunk", "where"), [(PAIRS_80_GB, None, "stream"), (PAIRS_80_GB, 60, "device")])
def test_frames_stay_on_a_gpu_of_80_gb_only_beside_a_step(
    cache: FrameCache, monkeypatch: pytest.MonkeyPatch, pairs: int, chunk: int | None, where: str
) -> None:
    """MSR-VTT's 9,000 videos and ViT-B/32 in bf16; the step is counted."""
    network = {"trunk": {"model": "ViT-B-32-quickgelu", "weights": None}, "frames": 12, "words": 32}
    settings = TrainConfig.model_validate({"network": network, "batch_size": pairs, "chunk": chunk})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (85 * 10**9, 85 * 10**9))

    def step_bytes() -> int:
        return count_step(encoded_at_once(settings, 1), "bf16").total

    size = 9000 * 12 * 3 * 224 * 224
    assert resident_frames._choice(size, cache, torch.device("cuda"), World(), step_bytes) == where


def test_frames_that_do_not_fit_are_refused(cache: FrameCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no GPU") as error:
        kept("device", cache, cache.usable)
    assert "train.frames=stream" in str(error.value)
    monkeypatch.setattr(resident_frames, "_free", lambda device: 1000)
    with pytest.raises(ConfigError, match="is host: all frames take"):
        kept("host", cache, cache.usable)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux")
def test_processes_of_a_machine_share_one_copy(world: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = Path(__file__).with_name("frames_process.py")
    processes = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(program), str(world.config().frames_folder)]
        processes.append(
            subprocess.Popen(command, env=os.environ | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    found = []
    for process in processes:
        said, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        found.append(json.loads(said))
    assert all(one["right"] for one in found)
    assert found[0]["memory"] == found[1]["memory"]
    assert len(found[0]["memory"]) == 1


class Failing(Exception):
    """Of a batch."""


def failing(reader: BatchLoader) -> Iterator[Batch]:
    for item in items(2):
        yield reader(item)
    raise Failing


def test_batches_on_the_cpu_are_as_they_were(reader: BatchLoader) -> None:
    batches = on_device(failing(reader), CPU)
    for item in items(2):
        same(next(batches), reader(item))
    with pytest.raises(Failing):
        next(batches)


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["stream", "device"])
def test_batches_are_on_the_gpu_before_they_are_used(cache: FrameCache, reader: BatchLoader, where: Any) -> None:
    gpu = torch.device("cuda")
    videos = reader.inputs.videos  # type: ignore[union-attr]
    inputs = frame_inputs(where, cache, videos, gpu, World(), Silent())
    batches = on_device(failing(replace(reader, inputs=inputs, pin=True)), gpu)
    for item in items(2):
        batch = next(batches)
        assert batch.frames.is_cuda
        assert batch.labels[0].coarse.is_cuda
        same(batch.to(CPU), reader(item))
    with pytest.raises(Failing):  # not before the batches that came first
        next(batches)


def test_what_a_container_may_take_counts_as_free(tmp_path: Path) -> None:
    assert resident_frames._left_in_container(tmp_path) == sys.maxsize
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert resident_frames._left_in_container(tmp_path) == sys.maxsize
    (tmp_path / "memory.max").write_text("1000\n")
    assert resident_frames._left_in_container(tmp_path) == 700
