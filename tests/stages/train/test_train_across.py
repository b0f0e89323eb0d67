"""Any teacher teaches any student: X-CLIP on pixels one on experts, and that one a student on pixels."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, ConfigError
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.features.stage import features
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

EXPERTS = {"modalities": {"scene": {"width": 5}}, "shared": 8}
TEXT = {"encoder": "w2v", "width": 4, "words": 3, "clusters": 2}
NETWORK = {"kind": "ce", "experts": {**EXPERTS, "text": TEXT}}
STANDARDISED = {"coarse_kind": "huber", "coarse_on": "standardised", "fine": 0.0}


@pytest.fixture(scope="module")
def section(world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Features of the tiny world's videos, but for one that has none, and words of its captions."""
    folder, random = tmp_path_factory.mktemp("files"), np.random.default_rng(1)
    with (world.root / "captions.csv").open(newline="") as file:
        videos = dict.fromkeys(row["video"] for row in csv.DictReader(file))
    scene = {video: random.random(5).astype(np.float32) for video in videos if "01.mp4" not in video}
    np.savez(folder / "scene.npz", **scene)
    words = {f"{video}#{k}": random.random((3, 4)).astype(np.float32) for video in videos for k in range(2)}
    if "clips/broken.mp4" in videos:
        del words["clips/broken.mp4#1"]
    np.savez(folder / "w2v.npz", **words)
    told = {
        "folder": "experts-across",
        "experts": [{"name": "scene", "file": str(folder / "scene.npz")}],
        "texts": [{"name": "w2v", "file": str(folder / "w2v.npz")}],
    }
    features(world.config(features=told), Silent())
    return told


@pytest.fixture(scope="module")
def on_experts(world: Any, section: dict[str, Any]) -> Config:
    """Of kind ce, taught by X-CLIP."""
    config = world.config(
        features=section,
        train={"run": "runs/across-ce", "network": NETWORK, "teachers": ["xclip"], "loss": STANDARDISED},
    )
    train(config)
    return config


def _coarse(config: Config) -> list[float]:
    lines = map(json.loads, (config.run_folder / "metrics.jsonl").read_text().splitlines())
    return [line["coarse"] for line in lines if line["kind"] == "train"]


def test_xclip_on_pixels_teaches_a_network_on_experts(on_experts: Config) -> None:
    result = json.loads((on_experts.run_folder / "result.json").read_text())
    assert result["teachers"] == ["xclip"]
    assert result["left_out_videos"] == 2  # one without frames, one without features
    assert all(np.isfinite(value) and value > 0 for value in _coarse(on_experts))
    measured = evaluate(on_experts.model_copy(update={"evaluate": on_experts.evaluate.model_copy(update=_RUN)}))
    assert measured.texts == 12


_RUN = {"run": Path("runs/across-ce")}


def test_a_network_on_experts_teaches_one_on_pixels(world: Any, section: dict[str, Any], on_experts: Config) -> None:
    entry = {"name": "ce", "checkpoint": "runs/across-ce"}
    scoring = {"store": "across.zarr", "teachers": [entry]}
    student = {"run": "runs/across-student", "teachers": ["ce"], "loss": {"fine": 0.0, "coarse_on": "cosines"}}
    config = world.config(features=section, score=scoring, train=student)
    score(config)
    assert not ScoreStore.open(config.score_store).teacher("ce").frame_logits
    train(config)
    assert all(np.isfinite(value) for value in _coarse(config))
    with pytest.raises(ConfigError, match="no frame scores"):
        train(world.config(features=section, score=scoring, train={**student, "run": "runs/across-fine", "loss": {}}))
    online = {**student, "run": "runs/across-online", "teaching": "online"}
    with pytest.raises((ConfigError, CacheError), match="score store alone"):
        train(world.config(features=section, score=scoring, train=online))
