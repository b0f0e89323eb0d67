"""Sweeps: finished runs are read, failures stay alone, seeds spread, the paper's numbers stand beside ours."""

import json
import signal
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from teachclip.configs.loading import dump_config
from teachclip.configs.sweeps import load_sweep
from teachclip.errors import CacheError, StoppedEarly
from teachclip.pipeline.cli.shell.remedies import Given
from teachclip.pipeline.sweep import run as sweeping
from teachclip.pipeline.sweep.plan import Plan, dry_run, plan_sweep, refuse_unready
from teachclip.pipeline.sweep.run import RunResult, run_sweep
from teachclip.pipeline.sweep.table import joined, make_table
from teachclip.pipeline.sweep.text import legend, markdown, not_run, parts, problems
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.runtime.stopping import StopRequest

if TYPE_CHECKING:
    from conftest import World

ROWS: list[dict[str, Any]] = [
    {"label": "X-CLIP", "teacher": "xclip"},
    {
        "label": "someone else's",
        "quoted": True,
        "missing": "nobody lends it",
        "paper": {"own": {"r1": 40, "sumr": 150, "source": "a paper"}},
    },
    {"label": "Mean pooling!", "overrides": {"train.network.pooling": "mean", "train.loss.fine": 0}},
    {
        "label": "taught",
        "overrides": {"train.teachers": ["xclip"]},
        "paper": {"own": {"r1": 30, "r5": 60, "r10": 70, "sumr": 160, "source": "a paper"}},
    },
]


WEIGHTS = {"one": 1, "fifth": 0.2}


class Lines(Silent):
    """Remembers what it is told; stops, as Ctrl-C does, when a run of this title begins."""

    def __init__(self, stop: str | None = None) -> None:
        self.lines: list[str] = []
        self.stop = stop

    def info(self, message: str) -> None:
        self.lines.append(message)
        if self.stop is not None and self.stop in message:
            raise KeyboardInterrupt

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")


def planned(world: "World", folder: Path, seeds: int = 1, name: str = "mine", rows: Any = None, **more: Any) -> Plan:
    """The plan of a sweep of the world's networks, untaught unless a row says otherwise."""
    base = folder / "base.yaml"
    base.write_text(dump_config(world.config(train={"epochs": 1, "teachers": []})))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", "runs": rows or ROWS, **more}))
    sweep = load_sweep(path)
    return plan_sweep(sweep, sweep.base, seeds=seeds)


@pytest.fixture(scope="module")
def swept(world: "World", tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, list[RunResult]]:
    plan = planned(world, tmp_path_factory.mktemp("sweep"), seeds=2, against="Mean pooling!")
    return plan, run_sweep(plan)


def by_label(results: list[RunResult], label: str) -> list[RunResult]:
    return [result for result in results if result.label == label]


def test_runs_are_named_by_their_rows_and_seeds(swept: tuple[Plan, list[RunResult]], world: "World") -> None:
    _, results = swept
    assert [(result.label, result.seed) for result in results] == [
        ("X-CLIP", None), ("Mean pooling!", 42), ("taught", 42), ("Mean pooling!", 43), ("taught", 43),
    ]  # fmt: skip
    assert {result.state for result in results} == {"made"}
    names = [Path(result.run).relative_to(world.root / "work/runs/mine").name.rsplit("-", 1)[0] for result in results]
    assert names == ["x-clip", "mean-pooling-seed42", "taught-seed42", "mean-pooling-seed43", "taught-seed43"]
    taught = RunFolder(Path(results[2].run)).result
    assert taught is not None
    assert taught["teachers"] == ["xclip"]


def test_metrics_are_those_of_evaluate(swept: tuple[Plan, list[RunResult]], world: "World") -> None:
    _, results = swept
    for result, run in ((results[0], "runs/xclip"), (results[1], results[1].run)):
        assert result.measured is not None
        found = evaluate(world.config(evaluate={"run": run}))
        assert result.measured["own data"] == {"t2v": found.t2v, "v2t": found.v2t}


def test_given_again_everything_is_only_read(
    swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, results = swept
    monkeypatch.setattr("teachclip.stages.train.run.TrainRun", None)
    monkeypatch.setattr("teachclip.stages.evaluate.measured.evaluate_sets", None)
    lines = Lines()
    again = run_sweep(planned(world, tmp_path, seeds=2), lines)
    assert {result.state for result in again} == {"found"}
    assert [result.measured for result in again] == [result.measured for result in results]
    assert len(lines.lines) == 5
    assert all(": found, " in line for line in lines.lines)


def test_a_run_is_shared_by_sweeps_and_rows_that_mean_the_same(
    swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path
) -> None:
    _, results = swept
    rows = [
        {"label": "other name", "overrides": {"train.teachers": ["xclip"], "train.loss.fine": 1}},
        {"label": "again", "overrides": {"train": {"teachers": ["xclip"]}}},
    ]
    plan = planned(world, tmp_path, name="other", rows=rows)
    assert [str(run.folder) for run in plan.runs] == [by_label(results, "taught")[0].run]
    assert [run.state for run in plan.runs] == ["finished"]


def test_a_changed_override_is_another_run(swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path) -> None:
    _, results = swept
    rows = [{"label": "taught", "overrides": {"train.teachers": ["xclip"], "train.optim.lr": 3e-4}}]
    plan = planned(world, tmp_path, rows=rows)
    assert str(plan.runs[0].folder) not in {result.run for result in results}
    assert plan.runs[0].state == "to do"
    for key in ("data.val_fraction=0.3", "score.store=exact.zarr"):
        name, _, value = key.partition("=")
        rows = [{"label": "taught", "overrides": {"train.teachers": ["xclip"], name: yaml.safe_load(value)}}]
        assert str(planned(world, tmp_path, rows=rows).runs[0].folder) not in {result.run for result in results}


def test_a_run_of_before_a_default_changed_stays_its_rows_and_rows_that_name_values_have_their_own(
    world: "World", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.yaml"
    given = yaml.safe_load(dump_config(world.config(train={"max_steps": 1, "teachers": ["xclip"], "seed": 77})))
    del given["train"]["loss"]["infonce"]
    base.write_text(yaml.safe_dump(given))
    path = tmp_path / "before.yaml"
    named = {label: {"label": label, "overrides": {"train.loss.infonce": weight}} for label, weight in WEIGHTS.items()}
    plain = {"label": "plain"}

    def plan(*rows: dict[str, Any]) -> Plan:
        path.write_text(yaml.safe_dump({"base": "base.yaml", "runs": list(rows)}))
        return plan_sweep(load_sweep(path), base)

    monkeypatch.setattr("teachclip.stages.train.record.environment.CHANGED_DEFAULTS", {})  # as before the change
    old = run_sweep(plan(named["one"]))[0].run
    monkeypatch.undo()
    now = plan(plain, named["one"], named["fifth"])
    assert [str(runs[0].folder) for _, runs in now.rows][:2] == [old, old]
    assert [run.state for run in now.runs] == ["finished", "to do"]
    assert now.runs[1].folder.name.startswith("fifth-seed77-")
    found = run_sweep(plan(plain))
    assert [result.state for result in found] == ["found"]
    stays = "train.loss.infonce stays 1.0, with which this run was begun; the default is 0.2 now"
    assert f"plain: {stays}." in make_table(plan(plain), found).notes
    assert run_sweep(plan(named["one"]))[0].marks == ()

    entries = RunFolder(Path(old)).folder / "environment.json"
    entries.write_text(json.dumps([{**json.loads(entries.read_text())[0], "defaults": {"train.loss.infonce": 0.2}}]))
    since = plan(plain, named["one"], named["fifth"])
    assert [str(runs[0].folder) == old for _, runs in since.rows] == [False, True, False]
    assert since.rows[0][1][0].folder.name.rsplit("-", 1)[1] == since.rows[2][1][0].folder.name.rsplit("-", 1)[1]


def test_seeds_spread_and_the_paper_stands_beside(swept: tuple[Plan, list[RunResult]]) -> None:
    plan, results = swept
    table = make_table(plan, results)
    teacher, quoted, mean, taught = table.rows
    values = [result.measured["own data"]["t2v"]["sumr"] for result in by_label(results, "taught") if result.measured]
    assert taught.seeds == (42, 43)
    assert taught.t2v["sumr"].mean == pytest.approx(statistics.mean(values))
    assert taught.t2v["sumr"].deviation == pytest.approx(statistics.stdev(values))
    assert taught.difference["sumr"] == pytest.approx(statistics.mean(values) - 160)
    assert set(taught.difference) == {"r1", "r5", "r10", "sumr"}
    before = [
        result.measured["own data"]["t2v"]["sumr"] for result in by_label(results, "Mean pooling!") if result.measured
    ]
    assert taught.over is not None
    assert taught.over.values == pytest.approx([a - b for a, b in zip(values, before, strict=True)])
    assert mean.over is None
    assert (teacher.seeds, teacher.t2v["sumr"].deviation) == ((), None)
    assert (quoted.t2v, quoted.paper, quoted.difference) == ({}, {"r1": 40, "sumr": 150}, {})
    assert "Seeds vary the student; the teachers and their scores are the same." in table.notes


def test_the_table_in_words(swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path) -> None:
    plan, results = swept
    table = make_table(plan, results, ["a note"])
    [part] = parts(table)
    lines = [[cell.strip() for cell in line] for line in part.lines]
    assert [head.strip() for head in part.columns] == ["", "", "seeds", "R@1", "R@5", "R@10", "SumR", "gain"]
    assert [line[:3] for line in lines] == [
        ["X-CLIP", "ours", "-"], ["", "paper", ""],
        ["someone else's", "paper", ""],
        ["Mean pooling!", "ours", "2"], ["", "±", ""], ["", "paper", ""],
        ["taught", "ours", "2"], ["", "±", ""], ["", "paper", ""], ["", "diff", ""],
    ]  # fmt: skip
    assert lines[1][3:] == ["-", "-", "-", "-", ""]
    assert lines[2][3:] == ["40.0", "-", "-", "150.0", ""]
    taught = table.rows[-1]
    assert taught.over is not None
    assert lines[6][6:] == [f"{taught.t2v['sumr'].mean:.1f}", f"{taught.over.mean:+.1f}"]
    assert lines[7][6:] == [f"{taught.t2v['sumr'].deviation:.1f}", f"{taught.over.deviation:.1f}"]
    assert lines[8][3:] == ["30.0", "60.0", "70.0", "160.0", ""]
    assert lines[9][3:7] == [f"{taught.difference[key]:+.1f}" for key in ("r1", "r5", "r10", "sumr")]
    assert list(legend(table))[1:] == ["gain: SumR over Mean pooling!, seed by seed", "diff: ours minus the paper's"]
    assert not_run(table) == ["not run: someone else's: nobody lends it"]
    text = markdown(table).splitlines()
    assert text[0] == "### mine"
    assert text[3] == "|---|---|---|---|---|---|---|---|"
    assert {"- a note", "- not run: someone else's: nobody lends it"} <= set(text)
    bare = make_table(planned(world, tmp_path, rows=[ROWS[2]]), by_label(results, "Mean pooling!")[:1])
    [alone] = parts(bare)
    assert alone.columns == ("", "seeds", "R@1", "R@5", "R@10", "SumR")
    assert [line[0] for line in alone.lines] == ["Mean pooling!"]


def test_a_row_may_be_compared_with_a_row_of_its_own(
    swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path
) -> None:
    _, results = swept
    paper = {"own": {"sumr": 150.5, "source": "a paper"}}
    rows = [{**ROWS[2], "paper": paper}, {**ROWS[3], "against": "Mean pooling!"}]
    table = make_table(planned(world, tmp_path, rows=rows, seeds=2), results)
    mean, taught = table.rows
    assert (mean.against, taught.against) == (None, "Mean pooling!")
    assert taught.over is not None
    assert taught.over.mean == pytest.approx(taught.t2v["sumr"].mean - mean.t2v["sumr"].mean)
    assert taught.paper_over == 160 - 150.5
    [part] = parts(table)
    assert part.lines[-2][-1].strip() == "+9.5"
    assert part.lines[-1][-1].strip() == f"{taught.over.mean - 9.5:+.1f}"


def test_a_table_of_several_data_sets(swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path) -> None:
    """A cell that the paper leaves empty is not run; sets stand side by side, and the mean is of all or none."""
    _, results = swept
    source = {"source": "a paper"}
    rows = [
        {**ROWS[2], "paper": {"msvd": {"sumr": 100}, "vatex": {"sumr": 210}}, "paper_mean": 155},
        {"label": "taught", "only": ["msvd"], "overrides": {"train.teachers": ["xclip"]}, "paper": {"msvd": {"r1": 9}}},
        {"label": "taught", "only": ["own", "vatex"], "overrides": {"train.teachers": ["xclip"]}, "paper": {}},
    ]
    sets = ["own", "msvd", "vatex"]
    several = planned(world, tmp_path, rows=rows, seeds=2, each_of=sets, mean_over=sets[1:], **source)
    assert [(row.label, len(runs)) for row, runs in several.rows] == [("Mean pooling!", 0), ("taught", 0)]
    assert {row.missing for row in make_table(several, []).rows} == {"the paper has no number of it on this data set"}
    assert [row.paper for row in make_table(several, []).rows] == [{}, {}]  # no number of another set in its place
    of_own = make_table(planned(world, tmp_path, rows=[ROWS[2]], seeds=2), results)
    ours = replace(of_own.rows[0], data_set="msvd")
    table = joined(several.sweep, [replace(of_own, rows=(ours,))])
    mean, taught = table.means
    assert (mean.paper, mean.paper_mean, mean.mean) == ({"msvd": 100, "vatex": 210}, 155, None)
    assert mean.ours == {"msvd": ours.t2v["sumr"].mean}
    assert (taught.ours, taught.paper) == ({}, {})
    both = joined(several.sweep, [replace(of_own, rows=(ours, replace(ours, data_set="vatex")))])
    assert both.means[0].mean == pytest.approx(ours.t2v["sumr"].mean)
    lines = [[cell.strip() for cell in line] for line in list(parts(both))[-1].lines]
    assert lines[0] == ["Mean pooling!", "100.0", "210.0", "155.0"]
    assert lines[1][0] == "ours"
    assert lines[2] == ["diff", *(f"{ours.t2v['sumr'].mean - paper:+.1f}" for paper in (100, 210, 155))]
    assert lines[3] == ["taught", "-", "-", "-"]


def test_a_row_of_another_trunk_is_not_run_on_one_given_by_sizes(world: "World", tmp_path: Path) -> None:
    rows = [{"label": "large", "overrides": {"train.network.trunk.model": "ViT-B-16-quickgelu"}}]
    plan = planned(world, tmp_path, rows=rows)
    with pytest.raises(CacheError) as caught:
        refuse_unready([plan], "")
    told = "it needs the trunk ViT-B-16-quickgelu, and train.network.trunk.sizes sets another"
    assert caught.value.details == (f"large: {told}",)
    assert [run.state for run in dry_run(plan).runs] == ["waiting"]


def test_no_difference_is_taken_to_another_data_set(
    swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path
) -> None:
    _, results = swept
    row = {**ROWS[3], "paper": {"msvd": {"sumr": 150, "source": "a paper"}}}
    table = make_table(planned(world, tmp_path, rows=[row]), by_label(results, "taught")[:1])
    assert table.rows[0].paper == {"sumr": 150}
    assert table.rows[0].difference == {}
    assert "The paper's numbers are of msvd: no difference is taken to other data." in table.notes
    [part] = parts(table)
    assert [line[1] for line in part.lines] == ["ours", "paper"]


def test_stopped_anywhere_it_goes_on_to_the_same_numbers(world: "World", tmp_path: Path) -> None:
    rows = [{"label": f"lr {lr}", "overrides": {"train.optim.lr": lr}} for lr in (1e-3, 2e-3, 3e-3)]
    plan = planned(world, tmp_path, name="stopped", rows=rows)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, Lines(stop="2/3 lr 0.002"))
    assert [run.state for run in plan.runs][::2] == ["finished", "to do"]
    looked = dry_run(plan)
    assert looked.left == 2
    assert looked.seconds is not None
    assert [result.state for result in run_sweep(plan)] == ["found", "made", "made"]
    whole = run_sweep(planned(world, tmp_path, name="stopped", rows=rows))
    alone = planned(world, tmp_path, name="alone", rows=[{"label": "a", "overrides": {"train.optim.lr": 2e-3}}])
    assert whole[1].run == str(alone.runs[0].folder)


class StopInSecond(StopRequest):
    """Asked when the second training is under way."""

    trainings = 0

    @contextmanager
    def heeded(self) -> Iterator[None]:
        self.trainings += 1
        with super().heeded():
            if self.trainings == 2:
                self.ask(signal.SIGTERM)
            yield


def test_asked_to_stop_it_saves_the_run_and_ends(world: "World", tmp_path: Path) -> None:
    rows = [{"label": f"lr {lr}", "overrides": {"train.optim.lr": lr}} for lr in (7e-3, 8e-3, 9e-3)]
    plan = planned(world, tmp_path, name="asked", rows=rows)
    with pytest.raises(StoppedEarly):
        run_sweep(plan, None, StopInSecond())
    assert [run.state for run in plan.runs] == ["finished", "begun", "to do"]
    assert [result.state for result in run_sweep(plan)] == ["found", "made", "made"]


def test_a_run_that_fails_stops_no_other(world: "World", tmp_path: Path) -> None:
    rows = [
        {"label": "wild", "overrides": {"train.optim.lr": 1e30, "train.optim.clip_norm": None}},
        {"label": "tame", "overrides": {"train.optim.lr": 4e-3}},
    ]
    plan, lines = planned(world, tmp_path, name="wild", rows=rows), Lines()
    failed, made = run_sweep(plan, lines)
    assert (failed.state, made.state) == ("failed", "made")
    assert failed.measured is None
    table = make_table(plan, [failed, made])
    assert (table.failed, table.left_out) == (1, 0)
    assert table.rows[0].t2v == {}
    assert problems(table)[0].startswith(f"wild: {failed.problem}")
    assert failed.problem is not None
    assert "train.optim.lr" in (failed.hint or "")
    assert any(line.startswith("warning: wild, seed 42 failed: ") for line in lines.lines)


def test_a_run_that_another_process_trains_is_left_to_it(world: "World", tmp_path: Path) -> None:
    rows = [{"label": f"lr {lr}", "overrides": {"train.optim.lr": lr}} for lr in (1.1e-2, 1.2e-2)]
    plan = planned(world, tmp_path, name="shared", rows=rows)
    with RunFolder(plan.runs[0].folder).locked():
        first, second = run_sweep(plan)
    assert (first.state, second.state) == ("failed", "made")
    assert first.problem is not None
    assert "is training this run" in first.problem
    assert [result.state for result in run_sweep(plan)] == ["made", "found"]


def test_memory_that_does_not_suffice_fails_one_run(
    world: "World", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"label": "big", "overrides": {"train.optim.lr": 5e-3}}]

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sweeping, "train", full)
    [failed] = run_sweep(planned(world, tmp_path, name="big", rows=rows))
    assert (failed.state, failed.problem) == ("failed", "not enough memory")


def test_missing_scores_are_told_before_anything_trains(world: "World", tmp_path: Path) -> None:
    rows = [
        {"label": "alone", "overrides": {"train.optim.lr": 6e-3}},
        {"label": "by drl", "overrides": {"train.teachers": ["drl"], "train.optim.lr": 6e-3}},
        {"label": "by both", "overrides": {"train.teachers": ["xclip", "drl"], "train.optim.lr": 6e-3}},
        {"label": "X-Pool", "teacher": "xpool"},
    ]
    plan = planned(world, tmp_path, name="unscored", rows=rows)
    with pytest.raises(CacheError) as caught:
        refuse_unready([plan], "teachclip sweep a.yaml --partial", [Given(Path("a b.yaml")).tell])
    assert caught.value.what == "3 of 4 rows cannot be run yet; nothing was trained"
    assert caught.value.details == (
        "by drl, by both: not scored yet: drl",
        "X-Pool: score.teachers names xclip, not xpool",
    )
    assert caught.value.hint == (
        "name drl, xpool among score.teachers, then score: teachclip score 'a b.yaml'\n"
        "or run the other rows: teachclip sweep a.yaml --partial"
    )
    assert not (world.root / "work/runs/unscored").exists()
    assert [run.state for run in dry_run(plan).runs] == ["to do", "waiting", "waiting", "waiting"]
    results = run_sweep(plan)
    assert [result.state for result in results] == ["made", "left out", "left out", "left out"]
    table = make_table(plan, results)
    assert (table.failed, table.left_out) == (0, 3)
    assert problems(table)[0].startswith("by drl: not scored yet: drl; ")


@pytest.mark.parametrize(("checkpoint", "told"), [("lost.bin", "is not there"), ("runs", "this run folder has no")])
def test_a_teacher_that_is_not_there_is_told(world: "World", tmp_path: Path, checkpoint: str, told: str) -> None:
    rows = [{"label": "lost", "teacher": "lost"}]
    teachers = [{"name": "lost", "checkpoint": checkpoint}]
    plan = planned(world, tmp_path, name="lost", rows=rows, overrides={"score.teachers": teachers})
    with pytest.raises(CacheError) as caught:
        refuse_unready([plan], "")
    assert told in caught.value.details[0]
    assert [(run.state, run.problem is None) for run in dry_run(plan).runs] == [("waiting", False)]
    assert dry_run(plan).left == 1


def test_scores_of_other_captions_are_told_before_anything_trains(world: "World", tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    text = (world.root / "captions.csv").read_text()
    captions.write_text(text.replace("a red square", "one red square"))
    rows = [
        {
            "label": "a",
            "overrides": {"train.teachers": ["xclip"], "data.captions": str(captions), "data.videos": str(world.root)},
        }
    ]
    plan = planned(world, tmp_path, name="changed", rows=rows)
    with pytest.raises(CacheError, match="nothing was trained") as caught:
        refuse_unready([plan], "teachclip sweep a.yaml --partial")
    assert "caption" in caught.value.details[0]


def test_a_test_split_without_captions_is_told_before_anything_trains(world: "World", tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    lines = (world.root / "captions.csv").read_text().splitlines()
    captions.write_text("\n".join(line for line in lines if not line.endswith(",test")))
    data = {"data.captions": str(captions), "data.videos": str(world.root)}
    rows = [{"label": "a", "overrides": {"train.teachers": []}}, {"label": "X-CLIP", "teacher": "xclip"}]
    plan = planned(world, tmp_path, name="untested", rows=rows, overrides=data)
    with pytest.raises(CacheError) as caught:
        refuse_unready([plan], "")
    assert caught.value.details == ("a, X-CLIP: the test split has no usable captions",)


def test_other_test_sets_are_rows_of_their_own(swept: tuple[Plan, list[RunResult]], world: "World") -> None:
    from teachclip.stages.evaluate.measured import TestSet

    plan, results = swept
    tests = (TestSet("val-part", world.config(evaluate={"split": "val"})),)
    wider = replace(plan, tests=tests)
    found = run_sweep(wider)
    table = make_table(wider, found)
    assert [row.tested_on for row in table.rows] == ["own data"] * 4 + ["val-part"] * 4
    assert [part.heading for part in parts(table)] == ["tested on own data", "tested on val-part"]
    assert [result.measured["own data"] for result in found if result.measured] == [
        result.measured["own data"] for result in results if result.measured
    ]
    expected = evaluate(world.config(evaluate={"run": results[1].run, "split": "val"}))
    assert found[1].measured is not None
    assert found[1].measured["val-part"]["t2v"] == expected.t2v
    assert {result.state for result in run_sweep(wider)} == {"found"}


def test_metrics_that_are_damaged_are_measured_again(swept: tuple[Plan, list[RunResult]]) -> None:
    plan, results = swept
    for path in Path(results[1].run).glob("measured-*.json"):
        path.write_text("{")
    again = run_sweep(plan)
    assert [result.state for result in again] == ["found", "made", "found", "found", "found"]
    assert [result.measured for result in again] == [result.measured for result in results]


def test_a_test_set_that_cannot_be_measured_leaves_the_others(
    swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path
) -> None:
    from teachclip.stages.evaluate.measured import TestSet

    plan, results = swept
    lost = world.config(prepare={"frames": tmp_path / "nowhere"})
    found = run_sweep(replace(plan, tests=(TestSet("lost", lost),)))
    assert {result.state for result in found} == {"failed"}
    assert [result.measured for result in found] == [result.measured for result in results]
    assert all(result.problem and result.problem.startswith("lost: ") for result in found)


def test_costs_and_frame_weights_of_rows(swept: tuple[Plan, list[RunResult]], world: "World", tmp_path: Path) -> None:
    plan, results = swept
    settings = plan.sweep.settings.model_copy(update={"show": "cost"})
    table = make_table(replace(plan, sweep=replace(plan.sweep, settings=settings)), results)
    teacher, quoted, mean, taught = table.rows
    assert teacher.cost is not None
    assert taught.cost is not None
    assert mean.cost is not None
    assert teacher.cost.pair > taught.cost.pair == mean.cost.pair
    assert quoted.cost is None
    costs, metrics = parts(table)
    assert [head.strip() for head in costs.columns][1::2] == ["per pair", "KB", "per video"]
    assert [line[1].strip() == "-" for line in costs.lines] == [False, True, False, False]
    assert len(metrics.lines) > 4
    rows = [ROWS[3], {"label": "alone", "overrides": {"train.loss.coarse": 0}}]
    pair = planned(world, tmp_path, name="frames", rows=rows)
    weights = sweeping.weigh_frames(pair, run_sweep(pair), Silent())
    assert weights.teacher == "xclip"
    assert [each.name for each in weights.closeness] == ["taught", "alone", "uniform"]
    assert all(list(query.runs) == list(query.pooling) == ["taught", "alone"] for query in weights.queries)
    assert json.loads(json.dumps([each.kl for each in weights.closeness]))[0] >= 0
