"""A real X-CLIP through stage one: the store holds what the network gives pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.errors import CheckpointError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.score.stage import score

SIZES = TrunkSizes(
    image_size=2,
    patch_size=1,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=1,
    embed_dim=32,
    context_length=10,
)


def save_xclip(path: Path, frames: int = 3) -> None:
    torch.manual_seed(0)
    trunk = TrunkConfig(sizes=SIZES, weights=None)
    save_network(
        build_network(NetworkConfig(kind="xclip", trunk=trunk, words=8, frames=frames, temporal_layers=1)), path
    )


@pytest.mark.parametrize("coarse", ["float32", "uint16"])
def test_scores_are_the_networks(process, new_world, coarse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_world(texts=20, videos=9)
    save_xclip(root / "work/xclip.safetensors")
    config = process.config_of(
        root, teachers=[{"name": "xclip", "checkpoint": "xclip.safetensors"}], chance_check=False, coarse=coarse
    )
    score(config)

    frames = FrameCache.open(config.frames_folder)
    cache = ScoreStore.open(config.score_store).teacher("xclip")
    tile = cache.tiles[0]
    teacher = load_teacher(config.score.teachers[0], root / "work/xclip.safetensors")
    clips = frames.read(tile.video_ids)
    videos = teacher.encode_videos(*map(torch.from_numpy, (clips.frames, clips.mask, clips.times)))
    captions = {f"v{i % 9:03d}.mp4#{i // 9}": f"number {i % 9} in round {i // 9}" for i in range(20)}
    captions |= {"v000.mp4#3": "number 0 once more"}
    texts = teacher.encode_texts([captions[key] for key in tile.text_ids])
    keys = [(key, bytes(d)) for key, d in zip(tile.text_ids, tile.text_digests, strict=True)]
    video_keys = [(key, bytes(d)) for key, d in zip(tile.video_ids, tile.video_digests, strict=True)]
    labels = cache.reader(keys, video_keys).read(np.arange(21), np.arange(9))

    expected = teacher.score(texts, videos).numpy()
    step = np.ptp(expected, axis=1).max() / 65534 if coarse == "uint16" else 0.0
    np.testing.assert_allclose(labels.coarse, expected, rtol=0, atol=step / 2 + 2e-6)
    own = {key: value[torch.tensor(tile.text_video)] for key, value in videos.items()}
    np.testing.assert_allclose(labels.frame_logits, teacher.frame_logits(texts, own), rtol=0, atol=1e-6)
    assert cache.scale == pytest.approx(teacher.scale)

    monkeypatch.setattr(process.one_teacher, "load_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    assert score(config).teachers[0].shards_now == 0


def test_frames_that_do_not_fit_the_teacher_are_refused_before_anything_is_made(process, new_world) -> None:
    root = new_world()
    save_xclip(root / "work/xclip.safetensors", frames=4)
    config = process.config_of(root, teachers=[{"name": "xclip", "checkpoint": "xclip.safetensors"}])
    with pytest.raises(CheckpointError, match="takes 4 frames"):
        score(config)
    assert ScoreStore.open(config.score_store).teachers == ()
