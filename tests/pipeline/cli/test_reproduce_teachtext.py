"""`teachclip reproduce teachtext`: TeachText's table on a tiny MSVD, from files of features to the numbers."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip.configs.loading import load_config, shipped
from teachclip.configs.sweeps import load_sweep, tables
from teachclip.stages.models.build import build_network
from typer.testing import Result

type Invoke = Callable[..., Result]

SPLITS = {"train": 12, "val": 4, "test": 5}
TEXTS = {"w2v": 5, "gpt2-xl": 6, "gpt2-xl-finetune": 7}
SETTINGS = """
extends: [data/msvd, teachtext/training]
work: work
data: {annotations: annotations}
features:
  experts: [{name: scene, file: scene.npz}, {name: object, file: object.npz}]
  texts:
    - {name: w2v, file: w2v.npz}
    - {name: gpt2-xl, file: gpt2-xl.npz}
    - {name: gpt2-xl-finetune, file: gpt2-xl-finetune.npz}
score: {chance_check: false, device: cpu}
train:
  device: cpu
  tensorboard: false
  batch_size: 6
  epochs: 2
  network:
    kind: ce
    experts:
      modalities: {scene: {width: 4}, object: {width: 3}}
      text: {encoder: gpt2-xl-finetune, width: 7, words: 4, clusters: 2, ghosts: 0}
      shared: 8
evaluate: {device: cpu}
"""


@pytest.fixture
def msvd(folder: Path) -> Path:
    """An MSVD of a few videos with two captions each, its features, and a configuration."""
    (folder / "annotations").mkdir()
    random = np.random.default_rng(3)
    videos = [f"{split}{k}" for split, count in SPLITS.items() for k in range(count)]
    for split in SPLITS:
        named = [video for video in videos if video.startswith(split)]
        (folder / f"annotations/{split}_list.txt").write_text("\n".join(named))
    captions = {video: [f"{video} is red", f"here is {video}"] for video in videos}
    (folder / "annotations/captions_msvd.json").write_text(json.dumps(captions))
    for name, width in (("scene", 4), ("object", 3)):
        np.savez(folder / f"{name}.npz", **{video: random.random(width, np.float32) for video in videos})
    for name, width in TEXTS.items():
        words = {f"{video}#{k}": random.random((3, width), np.float32) for video in videos for k in range(2)}
        np.savez(folder / f"{name}.npz", **words)
    (folder / "msvd.yaml").write_text(SETTINGS)
    return folder


def _lines(result: Result) -> list[str]:
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_what_is_missing_is_told(msvd: Path, invoke: Invoke) -> None:
    result = invoke("reproduce", "teachtext", "msvd.yaml")
    told = " ".join(result.stderr.split())
    assert result.exit_code == 1
    assert "3 of 6 rows cannot be run yet; nothing was trained" in told
    assert "not scored yet: ce-w2v, ce-gpt2-xl, ce-gpt2-xl-finetune" in told
    assert "teachclip features msvd.yaml" in told


def test_from_features_to_the_table(msvd: Path, invoke: Invoke) -> None:
    assert invoke("features", "msvd.yaml").exit_code == 0
    for name, width in TEXTS.items():
        text = (f"encoder={name}", f"width={width}")
        sets = [f"train.run=runs/ce-{name}", *(f"train.network.experts.text.{each}" for each in text)]
        trained = invoke("train", "msvd.yaml", *(word for each in sets for word in ("--set", each)))
        assert trained.exit_code == 0, trained.stderr
    scored = invoke("score", "msvd.yaml")
    assert scored.exit_code == 0, scored.stderr
    result = invoke("reproduce", "teachtext", "msvd.yaml", "--partial", "--seeds", "2", "--out", "table.json")
    lines = _lines(result)
    assert result.exit_code == 0, result.stderr
    assert any(re.match(r"CE\+ ours 2 \d", line) for line in lines)
    assert any(re.match(r"TeachText-CE\+ ours 2 \d", line) for line in lines)
    assert sum(line.startswith("paper 25.1 56.8 71.2 153.1") for line in lines) == 1
    told = [line for line in lines if line.startswith("not run: ")]
    assert any("TeachText-CE: its configuration was not published" in line for line in told)
    document = json.loads((msvd / "table.json").read_text())
    rows = {row["label"]: row for row in document["rows"]}
    taught = rows["TeachText-CE+"]
    assert taught["difference"]["r1"] == pytest.approx(taught["t2v"]["r1"]["mean"] - 25.1)
    assert taught["against"] == "CE+"
    assert rows["CE"]["problem"] == "features.texts: no text encoder is called openai"
    again = invoke("reproduce", "teachtext", "msvd.yaml", "--partial", "--seeds", "2", "--json")
    assert {run["state"] for run in json.loads(again.stdout)["runs"]} == {"found", "left out"}


@pytest.mark.parametrize("words", [(), ("--on", "demo")])
def test_without_a_configuration_it_says_what_it_takes(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke("reproduce", "teachtext", *words)
    assert result.exit_code == 2
    assert "takes a configuration for each data set" in " ".join(result.stderr.split())


PUBLISHED = {  # parameters: experts.md of the specifications, 8
    "msrvtt-3k": {"CE": 183_448_607, "CE+": 262_731_071},
    "msvd": {"CE+": 87_791_645},
    "didemo": {"CE+": 99_513_997},
    "lsmdc": {"CE+": 388_242_661},
    "activitynet": {"CE+": 376_019_529},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_are_of_the_published_sizes(name: str) -> None:
    config = load_config(shipped()[f"teachtext/{name}"])
    assert config.data.set == name
    found = {}
    for row, own in load_sweep(tables()["teachtext"]).configs(shipped()[f"teachtext/{name}"])[1]:
        if own is not None:
            with torch.device("meta"):
                found[row.label] = sum(each.numel() for each in build_network(own.train.network).parameters())
    assert found.items() >= PUBLISHED[name].items()
    assert found["TeachText-CE+"] == found["CE+"]


def test_the_numbers_are_those_of_the_specification(shared: Path) -> None:
    file = shared / "specs/teachtext.md"
    if not file.is_file():
        pytest.skip(f"no {file}")
    section = file.read_text(encoding="utf-8").split("## 6.")[1].split("## 7.")[0].replace("**", "")
    sweep = load_sweep(tables()["teachtext"])
    names = {"MSRVTT full": "msrvtt-3k", "MSVD": "msvd", "DiDeMo": "didemo", "LSMDC": "lsmdc"}
    names["ActivityNet"] = "activitynet"
    seen = 0
    for title, name in names.items():
        [line] = re.findall(rf"(?m)^\| {title} \|(.*)\|$", section)
        for label, cell in zip(("CE", "CE+", "TeachText-CE", "TeachText-CE+"), line.split("|"), strict=True):
            wanted = [float(number) for number in cell.split("/")]
            published = sweep.paper(label)[name]
            assert [published.r1, published.r5, published.r10] == wanted
            assert published.sumr == pytest.approx(sum(wanted))
            seen += 1
    assert seen == 20
