"""A folder with clips, a caption file and students, for searches."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config, NetworkConfig
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.prepare.stage import prepare

FRAMES, SIZE = 4, 32
NETWORK = {
    "trunk": {
        "sizes": {
            "image_size": SIZE, "patch_size": 16, "vision_width": 64, "vision_layers": 1,
            "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16,
        },
        "weights": None,
    },
    "words": 10, "frames": FRAMES, "temporal_layers": 1,
}  # fmt: skip


class Place:
    """A folder with clips, a caption file and two students."""

    def __init__(self, root: Path, names: Sequence[str] = ()) -> None:
        self.root = root
        self.names = list(names)

    def config(self, **search: Any) -> Config:
        return Config.model_validate(
            {
                "work": self.root / "work",
                "data": {"captions": self.root / "own" / "captions.csv", "val_fraction": 0.0},
                "prepare": {"image_size": SIZE, "max_frames": FRAMES, "workers": 1},
                "search": {"device": "cpu", "run": "runs/a", **search},
            }
        )

    def add(self, name: str, seed: int, split: str = "train") -> None:
        self.draw(name, seed)
        self.names.append(name)
        with (self.root / "own" / "captions.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["video", "caption", "split"])
            writer.writerow([name, f"clip number {seed}", split])

    def draw(self, name: str, seed: int) -> None:
        """The clip's file, new or anew."""
        noise = np.random.default_rng(seed).integers(0, 255, (FRAMES, 4, 4, 3), dtype=np.uint8)
        write_h264(self.root / "own" / name, noise.repeat(16, 1).repeat(16, 2), fps=1)

    def network(self, **changed: Any) -> NetworkConfig:
        return Config.model_validate({"train": {"network": {**NETWORK, **changed}}}).train.network

    def student(self, run: str, seed: int, **changed: Any) -> Path:
        torch.manual_seed(seed)
        path = self.root / "work" / "runs" / run / "best.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_network(build_network(self.network(**changed)), path)
        return path

    def exact(self, query: str, run: str = "a") -> dict[str, float]:
        """Cosines of all videos, by the network itself."""
        network = load_network(self.root / "work" / "runs" / run)
        frames = FrameCache.open(self.config().frames_folder)
        clips = frames.read(frames.usable)
        with torch.no_grad():
            videos = network.encode_videos(torch.from_numpy(clips.frames), torch.from_numpy(clips.mask))
            scores = network.score(network.encode_texts(tokenize([query], 10)[0]), videos)[0]
        return dict(zip(frames.usable, scores.tolist(), strict=True))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("place"))
    for seed, split in enumerate(["train", "train", "test", "val", "train"]):
        made.add(f"clips/{seed} <ü>.mp4", seed, split)
    prepare(made.config())
    made.student("a", 1)
    return made


@pytest.fixture
def place(prepared: Place, tmp_path: Path) -> Place:
    """A copy of its own for each test."""
    shutil.copytree(prepared.root, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path, prepared.names)
