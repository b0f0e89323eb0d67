"""`teachclip cost`."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.schema import NetworkConfig, TrainConfig
from teachclip.pipeline.cli.main import app
from teachclip.stages.analysis.cost import table as stage
from teachclip.stages.analysis.cost.memory import TrainingMemory
from teachclip.stages.analysis.cost.network import NetworkCost
from teachclip.stages.analysis.cost.search_speed import INDEX, Speed
from teachclip.stages.analysis.cost.table import CostReport, MethodCost, PaperCost, cost, standard
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from typer.testing import CliRunner, Result

SIZES = {
    "image_size": 16, "patch_size": 8, "vision_width": 64, "vision_layers": 1, "text_width": 64, "text_layers": 1,
    "embed_dim": 64, "context_length": 8, "vocab_size": 50,
}  # fmt: skip
SMALL = {"trunk": {"sizes": SIZES, "weights": None}, "frames": 4, "words": 6, "temporal_layers": 1}
GB = 10**9
COUNTED = NetworkCost(164_454_065, 238_880, 8_650_752, 49_544_005_632, 1_228_931_072, (), 26_624, 13_312)
MEMORY = TrainingMemory("afa", 164_189_442, 136_453_122, 120, "float32", GB, GB, 2 * GB, 50 * GB, 54 * GB, None)
DRL = PaperCost("DRL", 220.4e3, 26 * 1024, 53.64e9, 46.2, 203.2, {"pair": "vectors beside", "video": "one token"})
CENTERCLIP = PaperCost("CenterCLIP", 1.5e3, 6 * 1024, None, 44.2, 197.9, {})
REPORT = CostReport(
    "Operations are multiply-adds.",
    (
        MethodCost("X-CLIP", "xclip", 12, 32, COUNTED, None),
        MethodCost("DRL", "drl", 12, 32, COUNTED, DRL, ("pair", "video")),
    ),
    (CENTERCLIP,),
    (MEMORY, replace(MEMORY, network="mean", parameters=163_926_273, counted=53_990_000_000, measured=61 * GB)),
    {"without a teacher": 40e9},
    "a machine",
    (Speed("X-CLIP", 1000, 21.5, 20.0, 30.0, 1000), Speed("X-CLIP", 100_000, 2345.678, 1.0, 3.0, 20_000),
     Speed(INDEX, 100_000, 4.25, 4.0, 5.0, 100_000)),
)  # fmt: skip

type Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["cost", *words], env={"COLUMNS": "100"})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the stage is called with; it answers with REPORT."""
    calls: list[dict[str, Any]] = []

    def run(config: object, checkpoints: object, **options: Any) -> CostReport:
        calls.append({"config": config, "checkpoints": checkpoints, **options})
        return REPORT

    monkeypatch.setattr(stage, "cost", run)
    return calls


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A configuration of a small student and three teachers, one of them a checkpoint that is there."""
    teacher = NetworkConfig.model_validate({**SMALL, "kind": "xpool"})
    save_network(build_network(teacher), tmp_path / "work/runs/xpool/best.safetensors")
    teachers = [
        {"name": "pool", "checkpoint": "runs/xpool"},
        {"name": "clip", "openclip": {"sizes": SIZES, "weights": "somewhere"}, "words": 6, "frames": 3},
        {"name": "mine", "plugin": "mine:Teacher"},
    ]
    train = {"network": SMALL, "batch_size": 5, "teachers": ["pool"]}
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"work": str(tmp_path / "work"), "score": {"teachers": teachers}, "train": train}))
    return path


def test_the_table_fits_and_shows_the_papers_figures_beside_ours(invoke: Invoke, counted: object) -> None:
    lines = invoke("--measure").stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["X-CLIP", "238.9", "K", "-", "13.0", "26.0", "-", "49.54", "G", "-", "1.23", "G"],
        ["DRL", "238.9", "K", "220.4", "K", "13.0", "26.0", "26", "49.54", "G", "53.64", "G", "1.23", "G"],
    ]
    assert lines[3].split() == ["CenterCLIP", "-", "1.5", "K", "-", "-", "6", "-", "-", "-"]
    assert lines[4:7] == [
        "not counted: CenterCLIP: teachclip has no such network",
        "per pair (DRL): vectors beside",
        "per video (DRL): one token",
    ]
    shown = [line.split() for line in lines]
    assert ["afa", "float32", "120", "164,189,442", "4", "GB", "50", "GB", "54", "GB", "-"] in shown
    assert "AFA takes 263,169 parameters, 10 MB (0.019%) more than mean pooling in float32" in lines
    assert ["X-CLIP", "21.50", "2,345.68*"] in shown
    assert [*INDEX.split(), "-", "4.25"] in shown
    assert any(line.startswith("* ") for line in lines)
    assert max(map(len, (line for line in lines if line != REPORT.convention))) <= 100


def test_the_json_on_stdout_and_in_the_file_is_the_whole_report(invoke: Invoke, counted: object) -> None:
    printed = json.loads(invoke("--json", "--out", "cost.json").stdout)
    assert printed == json.loads(Path("cost.json").read_text())
    paper = {"row": "DRL", "pair": 220.4e3, "bytes": 26 * 1024, "video": 53.64e9, "r1": 46.2, "sumr": 203.2}
    assert printed["methods"][1]["paper"] == {**paper, "why": {"pair": "vectors beside", "video": "one token"}}
    assert printed["methods"][1]["unlike"] == ["pair", "video"]
    assert printed["not_counted"][0]["row"] == "CenterCLIP"
    assert printed["methods"][0]["cost"]["pair"] == 238_880


def test_videos_ask_for_measuring(invoke: Invoke, counted: list[dict[str, Any]]) -> None:
    invoke()
    invoke("--videos", "10", "--videos", "20", "--repeats", "2")
    assert [call["measure"] for call in counted] == [False, True]
    assert (counted[1]["videos"], counted[1]["repeats"]) == ((10, 20), 2)


def test_videos_without_captions_stand_beside_the_batch(configured: Path, invoke: Invoke) -> None:
    sets = ("--set", "data.unlabelled=more", "--set", "train.unlabelled=3", "--set", "score.teachers=[]")
    shown = [line.split() for line in invoke(str(configured), *sets).stdout.splitlines()]
    assert [row[1:5] for row in shown if row[:1] == ["afa"]] == [
        [precision, "5", "+", "3"] for precision in ("float32", "bf16")
    ]


def test_a_configurations_networks_are_counted_and_timed(configured: Path, invoke: Invoke) -> None:
    result = invoke(str(configured), "--videos", "40", "--repeats", "1", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [(each["name"], each["frames"], each["paper"]) for each in report["methods"]] == [
        ("train.network (student)", 4, None), ("pool", 4, None), ("pool, as published", 4, None), ("clip", 3, None),
    ]  # fmt: skip
    assert report["methods"][1]["cost"]["pair"] == 2 * 4 * 64 + 3 * 4**2 + 3 * 4
    assert [(each["network"], each["batch"]) for each in report["training"]] == [("afa", 5), ("mean", 5)] * 2
    assert [each["unlabelled"] for each in report["training"]] == [0, 0, 0, 0]
    assert report["paper_training"] == {}
    assert {each["name"] for each in report["speed"]} == {"train.network (student)", "pool", INDEX}
    assert "mine" in result.stderr  # what cannot be counted is said


def test_checkpoints_are_counted_by_themselves(configured: Path, invoke: Invoke) -> None:
    report = json.loads(invoke("--checkpoint", "work/runs/xpool", "--json").stdout)
    assert [each["name"] for each in report["methods"]] == ["xpool", "xpool, as published"]
    assert report["training"] == []


def test_a_missing_checkpoint_and_settings_of_nothing_are_refused(configured: Path, invoke: Invoke) -> None:
    missing = invoke("--checkpoint", "nothing.bin")
    assert missing.exit_code == 1
    assert "nothing.bin: there is no such checkpoint" in missing.stderr
    assert "name a file or a run folder" in missing.stderr
    near = invoke("--checkpoint", "work/runs/xpol")
    assert "did you mean work/runs/xpool?" in near.stderr
    nowhere = invoke("--checkpoint", "elsewhere/xpool")
    assert "elsewhere is no folder, either" in nowhere.stderr
    assert invoke("--set", "train.seed=1").exit_code == 2


def test_a_file_is_complete_or_absent(configured: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = configured.parent / "folder"
    folder.mkdir()
    asked = ("--checkpoint", "work/runs/xpool", "--out")
    result = invoke(*asked, "folder")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: folder: this is a folder; --out names the file to be written")
    assert list(folder.iterdir()) == []

    def full(path: Path, data: bytes) -> int:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert invoke(*asked, "folder/cost.json").exit_code == 1
    assert list(folder.iterdir()) == []


def test_the_papers_figures_stand_only_beside_the_papers_sizes() -> None:
    network = TrainConfig.model_validate({"network": {"kind": "drl"}}).network
    for changes, printed in (({}, True), ({"frames": 64}, False), ({"words": 64}, False)):
        assert stage.is_the_papers(network.model_copy(update=changes)) is printed


def test_a_teacher_that_is_trained_is_counted_by_itself() -> None:
    from teachclip.configs.schema import Config

    report = cost(Config.model_validate({"train": {"network": {**SMALL, "kind": "drl"}, "batch_size": 3}}))
    assert [each.network for each in report.training] == ["drl", "drl"]


@pytest.fixture(scope="module")
def papers() -> CostReport:
    """Of the paper's sizes."""
    return cost()


def test_the_papers_table_1_stands_beside_and_every_difference_is_explained(papers: CostReport) -> None:
    rows = {each.name: each.paper.row for each in papers.methods if each.paper}
    assert rows == {
        "CLIP4Clip (mean)": "CLIP4Clip", "TS2-Net": "TS2-Net", "X-CLIP": "X-CLIP", "X-Pool": "X-Pool",
        "X-Pool, as published": "X-Pool", "DRL": "DRL", "student (AFA)": "TeachCLIP",
    }  # fmt: skip
    assert [each.row for each in papers.not_counted] == ["CLIPPING", "PromptSwitch", "CenterCLIP", "Cap4Video"]
    unlike = {each.name: each.unlike for each in papers.methods}
    assert unlike["student (AFA)"] == unlike["TS2-Net"] == ("video",)
    assert unlike["X-CLIP"] == ("pair", "video")
    assert unlike["DRL"] == unlike["X-Pool"] == ("pair", "kb", "video")
    for each in papers.methods:
        assert each.paper is None or set(each.unlike) <= set(each.paper.why), each.name


def test_what_the_explanations_count(papers: CostReport) -> None:
    """The numbers in the words of table 1's `why`, from the networks' own sizes."""
    found = {each.name: each for each in papers.methods}
    tokens, width, dim, frames = 50, 768, 512, 12
    whole = 4 * width**2 * tokens + 2 * tokens**2 * width + 8 * width**2 * tokens
    class_alone = 2 * width**2 * tokens + 2 * width**2 + 2 * tokens * width + 8 * width**2
    left_out = frames * (whole - class_alone + (tokens - 1) * width * dim)
    for name in ("CLIP4Clip (mean)", "X-CLIP", "X-Pool", "DRL", "student (AFA)"):
        method = found[name]
        assert method.paper is not None
        assert method.paper.video is not None
        assert "3.74 G less; a further 0.35 G (0.7%)" in method.paper.why["video"]
        assert left_out / 1e9 == pytest.approx(3.74, abs=0.005)
        assert (method.paper.video - method.cost.video - left_out) / 1e9 == pytest.approx(0.35, abs=0.011)
    ts2net = found["TS2-Net"]
    assert ts2net.paper is not None
    assert ts2net.paper.video is not None
    assert (ts2net.paper.video - ts2net.cost.video) / 1e9 == pytest.approx(0.36, abs=0.005)
    assert found["X-CLIP"].cost.pair - 33 * 13 * 512 == pytest.approx(19.2e3, abs=50)
    assert abs(220.9e3 - 33 * 13 * 512 - 1.3e3) < 50
    assert set(standard()) <= set(found)
