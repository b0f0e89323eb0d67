"""A tiny model of every family from videos to an answer: as zero-shot teacher, as the student's trunk, frozen too."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from teachclip.configs.schema import Config, TrunkConfig
from teachclip.errors import CacheError, CheckpointError
from teachclip.stages.analysis.cost.memory import training_memory
from teachclip.stages.analysis.cost.network import count_network
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.models.checkpoints.files import load_network
from teachclip.stages.models.clip.catalog import resolved
from teachclip.stages.models.clip.loading import build_trunk
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.score.stage import score
from teachclip.stages.search.index import index
from teachclip.stages.search.stage import search
from teachclip.stages.train.stage import train
from torch import nn

SPLITS = ("train", "train", "train", "train", "val", "test")
SQUASHED = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
Theirs = Callable[[str], nn.Module]


@pytest.fixture
def config(collection: Any, family: str, theirs: Theirs, tmp_path: Path) -> Callable[..., Config]:
    """`config(prepare={...}, train={...})`: six clips with a caption each, and weights of the family's model."""
    for k in range(len(SPLITS)):
        collection.clip(f"{k}.mp4", first=10 * k)
    with (collection.root / "captions.csv").open("w", newline="") as file:
        rows = [(f"{k}.mp4", f"clip number {k} is shown", split) for k, split in enumerate(SPLITS)]
        csv.writer(file).writerows([("video", "caption", "split"), *rows])
    torch.save(theirs(family).state_dict(), tmp_path / "weights.bin")
    trunk: dict[str, Any] = {"model": f"tiny {family}", "weights": str(tmp_path / "weights.bin")}
    size = theirs(family).visual.image_size
    size = size if isinstance(size, int) else size[0]

    def make(prepare: dict[str, Any] | None = None, trunk: dict[str, Any] = trunk, **train_section: Any) -> Config:
        network = {"trunk": trunk, "words": 8, "frames": 3, "temporal_layers": 1}
        frames = {"image_size": size, "max_frames": 3, "workers": 1, **(prepare or {})}
        settings = {"network": network, "batch_size": 4, "max_steps": 2, "optim": {"lr": 1e-3}, "device": "cpu"}
        return Config.model_validate(
            {
                "work": tmp_path / "work",
                "data": {"captions": collection.root / "captions.csv", "videos": collection.videos},
                "prepare": frames,
                "score": {
                    "teachers": [{"name": "zero", "openclip": trunk, "frames": 3}],
                    "chance_check": False,
                    "device": "cpu",
                },
                "train": settings | {"teachers": ["zero"]} | train_section,
            }
        )

    return make


def test_from_videos_to_an_answer(config: Callable[..., Config], family: str) -> None:
    made = config()
    prepare(made)
    score(made)
    assert train(made).steps == 2
    network = load_network(made.run_folder)
    assert network.config.trunk.model == f"tiny {family}"
    assert evaluate(made).texts == 1
    index(made)
    assert len(search(made, ["clip number 3"]).queries[0].answers) == 5
    whole = made.train.model_copy(update={"trunk": "frozen", "run": Path("runs/frozen")})
    frozen = made.model_copy(update={"train": whole})
    train(frozen)
    tower = load_network(frozen.run_folder).trunk.visual.state_dict()
    given = build_trunk(made.train.network.trunk).visual.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in tower.items())


@pytest.mark.parametrize("family", ["EVA"])
def test_frames_that_were_resized_otherwise_are_refused_with_those_that_fit(config: Callable[..., Config]) -> None:
    trunk = config().train.network.trunk.model_dump() | {"pixels": SQUASHED}
    usual, squashed = config(trunk=trunk), config({"resize_mode": "squash", "interpolation": "bilinear"}, trunk=trunk)
    prepare(usual)
    with pytest.raises(CheckpointError, match="squash, bilinear; these are by shortest, bicubic"):
        score(usual)
    with pytest.raises(CacheError) as refusal:
        train(usual.model_copy(update={"train": usual.train.model_copy(update={"teachers": ()})}))
    said = refusal.value
    assert "prepare.resize_mode: the network takes squash, the frames have shortest" in said.details
    assert said.hint.action.settings == {
        "prepare.max_frames": 3,
        "prepare.image_size": 32,
        "prepare.resize_mode": "squash",
        "prepare.interpolation": "bilinear",
        "prepare.frames": "frames-3x32-squash-bilinear",
    }
    there = squashed.model_copy(
        update={"prepare": squashed.prepare.model_copy(update={"frames": Path("frames-3x32-squash-bilinear")})}
    )
    prepare(there)
    score(there)
    train(there)
    assert load_network(there.run_folder).trunk.pixels.resize_mode == "squash"


def test_what_it_costs_is_counted_frozen_and_whole(config: Callable[..., Config]) -> None:
    settings = config().train
    found = count_network(settings.network)
    assert min(found.parameters, found.video, found.text, found.pair) > 0
    whole = training_memory("whole", settings, "float32", torch.device("cpu"))
    frozen = training_memory("frozen", settings.model_copy(update={"trunk": "frozen"}), "float32", torch.device("cpu"))
    assert frozen.parameters == whole.parameters
    assert 0 < frozen.trained < whole.trained
    assert 0 < frozen.saved < whole.saved


def test_trunks_that_want_the_same_stored_pixels_share_frames() -> None:
    """Their mean and standard deviation are nobody's business but the device's."""
    tags = ("laion2b_s32b_b82k", "openai")
    one, other = (resolved(TrunkConfig(model="ViT-L-14", weights=tag)).pixels for tag in tags)
    assert one.mean != other.mean
    assert (one.resize_mode, one.interpolation) == (other.resize_mode, other.interpolation)
