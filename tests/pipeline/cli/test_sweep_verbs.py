"""`teachclip sweep` and `teachclip reproduce`: their examples, what they show, and how they end."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from teachclip.pipeline.cli.main import app
from teachclip.pipeline.sweep.paper import Ground
from teachclip.pipeline.sweep.plan import DryRun, Planned
from teachclip.pipeline.sweep.run import RunResult
from teachclip.pipeline.sweep.table import Spread, SweepResult, TableRow
from typer.testing import CliRunner, Result

type Invoke = Callable[..., Result]

T2V = {"r1": 40.0, "r5": 70.0, "r10": 80.0, "sumr": 190.0, "mdr": 2.0, "mnr": 9.0}
SPREADS = {key: Spread(value, 0.5, (value - 0.5, value + 0.5)) for key, value in T2V.items()}
ROW = TableRow(
    "taught", "own data", (42, 43), SPREADS, SPREADS, Spread(2.0, 0.25, (1.75, 2.25)),
    {"r1": 41.0, "sumr": 191.0}, "msvd", "a paper", {"r1": -1.0, "sumr": -1.0}, None, None, None,
    ("runs/mine/taught-seed42",),
)  # fmt: skip
LOST = replace(
    ROW, label="lost", seeds=(), t2v={}, v2t={}, over=None, paper={}, paper_on=None, source=None, difference={},
    problem="the loss is not finite", hint="lower train.optim.lr",
)  # fmt: skip
DONE = RunResult("taught", 42, "runs/mine/taught-seed42", "made", 60.0, {"own data": {"t2v": T2V, "v2t": T2V}})
TABLE = SweepResult("mine", "Losses", ("a note",), "alone", True, (ROW, LOST), (DONE,), 0, 0)
LISTED = DryRun(
    "mine", (Planned("taught", 42, "runs/a", "finished", None), Planned("by drl", None, "runs/b", "waiting", "drl")),
    0, 60.0,
)  # fmt: skip
SWEEP = "base: own_videos.yaml\nruns:\n  - label: taught\n    overrides: {train.loss.fine: 0}\n"


@pytest.fixture
def calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Stand-ins for what the verbs call, and what those were called with; the files that examples name."""
    (folder / "losses.yaml").write_text(SWEEP)
    (folder / "other.yaml").write_text("work: other")
    called: dict[str, list[Any]] = {}

    def stand_in(target: str, result: object) -> None:
        def run(*arguments: Any, **options: Any) -> object:
            called[target.rpartition(".")[2]] = [*arguments, options]
            return result

        monkeypatch.setattr(f"teachclip.pipeline.{target}", run)

    stand_in("sweep.plan.plan_sweep", None)
    stand_in("sweep.plan.refuse_unready", None)
    stand_in("sweep.plan.dry_run", LISTED)
    stand_in("sweep.run.run_sweep", [DONE])
    stand_in("sweep.table.make_table", TABLE)
    stand_in("sweep.paper.demo_ground", Ground(folder / "own_videos.yaml", ("train.max_steps=150",), (), ("rendered",)))
    return called


def examples() -> list[str]:
    commands = typer.main.get_command(app)
    assert isinstance(commands, typer.core.TyperGroup)
    texts = [
        CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "120"}).stdout for verb in ("sweep", "reproduce")
    ]
    return re.findall(r"(?m)^ {4}(teachclip .*)$", "\n".join(texts))


@pytest.mark.parametrize("command", examples())
def test_example(command: str, invoke: Invoke, calls: dict[str, list[Any]], folder: Path) -> None:
    words = shlex.split(command)[1:]
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    base, overrides, options = calls["plan_sweep"][1:]
    assert base.name == "own_videos.yaml"
    assert ("run_sweep" in calls) == ("--dry-run" not in words)
    if "--seeds" in words:
        assert options["seeds"] == 3
    if "--out" in words:
        assert (folder / words[words.index("--out") + 1]).read_text().startswith("### Losses\n")
    if "--set" in words:
        assert overrides == ("train.max_steps=500",)
    if "--test" in words:
        assert [test.name for test in options["tests"]] == ["other"]


def test_the_table_is_shown(invoke: Invoke, calls: dict[str, list[Any]]) -> None:
    result = invoke("sweep", "losses.yaml")
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "Losses",
        "seeds R@1 R@5 R@10 SumR SumR over alone paper (msvd) SumR minus paper's",
        "taught 2 40.0 ± 0.5 70.0 ± 0.5 80.0 ± 0.5 190.0 ± 0.5 +2.0 ± 0.2 41.0 / - / - / 191.0 -1.0",
        "lost - - - - - - not available here -",
        "Text to video, in percent; mean ± sample deviation over seeds.",
        "! lost: the loss is not finite; lower train.optim.lr",
        "a note",
    ]


def test_json_holds_every_run_and_out_may_be_json(invoke: Invoke, calls: dict[str, list[Any]], folder: Path) -> None:
    result = invoke("sweep", "losses.yaml", "--json", "--quiet", "--out", "table.json")
    document = json.loads(result.stdout)
    assert document["rows"][0]["t2v"]["sumr"] == {"mean": 190.0, "deviation": 0.5, "values": [189.5, 190.5]}
    assert document["rows"][0]["difference"] == {"r1": -1.0, "sumr": -1.0}
    assert document["runs"][0]["run"] == "runs/mine/taught-seed42"
    assert json.loads((folder / "table.json").read_text()) == document


def test_a_failed_run_ends_with_1_and_the_table_is_there(
    invoke: Invoke, calls: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teachclip.pipeline.sweep.table.make_table", lambda *_, **__: replace(TABLE, failed=1))
    result = invoke("sweep", "losses.yaml")
    assert result.exit_code == 1
    assert "taught" in result.stdout


def test_a_dry_run_lists_runs(invoke: Invoke, calls: dict[str, list[Any]]) -> None:
    result = invoke("sweep", "losses.yaml", "--dry-run")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["run", "seed", "state"],
        ["taught", "42", "finished"],
        ["by", "drl", "-", "waiting", "drl"],
        ["0", "of", "2", "runs", "are", "left"],
    ]
    assert json.loads(invoke("sweep", "losses.yaml", "--dry-run", "--json").stdout)["runs"][1]["problem"] == "drl"


def test_an_interruption_is_one_line_that_goes_on(
    invoke: Invoke, calls: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("teachclip.pipeline.sweep.run.run_sweep", stopped)
    result = invoke("sweep", "losses.yaml", "--seeds", "2")
    assert result.exit_code == 130
    assert result.stderr.splitlines() == [
        "stopped; everything finished is kept",
        "go on with: teachclip sweep losses.yaml --seeds 2",
    ]


def test_partial_runs_what_can_be_run(invoke: Invoke, calls: dict[str, list[Any]]) -> None:
    invoke("sweep", "losses.yaml", "--partial")
    assert "refuse_unready" not in calls
    invoke("sweep", "losses.yaml", "--seeds", "2")
    assert calls["refuse_unready"][1] == "teachclip sweep losses.yaml --seeds 2 --partial"


def test_on_the_demo_it_says_so(invoke: Invoke, calls: dict[str, list[Any]]) -> None:
    invoke("reproduce", "table5", "--on", "demo", "--set", "shapes.train_clips=9", "--set", "train.max_steps=9")
    _, folder, _, overrides, making, _ = calls["demo_ground"]
    assert folder == Path("demo")
    assert overrides == ["shapes.train_clips=9", "train.max_steps=9"]
    assert making == ["shapes.train_clips=9"]
    assert calls["make_table"][2] == ("rendered",)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sweep", "nothing.yaml"], "no such file"),
        (["sweep", "bare.yaml"], "base: is missing; it names the configuration that runs start from"),
        (
            ["sweep", "losses.yaml", "--test", "other.yaml", "--test", "there/other.yaml"],
            "two test sets are called other",
        ),
        (["reproduce", "table8", "own_videos.yaml"], "no such table: table8; did you mean table7?"),
        (["reproduce", "table5"], "name your configuration, or --on demo, one of them"),
        (["reproduce", "table5", "--on", "dmeo"], "--on dmeo: no such folder"),
        (["reproduce", "table5", "own_videos.yaml", "--on", "demo"], "one of them"),
        (["reproduce", "table6", "own_videos.yaml"], "table6 measures students on other data sets, and none is named"),
    ],
)
def test_mistakes_are_one_line_and_2(
    invoke: Invoke, calls: dict[str, list[Any]], folder: Path, arguments: list[str], told: str
) -> None:
    (folder / "bare.yaml").write_text("runs: [{label: a}]")
    (folder / "there").mkdir()
    (folder / "there/other.yaml").write_text("work: there")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr.splitlines()[0]
    assert "run_sweep" not in calls


def test_table_1_is_what_cost_counts(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from teachclip.stages.analysis.cost.table import CostReport

    report = CostReport("Operations are multiply-adds.", (), (), {}, None, ())
    monkeypatch.setattr("teachclip.stages.analysis.cost.table.cost", lambda *_, **__: report)
    result = invoke("reproduce", "table1", "own_videos.yaml", "--out", "table1.md")
    assert result.exit_code == 0, result.stderr
    assert "Operations are multiply-adds." in result.stdout
    assert "Operations are multiply-adds." in (folder / "table1.md").read_text()
