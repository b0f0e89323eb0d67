"""Run folders as training and evaluation leave them, written by hand, with frames and scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from teachclip.cache.frames.cache import FrameFolder, frame_identity
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.retrieval.confidence import confidence
from teachclip.stages.retrieval.metrics import Ranks
from teachclip.stages.retrieval.query_ranks import QueryRanks, save_query_ranks

VIDEOS, EACH, SIZE, FRAMES, STEPS = 30, 2, 32, 4, 60
HOSTILE = "<script>alert('x')</script> & \"quoted\" </style><img src=http://example.org/a.png>"
TRUNK = {
    "sizes": {
        "image_size": SIZE, "patch_size": 16, "vision_width": 64, "vision_layers": 1,
        "text_width": 16, "text_layers": 1, "embed_dim": 64, "context_length": 16,
    },
    "weights": None,
}  # fmt: skip
MEAN = "mean" + "pooling" * 14  # a name without a place to break it
NETWORK = {"trunk": TRUNK, "words": 10, "frames": FRAMES, "temporal_layers": 1}


def video(number: int) -> str:
    return f"clips/<b>{number:02d}</b>.mp4"


def caption(number: int) -> str:
    return f"caption {number} of something" if number != 7 else f"caption 7 {HOSTILE}"


TEXTS = [f"{video(k // EACH)}#{k % EACH}" for k in range(VIDEOS * EACH)]


def config(work: Path, run: str, **train: Any) -> Config:
    network = {**NETWORK, **train.pop("network", {})}
    return Config.model_validate(
        {
            "work": work,
            "data": {"captions": work.parents[1] / "captions.csv"},
            "prepare": {"image_size": SIZE, "max_frames": FRAMES},
            "score": {"teachers": [{"name": "tutor", "checkpoint": "runs/tutor"}], "splits": ["train", "test"]},
            "train": {"run": f"runs/{run}", "network": network, "batch_size": 16, **train},
        }
    )


def query_ranks(seed: int, skill: float) -> QueryRanks:
    """What a model finds that sets each text's own video apart by `skill`."""
    rng = np.random.default_rng(seed)
    own = np.arange(VIDEOS * EACH) // EACH
    scores = rng.normal(0, 1, (len(own), VIDEOS))
    scores[np.arange(len(own)), own] += skill
    better = (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)
    groups = scores.reshape(VIDEOS, EACH, VIDEOS).max(axis=1).T
    of_videos = (groups > groups.diagonal()[:, None]).sum(axis=1)
    return QueryRanks(
        "run", "test", (), tuple(TEXTS), tuple(caption(k) for k in range(len(TEXTS))),
        tuple(video(k) for k in range(VIDEOS)), own,
        Ranks(better, np.zeros_like(better), np.zeros_like(better)),
        Ranks(of_videos, np.zeros_like(of_videos), np.zeros_like(of_videos)),
        np.argsort(-scores, axis=1)[:, :10],
    )  # fmt: skip


def plain(ranks: QueryRanks, **more: Any) -> dict[str, Any]:
    metrics = {way: vars(each) for way, each in ranks.metrics().items()}
    found = {way: {name: vars(one) for name, one in each.items()} for way, each in confidence(ranks).items()}
    return {
        "run": "x", "split": "test", "ties": "fair", "texts": len(TEXTS), "videos": VIDEOS, "left_out_videos": 0,
        **metrics, "marks": [], "confidence": found, **more,
    }  # fmt: skip


def lines(steps: int, taught: bool) -> list[dict[str, Any]]:
    rng = np.random.default_rng(steps)
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 3 / step**0.5 + float(rng.normal(0, 0.05))
        parts = {"infonce": loss, "coarse": loss / 2 * taught, "fine": 0.2 * taught, "auxiliary": 0.0}
        found.append(
            {
                "kind": "train", "step": step, "epoch": 0, "loss": loss, **parts, "grad_norm": 1 + loss,
                "lr": {"trunk": 1e-7, "rest": 1e-4 * step / steps, "afa": 1e-3}, "seconds": step * 0.1,
                "data_wait": 0.01, "images_per_second": 900.0, "memory": 2e9,
            }
        )  # fmt: skip
        if step % 20 == 0:
            metrics = {"r1": step / 4, "r5": step / 2, "r10": float(step), "sumr": 1.75 * step, "mdr": 3.0, "mnr": 9.0}
            found.append({"kind": "val", "step": step, "epoch": 0, "selected": True, "t2v": metrics, "v2t": metrics})
    return found


def write_run(made: Config, seed: int, skill: float, chosen_on: str = "validation") -> Path:
    """A finished and evaluated run; its network has random weights."""
    folder = made.run_folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(made))
    taught = bool(made.train.teachers)
    data = {"data.train captions": "ab" * 16, "data.train frames": ("cd" if taught else "ef") * 16}
    (folder / "run.json").write_text(json.dumps({"train.seed": 1, **data}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(STEPS, taught)))
    ranks = query_ranks(seed, skill)
    save_query_ranks(folder / "ranks-test.npz", ranks)
    (folder / "evaluation-test.json").write_text(json.dumps(plain(ranks)))
    torch.manual_seed(seed)
    save_network(build_network(made.train.network), folder / "best.safetensors")
    best = {"step": 40, "epoch": 0, "chosen_by": f"sumr (text to video) on the {chosen_on} split", "value": 70.0}
    result = {"steps": STEPS, "texts": 500, "videos": 250, "teachers": list(made.train.teachers), "best": best}
    result |= {"seconds": 72.0, "data_wait": 0.4, "left_out_videos": 2, "other_pixels": {}}
    (folder / "result.json").write_text(json.dumps(result))
    versions = {"teachclip": "0.9", "torch": "2.11", "device": "cpu", "processes": 1, "command": HOSTILE}
    (folder / "environment.json").write_text(json.dumps([versions]))
    return folder


def write_frames(folder: Path) -> None:
    sizes = {"max_frames": FRAMES, "image_size": SIZE}
    cache = FrameFolder.claim(
        folder, frame_identity(sample_fps=1, choice="uniform", storage="raw", jpeg_quality=95, **sizes)
    )
    rng = np.random.default_rng(0)
    records = []
    for number in range(VIDEOS):
        images = list(rng.integers(0, 255, (FRAMES - number % 2, 3, SIZE, SIZE), dtype=np.uint8))
        status = VideoStatus(video(number), "ok", "", len(images), float(len(images)))
        records.append(VideoRecord.of(status, images, list(map(float, range(len(images)))), FileStamp(1, 1)))
    cache.write(0, records)
    cache.complete()


def write_scores(path: Path, more: int = 0) -> None:
    """A store of teacher `tutor`; with `more` videos and as many captions of each."""
    cache = ScoreStore.create(path).create_teacher("tutor", {"weights": "w"}, 20.0, "uint16", 3, False)
    count = VIDEOS + more
    own = np.arange(count * EACH) // EACH
    texts = [(f"{video(k // EACH)}#{k % EACH}", text_digest(caption(k))) for k in range(len(own))]
    videos = [(video(k), digest(b"%d" % k)) for k in range(count)]
    tile = cache.create_tile("dense", TileContents(texts, videos, own, np.tile(np.arange(3.0), (count, 1))), 999)
    scores = np.random.default_rng(1).normal(0, 1, (len(own), count)).astype(np.float32)
    write_shard(tile, 0, scores, None)
