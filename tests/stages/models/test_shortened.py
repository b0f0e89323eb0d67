"""Vectors cut short: the first numbers at unit length, named with their length, never compared with others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.configs.loading import load_config
from teachclip.errors import CheckpointError
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.models.named import named_model
from teachclip.stages.models.shortened import split_width
from teachclip.stages.train.stage import train
from torch.nn import functional

SENTENCES = ["clip number 2", "something else"]


@pytest.fixture(scope="module")
def run(world: Any) -> Path:
    """A student that was trained so that its vectors can be cut to 24 numbers."""
    settings = {"run": "runs/short", "max_steps": 2, "tensorboard": False, "loss": {"matryoshka": [24]}}
    train(world.config(train=settings))
    return Path(world.root / "work/runs/short")


def test_a_name_with_a_length(tmp_path: Path) -> None:
    assert split_width("runs/short@64") == ("runs/short", 64)
    assert split_width("openclip:ViT-B-32/openai@128") == ("openclip:ViT-B-32/openai", 128)
    assert split_width("runs/short") == ("runs/short", None)
    assert split_width("me@home/student") == ("me@home/student", None)
    (tmp_path / "run@64").mkdir()
    assert split_width(tmp_path / "run@64") == (str(tmp_path / "run@64"), None)


def test_one_beside_the_configuration_is_found(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("evaluate: {run: student@64}\nsearch: {run: other@64}\n")
    (tmp_path / "student").mkdir()
    config = load_config(tmp_path / "own.yaml")
    assert config.evaluate_run == tmp_path / "student@64"
    assert config.search_run == config.work / "other@64"


def test_vectors_are_the_first_numbers(run: Path) -> None:
    whole, short = named_model(run), named_model(f"{run}@24")
    assert short.digest != whole.digest
    assert "24 numbers" in short.description
    frames = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8)
    mask = torch.ones(3, 4, dtype=torch.bool)
    with torch.no_grad():
        for encode in (
            lambda network: network.encode_texts(whole.tokenize(SENTENCES)[0])["vector"],
            lambda network: network.encode_videos(frames, mask)["vector"],
        ):
            expected = functional.normalize(encode(whole.network)[:, :24], dim=-1)
            torch.testing.assert_close(encode(short.network), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [0, 65, 1000])
def test_a_length_that_it_has_not(run: Path, width: int) -> None:
    with pytest.raises(CheckpointError, match=f"cannot be cut to {width}"):
        named_model(f"{run}@{width}")


def test_a_teacher_has_no_vector_to_cut(world: Any) -> None:
    config = world.config(evaluate={"run": "runs/xclip@16"})
    with pytest.raises(CheckpointError, match="kind xclip has no single vector"):
        evaluate(config)


def test_what_is_measured_of_short_vectors_lies_beside(world: Any, run: Path) -> None:
    whole = evaluate(world.config(evaluate={"run": "runs/short"}))
    kept = (run / "evaluation-test.json").read_bytes()
    short = evaluate(world.config(evaluate={"run": "runs/short@64"}))
    assert short.t2v == whole.t2v
    assert short.ranks is not None
    assert short.ranks.endswith("ranks-test-at-64.npz")
    assert (run / "evaluation-test.json").read_bytes() == kept
    assert np.load(short.ranks, allow_pickle=False)
