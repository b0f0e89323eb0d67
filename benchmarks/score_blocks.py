"""What scoring costs as the data set grows: blocks of videos beside dense.

    python benchmarks/score_blocks.py [--videos 1000 4000 16000 64000] [--out score_blocks.json]

The whole stage `score` on synthetic videos with five captions each: captions and frames read, videos and captions
through a teacher that costs next to nothing (a row of a table; a matrix product of width 64), scores coded, hashed,
synced. So the time is the store's and the stage's own. Dense is run up to --dense-up-to videos; beyond, its bytes are
exact all the same, and its time is extrapolated from the largest run by the number of pairs. `cpu s`: seconds of
processors, which others on the machine disturb less. `reader` is what opening the scores for training takes, `batch`
the median of reading a batch of 240.
"""

import argparse
import csv
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from teachclip.cache.frames.cache import FrameCache, FrameFolder, frame_identity
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.schema import Config
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.stage import score
from teachclip.stages.train.dataloader.sampler import BatchSampler

CAPTIONS, WIDTH, NUMBERS, BATCH = 5, 64, 1 << 17, 240


class Cheap:
    """Knows a video by the number in its frame, and a caption by the number in it."""

    frames, words, score_version, scale, weights_digest = 1, 0, 1, 20.0, "cheap"

    def __init__(self, name: str, device: torch.device) -> None:
        random = torch.Generator().manual_seed(0)
        table = torch.randn(NUMBERS, WIDTH, generator=random)
        self.table = torch.nn.functional.normalize(table, dim=1)

    def encode_videos(self, frames: torch.Tensor, mask: torch.Tensor, times: torch.Tensor) -> dict[str, torch.Tensor]:
        digits = frames[:, 0].flatten(1)[:, :3].long()
        return {"vector": self.table[digits @ torch.tensor([1, 1 << 8, 1 << 16])]}

    def encode_texts(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        return {"vector": self.table[[int(caption.split()[1]) for caption in captions]]}

    def score(self, texts: dict[str, torch.Tensor], videos: dict[str, torch.Tensor]) -> torch.Tensor:
        return texts["vector"] @ videos["vector"].T

    def frame_logits(self, texts: dict[str, torch.Tensor], videos: dict[str, torch.Tensor]) -> torch.Tensor:
        return (texts["vector"] * videos["vector"]).sum(dim=1, keepdim=True)


def make_world(root: Path, videos: int) -> None:
    """`videos` frames of two by two pixels that hold their number, and captions."""
    (root / "work").mkdir(parents=True)
    made = {"sample_fps": 1, "choice": "uniform", "max_frames": 1, "image_size": 2, "storage": "raw"}
    folder = FrameFolder.claim(root / "work/frames", frame_identity(**made, jpeg_quality=95))
    for shard, start in enumerate(range(0, videos, 4096)):
        records = []
        for k in range(start, min(start + 4096, videos)):
            image = np.zeros((3, 2, 2), np.uint8)
            image.reshape(-1)[:3] = k & 255, k >> 8 & 255, k >> 16
            records.append(VideoRecord.of(VideoStatus(f"v{k}.mp4", "ok", "", 1, 1.0), [image], [0.0], FileStamp(1, 1)))
        folder.write(shard, records)
    folder.complete()
    with (root / "captions.csv").open("w", newline="") as file:
        rows = ((f"v{k}.mp4", f"number {k} in words {i}", "train") for k in range(videos) for i in range(CAPTIONS))
        csv.writer(file).writerows([("video", "caption", "split"), *rows])


def config_of(root: Path, layout: str, block_videos: int) -> Config:
    """The synthetic world, scored into a store named after the layout."""
    settings = {
        "teachers": [{"name": "cheap", "plugin": "score_blocks:Cheap"}],
        "store": f"{layout}.zarr",
        "layout": layout,
        "block_videos": block_videos,
        "video_batch": 1024,
        "text_batch": 1024,
        "device": "cpu",
    }
    data = {"captions": root / "captions.csv", "val_fraction": 0.0}
    return Config.model_validate({"work": root / "work", "data": data, "score": settings})


def reading(config: Config) -> tuple[float, float]:
    """Seconds to open the scores for training, and the median milliseconds of a batch."""
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    videos = [(video, frames.digest(video)) for video in split.videos]
    begun = time.perf_counter()
    reader = ScoreStore.open(config.score_store).teacher("cheap").reader(texts, videos)
    order = BatchSampler(len(texts), min(BATCH, len(texts)), 1, reader.groups)
    opened, times = time.perf_counter() - begun, []
    for _, batch in order.steps(0, min(40, order.steps_per_epoch)):
        begun = time.perf_counter()
        reader.read(batch, split.text_video[batch])
        times.append(time.perf_counter() - begun)
    return opened, 1e3 * statistics.median(times)


def measure(root: Path, layout: str, block_videos: int, run: bool) -> dict[str, Any]:
    """What one layout takes; its scores are removed again."""
    config = config_of(root, layout, block_videos)
    (told,) = estimate_scores(config).teachers
    facts: dict[str, Any] = {"layout": layout, "pairs": told.pairs, "tiles": told.tiles, "bytes": told.bytes}
    if run:
        begun, worked = time.perf_counter(), time.process_time()
        score(config)
        facts["seconds"] = time.perf_counter() - begun
        facts["cpu_seconds"] = time.process_time() - worked
        facts["reader_seconds"], facts["batch_ms"] = reading(config)
        shutil.rmtree(config.score_store)
    return facts


def extrapolate(rows: Sequence[dict[str, Any]]) -> None:
    """Seconds of the dense rows that were not run, from the largest that was, by pairs."""
    keys = ("seconds", "cpu_seconds")
    dense = [row for row in rows if row["layout"] == "dense"]
    known = [row for row in dense if "seconds" in row]
    for row in dense:
        row["extrapolated"] = "seconds" not in row
        if row["extrapolated"] and known:
            row |= {key: known[-1][key] * row["pairs"] / known[-1]["pairs"] for key in keys}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One row a size and layout, Markdown."""
    heads = ("videos", "layout", "tiles", "pairs", "bytes", "seconds", "cpu s", "reader s", "batch ms")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        times = [f"{row[key]:,.1f}" if key in row else "-" for key in ("seconds", "cpu_seconds")]
        shown = [f"({seconds})" if row.get("extrapolated") else seconds for seconds in times]
        more = [f"{row[key]:.2f}" if key in row else "-" for key in ("reader_seconds", "batch_ms")]
        cells = [f"{row['videos']:,}", row["layout"], f"{row['tiles']:,}", f"{row['pairs']:.3g}", f"{row['bytes']:.3g}"]
        print(f"| {' | '.join([*cells, *shown, *more])} |")
    print("\nIn brackets: extrapolated by pairs.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[1000, 4000, 16_000, 64_000])
    parser.add_argument("--block-videos", type=int, default=1000)
    parser.add_argument("--dense-up-to", type=int, default=16_000)
    parser.add_argument("--folder", type=Path, help="where the stores are made; by default a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args()
    if max(chosen.videos) > NUMBERS:
        parser.error(f"at most {NUMBERS:,} videos")
    sys.path.insert(0, str(Path(__file__).parent))  # the plugin is this file
    rows = []
    for videos in chosen.videos:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            root = Path(folder) / "world"
            make_world(root, videos)
            for layout in ("blocks", "dense"):
                run = layout == "blocks" or videos <= chosen.dense_up_to
                rows.append({"videos": videos, **measure(root, layout, chosen.block_videos, run)})
                print(rows[-1], flush=True)
    extrapolate(rows)
    print(f"\n{machine()}; {CAPTIONS} captions a video; blocks of up to {chosen.block_videos:,} videos")
    print_table(rows)
    if chosen.out:
        facts = {"machine": machine(), "captions": CAPTIONS, "block_videos": chosen.block_videos, "rows": rows}
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
