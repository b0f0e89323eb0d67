"""`teachclip sweep` and `teachclip reproduce`: their examples, what they show, and how they end."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
    ("runs/mine/taught-seed42",), "alone", 1.5,
)  # fmt: skip
LOST = replace(
    ROW, label="lost", seeds=(), t2v={}, v2t={}, over=None, paper={}, paper_on=None, source=None, difference={},
    problem="the loss is not finite", hint="lower train.optim.lr", paper_over=None,
)  # fmt: skip
DONE = RunResult("taught", 42, "runs/mine/taught-seed42", "made", 60.0, {"own data": {"t2v": T2V, "v2t": T2V}})
TABLE = SweepResult("mine", "Losses", ("a note",), "alone", True, (ROW, LOST), (DONE,), 0, 0)
LISTED = DryRun(
    "mine", "Losses",
    (Planned("taught", 42, "runs/a", "finished", None), Planned("by drl", None, "runs/b", "waiting", "no drl")),
    0, 2, 60.0, ("a note",),
)  # fmt: skip
PLAN = SimpleNamespace(config=SimpleNamespace(work=Path("work")), runs=[])
SWEEP = "base: own_videos.yaml\nruns:\n  - label: taught\n    overrides: {train.loss.fine: 0}\n"


@pytest.fixture
def calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Stand-ins for what the verbs call, and what those were called with; the files that examples name."""
    (folder / "losses.yaml").write_text(SWEEP)
    (folder / "other.yaml").write_text("work: other")
    (folder / "msrvtt.yaml").write_text("data: {set: msrvtt-1k-9k}")
    (folder / "msvd.yaml").write_text("data: {set: msvd}")
    called: dict[str, list[Any]] = {}

    def stand_in(target: str, result: object) -> None:
        def run(*arguments: Any, **options: Any) -> object:
            called[target.rpartition(".")[2]] = [*arguments, options]
            return result

        monkeypatch.setattr(f"teachclip.pipeline.{target}", run)

    stand_in("sweep.plan.plan_sweep", PLAN)
    stand_in("sweep.plan.refuse_unready", None)
    stand_in("sweep.plan.dry_run", LISTED)
    stand_in("sweep.run.run_sweep", [DONE])
    stand_in("sweep.table.make_table", TABLE)
    stand_in("sweep.table.joined", TABLE)
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
    base, *overrides, options = calls["plan_sweep"][1:]
    if words[1] == "table1":  # counts, and runs nothing
        assert base is None
        assert "run_sweep" not in calls
        return
    overrides = overrides[0]
    assert base.name == ("msvd.yaml" if "msvd.yaml" in words else "own_videos.yaml")
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
        "seeds R@1 R@5 R@10 SumR gain",
        "taught ours 2 40.0 70.0 80.0 190.0 +2.0",
        "± 0.5 0.5 0.5 0.5 0.2",
        "paper 41.0 - - 191.0 +1.5",
        "diff -1.0 -1.0 +0.5",
        "lost ours - - - - -",
        "paper - - - -",
        "Text to video, in percent; mean ± sample deviation over seeds.",
        "gain: SumR over alone, seed by seed",
        "diff: ours minus the paper's",
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
    monkeypatch.setattr("teachclip.pipeline.sweep.table.joined", lambda *_, **__: replace(TABLE, failed=1))
    result = invoke("sweep", "losses.yaml")
    assert result.exit_code == 1
    assert "taught" in result.stdout


def test_a_dry_run_lists_runs(invoke: Invoke, calls: dict[str, list[Any]]) -> None:
    result = invoke("sweep", "losses.yaml", "--dry-run")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["Losses"],
        ["run", "seed", "state"],
        ["taught", "42", "finished"],
        ["by", "drl", "-", "waiting"],
        ["0", "of", "2", "runs", "are", "left"],
        ["waiting:", "by", "drl:", "no", "drl"],
        ["a", "note"],
    ]
    assert json.loads(invoke("sweep", "losses.yaml", "--dry-run", "--json").stdout)["runs"][1]["problem"] == "no drl"


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
        (["reproduce", "table6", "own_videos.yaml"], "table6 measures networks on other data sets, and none is named"),
        (["reproduce", "table2"], "name your configuration, or --on demo, one of them"),
        (
            ["reproduce", "table5", "own_videos.yaml", "msvd.yaml"],
            "table5 takes one configuration, and 2 are named: own_videos.yaml, msvd.yaml",
        ),
        (
            ["reproduce", "table7", "msvd.yaml", "own_videos.yaml"],
            "own_videos.yaml is of the data set own, which table7 does not hold",
        ),
        (["reproduce", "table2", "lsmdc.yaml"], "lsmdc.yaml is of the data set lsmdc, which table2 does not hold"),
        (["reproduce", "table7", "msvd.yaml", "again.yaml"], "msvd.yaml and again.yaml are both of msvd; name one of"),
        (["reproduce", "table7", "msvd.yaml", "nothing.yaml"], "nothing.yaml: no such file"),
    ],
)
def test_mistakes_are_one_line_and_2(
    invoke: Invoke, calls: dict[str, list[Any]], folder: Path, arguments: list[str], told: str
) -> None:
    (folder / "bare.yaml").write_text("runs: [{label: a}]")
    (folder / "again.yaml").write_text("data: {set: msvd}")
    (folder / "lsmdc.yaml").write_text("data: {set: lsmdc}")
    (folder / "there").mkdir()
    (folder / "there/other.yaml").write_text("work: there")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr.splitlines()[0]
    assert "run_sweep" not in calls


def test_table_1_without_a_data_set_counts_costs_beside_the_paper(invoke: Invoke, folder: Path) -> None:
    result = invoke("reproduce", "table1", "--out", "table1.md")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[1] == "per pair paper KB paper per video paper"
    assert [line.split()[0] for line in lines[2:12]] == [
        "CLIPPING", "CLIP4Clip", "PromptSwitch", "CenterCLIP", "TS2-Net", "X-CLIP", "X-Pool", "DRL", "Cap4Video",
        "TeachCLIP",
    ]  # fmt: skip
    assert lines[2] == "CLIPPING - 0.5 K - 2 - 16.80 G"
    assert lines[11] == "TeachCLIP 512 0.5 K 2.0 2 49.55 G 53.65 G"
    assert any(line.startswith("per pair (X-CLIP): 33 x 13 products") for line in lines)
    assert not any("not explained" in line for line in lines)
    assert max(map(len, lines[:30])) <= 80
    assert "| CLIPPING | - | 0.5 K | - | 2 | - | 16.80 G |" in (folder / "table1.md").read_text().splitlines()


@pytest.mark.parametrize("name", ["table7", "table2", "figure1"])
def test_a_table_fits_80_columns(invoke: Invoke, folder: Path, name: str) -> None:
    (folder / "demo").mkdir()
    words = [name] if name == "figure1" else [name, "--on", "demo", "--dry-run"]
    if name == "table2":
        write_msvd(folder)
        words = [name, "msvd.yaml"]
    result = invoke("reproduce", *words)
    lines = result.stdout.splitlines()
    told = ("not run: ", "per ", "KB ", "! ", "Rendered", "Costs", "Ours", "waiting", "ActNetCap is")
    assert len(lines) > 10
    assert max(len(line) for line in lines if not line.startswith(told)) <= 80


def write_msvd(folder: Path) -> None:
    """An MSVD of few captions, whose validation list is not there."""
    (folder / "annotations").mkdir(exist_ok=True)
    for split, ids in (("train", ["a", "b"]), ("test", ["c"])):
        (folder / f"annotations/{split}_list.txt").write_text("\n".join(ids))
    captions = {name: [["a", "dog"], ["a", "cat"]] for name in "abc"}
    rows = [{"video": name, "caption": " ".join(words)} for name, texts in captions.items() for words in texts]
    (folder / "annotations/captions_msvd.json").write_text(
        json.dumps({name: [r["caption"] for r in rows if r["video"] == name] for name in captions})
    )
    (folder / "msvd.yaml").write_text("data: {set: msvd, annotations: annotations}")


def test_table_2_is_what_data_check_finds_beside_the_paper(invoke: Invoke, folder: Path) -> None:
    write_msvd(folder)
    result = invoke("reproduce", "table2", "msvd.yaml", "--out", "table2.json")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert result.exit_code == 1  # a split cannot be read
    assert lines[1] == "train validation test"
    assert lines[4:7] == [
        "MSVD ours 2 / 4 - 1 / 2",
        "paper 1,200 / 48,774 100 / 4,290 670 / 27,763",
        "diff -1,198 / -48,770 - -669 / -27,761",
    ]
    assert any(line.startswith("! MSVD: val cannot be read") for line in lines)
    assert any(line.startswith("! MSVD: to get: val_list.txt") for line in lines)
    document = json.loads((folder / "table2.json").read_text())
    msvd = next(each for each in document["sets"] if each["set"] == "msvd")
    assert msvd["ours"]["test"] == {"videos": 1, "texts": 2}
    assert msvd["difference"]["train"] == {"videos": -1198, "texts": -48770}
    assert document["sets"][0]["ours"] == {}


def test_folders_of_earlier_tables_are_named(invoke: Invoke, folder: Path) -> None:
    (folder / "msvd.yaml").write_text("data: {set: msvd}\nwork: work")
    (folder / "work/runs/table5/afa-alone-seed42-0123abcd").mkdir(parents=True)
    result = invoke("reproduce", "table5", "msvd.yaml", "--dry-run", "--partial")
    assert result.stdout.splitlines()[-1] == (
        f"{folder}/work/runs/table5 holds runs of an earlier release's table5, another table, or of your own; "
        "none is read here."
    )
    runs = json.loads(invoke("reproduce", "table5", "msvd.yaml", "--dry-run", "--json").stdout)["runs"]
    assert {Path(run["run"]).parent.name for run in runs} == {"paper-table5"}
    assert runs[0]["paper"] == {"r1": 44.0, "r5": 71.2, "r10": 81.1, "sumr": 196.3}


def test_an_earlier_run_of_the_same_network_is_read_and_named(invoke: Invoke, folder: Path) -> None:
    (folder / "msvd.yaml").write_text("data: {set: msvd}\nwork: work")
    new = json.loads(invoke("reproduce", "table5", "msvd.yaml", "--dry-run", "--json").stdout)["runs"][0]["run"]
    digest = new.rsplit("-", 1)[1]
    old = folder / f"work/runs/table5/afa-alone-seed42-{digest}"
    old.mkdir(parents=True)
    printed = json.loads(invoke("reproduce", "table5", "msvd.yaml", "--dry-run", "--json").stdout)
    assert (printed["runs"][0]["label"], printed["runs"][0]["run"]) == ("0 InfoNCE", str(old))
    assert printed["notes"][-1].endswith(f"read here, as the same networks: {old.name}.")
