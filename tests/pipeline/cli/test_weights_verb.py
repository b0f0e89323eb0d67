"""`teachclip weights`, with a stand-in for its stage (which tests/train/test_frame_weights.py tests)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.pipeline.cli.main import app
from teachclip.stages.analysis import frame_weights as stage
from teachclip.stages.analysis.closeness import Closeness
from teachclip.stages.analysis.frame_weights import FrameWeights, QueryWeights
from typer.testing import CliRunner, Result

QUERY = QueryWeights(
    "dog.mp4#1", "a dog", "dog.mp4", (0.0, 1.0, float("nan")), (True, True, False), (0.75, 0.25, 0.0),
    {"taught": (0.6, 0.4, 0.0), "alone": (0.5, 0.25, 0.25)},
    {"taught": (0.9, 0.1, 0.0), "alone": (0.4, 0.3, 0.3)}, 0.25,
)  # fmt: skip
FOUND = FrameWeights(
    "test", "xclip", "teacher", 1000, 900, 990,
    (Closeness("taught", 0.5, 0.25, 0.0125, 0.4), Closeness("uniform", None, None, 0.5, 0.125)), (QUERY,),
)  # fmt: skip

type Invoke = Callable[..., Result]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []

    def run(config: object, runs: object, **options: Any) -> FrameWeights:
        found.append((runs, options))
        return FOUND

    monkeypatch.setattr(stage, "frame_weights", run)
    return found


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("{}")
    return lambda *words: CliRunner().invoke(app, ["weights", "own.yaml", *words], env={"COLUMNS": "100"})


def test_the_whole_split_and_then_frame_by_frame(invoke: Invoke, calls: object) -> None:
    assert [line.split() for line in invoke("taught", "alone").stdout.splitlines()] == [
        ["test:", "990", "captions", "of", "900", "videos;", "xclip,", "asked", "now"],
        ["beside", "xclip", "Pearson", "Spearman", "KL", "(nats)", "same", "first", "frame"],
        ["taught", "0.500", "0.250", "0.0125", "40.0%"],
        ["uniform", "-", "-", "0.5", "12.5%"],
        [],
        ["dog.mp4#1:", '"a', 'dog"'],
        ["second", "0", "1", "pad"],
        ["xclip", "75", "25", "0"],
        ["taught", "60", "40", "0"],
        ["alone", "50", "25", "25"],
    ]


def test_the_json_has_every_number_and_null_where_there_is_no_frame(invoke: Invoke, calls: object) -> None:
    found = json.loads(invoke("taught", "--json").stdout)
    assert found["queries"][0]["times"] == [0.0, 1.0, None]
    assert found["queries"][0]["pooling"]["taught"] == [0.9, 0.1, 0.0]
    assert found["closeness"][1]["pearson"] is None


def test_options_reach_the_stage(invoke: Invoke, calls: list[tuple[Any, ...]]) -> None:
    invoke("taught", "--teacher", "drl", "--split", "train", "--query", "a", "--query", "b", "--count", "2")
    ((runs, options),) = calls
    assert runs == [Path("taught")]
    assert {key: options[key] for key in ("teacher", "split", "queries", "count")} == {
        "teacher": "drl", "split": "train", "queries": ["a", "b"], "count": 2,
    }  # fmt: skip


def test_no_run_is_a_wrong_call(invoke: Invoke) -> None:
    assert invoke().exit_code == 2
