"""Teachers that see other frames than the student, and teachers without frame scores."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import Config
from teachclip.errors import CacheMismatchError, ConfigError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.teacher_frames import TeacherFrames
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.labels.cached import cached_teachers
from teachclip.stages.labels.frame_times import frame_carrier
from teachclip.stages.labels.open_scores import open_reader
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

WIDE = {"name": "wide", "checkpoint": "runs/wide", "prepared": "frames8"}
NARROW = {"name": "narrow", "checkpoint": "runs/narrow", "prepared": "frames3"}
BOTH = {"teachers": [WIDE, NARROW], "store": "other.zarr", "coarse": "float32"}
LARGE = {"image_size": 48, "max_frames": 8, "frames": "frames8"}


class Heard(Silent):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)


def losses(config: Config) -> torch.Tensor:
    lines = [line for line in RunFolder(config.run_folder).metrics() if line["kind"] == "train"]
    return torch.tensor([[line[key] for key in ("loss", "coarse", "fine")] for line in lines])


@pytest.fixture(scope="module")
def other(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The world with a teacher of eight frames of 48 pixels, which saw more than students of three or four frames, and
    one of three frames, which saw less; scored exactly.
    """
    root = tmp_path_factory.mktemp("other") / "world"
    shutil.copytree(world.root, root)
    made = type(world)(root)
    large = {**TRUNK, "image_size": 48}
    network = {"kind": "xclip", "frames": 8, "trunk": {"sizes": large, "weights": None}}
    prepare(made.config(prepare={**LARGE}))
    prepare(made.config(prepare={"max_frames": 3, "frames": "frames3"}))
    train(made.config(prepare={**LARGE}, train={"run": "runs/wide", "network": network, "epochs": 2}))
    few = {"prepare": {"max_frames": 3, "frames": "frames3"}, "network": {"kind": "xclip", "frames": 3}}
    train(made.config(prepare=few["prepare"], train={"run": "runs/narrow", "network": few["network"], "max_steps": 2}))
    score(made.config(score=dict(BOTH)))
    return made


TRUNK = {
    "image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 2,
    "text_width": 16, "text_layers": 1, "embed_dim": 64, "context_length": 16,
}  # fmt: skip


def student(other: Any, run: str, teacher: str = "wide", frames: int = 3, **settings: Any) -> Config:
    """A student of three or four frames."""
    network = {"frames": frames, **settings.pop("network", {})}
    lrs = {"lr": 1e-4, "trunk_lr": 1e-7}
    return other.config(
        data=settings.pop("data", {}),
        prepare={"frames": "frames3", "max_frames": 3} if frames == 3 else {},
        score=dict(BOTH),
        train={
            "run": f"runs/other-frames-{run}",
            "teachers": [teacher],
            "max_steps": 4,
            "network": network,
            "optim": lrs,
            **settings,
        },
    )


PAIRS = [("wide", 8, 3), ("wide", 8, 4), ("narrow", 3, 4)]


@pytest.mark.parametrize(("teacher", "slots", "frames"), PAIRS)
def test_cached_and_online_agree_on_other_frames_and_resolution(
    other: Any, teacher: str, slots: int, frames: int
) -> None:
    runs = {}
    for teaching in ("cached", "online"):
        runs[teaching] = student(other, f"{teacher}-{frames}-{teaching}", teacher, frames, teaching=teaching)
        heard = Heard()
        train(runs[teaching], heard)
        assert f"{teacher}: frame scores of {slots} frames carried to {frames} by time" in heard.said
    assert (losses(runs["cached"])[:, 1:] > 0).all()
    torch.testing.assert_close(losses(runs["cached"]), losses(runs["online"]), rtol=1e-5, atol=1e-6)


def test_published_padding_takes_part_with_the_teachers_own_or_is_refused(other: Any) -> None:
    network = {"mask_padding": False}
    runs = {
        way: student(other, f"padded-{way}", "wide", 4, teaching=way, network=network) for way in ("cached", "online")
    }
    for config in runs.values():
        train(config)
    torch.testing.assert_close(losses(runs["cached"]), losses(runs["online"]), rtol=1e-5, atol=1e-6)
    with pytest.raises(CacheMismatchError, match="padding takes part"):
        train(student(other, "no-padding", "narrow", 4, network=network))


def test_videos_without_captions_need_no_frame_scores(other: Any) -> None:
    """The fine loss does not see them: only frames of captioned videos are carried."""
    rows = [line.split(",") for line in (other.root / "captions.csv").read_text().splitlines()]
    without = [video for video, _, split in rows if split == "train"][::4][:3]
    few = other.root / "few.csv"
    few.write_text("\n".join(f"{video},{'' if video in without else text},{split}" for video, text, split in rows))
    runs = {}
    for teaching in ("cached", "online"):
        data = {"captions": few, "uncaptioned": "train"}
        runs[teaching] = student(other, f"unlabelled-{teaching}", "wide", 4, teaching=teaching, unlabelled=3, data=data)
        train(runs[teaching])
    torch.testing.assert_close(losses(runs["cached"]), losses(runs["online"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "slots", "frames"), PAIRS)
def test_what_is_taught_is_the_score_at_the_students_moments(other: Any, name: str, slots: int, frames: int) -> None:
    """Against numpy's own interpolation, for every caption."""
    config = student(other, "unused", name, frames)
    own = FrameCache.open(config.frames_folder)
    seen = TeacherFrames(config, [name], own)
    split = usable_split(read_dataset(config.data), ["train"], own, seen[name])
    (teacher,) = cached_teachers(config, split, own, seen, Silent())
    stored, _ = open_reader(ScoreStore.open(config.score_store).teacher(name), split, seen[name], (), Silent())
    raw, carried = stored.frame_logits, teacher.reader.frame_logits
    assert raw is not None
    assert raw.shape == (len(split.texts), slots)
    assert carried is not None
    assert carried.shape == (len(split.texts), frames)
    student_times, teacher_times = own.times(split.videos), seen[name].times(split.videos)
    for text, video in enumerate(split.text_video):
        valid, known = ~np.isnan(student_times[video]), ~np.isnan(teacher_times[video])
        expected = np.interp(student_times[video][valid], teacher_times[video][known], raw[text][known])
        np.testing.assert_allclose(carried[text][valid], expected, rtol=1e-5)


def test_other_frames_are_part_of_what_a_run_was_made_from(other: Any) -> None:
    config = student(other, "identity")
    train(config)
    identity = (config.run_folder / "run.json").read_text()
    assert "frames of wide" in identity


def test_scores_of_other_frames_are_refused_when_nobody_says_which(other: Any) -> None:
    config = student(other, "unnamed")
    plain = config.model_copy(update={"score": config.score.model_copy(update={"teachers": ()})})
    with pytest.raises(CacheMismatchError, match="frames changed") as caught:
        train(plain)
    assert "prepared" in str(caught.value.hint)


def test_videos_that_one_of_the_two_cannot_use_are_left_out(other: Any, tmp_path: Path) -> None:
    """The clip is gone when the teacher's frames are prepared again elsewhere."""
    root = tmp_path / "world"
    shutil.copytree(other.root, root)
    made = type(other)(root)
    shutil.rmtree(root / "work/frames8")
    (root / "clips/00.mp4").write_bytes(b"broken since")
    prepare(made.config(prepare={**LARGE}))
    score(made.config(score={"teachers": [dict(WIDE)], "store": "fewer.zarr"}))
    config = made.config(
        score={"teachers": [dict(WIDE)], "store": "fewer.zarr"},
        train={"run": "runs/fewer-videos", "teachers": ["wide"], "max_steps": 2},
    )
    result = train(config)
    assert (result.videos, result.left_out_videos) == (13, 2)


def test_the_fine_loss_uses_the_teachers_that_have_frame_scores(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers = [{"name": name, "checkpoint": "runs/xclip"} for name in ("xclip", "silent")]
    scoring = {"teachers": teachers, "store": "mixed.zarr", "coarse": "float32"}
    _without_frame_scores(monkeypatch, "silent")
    score(world.config(score=dict(scoring)))
    runs = {}
    for name, settings in {
        "alone": {"teachers": ["xclip"]},
        "mixed": {"teachers": ["silent", "xclip"]},
        "weighted": {
            "teachers": ["silent", "xclip"],
            "loss": {"teachers": "weighted", "teacher_weights": {"silent": 3.0, "xclip": 0.5}},
        },
        "online": {"teachers": ["silent", "xclip"], "teaching": "online"},
    }.items():
        config = world.config(score=dict(scoring), train={"run": f"runs/mixed-{name}", "max_steps": 1, **settings})
        heard = Heard()
        train(config, heard)
        assert ("silent has no frame scores: the fine loss goes without it" in heard.said) == (name != "alone")
        runs[name] = losses(config)[0]
    torch.testing.assert_close(runs["mixed"], runs["alone"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(runs["weighted"][2], 0.5 * runs["alone"][2], rtol=1e-6, atol=0)
    torch.testing.assert_close(runs["online"], runs["mixed"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("teaching", ["cached", "online"])
def test_no_frame_scores_at_all_are_refused(world: Any, monkeypatch: pytest.MonkeyPatch, teaching: str) -> None:
    scoring = {"teachers": [{"name": "silent", "checkpoint": "runs/xclip"}], "store": "silent.zarr"}
    _without_frame_scores(monkeypatch, "silent")
    score(world.config(score=dict(scoring)))
    settings = {"run": f"runs/silent-{teaching}", "teachers": ["silent"], "teaching": teaching, "max_steps": 1}
    with pytest.raises(ConfigError, match="no frame scores to teach with: silent") as caught:
        train(world.config(score=dict(scoring), train=dict(settings)))
    assert "train.loss.fine=0" in str(caught.value.hint)
    coarse_only = world.config(score=dict(scoring), train={**settings, "loss": {"fine": 0.0}})
    train(coarse_only)
    assert losses(coarse_only)[0][1] > 0


def _without_frame_scores(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The teacher `name` has none, as one of a user's own may."""
    from teachclip.stages.models.frozen.teacher import NetworkTeacher

    plain = NetworkTeacher.frame_logits

    def frame_logits(self: Any, texts: Any, videos: Any) -> Any:
        return None if self.name == name else plain(self, texts, videos)

    monkeypatch.setattr(NetworkTeacher, "frame_logits", frame_logits)


def test_carrying_costs_nothing_where_frames_are_the_same(world: Any) -> None:
    frames = FrameCache.open(world.config().frames_folder)
    times = frames.times(frames.usable)
    assert frame_carrier("xclip", frames.usable, times, times.copy(), padding_counts=True) is None
    heard = Heard()
    train(world.config(train={"run": "runs/same-frames", "teachers": ["xclip"], "max_steps": 1}), heard)
    assert not [line for line in heard.said if "carried" in line]
