"""The same chain on a GPU: what it computes is what the CPU computes, to float arithmetic."""

from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.reading.labels import Labels
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.schema import Config
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.dataloader.to_device import on_device
from teachclip.stages.train.run import TrainRun
from teachclip.stages.train.stage import train
from teachclip.stages.train.training_data import open_training_data

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_float32() -> Any:
    """No TF32: these tests compare float32 arithmetic."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def step_losses(config: Config) -> torch.Tensor:
    lines = RunFolder(config.run_folder).metrics()
    return torch.tensor([[line["loss"], line["coarse"], line["fine"]] for line in lines if line["kind"] == "train"])


def test_training_on_the_gpu_gives_the_cpus_losses(world: Any) -> None:
    on = {
        device: world.config(
            train={"run": f"runs/on-{device}", "teachers": ["xclip"], "device": device, "precision": "float32"}
        )
        for device in ("cpu", "cuda")
    }
    for config in on.values():
        train(config)
    torch.testing.assert_close(step_losses(on["cuda"]), step_losses(on["cpu"]), rtol=1e-3, atol=1e-4)


def test_bf16_training_is_finite_and_near_float32(world: Any) -> None:
    runs = {
        precision: world.config(
            train={"run": f"runs/{precision}", "teachers": ["xclip"], "device": "cuda", "precision": precision}
        )
        for precision in ("bf16", "float32")
    }
    for config in runs.values():
        train(config)
    torch.testing.assert_close(step_losses(runs["bf16"]), step_losses(runs["float32"]), rtol=0.1, atol=0.05)


SMALL_PATCHES = {
    "image_size": 32, "patch_size": 8, "vision_width": 64, "vision_layers": 2,
    "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16,
}  # fmt: skip
TS2NET = {
    "trunk": {"sizes": SMALL_PATCHES, "weights": None},
    "ts2net": {"shift_layers": (0, 1), "selected": 2, "samples": 20},
}


def labels_of(config: Config, teacher: str, store: str | None = None) -> Labels:
    """All scores of the training split."""
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    videos = [(video, frames.digest(video)) for video in split.videos]
    path = config.score_store if store is None else config.work / store
    reader = ScoreStore.open(path).teacher(teacher).reader(texts, videos)
    return reader.read(np.arange(len(texts)), np.arange(len(videos)))


def test_a_students_step_waits_for_the_gpu_nowhere(world: Any) -> None:
    config = world.config(train={"run": "runs/no-stall", "teachers": ["xclip"], "device": "cuda", "precision": "bf16"})
    run = TrainRun(config, open_training_data(config, Silent()), RunFolder(config.run_folder), Silent())
    run.network.train()
    with run.batches(0, 3) as ahead:
        batches = on_device(ahead, run.device)
        run.step(next(batches))  # what is made once may wait
        batch = next(batches)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run.step(batch)
        finally:
            torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("kind", ["xclip", "ts2net", "xpool", "drl", "openclip"])
def test_every_teacher_trains_in_bf16_and_scores_on_the_gpu(world: Any, kind: str) -> None:
    network = {"kind": kind, **(TS2NET if kind == "ts2net" else {})}
    train(world.config(train={"run": f"runs/gpu-{kind}", "network": network, "device": "cuda", "precision": "bf16"}))
    scoring = {"teachers": [{"name": kind, "checkpoint": f"runs/gpu-{kind}"}], "coarse": "float32"}
    stores = {}
    for device in ("cuda", "cpu"):
        config = world.config(score={**scoring, "store": f"{kind}-{device}.zarr", "device": device})
        score(config)
        stores[device] = labels_of(config, kind)
    np.testing.assert_allclose(stores["cuda"].coarse, stores["cpu"].coarse, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("teaching", ["cached", "online"])
def test_both_ways_of_teaching_run_on_the_gpu(world: Any, teaching: str) -> None:
    settings = {"teachers": ["xclip"], "teaching": teaching, "device": "cuda", "max_steps": 3}
    result = train(world.config(train={"run": f"runs/cuda-{teaching}", **settings}))
    assert result.steps == 3


def test_scores_made_on_the_gpu_are_those_of_the_cpu(world: Any) -> None:
    config = world.config(score={"store": "cuda.zarr", "coarse": "float32", "device": "cuda"})
    score(config)
    made, known = (labels_of(config, "xclip", store) for store in ("cuda.zarr", "exact.zarr"))
    np.testing.assert_allclose(made.coarse, known.coarse, rtol=1e-4, atol=1e-4)
    assert made.frame_logits is not None
    assert known.frame_logits is not None
    np.testing.assert_allclose(made.frame_logits, known.frame_logits, rtol=1e-4, atol=1e-5)


def test_evaluation_on_the_gpu_gives_the_cpus_metrics(world: Any) -> None:
    results = [evaluate(world.config(evaluate={"run": "runs/xclip", "device": device})) for device in ("cpu", "cuda")]
    assert results[0].t2v["mnr"] == pytest.approx(results[1].t2v["mnr"], abs=0.5)
