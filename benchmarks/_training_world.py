"""What training.py trains on: random frames in a frame cache, captions, three random teachers and their scores."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from teachclip.cache.frames.cache import FrameFolder
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.storage.publish import publishing
from teachclip.configs.schema import Config
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.prepare.plan import frame_settings
from teachclip.stages.score.stage import score

FRAMES, WORDS = 12, 32
KINDS = ("xclip", "ts2net", "drl")
SHARD = 64
SMALL: dict[str, Any] = {
    "sizes": {
        "image_size": 64,
        "patch_size": 32,
        "vision_width": 128,
        "vision_layers": 3,
        "text_width": 128,
        "text_layers": 2,
        "embed_dim": 128,
    },
    "weights": None,
}
LARGE: dict[str, Any] = {"model": "ViT-B-32-quickgelu", "weights": None}
THINGS = ("dog", "cat", "man", "woman", "child", "car", "ball", "tree", "house", "horse", "bird", "boat", "guitar")
DOES = ("runs", "jumps", "falls", "turns", "sings", "sleeps", "waits", "moves", "shines", "breaks", "grows", "swims")


class World:
    """A folder with all of it, made once; what is there is not made again.

    Attributes:
        kinds: of its teachers; data: further settings of `data`.
    """

    kinds: tuple[str, ...] = KINDS
    data: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, folder: Path, videos: int, large: bool) -> None:
        self.folder, self.videos, self.large = folder, videos, large

    def config(self, **train: Any) -> Config:
        """The world's configuration with these settings of `train`."""
        network = {"trunk": LARGE if self.large else SMALL, "words": WORDS, "frames": FRAMES}
        if not self.large:
            network["ts2net"] = {"shift_layers": [], "samples": 100}
        network |= train.pop("network", {})
        sections: dict[str, Any] = {
            "work": self.folder,
            "data": {"captions": self.folder / "captions.csv", "val_fraction": 0, **self.data},
            "prepare": {"image_size": 224 if self.large else 64, "max_frames": FRAMES},
            "score": {
                "teachers": [{"name": kind, "checkpoint": f"{kind}.safetensors"} for kind in self.kinds],
                "chance_check": False,
            },
            "train": {"network": network, "epochs": 1000, "checkpoint_seconds": 1e6, **train},
        }
        return Config.model_validate(sections)

    def make(self) -> None:
        """Captions, frames, teachers, scores."""
        rng = np.random.default_rng(0)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._captions(rng)
        self._frames(rng)
        for kind in self.kinds:
            self._teacher(kind)
        score(self.config())

    def _captions(self, rng: np.random.Generator) -> None:
        """Two of 6 to 20 words each, all different."""
        with (self.folder / "captions.csv").open("w", newline="") as file:
            write = csv.writer(file)
            write.writerow(["video", "caption", "split"])
            for video in range(self.videos):
                for _ in range(2):
                    words = rng.integers(3, 10)
                    said = " ".join(f"{rng.choice(THINGS)} {rng.choice(DOES)}" for _ in range(words))
                    write.writerow([f"v{video}.mp4", f"{said} {video}", "train"])

    def _frames(self, rng: np.random.Generator) -> None:
        """Videos of 6 to 12 frames: noise, as costly to move as anything."""
        config = self.config()
        folder = FrameFolder.claim(config.frames_folder, frame_settings(config.prepare))
        size = config.prepare.image_size
        for first in range(0, self.videos, SHARD):
            if first // SHARD in folder.shards:
                continue
            records = []
            for video in range(first, min(first + SHARD, self.videos)):
                count = int(rng.integers(FRAMES // 2, FRAMES + 1))
                images = list(rng.integers(0, 256, (count, 3, size, size), np.uint8))
                status = VideoStatus(f"v{video}.mp4", "ok", frames=count, duration=float(count))
                records.append(VideoRecord.of(status, images, [float(k) for k in range(count)], FileStamp()))
            folder.write(first // SHARD, records)
        folder.complete()

    def _teacher(self, kind: str) -> None:
        path = self.folder / f"{kind}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            with publishing(path) as temporary:
                save_network(build_network(self.config(network={"kind": kind}).train.network), temporary)
