"""Teachers that need no checkpoint, and teachers that see frames of their own."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from teachclip.cache.frames.cache import FrameCache, FrameFolder, frame_identity
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import Config, NetworkConfig, TeacherConfig, TrunkConfig, TrunkSizes
from teachclip.errors import CacheError, CacheMismatchError, CheckpointError, ConfigError, DataError
from teachclip.remedies import Prepare
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.convert import convert
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.score.stage import score

SIZES = {
    "image_size": 16, "patch_size": 8, "vision_width": 64, "vision_layers": 2, "text_width": 64, "text_layers": 2,
    "embed_dim": 32, "context_length": 14,
}  # fmt: skip
CAPTIONS = {f"{k}.mp4": f"number {k}, and what follows" for k in range(7)}


def make_frames(folder: Path, videos: list[str], slots: int, seed: int = 0) -> None:
    """A frame cache of noise: video k has 1 + k mod `slots` frames of 16 pixels."""
    rng = np.random.default_rng(seed)
    made = {"sample_fps": 1, "choice": "uniform", "max_frames": slots, "image_size": 16}
    records = []
    for k, video in enumerate(videos):
        images = list(rng.integers(0, 256, (1 + k % slots, 3, 16, 16), np.uint8))
        status = VideoStatus(video, "ok", frames=len(images), duration=float(len(images)))
        records.append(VideoRecord.of(status, images, list(np.arange(float(len(images)))), FileStamp(1, 1)))
    frames = FrameFolder.claim(folder, frame_identity(**made, storage="raw", jpeg_quality=95))
    frames.write(0, records)
    frames.complete()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven captioned videos, their frames, and the weights of a trunk."""
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption"), *CAPTIONS.items()])
    make_frames(tmp_path / "work/frames", list(CAPTIONS), slots=3)
    torch.manual_seed(0)
    trunk = TrunkConfig(sizes=TrunkSizes(**SIZES), weights=None)
    save_network(build_network(NetworkConfig(trunk=trunk, words=10, frames=3)), tmp_path / "clip.safetensors")
    return tmp_path


def clip(root: Path, **settings: Any) -> dict[str, Any]:
    """An open_clip teacher with the trunk's weights."""
    trunk = {"sizes": SIZES, "weights": str(root / "clip.safetensors")}
    return {"name": "clip", "openclip": trunk, "frames": 3, "words": 10} | settings


def config_of(root: Path, *teachers: dict[str, Any]) -> Config:
    section = {"teachers": teachers, "coarse": "float32", "chance_check": False, "device": "cpu"}
    data = {"captions": root / "captions.csv", "val_fraction": 0.0}
    return Config.model_validate({"work": root / "work", "data": data, "score": section})


def test_an_open_clip_model_scores_with_cosines(root: Path) -> None:
    config = config_of(root, clip(root))
    score(config)
    cache = ScoreStore.open(config.score_store).teacher("clip")
    (tile,) = cache.tiles
    rows = np.arange(7)

    network = load_teacher(config.score.teachers[0], None).network
    clips = FrameCache.open(config.frames_folder).read(tile.video_ids)
    captions = [CAPTIONS[key.partition("#")[0]] for key in tile.text_ids]
    with torch.no_grad():
        ids, _ = tokenize(captions, 10)
        sentences = torch.nn.functional.normalize(network.trunk.encode_sentences(ids), dim=-1).numpy()
        frames = network.frame_features(torch.from_numpy(clips.frames), torch.from_numpy(clips.mask))
        frames = torch.nn.functional.normalize(frames, dim=-1).numpy()
    vectors = np.stack([video[mask].mean(axis=0) for video, mask in zip(frames, clips.mask, strict=True)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(TileRows(tile).scores(rows), sentences @ vectors.T, rtol=0, atol=1e-6)
    expected = np.einsum("td,tfd->tf", sentences, frames[tile.text_video])
    np.testing.assert_allclose(TileRows(tile).read("fine", rows), expected, rtol=0, atol=1e-6)
    assert cache.scale == pytest.approx(1 / 0.07, rel=1e-4)
    assert {key: cache.identity[key] for key in ("words", "frames")} == {"words": 10, "frames": 3}
    assert score(config).teachers[0].shards_now == 0


def test_other_weights_or_words_are_another_teacher(root: Path) -> None:
    score(config_of(root, clip(root)))
    for changed, field in (({"words": 12}, "words"), ({"openclip": {"sizes": SIZES, "weights": "other"}}, "weights")):
        if field == "weights":
            torch.manual_seed(1)
            trunk = TrunkConfig(sizes=TrunkSizes(**SIZES), weights=None)
            save_network(build_network(NetworkConfig(trunk=trunk, words=10, frames=3)), root / "other.safetensors")
            changed["openclip"]["weights"] = str(root / "other.safetensors")
        with pytest.raises(CacheMismatchError) as refused:
            score(config_of(root, clip(root, **changed)))
        assert [line.split(":")[0] for line in refused.value.details] == [field]


def test_other_words_for_a_checkpoint_that_records_none_are_another_teacher(root: Path) -> None:
    convert(root / "clip.safetensors", root / "pub.bin", names="published")
    teacher = {"name": "pub", "checkpoint": str(root / "pub.bin"), "frames": 3}
    score(config_of(root, {**teacher, "words": 10}))
    for words in (5, None):
        with pytest.raises(CacheMismatchError) as refused:
            score(config_of(root, {**teacher, "words": words}))
        assert [line.split(":")[0] for line in refused.value.details] == ["words"]


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (
            {"openclip": {"sizes": SIZES, "weights": None}},
            r"score\.teachers\.clip\.openclip\.weights: .*without weights",
        ),
        (
            {"openclip": {"model": "ViT-Q-7"}},
            r"score\.teachers\.clip\.openclip\.model: open_clip has no model 'ViT-Q-7'",
        ),
        ({"openclip": {"weights": "nowhere"}}, r"score\.teachers\.clip\.openclip\.weights: 'nowhere' is no file"),
    ],
)
def test_open_clip_models_that_cannot_be_used(root: Path, teacher: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_teacher(TeacherConfig(**clip(root, **teacher)), None)


def test_words_beyond_the_models_are_refused_with_the_config(root: Path) -> None:
    with pytest.raises(ValidationError, match=r"words: 15 are more .*context_length: 14\); set words to 14 at most"):
        TeacherConfig(**clip(root, words=15))


def test_words_are_at_most_the_models_by_default(root: Path) -> None:
    teacher = clip(root)
    del teacher["words"], teacher["frames"]
    loaded = load_teacher(TeacherConfig(**teacher), None)
    assert (loaded.frames, loaded.words) == (12, 14)


def test_a_teacher_may_see_frames_of_its_own(root: Path) -> None:
    """Two videos have no frames for it; one has frames for it and none for the student."""
    videos = [video for video in CAPTIONS if video not in ("2.mp4", "5.mp4")]
    make_frames(root / "work/more", [*videos, "not-in-prepare.mp4"], slots=5, seed=1)
    config = config_of(root, clip(root), clip(root, name="own", frames=5, prepared="more"))
    result = score(config)
    assert [(teacher.videos, teacher.left_out_videos) for teacher in result.teachers] == [(7, 0), (5, 2)]
    assert result.left_out_videos == 0
    own = ScoreStore.open(config.score_store).teacher("own")
    (tile,) = own.tiles
    more = FrameCache.open(root / "work/more")
    assert set(tile.video_ids) == set(videos)
    assert [bytes(digest) for digest in tile.video_digests] == [more.digest(video) for video in tile.video_ids]
    np.testing.assert_array_equal(tile.frame_times, more.times(tile.video_ids))
    assert (own.frames, own.identity["prepare.max_frames"]) == (5, 5)

    with pytest.raises(CacheMismatchError) as refused:
        score(config_of(root, clip(root, name="own")))
    assert {line.split(":")[0] for line in refused.value.details} >= {"frames", "prepare.max_frames"}


def test_what_is_wrong_with_its_frames_is_said_with_the_next_command(root: Path) -> None:
    with pytest.raises(CacheError, match="no frame cache here") as absent:
        score(config_of(root, clip(root, prepared="more")))
    assert absent.value.where == str(root / "work/more")
    assert absent.value.hint.action == Prepare({"prepare.frames": "more"})
    with pytest.raises(CheckpointError, match="takes 5 frames of 16 pixels; these are 3 of 16") as refused:
        score(config_of(root, clip(root, frames=5)))
    assert refused.value.hint.action.settings["prepare.max_frames"] == 5
    make_frames(root / "work/strangers", ["x.mp4"], slots=3)
    with pytest.raises(DataError, match="no usable captions"):
        score(config_of(root, clip(root, prepared="strangers")))
