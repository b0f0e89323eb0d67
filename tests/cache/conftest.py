"""A small store with known scores, made without a teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.identity import JSON, digest, text_digest
from teachclip.cache.score_shards import write_shard
from teachclip.cache.scores import ScoreCache, ScoreStore
from teachclip.cache.tiles import Key, Tile, TileContents

IDENTITY: dict[str, JSON] = {"weights": "aa" * 16, "score_version": 1, "words": 8, "frames.choice": "uniform"}


@dataclass
class Made:
    """A store beside the scores that were put into it."""

    path: Path
    texts: list[Key]
    videos: list[Key]
    coarse: np.ndarray
    fine: np.ndarray
    own: np.ndarray

    @property
    def cache(self) -> ScoreCache:
        return ScoreStore.open(self.path).teacher("tiny")

    @property
    def tile(self) -> Tile:
        return self.cache.tiles[0]

    def write(self, *shards: int) -> None:
        for shard in shards:
            rows = self.tile.layout.rows(shard)
            write_shard(self.tile, shard, self.coarse[rows.start : rows.stop], self.fine[rows.start : rows.stop])


type Make = Callable[..., Made]


def keys(texts: int, videos: int) -> tuple[list[Key], list[Key], np.ndarray]:
    """Captions and videos with ids and digests, and each caption's own video."""
    own = np.arange(texts) * 7 % videos
    text_keys = [(f"clips/v{own[i]}.mp4#{i}", text_digest(f"caption {i} ä")) for i in range(texts)]
    video_keys = [(f"clips/v{j}.mp4", digest(f"frames {j}".encode())) for j in range(videos)]
    return text_keys, video_keys, own


@pytest.fixture
def make_store(tmp_path: Path) -> Make:
    """Makes a store of one teacher `tiny` with one tile; `shards` are written (by default all)."""

    def make(
        texts: int = 21, videos: int = 13, dtype: str = "uint16", shards: tuple[int, ...] | None = None, name: str = "s"
    ) -> Made:
        rng = np.random.default_rng(texts * 1000 + videos)
        text_keys, video_keys, own = keys(texts, videos)
        coarse = rng.normal(0.3, 0.05, (texts, videos)).astype(np.float32)
        fine = rng.normal(0.2, 0.05, (texts, 4)).astype(np.float32)
        store = ScoreStore.create(tmp_path / f"{name}.zarr")
        cache = store.create_teacher("tiny", IDENTITY, 100.0, dtype, 4, True)  # type: ignore[arg-type]
        times = np.tile(np.arange(4.0), (videos, 1))
        times[::3, 2:] = np.nan
        cache.create_tile("dense", TileContents(text_keys, video_keys, own, times), shard_texts=8)
        made = Made(store.path, text_keys, video_keys, coarse, fine, own)
        made.write(*(range(made.tile.layout.shards) if shards is None else shards))
        return made

    return make
