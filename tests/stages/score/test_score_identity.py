"""What a cache's identity is made of: everything that scores depend on, and nothing that may differ harmlessly."""

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import Config, PrepareConfig
from teachclip.stages.prepare.plan import frame_settings
from teachclip.stages.score.stage import score

ROOT = Path(__file__).resolve().parents[3]
HARMLESS = {
    "batch of texts": {"text_batch": 2},
    "batch of videos": {"video_batch": 1},
    "shard size": {"shard_texts": 5},
    "device": {"device": "auto"},
    "check of ranks": {"chance_check": False},
    "store": {"store": "elsewhere/other.zarr"},
}


def with_sections(config: Config, **sections: dict[str, object]) -> Config:
    plain = config.model_dump(mode="json")
    return Config.model_validate(plain | {name: plain[name] | values for name, values in sections.items()})


def same_store(config: Config) -> None:
    """The finished store in `config.work` is served as it is, without a teacher."""
    (found,) = score(config).teachers
    assert (found.shards_now, found.shards_before) == (0, found.shards)


@pytest.fixture(scope="module")
def documented() -> set[str]:
    """The fields that docs/reference/score-cache.md names."""
    text = (ROOT / "docs/reference/score-cache.md").read_text(encoding="utf-8")
    table = text.split("## Identity")[1].split("\nBatch sizes")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {field for row in rows for field in re.findall(r"`([^`]+)`", row)}


def test_the_fields_are_the_documented_ones(finished: Path, documented: set[str]) -> None:
    identity = ScoreStore.open(finished / "work/scores.zarr").teacher("fake").identity
    others = {"prepare.resize_mode", "prepare.interpolation"}  # only where they are not as ever
    assert set(identity) == documented - {"prepare.jpeg_quality"} - others
    jpeg = {f"prepare.{key}" for key in frame_settings(PrepareConfig(storage="jpeg"))} | others
    assert {field for field in documented if field.startswith("prepare.")} == jpeg


@pytest.mark.parametrize("what", HARMLESS)
def test_what_may_differ_never_enters(process, new_world, fake_teacher, finished: Path, what: str) -> None:
    root = new_world(scored=True)
    config = process.config_of(root, **HARMLESS[what])
    if "store" not in HARMLESS[what]:
        same_store(config)  # an existing store is served under other settings
        shutil.rmtree(config.score_store)
    score(config)
    made = ScoreStore.open(config.score_store).teacher("fake")
    before = ScoreStore.open(finished / "work/scores.zarr").teacher("fake")
    assert made.identity == before.identity
    assert (made.scale, made.frames, made.frame_logits) == (before.scale, before.frames, before.frame_logits)


def test_settings_of_other_stages_never_enter(process, new_world, fake_teacher) -> None:
    config = process.config_of(new_world(scored=True))
    other = {
        "train": {"seed": 7, "batch_size": 16, "epochs": 1, "device": "cpu"},
        "prepare": {"workers": 3, "timeout": 1.0, "shard_videos": 2},
        "search": {"top": 9},
    }
    same_store(with_sections(config, **other))


def test_releases_seeds_and_threads_never_enter(
    process, new_world, fake_teacher, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_world()
    monkeypatch.setattr("teachclip.__version__", "99.9")
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        np.random.seed(1)  # noqa: NPY002  # the global generator is what a user may have seeded
        random.seed(1)
        torch.set_num_threads(2)
        try:
            score(process.config_of(root))
        finally:
            torch.set_num_threads(threads)
    made, before = (ScoreStore.open(path / "work/scores.zarr").teacher("fake") for path in (root, finished))
    assert made.identity == before.identity
    assert made.tiles[0].checksum == before.tiles[0].checksum


def test_how_frames_were_made_fast_never_enters() -> None:
    plain = PrepareConfig()
    other = PrepareConfig(frames=Path("elsewhere"), workers=3, timeout=1.0, shard_videos=7, jpeg_quality=11)
    assert frame_settings(plain) == frame_settings(other)
    for setting in ({"choice": "head"}, {"max_frames": 3}, {"image_size": 32}, {"sample_fps": 2}, {"storage": "jpeg"}):
        assert frame_settings(PrepareConfig.model_validate(setting)) != frame_settings(plain)
