"""Figure 3: the frames that students and their teacher look at."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config
from teachclip.errors import CheckpointError, ConfigError, DataError, TeachclipError
from teachclip.stages.analysis.closeness import Closeness, closeness, ranks, softmax_over
from teachclip.stages.analysis.frame_weights import FrameWeights, frame_weights, thumbnails
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.models.checkpoints.files import load_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.models.student import Student
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.train.stage import train

if TYPE_CHECKING:
    from conftest import World

UNTAUGHT, TAUGHT, MEAN = (Path(f"runs/weights-{name}") for name in ("untaught", "taught", "mean"))
TEMPERATURE = 0.02  # cosines differ little: at 1 their softmax is nearly flat


def settings(world: "World", **train: object) -> Config:
    loss = {"infonce": 0.0, "coarse": 0.0, "fine": 1.0, "fine_temperature": TEMPERATURE}
    optim = {"lr": 1e-3, "trunk_lr": 1e-3, "afa_lr": 1e-2}
    return world.config(train={"run": TAUGHT, "teachers": ["xclip"], "loss": loss, "optim": optim, **train})


@pytest.fixture(scope="module")
def config(world: "World") -> Config:
    """A taught and an untaught student, and one with mean pooling."""
    train(world.config(train={"run": UNTAUGHT, "epochs": 1}))
    train(settings(world, epochs=12, validate_every=12))  # its last network, not the best at retrieval
    train(world.config(train={"run": MEAN, "network": {"pooling": "mean"}, "epochs": 1}))
    return settings(world)


@pytest.fixture(scope="module")
def found(config: Config) -> FrameWeights:
    return frame_weights(config, [TAUGHT, UNTAUGHT], split="train")


def test_a_student_taught_frames_comes_closer_to_its_teacher(found: FrameWeights) -> None:
    taught, untaught, uniform = found.closeness
    assert [taught.name, untaught.name, uniform.name] == ["weights-taught", "weights-untaught", "uniform"]
    assert taught.pearson is not None
    assert untaught.pearson is not None
    assert taught.pearson > max(0.5, untaught.pearson)
    assert taught.kl < 0.8 * min(untaught.kl, uniform.kl)
    assert taught.top1 > uniform.top1
    assert (uniform.pearson, uniform.spearman) == (None, None)
    assert (found.source, found.texts, found.videos, found.compared) == ("store", 28, 14, 28)


def test_weights_are_those_of_the_networks(config: Config, found: FrameWeights) -> None:
    frames = FrameCache.open(config.frames_folder)
    for query in found.queries:
        clips = frames.read([query.video])
        mask = torch.from_numpy(clips.mask)
        assert query.valid == tuple(clips.mask[0].tolist())
        assert np.array_equal(query.times, clips.times[0], equal_nan=True)
        for name, path in (("weights-taught", TAUGHT), ("weights-untaught", UNTAUGHT)):
            network = load_network(config.work / path)
            assert isinstance(network, Student)
            with torch.no_grad():
                videos = network.encode_videos(torch.from_numpy(clips.frames), mask)
                expected = network.frame_weights(videos, mask)[0], network.pooling_weights(videos, mask)[0]
            np.testing.assert_allclose(query.runs[name], expected[0], atol=1e-6)
            np.testing.assert_allclose(query.pooling[name], expected[1], atol=1e-6)
        teacher = load_network(config.work / "runs/xclip")
        with torch.no_grad():
            texts = teacher.encode_texts(tokenize([query.caption], 10)[0])
            logits = teacher.frame_logits(texts, teacher.encode_videos(torch.from_numpy(clips.frames), mask))
        assert logits is not None
        y_f = (logits[0] / TEMPERATURE).masked_fill(~mask[0], float("-inf")).softmax(0)
        np.testing.assert_allclose(query.teacher, y_f, atol=2e-4)


def test_a_split_that_was_not_scored_is_asked_of_the_teacher(config: Config, found: FrameWeights) -> None:
    test = frame_weights(config, [TAUGHT], split="test", count=2)
    assert (test.source, test.texts, len(test.queries)) == ("teacher", 12, 2)
    # The same scores, asked for, are those of the store.
    unscored = config.model_copy(update={"score": config.score.model_copy(update={"splits": ("val",)})})
    again = frame_weights(unscored, [TAUGHT, UNTAUGHT], split="train")
    assert again.source == "teacher"
    for one, other in zip(again.queries, found.queries, strict=True):
        np.testing.assert_allclose(one.teacher, other.teacher, atol=2e-4)


def test_a_teacher_that_sees_more_frames_speaks_of_the_students(world: "World", config: Config) -> None:
    prepare(world.config(prepare={"frames": "frames-6", "max_frames": 6}))
    sizes = config.train.network.trunk.sizes
    assert sizes is not None
    openclip = {"sizes": sizes.model_dump(), "weights": str(config.work / "runs/xclip")}
    more = {"name": "more", "openclip": openclip, "prepared": "frames-6", "frames": 6, "words": 10}
    asking = world.config(score={"teachers": [more]})
    longest = next(
        video for video in FrameCache.open(config.work / "frames-6").usable if _frames_of(config, video) == 5
    )
    split = next(video.split for video in read_dataset(config.data).videos if video.id == longest)
    (query,) = frame_weights(asking, [TAUGHT], split=split, queries=[longest]).queries
    assert query.times == (0.0, 1.0, 2.0, 4.0)
    teacher = load_teacher(asking.score.teachers[0], None)
    clips = FrameCache.open(config.work / "frames-6").read([longest])
    seen = teacher.encode_videos(*map(torch.from_numpy, (clips.frames, clips.mask, clips.times)))
    logits = teacher.frame_logits(teacher.encode_texts([query.caption]), seen)
    assert logits is not None
    np.testing.assert_allclose(query.teacher, logits[0, [0, 1, 2, 4]].softmax(0), atol=1e-6)


def _frames_of(config: Config, video: str) -> int:
    return int(FrameCache.open(config.work / "frames-6").read([video]).mask.sum())


def test_queries_are_those_that_changed_most_one_of_a_video(found: FrameWeights, config: Config) -> None:
    assert len({query.video for query in found.queries}) == len(found.queries) == 4
    changes = [query.changed for query in found.queries]
    assert changes == sorted(changes, reverse=True)
    everything = frame_weights(config, [TAUGHT, UNTAUGHT], split="train", count=100)
    assert len(everything.queries) == 14
    first = everything.queries[0]
    assert first.text == found.queries[0].text
    difference = np.abs(np.subtract(first.runs["weights-taught"], first.runs["weights-untaught"])).sum() / 2
    assert first.changed == pytest.approx(difference, abs=1e-6)
    assert frame_weights(config, [TAUGHT], split="train", count=0).queries == ()


def test_queries_are_found_by_the_id_of_a_text_or_of_a_video(config: Config) -> None:
    found = frame_weights(config, [TAUGHT], split="train", queries=["clips/02.mp4#1", "clips/05.mp4"])
    assert [(query.text, query.video) for query in found.queries] == [
        ("clips/02.mp4#1", "clips/02.mp4"), ("clips/05.mp4#0", "clips/05.mp4"),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"clips/2\.mp4") as refused:
        frame_weights(config, [TAUGHT], split="train", queries=["clips/2.mp4"])
    assert "did you mean clips/" in str(refused.value)


def test_thumbnails_are_the_frames_that_the_student_sees(config: Config) -> None:
    (clip,) = FrameCache.open(config.frames_folder).read(["clips/02.mp4"]).frames
    found = thumbnails(config, "clips/02.mp4", size=32)
    assert found.dtype == np.uint8
    assert np.array_equal(found, clip.transpose(0, 2, 3, 1))
    assert thumbnails(config, "clips/02.mp4", size=8).shape == (4, 8, 8, 3)


@pytest.mark.parametrize(
    ("ask", "kind", "what"),
    [
        (lambda c: frame_weights(c, [MEAN]), CheckpointError, "mean pooling: it has no frame weights"),
        (lambda c: frame_weights(c, [Path("runs/xclip")]), CheckpointError, "a xclip: it has no frame weights"),
        (lambda c: frame_weights(c, []), ConfigError, "no run is named"),
        (lambda c: frame_weights(c, [TAUGHT], teacher="drl"), ConfigError, "does not name 'drl'"),
        (lambda c: frame_weights(c, [Path("runs/nothing")]), CheckpointError, "there is no such checkpoint"),
        (
            lambda c: frame_weights(
                c.model_copy(
                    update={
                        "score": c.score.model_copy(update={"teachers": ()}),
                        "train": c.train.model_copy(update={"teachers": ()}),
                    }
                ),
                [TAUGHT],
            ),
            ConfigError,
            "neither train.teachers nor score.teachers",
        ),
    ],
)
def test_what_has_no_weights_is_refused(
    config: Config, ask: Callable[[Config], object], kind: type[TeachclipError], what: str
) -> None:
    with pytest.raises(kind, match=what):
        ask(config)


def test_a_teacher_without_frame_scores_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teachclip.stages.models.teachers.xclip.XClip.frame_logits", lambda *_: None)
    with pytest.raises(ConfigError, match="xclip has no frame scores"):
        frame_weights(config, [TAUGHT], split="test")


VALID = np.array([[True, True, True, False], [True, True, False, False]])
TARGET = np.array([[0.5, 0.3, 0.2, 0.0], [0.9, 0.1, 0.0, 0.0]])


def test_equal_weights_are_as_close_as_can_be_whatever_stands_in_padding() -> None:
    with_padding = TARGET + ~VALID * 7.0
    assert closeness("same", with_padding, TARGET, VALID) == Closeness("same", *map(pytest.approx, (1, 1, 0, 1)))


def test_closeness_by_hand() -> None:
    weights = np.array([[0.2, 0.3, 0.5, 0.0], [0.6, 0.4, 0.0, 0.0]])
    found = closeness("other", weights, TARGET, VALID)
    pearson = [np.corrcoef(weights[k, :n], TARGET[k, :n])[0, 1] for k, n in ((0, 3), (1, 2))]
    assert found.pearson == pytest.approx(np.mean(pearson))
    assert found.spearman == pytest.approx((-1 + 1) / 2)
    divergence = 0.5 * np.log(0.5 / 0.2) + 0.2 * np.log(0.2 / 0.5) + 0.9 * np.log(0.9 / 0.6) + 0.1 * np.log(0.1 / 0.4)
    assert found.kl == pytest.approx(divergence / 2)
    assert found.top1 == 0.5
    uniform = closeness("uniform", softmax_over(VALID, np.zeros(VALID.shape)), TARGET, VALID)
    assert uniform.top1 == pytest.approx((1 / 3 + 1 / 2) / 2)  # by chance


def test_ties_share_their_rank() -> None:
    values = np.array([[3.0, 1.0, 3.0, 99.0]])
    assert ranks(values, np.array([[True, True, True, False]])).tolist() == [[2.5, 1.0, 2.5, 0.0]]


def test_many_rows_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    weights, target = random.random((2, 50, 4))
    valid = np.arange(4) < random.integers(2, 5, (50, 1))
    whole = closeness("a", weights, target, valid)
    monkeypatch.setattr("teachclip.stages.analysis.closeness.ROWS_AT_ONCE", 7)
    blocks = closeness("a", weights, target, valid)
    assert [blocks.pearson, blocks.spearman, blocks.kl, blocks.top1] == pytest.approx(
        [whole.pearson, whole.spearman, whole.kl, whole.top1]
    )
