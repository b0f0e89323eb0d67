"""What a training step takes of a GPU, counted without one: kernels, waits of the CPU, bytes for its backward pass.

    python benchmarks/step_counts.py [--pairs 240] [--frames 12] [--words 32] [--out FILE]

ViT-B/32 in bf16, on tensors that have shapes alone, by the counter that the tests use at toy size
(tests/stages/train/step): everything before the backward pass, one teacher's scores in the losses. Nothing is timed,
and the backward pass does not run.

    kernels   operations that are no views
    stalls    times that the CPU waits for the GPU: a number read, a mask counted, a copy that blocks
    saved     bytes that autograd keeps, each storage once, weights apart
    losses    kernels of the losses alone, with none, one and three teachers
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import TrainConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.valid_frames import valid_places
from teachclip.stages.train.dataloader.batch import Batch, Known
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.step.optimizer import build_optimizer
from teachclip.stages.train.step.training_step import TrainingStep
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/stages/train/step"))
from conftest import gpu_that_is_not_there

NETWORKS: dict[str, dict[str, Any]] = {
    "student": {},
    "openclip": {"kind": "openclip", "temporal_layers": 0},
    "X-CLIP": {"kind": "xclip"},
    "TS2-Net": {"kind": "ts2net"},
    "X-Pool": {"kind": "xpool", "temporal_layers": 0},
    "DRL, cdcr 3": {"kind": "drl"},
    "DRL, cdcr 2": {"kind": "drl", "drl": {"cdcr": 2}},
    "DRL, cdcr 1": {"kind": "drl", "drl": {"cdcr": 1}},
}
TEACHERS = (0, 1, 3)
END = 49407


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sizes = given.pairs, given.frames, given.words
    steps = {}
    print(f"{given.pairs} pairs, {given.frames} frames, {given.words} words, torch {torch.__version__}\n")
    print("| network | kernels | stalls | saved, GB |\n|---|---|---|---|")
    for name, network in NETWORKS.items():
        kernels, stalls, saved = steps[name] = step_counts(network, *sizes)
        print(f"| {name} | {kernels:,} | {stalls} | {saved / 1e9:.1f} |", flush=True)
    losses = {teachers: loss_kernels(teachers, given.pairs, given.frames) for teachers in TEACHERS}
    print("\nlosses: " + ", ".join(f"{kernels} kernels with {n} teachers" for n, kernels in losses.items()))
    if given.out:
        counts = {name: dict(zip(("kernels", "stalls", "saved"), row, strict=True)) for name, row in steps.items()}
        given.out.write_text(
            json.dumps({"sizes": sizes, "torch": torch.__version__, "steps": counts, "losses": losses})
        )


def step_counts(network: dict[str, Any], pairs: int, frames: int, words: int) -> tuple[int, int, int]:
    """Kernels, stalls and saved bytes of a step before its backward pass."""
    config = TrainConfig.model_validate(
        {
            "network": {"trunk": {"weights": None}, "frames": frames, "words": words, **network},
            "teachers": ["teacher"],
            "loss": {"mask_same_video": True, "fine": 0.0 if network else 1.0},
            "batch_size": pairs,
            "chunk": None,
            "precision": "bf16",
            "device": "cpu",
        }
    )
    taken: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        gpu = gpu_that_is_not_there(patch)
        with gpu.made():
            made = build_network(config.network)
            step = TrainingStep(made.train(), build_optimizer(made, config.optim, 10), config, ())

        def backward(_: Tensor) -> None:
            taken.extend((counted.kernels, counted.stalls.total(), saved.bytes))
            for parameter in made.parameters():
                parameter.grad = torch.zeros_like(parameter)

        patch.setattr(Tensor, "backward", backward)
        given = batch(pairs, frames, words, made.trunk.image_size).pinned()
        with gpu.used(made) as (counted, saved):
            step(given.to(gpu.device))
    kernels, stalls, bytes_kept = taken
    return kernels, stalls, bytes_kept


def batch(pairs: int, frames: int, words: int, side: int) -> Batch:
    """Full captions, all frames there."""
    mask = torch.ones(pairs, frames, dtype=torch.bool)
    ids = torch.ones(pairs, words, dtype=torch.long)
    ids[:, -1] = END
    pixels = torch.zeros(pairs, frames, 3, side, side, dtype=torch.uint8)
    labels = Labels(torch.rand(pairs, pairs), torch.rand(pairs, frames), 20.0)
    rows, known = np.arange(pairs), Known.of(ids, mask)
    return Batch(0, rows, rows, slice(0, pairs), ids, pixels, mask, valid_places(mask), known, (labels,), {})


def loss_kernels(teachers: int, pairs: int, frames: int) -> int:
    """Kernels of the losses, forward."""
    config = TrainConfig(teachers=[f"teacher-{k}" for k in range(teachers)], batch_size=pairs)
    with pytest.MonkeyPatch.context() as patch:
        gpu = gpu_that_is_not_there(patch)
        with gpu.made():
            scores, raw_weights = (torch.rand(pairs, width, requires_grad=True) for width in (pairs, frames))
            labels = [Labels(torch.rand(pairs, pairs), torch.rand(pairs, frames), 20.0) for _ in range(teachers)]
        with gpu.used(torch.nn.Module()) as (counted, _):
            Losses(config.loss, config.teachers)(20 * scores, raw_weights, labels, student_scale=20.0)
    return counted.kernels


if __name__ == "__main__":
    main()
