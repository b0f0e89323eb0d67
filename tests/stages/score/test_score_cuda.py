"""Stage one on a GPU: the CPU's scores to float arithmetic, and a resumed store with the bits of the first run."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.shard import marker_path
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import Config, NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.score.stage import score

pytestmark = pytest.mark.gpu

SIZES = TrunkSizes(
    image_size=2, patch_size=1, vision_width=64, vision_layers=2, text_width=64, text_layers=2, embed_dim=64
)


def files(store: Path) -> dict[str, str]:
    return {str(p): hashlib.blake2b(p.read_bytes()).hexdigest() for p in store.rglob("*") if p.is_file()}


@pytest.fixture
def configs(process, new_world) -> dict[str, Config]:
    root = new_world(texts=60, videos=30)
    torch.manual_seed(0)
    network = NetworkConfig(kind="xclip", trunk=TrunkConfig(sizes=SIZES, weights=None), words=16, frames=3)
    save_network(build_network(network), root / "work/xclip.safetensors")
    teacher = {"name": "xclip", "checkpoint": "xclip.safetensors"}
    return {
        device: process.config_of(
            root, teachers=[teacher], chance_check=False, coarse="float32", device=device, store=f"{device}.zarr"
        )
        for device in ("cpu", "cuda")
    }


def test_the_gpu_gives_the_cpus_scores(configs: dict[str, Config]) -> None:
    found = {}
    for device, config in configs.items():
        score(config)
        tile = ScoreStore.open(config.score_store).teacher("xclip").tiles[0]
        rows = np.arange(tile.spec.texts)
        found[device] = TileRows(tile).scores(rows), TileRows(tile).read("fine", rows)
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        np.testing.assert_allclose(cuda, cpu, rtol=0, atol=2e-5)


def test_a_resumed_store_has_the_same_bits(configs: dict[str, Config]) -> None:
    config = configs["cuda"]
    score(config)
    before = files(config.score_store)
    cache = ScoreStore.open(config.score_store).teacher("xclip")
    for shard in (1, 4):
        marker_path(cache.tiles[0], shard).unlink()
        (cache.tiles[0].folder / f"coarse/c.{shard}.0").write_bytes(b"")
    shutil.rmtree(cache.videos_folder)
    assert score(config).teachers[0].shards_now == 2
    assert files(config.score_store) == before
