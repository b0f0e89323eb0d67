"""Videos without captions in the coarse loss: what a step sees, that a run goes on to the same, what is refused."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config
from teachclip.errors import CacheMismatchError, ConfigError
from teachclip.remedies import Change
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.dataloader.unlabelled import UnlabelledSampler
from teachclip.stages.train.run import TrainRun
from teachclip.stages.train.stage import train
from teachclip.stages.train.training_data import TrainingData, open_training_data

LOSSES = ("loss", "infonce", "coarse", "fine", "grad_norm")
U = 4


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def few(world: Any) -> Path:
    """A caption file of the same world in which 6 of the 14 training videos that can be used have no caption."""
    path: Path = world.root / "few.csv"
    with (world.root / "captions.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    train = list(dict.fromkeys(video for video, _, split in rows if split == "train" and "broken" not in video))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows((video, "" if video in train[::2][:6] else caption, split) for video, caption, split in rows)
    return path


def student(world: Any, few: Path, run: str, u: int = U, **settings: Any) -> Config:
    values = {"run": f"runs/unlabelled-{run}", "teachers": ["xclip"], "unlabelled": u, "max_steps": 5, **settings}
    made: Config = world.config(
        data={"captions": few, "uncaptioned": "train"}, score={"store": "exact.zarr"}, train=values
    )
    return made


def losses(config: Config) -> torch.Tensor:
    lines = [line for line in RunFolder(config.run_folder).metrics() if line["kind"] == "train"]
    return torch.tensor([[line[key] for key in LOSSES] for line in lines], dtype=torch.float64)


def weights(config: Config) -> dict[str, torch.Tensor]:
    return load_file(config.run_folder / "best.safetensors")


def data_of(config: Config) -> TrainingData:
    return open_training_data(config, Silent())


# What is drawn


def test_the_draw_is_of_seed_and_step_alone() -> None:
    draws = UnlabelledSampler(5, 3, [np.arange(10, 40)])
    first = [draws.draw(step, np.array([step])) for step in range(50)]
    again = UnlabelledSampler(5, 3, [np.arange(10, 40)])
    assert all(np.array_equal(again.draw(step, np.array([7, 8])), first[step]) for step in reversed(range(50)))
    assert all(len(set(each.tolist())) == 5 for each in first)
    assert set(np.concatenate(first).tolist()) == set(range(10, 40))
    assert len({tuple(each) for each in first}) == 50
    assert not np.array_equal(UnlabelledSampler(5, 4, [np.arange(10, 40)]).draw(0, np.array([0])), first[0])


def test_the_draw_is_from_the_group_of_the_texts() -> None:
    draws = UnlabelledSampler(2, 0, [np.array([5, 6]), np.array([7, 8, 9])], np.array([1, 0, 1]))
    assert sorted(draws.draw(0, np.array([1])).tolist()) == [5, 6]
    assert set(draws.draw(0, np.array([2, 0])).tolist()) < {7, 8, 9}


def test_they_are_no_videos_with_captions_of_any_split(world: Any, few: Path) -> None:
    config = student(world, few, "data")
    data = data_of(config)
    captioned = {video.id for video in read_dataset(config.data).videos}
    assert len(data.unlabelled.videos) == 6
    assert not captioned & set(data.unlabelled.videos)
    assert data.videos == (*data.train.videos, *data.unlabelled.videos)
    assert data.draws is not None
    assert [each.tolist() for each in data.draws.candidates] == [list(range(8, 14))]
    none = data_of(student(world, few, "data", 0))
    assert (none.videos, none.draws) == (none.train.videos, None)


# What a step sees


def test_a_batch_holds_them_behind_its_pairs(world: Any, few: Path) -> None:
    config = student(world, few, "batch")
    data = data_of(config)
    run = TrainRun(config, data, RunFolder(config.run_folder), Silent())
    frames = FrameCache.open(config.frames_folder)
    for item in run.sampler.steps(0, 2):
        batch = run.read(item)
        named = [data.videos[k] for k in batch.columns]
        assert (len(batch.ids), len(batch.frames), len(named)) == (8, 8 + U, 8 + U)
        np.testing.assert_array_equal(batch.frames.numpy(), frames.read(named).frames)
        np.testing.assert_array_equal(batch.encoded, batch.columns)
        expected = data.cached[0].reader.read(batch.texts, batch.columns).coarse
        np.testing.assert_array_equal(batch.labels[0].coarse.numpy(), expected)
        assert batch.labels[0].coarse.shape == (8, 8 + U)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_processes_share_them(world: Any, few: Path, ranks: int) -> None:
    from dataclasses import replace

    config = student(world, few, "ranks")
    run = TrainRun(config, data_of(config), RunFolder(config.run_folder), Silent())
    item = next(run.sampler.steps(0, 1))
    whole = run.read(item)
    parts = [replace(run.read, rank=rank, ranks=ranks)(item) for rank in range(ranks)]
    pairs = torch.cat([part.frames[: len(part.ids)] for part in parts])
    further = torch.cat([part.frames[len(part.ids) :] for part in parts])
    assert torch.equal(torch.cat([pairs, further]), whole.frames)
    assert torch.equal(torch.cat([part.labels[0].coarse for part in parts]), whole.labels[0].coarse)
    assert all(np.array_equal(part.unlabelled, whole.unlabelled) for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.encoded[len(part.ids) :] for part in parts]), whole.unlabelled)


def pearson(student: np.ndarray, teacher: np.ndarray) -> float:
    """1 - correlation of the softmaxes of two rows."""
    one, other = (np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in (student, teacher))
    return float(1 - np.corrcoef(one, other)[0, 1])


def test_the_coarse_loss_is_that_of_the_rectangle_and_the_others_do_not_see_it(world: Any, few: Path) -> None:
    config = student(world, few, "by-hand", precision="float32")
    run = TrainRun(config, data_of(config), RunFolder(config.run_folder), Silent())
    network = run.network
    network.train()
    batch = run.read(next(run.sampler.steps(0, 1)))
    with torch.no_grad():
        texts, videos = network.encode_texts(batch.ids), network.encode_videos(batch.frames, batch.mask)
        logits = (network.logit_scale.exp() * network.score(texts, videos)).double().numpy()
    taught = (batch.labels[0].coarse * batch.labels[0].scale).double().numpy()
    rows = np.mean([pearson(logits[k], taught[k]) for k in range(8)])
    columns = np.mean([pearson(logits[:, k], taught[:, k]) for k in range(8 + U)])
    parts = run.step(batch).parts
    assert float(parts.coarse) == pytest.approx(rows + columns, abs=2e-5)
    without = student(world, few, "by-hand-none", 0, precision="float32")
    plain = TrainRun(without, data_of(without), RunFolder(without.run_folder), Silent())
    plain.network.train()
    alone = plain.step(plain.read(next(plain.sampler.steps(0, 1)))).parts
    assert float(parts.infonce) == pytest.approx(float(alone.infonce), rel=1e-6)
    assert float(parts.fine) == pytest.approx(float(alone.fine), rel=1e-6)
    assert abs(float(parts.coarse) - float(alone.coarse)) > 1e-3


def test_a_run_is_taught_by_them(world: Any, few: Path) -> None:
    config, heard = student(world, few, "taught"), Heard()
    result = train(config, heard)
    assert (result.texts, result.videos) == (16, 8)
    assert "each step sees 4 of 6 videos without captions" in heard.said
    without = student(world, few, "not-taught", 0)
    train(without)
    runs = [json.loads((each.run_folder / "run.json").read_text()) for each in (config, without)]
    assert runs[0].keys() - runs[1].keys() == {"train.unlabelled", "data.videos without captions"}
    assert (losses(config)[:, 2] != losses(without)[:, 2]).all()


# Where and how


def same(one: Config, other: Config) -> None:
    assert torch.equal(losses(one), losses(other))
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_killed_run_goes_on_to_the_same_bits(world: Any, few: Path, train_until: Any) -> None:
    whole, cut = (student(world, few, name, epochs=4, max_steps=None) for name in ("whole", "cut"))
    train(whole)
    train_until(cut, 3)
    train(cut)
    same(whole, cut)


@pytest.mark.parametrize("settings", [{"frames": "host"}, {"label_reader": "process"}, {"prefetch": 1}])
def test_how_it_is_read_changes_nothing(world: Any, few: Path, settings: dict[str, Any]) -> None:
    plain, other = student(world, few, "plain"), student(world, few, f"read-{next(iter(settings))}", **settings)
    train(plain)
    train(other)
    same(plain, other)


def test_a_frozen_trunk_has_their_tokens_cached(world: Any, few: Path) -> None:
    config = student(world, few, "frozen", trunk="frozen")
    train(config)
    tokens = TrainRun(config, data_of(config), RunFolder(config.run_folder), Silent()).train_inputs
    assert list(tokens.videos) == list(data_of(config).videos)
    full = student(world, few, "frozen-full", trunk="frozen")
    run = TrainRun(full, data_of(full), RunFolder(full.run_folder), Silent())
    frames, mask, _ = tokens.read(np.array([2, 9]))
    named = [tokens.videos[2], tokens.videos[9]]
    clips = FrameCache.open(config.frames_folder).read(named)
    with torch.no_grad():
        made = run.network.class_tokens(torch.from_numpy(clips.frames), torch.from_numpy(clips.mask))
    torch.testing.assert_close(frames, made, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mask.numpy(), clips.mask)


def test_cached_and_online_agree(world: Any, few: Path) -> None:
    lrs = {"optim": {"lr": 1e-4, "trunk_lr": 1e-7}}
    cached, online = (student(world, few, way, teaching=way, **lrs) for way in ("cached", "online"))
    train(cached)
    train(online)
    torch.testing.assert_close(losses(cached), losses(online), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("teachers", ["mean", "sum", "mean-similarity"])
def test_several_teachers_teach_with_them(world: Any, few: Path, teachers: str) -> None:
    both = [{"name": name, "checkpoint": "runs/xclip"} for name in ("xclip", "other")]
    store = {"store": "two.zarr", "teachers": both, "coarse": "float32"}
    score(world.config(score=dict(store)))
    loss = {"teachers": teachers, "one_scale": "standardised"}
    config = student(world, few, f"two-{teachers}", teachers=["xclip", "other"], loss=loss)
    config = config.model_copy(update={"score": config.score.model_copy(update={"store": Path("two.zarr")})})
    train(config)
    one = student(world, few, "one-of-two")
    train(one)
    factor = 2.0 if teachers == "sum" else 1.0
    torch.testing.assert_close(losses(config)[0, 2], factor * losses(one)[0, 2], rtol=1e-4, atol=1e-5)


def test_a_batch_of_a_block_has_those_of_its_block(world: Any, few: Path) -> None:
    blocks = {"layout": "blocks", "block_videos": 4, "store": "few-blocks.zarr", "coarse": "float32"}
    data = {"captions": few, "uncaptioned": "train"}
    score(world.config(data=dict(data), score=dict(blocks)))
    config = student(world, few, "blocks", 3)
    config = config.model_copy(update={"score": config.score.model_copy(update={"store": Path("few-blocks.zarr")})})
    opened = data_of(config)
    assert opened.draws is not None
    assert [len(each) for each in opened.draws.candidates] == [3, 3]
    assert sorted(np.concatenate(opened.draws.candidates).tolist()) == list(range(8, 14))
    result = train(config)
    assert result.blocks == 2
    many = config.model_copy(update={"train": config.train.model_copy(update={"unlabelled": 4})})
    with pytest.raises(ConfigError, match=r"train.unlabelled is 4, but a block of videos has 3 without captions"):
        data_of(many)


def test_one_hot_targets_take_them_as_further_wrong_answers(world: Any, few: Path) -> None:
    """The control without a teacher."""
    config = student(world, few, "one-hot", teachers=[], loss={"coarse_target": "one-hot"})
    train(config)
    assert (losses(config)[:, 2] > 0).all()


# What is refused


def test_more_than_there_are_is_refused(world: Any, few: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.unlabelled is 7, but there are 6 videos without captions") as caught:
        data_of(student(world, few, "many", 7))
    assert caught.value.hint.actions == (Change({"train.unlabelled": 6}),)  # type: ignore[union-attr]


REFUSED: Sequence[tuple[dict[str, Any], dict[str, Any], str]] = (
    ({"uncaptioned": "report"}, {}, "there are no videos without captions"),
    ({}, {"loss": {"coarse": 0}}, "in the coarse loss alone, and train.loss.coarse is 0"),
    ({}, {"teachers": []}, "nobody says how captions fit videos that have none"),
    ({}, {"teachers": [], "network": {"kind": "xclip"}}, "nobody says how captions fit videos that have none"),
    ({}, {"unlabelled": -1}, "greater than or equal to 0"),
)


@pytest.mark.parametrize(("data", "settings", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(
    world: Any, few: Path, data: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    values = {"teachers": ["xclip"], "unlabelled": 2, **settings}
    with pytest.raises(ValidationError, match=message):
        world.config(data={"captions": few, "uncaptioned": "train", **data}, train=values)


def test_a_run_is_gone_on_with_by_the_same_videos_only(world: Any, few: Path, train_until: Any) -> None:
    config = student(world, few, "identity", epochs=4, max_steps=None)
    train_until(config, 3)
    with pytest.raises(CacheMismatchError, match=r"train\.unlabelled"):
        train(student(world, few, "identity", 3, epochs=4, max_steps=None))
    fewer = few.with_name("fewer.csv")
    rows = few.read_text().splitlines()
    last = [row for row in rows if ",," in row][-1].split(",")[0]
    fewer.write_text("\n".join(row for row in rows if not row.startswith(last)))
    with pytest.raises(CacheMismatchError, match="videos without captions"):
        train(student(world, fewer, "identity", epochs=4, max_steps=None))


def test_videos_that_no_teacher_has_scored_are_named(world: Any, few: Path) -> None:
    alone = {"captions": few}
    rows = few.read_text().splitlines()
    captioned = few.with_name("captioned.csv")
    captioned.write_text("\n".join(row for row in rows if ",," not in row))
    score(world.config(data={"captions": captioned}, score={"store": "captioned.zarr"}))
    config = student(world, alone["captions"], "unscored")
    config = config.model_copy(update={"score": config.score.model_copy(update={"store": Path("captioned.zarr")})})
    with pytest.raises(CacheMismatchError, match="6 videos have no scores"):
        data_of(config)
