"""What test_collectives.py runs: two processes take steps of one batch, and print what each sends, in order."""

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.schema import TrainConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.common.valid_frames import valid_places
from teachclip.stages.runtime.launch import rank_rows
from teachclip.stages.runtime.processes import World, joined
from teachclip.stages.train.dataloader.batch import Batch, Known
from teachclip.stages.train.step.optimizer import build_optimizer
from teachclip.stages.train.step.training_step import TrainingStep
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

FRAMES, WORDS, SIDE = 3, 8, 16
SIZES = {
    "image_size": SIDE, "patch_size": 8, "vision_width": 64, "vision_layers": 2,
    "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 8, "vocab_size": 100,
}  # fmt: skip
SENDING = ("all_reduce", "all_gather_into_tensor", "broadcast")
sent: list[list[Any]] = []


def listen() -> None:
    """Have everything that is sent written down; the gradients, which DDP sends by itself, by a hook of its."""
    for name in SENDING:
        setattr(dist, name, telling(name, getattr(dist, name)))
    made = DistributedDataParallel.__init__

    def make(shared: DistributedDataParallel, *arguments: Any, **settings: Any) -> None:
        made(shared, *arguments, **settings)
        shared.register_comm_hook(None, bucket_told)

    DistributedDataParallel.__init__ = make  # type: ignore[method-assign]


def telling(name: str, send: Callable[..., Any]) -> Callable[..., Any]:
    def told(*tensors: Any, **how: Any) -> Any:
        sent.append([name, *(list(each.shape) for each in tensors if isinstance(each, torch.Tensor))])
        return send(*tensors, **how)

    return told


def bucket_told(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    sent.append(["gradients", bucket.index(), bucket.buffer().numel()])
    return allreduce_hook(dist.group.WORLD, bucket)


def batch(pairs: int, unlabelled: int, world: World) -> Batch:
    rng = np.random.default_rng(0)
    columns = pairs + unlabelled
    mask = torch.arange(FRAMES) < torch.from_numpy(rng.integers(1, FRAMES + 1, (columns, 1)))
    ids = torch.from_numpy(rng.integers(1, 90, (pairs, WORDS)))
    ids[torch.arange(pairs), torch.from_numpy(rng.integers(2, WORDS, pairs))] = 99  # EOT
    frames = torch.from_numpy(rng.integers(0, 256, (columns, FRAMES, 3, SIDE, SIDE), np.uint8))
    rows, further = (rank_rows(count, world.rank, world.ranks) for count in (pairs, unlabelled))
    own = np.r_[rows, further.start + pairs : further.stop + pairs]
    labels = Labels(torch.rand(pairs, columns)[rows], torch.rand(pairs, FRAMES)[rows], 20.0)
    ids, frames, mask = ids[rows], frames[own], mask[own]
    known = valid_places(mask), Known.of(ids, mask)
    every = np.arange(columns)
    return Batch(
        0, every[:pairs], every[:pairs], rows, ids, frames, mask, *known, (labels,), {},
        unlabelled=every[pairs:], unlabelled_rows=further,
    )  # fmt: skip


def take(settings: dict[str, Any], pairs: int, unlabelled: int, world: World) -> None:
    """Two steps."""
    network = {"temporal_layers": 1, "words": WORDS, "frames": FRAMES, "trunk": {"sizes": SIZES, "weights": None}}
    network |= settings.get("network", {})
    config = TrainConfig.model_validate(
        {"teachers": ["one"], "device": "cpu", "loss": {"fine": 0.0}, **settings, "network": network}
    )
    torch.manual_seed(0)
    made = build_network(config.network).train()
    step = TrainingStep(made, build_optimizer(made, config.optim, 10), config, ())
    for _ in range(2):
        step(batch(pairs, unlabelled, world))


def main() -> None:
    """Print, for each of the cases given as JSON, what either process sends."""
    cases = json.loads(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    read, write = os.pipe()
    child = os.fork()
    rank = int(child == 0)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in place.items()})
    listen()
    with joined("cpu") as world:
        for case in cases:
            sent.append(["case"])
            take(*case, world)
    if rank:
        with os.fdopen(write, "w") as file:
            json.dump(sent, file)
        return
    os.close(write)
    with os.fdopen(read) as file:
        others = json.load(file)
    os.waitpid(child, 0)
    sys.stdout.write(json.dumps([sent, others]))


if __name__ == "__main__":
    main()
