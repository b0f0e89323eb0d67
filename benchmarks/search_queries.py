"""What a sentence costs: a whole search for each, beside a searcher that stays open.

    python benchmarks/search_queries.py [--videos 1000 10000] [--queries 20] [--out search_queries.json]

The student is ViT-B/32's size on small frames, with random weights; vectors are random, and up to date. `search`:
`stages.search.stage.search` for each sentence, which loads the student, looks whether the index is up to date, fills
the exact index and asks. `open`: what of that a searcher does once, with the look (`open_searcher`) and without it
(`Searcher.open`). `cold`: its first sentence; `warm`: the median of the others. Imports are not counted. Seconds, but
for cold and warm: milliseconds.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from teachclip.cache.frames.cache import FrameFolder, frame_identity, usable_digests
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.vectors import Vectors, publish_vectors
from teachclip.configs.schema import Config
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import network_digest, save_network
from teachclip.stages.search.searcher import Searcher
from teachclip.stages.search.stage import open_searcher, search

SIZE, WIDTH, SHARD = 32, 512, 64
TRUNK = {
    "image_size": SIZE, "patch_size": 16, "vision_width": 768, "vision_layers": 12,
    "text_width": 512, "text_layers": 12, "embed_dim": WIDTH, "context_length": 77,
}  # fmt: skip
HEAD = ("videos", "search", "open, with a look", "open", "cold, ms", "warm, ms")


def made(folder: Path, videos: int) -> Config:
    """A student, frames and vectors that are up to date."""
    network = {"trunk": {"sizes": TRUNK, "weights": None}, "frames": 1, "words": 32, "temporal_layers": 4}
    config = Config.model_validate(
        {
            "work": folder,
            "data": {"captions": folder / "captions.csv"},
            "prepare": {"image_size": SIZE, "max_frames": 1},
            "train": {"network": network},
            "search": {"device": "cpu"},
        }
    )
    torch.manual_seed(0)
    student = build_network(config.train.network)
    save_network(student, config.search_run / "best.safetensors")
    _write_frames(config, videos)
    captions = (f"{k}.mp4,video {k}" for k in range(videos))
    config.data.captions.write_text("\n".join(["video,caption", *captions]))
    for k in range(videos):
        (folder / f"{k}.mp4").touch()
    frames, digests = usable_digests(config.frames_folder)
    rows = np.random.default_rng(0).normal(size=(videos, WIDTH)).astype(np.float32)
    matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    identity = {"network": network_digest(student), "frames": frames}
    publish_vectors(
        config.index_folder, Vectors(identity, {video: digest.hex() for video, digest in digests.items()}, matrix)
    )
    return config


def _write_frames(config: Config, videos: int) -> None:
    settings = config.prepare.model_dump(include={"sample_fps", "choice", "max_frames", "storage", "jpeg_quality"})
    cache = FrameFolder.claim(config.frames_folder, frame_identity(**settings, image_size=SIZE))
    random = np.random.default_rng(0)
    for start in range(0, videos, SHARD):
        records = []
        for k in range(start, min(start + SHARD, videos)):
            image = random.integers(0, 255, (3, SIZE, SIZE), dtype=np.uint8)
            status = VideoStatus(f"{k}.mp4", "ok", "", 1, 1.0)
            records.append(VideoRecord.of(status, [image], [0.0], FileStamp(1, 1)))
        cache.write(start // SHARD, records)
    cache.complete()


def timed[**P, R](run: Callable[P, R], *given: P.args, **named: P.kwargs) -> tuple[R, float]:
    began = time.perf_counter()
    return run(*given, **named), time.perf_counter() - began


def measured(config: Config, videos: int, queries: Sequence[str], repeats: int) -> dict[str, Any]:
    """Medians over `repeats` searches and openings, and over all sentences but the first of each searcher."""
    each = [timed(search, config, [query])[1] for query in queries[:repeats]]
    opens: dict[str, list[float]] = {"look": [], "open": []}
    cold, warm = [], []
    for _ in range(repeats):
        for way, opener in (("look", open_searcher), ("open", Searcher.open)):
            searcher, seconds = timed(opener, config)
            opens[way].append(seconds)
            asked = [timed(searcher.search, [query])[1] for query in queries]
            cold.append(asked[0])
            warm += asked[1:]
            searcher.close()
    middle = statistics.median
    return {
        "videos": videos,
        "search_s": middle(each),
        "open_with_a_look_s": middle(opens["look"]),
        "open_s": middle(opens["open"]),
        "cold_ms": 1e3 * middle(cold),
        "warm_ms": 1e3 * middle(warm),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    queries = [f"a dog runs on the beach, take {k}" for k in range(given.queries)]
    runs = []
    for videos in given.videos:
        with tempfile.TemporaryDirectory() as name:
            runs.append(measured(made(Path(name), videos), videos, queries, given.repeats))
    result = {"machine": machine(), "threads": torch.get_num_threads(), "runs": runs}
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))
    print(f"{result['machine']}, {result['threads']} threads")
    print(" ".join(f"{title:>18}" for title in HEAD))
    for run in runs:
        first, *others = run.values()
        print(f"{first:>18,} " + " ".join(f"{value:18.3f}" for value in others))


if __name__ == "__main__":
    main()
