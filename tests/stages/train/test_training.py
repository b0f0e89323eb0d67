"""Stage two: what is learned, from what, and that it goes on where it was left."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from teachclip.cache.training_state import load_state, save_state
from teachclip.configs.loading import dump_config, load_config
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, CacheMismatchError, CheckpointError, DataError, TrainingError
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.run import TrainResult
from teachclip.stages.train.stage import train

LOSSES = ("loss", "infonce", "coarse", "fine")


class Heard(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)


def losses(config: Config) -> list[list[float]]:
    """The losses of every step of a run."""
    lines = RunFolder(config.run_folder).metrics()
    return [[line[key] for key in LOSSES] for line in lines if line["kind"] == "train"]


def tree(folder: Path) -> dict[str, str]:
    """Content hashes of all files below `folder`."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_cached_scores_teach_as_the_teacher_in_the_step_does(world: Any) -> None:
    published = {"teachers": ["xclip"], "optim": {"lr": 1e-4, "trunk_lr": 1e-7, "afa_lr": 1e-3}}
    online = world.config(train={"run": "runs/teacher-in-the-step", "teaching": "online", **published})
    exact = world.config(train={"run": "runs/exact-scores", **published}, score={"store": "exact.zarr"})
    coded = world.config(train={"run": "runs/coded-scores", **published})
    for config in (online, exact, coded):
        train(config)
    assert len(losses(online)) == 6
    torch.testing.assert_close(torch.tensor(losses(exact)), torch.tensor(losses(online)), rtol=1e-6, atol=1e-6)
    # 16-bit codes move the coarse loss by at most 1e-4 relative (DESIGN section 2).
    torch.testing.assert_close(torch.tensor(losses(coded)), torch.tensor(losses(online)), rtol=1e-4, atol=1e-6)
    assert losses(coded) != losses(exact)


def test_the_student_learns_and_the_teacher_changes_what_it_learns(world: Any) -> None:
    settings = {"epochs": 20, "optim": {"lr": 1e-3, "trunk_lr": 1e-3, "weight_decay": 0.0}}
    alone = world.config(train={**settings, "run": "runs/alone"})
    taught = world.config(train={**settings, "run": "runs/taught", "teachers": ["xclip"]})
    result = train(alone)
    train(taught)
    assert losses(alone)[-1][0] < 0.7 * losses(alone)[0][0]
    assert losses(taught)[-1][2] < losses(taught)[0][2], "the coarse loss falls"
    assert all(line[2] == line[3] == 0 for line in losses(alone))
    assert result.best["chosen_by"] == "sumr (text to video) on the validation split"
    assert result.left_out_videos == 1


def test_without_validation_videos_the_last_network_is_kept_and_finds_what_it_was_trained_on(
    world: Any, tmp_path: Path
) -> None:
    rows = (world.root / "captions.csv").read_text().splitlines()
    captions = tmp_path / "captions.csv"
    captions.write_text("\n".join([rows[0], *(row for row in rows if row.endswith(",train"))]))
    data = {"captions": captions, "videos": world.root, "val_fraction": 0.0}
    settings = {"epochs": 20, "optim": {"lr": 1e-3, "trunk_lr": 1e-3, "weight_decay": 0.0}}
    result = train(world.config(data=data, train={**settings, "run": "runs/no-val"}))
    assert result.best["chosen_by"] == "last step: there is no validation split"
    found = evaluate(world.config(data=data, evaluate={"run": "runs/no-val", "split": "train"}))
    assert found.videos == result.videos == 14
    assert found.t2v["r1"] > 50, "chance is 7"


def test_the_chosen_network_is_the_best_on_validation(world: Any) -> None:
    config = world.config(train={"run": "runs/choice", "epochs": 6})
    result = train(config)
    lines = [line for line in RunFolder(config.run_folder).metrics() if line["kind"] == "val"]
    best = max(lines, key=lambda line: line["t2v"]["sumr"])
    assert result.best["step"] == best["step"]
    again = evaluate(world.config(evaluate={"run": "runs/choice", "split": "val"}))
    assert again.t2v == pytest.approx(best["t2v"])


@pytest.mark.parametrize("trunk", ["full", "frozen"])
def test_a_stopped_run_goes_on_to_the_same_weights(world: Any, train_until: Any, trunk: str) -> None:
    settings = {"trunk": trunk, "teachers": ["xclip"], "epochs": 4}
    whole = world.config(train={**settings, "run": f"runs/whole-{trunk}"})
    stopped = world.config(train={**settings, "run": f"runs/stopped-{trunk}"})
    train(whole)
    for step in (7, 4):
        train_until(stopped, step)
    train(stopped)
    first, second = (load_file(config.run_folder / "best.safetensors") for config in (whole, stopped))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert losses(whole) == losses(stopped)


def test_a_finished_run_is_reported_and_not_repeated(world: Any) -> None:
    config = world.config(train={"run": "runs/done", "max_steps": 2})
    first = train(config)
    before = tree(config.run_folder)
    second = train(config)
    assert not first.already_done
    assert second == TrainResult(**{**vars(first), "already_done": True})
    assert tree(config.run_folder) == before
    with pytest.raises(CacheMismatchError, match=r"train\.seed"):
        train(world.config(train={"run": "runs/done", "max_steps": 2, "seed": 1}))


def test_a_run_that_failed_before_it_began_may_be_mended(world: Any) -> None:
    with pytest.raises(CacheError, match="do not fit"):
        train(world.config(train={"run": "runs/mended", "network": {"frames": 6}, "max_steps": 1}))
    assert train(world.config(train={"run": "runs/mended", "max_steps": 1})).steps == 1


def test_a_folder_of_something_else_is_no_run(world: Any, tmp_path: Path) -> None:
    """Nothing is written beside a user's videos, and nobody is told to delete them."""
    clips = world.root / "clips"
    before = sorted(clips.iterdir())
    with pytest.raises(TrainingError, match=r"something else than a run: 00\.mp4 and more"):
        train(world.config(train={"run": str(clips), "teachers": [], "max_steps": 1}))
    assert sorted(clips.iterdir()) == before
    config = world.config(train={"run": str(tmp_path / "run"), "teachers": [], "max_steps": 1})
    (tmp_path / "run").mkdir()
    (tmp_path / "run/slurm-1.out").write_text("what the queue says")
    (tmp_path / "run/Thumbs.db").touch()
    train(config)
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 9})})
    with pytest.raises(CacheMismatchError) as told:
        train(other)
    assert "start this one again" in str(told.value.hint)
    (tmp_path / "run/dog.mp4").touch()
    with pytest.raises(CacheMismatchError) as told:
        train(other)
    assert "again" not in str(told.value.hint)


def test_captions_without_a_training_split_are_told(world: Any, tmp_path: Path) -> None:
    text = (world.root / "captions.csv").read_text().replace(",train", ",val")
    (world.root / "val-only.csv").write_text(text)
    config = world.config(data={"captions": world.root / "val-only.csv"}, train={"run": "runs/none", "teachers": []})
    with pytest.raises(DataError, match="no caption is of the split train"):
        train(config)


@pytest.mark.parametrize("recipe", ["official", "paper", "default"])
def test_every_recipe_trains_a_taught_student(world: Any, tmp_path: Path, recipe: str) -> None:
    small = dump_config(world.config(train={"run": f"runs/{recipe}", "teachers": ["xclip"], "max_steps": 3}))
    sizes = yaml.safe_load(small)
    train_section = {key: sizes["train"][key] for key in ("run", "teachers", "max_steps", "device")}
    network = {key: sizes["train"]["network"][key] for key in ("trunk", "words", "frames", "temporal_layers")}
    mine = {**sizes, "train": {**train_section, "network": network, "batch_size": 8}, "extends": f"recipes/{recipe}"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(mine))
    config, heard = load_config(path), Heard()
    assert train(config, heard).steps == 3
    assert any("InfoNCE weighs 1 and coarse teaching 1" in line for line in heard.said) == (recipe == "paper")
    assert config.train.optim.optimiser == {"official": "bert-adam", "paper": "adam", "default": "adamw"}[recipe]
    assert all(value > 0 for line in losses(config) for value in line)


def test_frozen_trunk_computes_what_the_full_network_does(world: Any) -> None:
    frozen = world.config(train={"run": "runs/first-frozen", "trunk": "frozen", "max_steps": 1})
    full = world.config(train={"run": "runs/first-full", "max_steps": 1})
    for config in (frozen, full):
        train(config)
    torch.testing.assert_close(torch.tensor(losses(frozen)), torch.tensor(losses(full)), rtol=1e-5, atol=1e-6)


def test_a_frozen_trunk_stays_as_it_was_and_the_rest_moves(world: Any) -> None:
    short = world.config(train={"run": "runs/frozen-1", "trunk": "frozen", "max_steps": 1})
    long = world.config(train={"run": "runs/frozen-6", "trunk": "frozen", "epochs": 4, "max_steps": 6})
    for config in (short, long):
        train(config)
    first, last = (load_file(config.run_folder / "best.safetensors") for config in (short, long))
    moved = {key for key in first if not torch.equal(first[key], last[key])}
    blocks = {key for key in first if "visual.transformer" in key or "visual.conv1" in key}
    assert blocks
    assert not blocks & moved
    assert any(key.startswith("temporal") for key in moved)


def test_mean_pooling_is_taught_coarse_only(world: Any) -> None:
    network = {"pooling": "mean"}
    config = world.config(
        train={"run": "runs/meanp", "network": network, "teachers": ["xclip"], "loss": {"fine": 0.0}, "max_steps": 2}
    )
    train(config)
    assert losses(config)[0][2] > 0
    with pytest.raises(ValueError, match=r"train\.loss\.fine"):
        world.config(train={"network": network, "teachers": ["xclip"]})


def test_a_loss_that_is_not_finite_stops_the_run_naming_the_videos(world: Any) -> None:
    config = world.config(train={"run": "runs/explodes", "optim": {"lr": 1e30, "trunk_lr": 1e30, "warmup": 0.0}})
    with pytest.raises(TrainingError, match="not finite") as caught:
        train(config)
    assert "clips/" in caught.value.details[0]


SCRIPT = """
import pathlib
import sys
from teachclip.configs.loading import load_config
from teachclip.stages.train.stage import train
TEACHERS = (".xclip", ".teachers", ".score", ".scoring")
train(load_config(pathlib.Path(sys.argv[1])))
print([name for name in sys.modules if name.startswith("teachclip.stages") and name.endswith(TEACHERS)])
"""


def run_script(config: Config) -> "subprocess.CompletedProcess[str]":
    path = config.work / f"{config.run_folder.name}.yaml"
    path.write_text(dump_config(config))
    command = [sys.executable, "-c", SCRIPT, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_two_different_students_train_at_once_from_one_cache_and_no_teacher_runs(world: Any) -> None:
    other_trunk = {"trunk": {"sizes": {**TRUNK_SIZES, "vision_width": 128, "embed_dim": 128}, "weights": None}}
    configs = [
        world.config(train={"run": "runs/student-a", "teachers": ["xclip"]}),
        world.config(
            train={"run": "runs/student-b", "teachers": ["xclip"], "seed": 7, "batch_size": 5, "network": other_trunk}
        ),
    ]
    before = tree(world.root / "work/scores.zarr")
    with ThreadPoolExecutor(2) as pool:
        finished = list(pool.map(run_script, configs))
    for config, process in zip(configs, finished, strict=True):
        assert process.returncode == 0, process.stderr
        assert process.stdout.strip() == "[]"
        assert json.loads((config.run_folder / "result.json").read_text())["teachers"] == ["xclip"]
    assert tree(world.root / "work/scores.zarr") == before


TRUNK_SIZES = {
    "image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 2,
    "text_width": 16, "text_layers": 1, "embed_dim": 64, "context_length": 16,
}  # fmt: skip


def test_state_survives_the_disk_and_damage_is_noticed(tmp_path: Path) -> None:
    state = {"step": 3, "best": {"value": 1.5, "by": "sumr"}, "m": [torch.arange(3), {0: torch.ones(2)}], "none": None}
    path = tmp_path / "last.state"
    save_state(path, state)
    loaded = load_state(path)
    assert loaded["best"] == state["best"]
    assert torch.equal(loaded["m"][1][0], torch.ones(2))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(path)
