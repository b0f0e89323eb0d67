"""The paper's tables on the demo's clips, at a tiny size: made once, shared by tables, read when given again."""

from pathlib import Path

import pytest
from teachclip.pipeline.demo.chain import run_demo
from teachclip.pipeline.sweep.paper import DEMO_NOTE, Ground, demo_ground, demo_unmade, table
from teachclip.pipeline.sweep.plan import dry_run, plan_sweep, refuse_unready
from teachclip.pipeline.sweep.run import RunResult, run_sweep
from teachclip.pipeline.sweep.table import SweepResult, columns, make_table

type Overrides = tuple[str, ...]


def made(name: str, folder: Path, tiny: Overrides) -> tuple[Ground, list[RunResult], SweepResult]:
    sweep = table(name)
    ground = demo_ground(sweep, folder, None, (), tiny)
    plan = plan_sweep(sweep, ground.base, ground.overrides, tests=ground.tests)
    refuse_unready(plan, "")
    results = run_sweep(plan)
    return ground, results, make_table(plan, results, ground.notes, paper=True)


@pytest.fixture(scope="module")
def table5(tmp_path_factory: pytest.TempPathFactory, tiny: Overrides) -> tuple[Path, list[RunResult], SweepResult]:
    folder = tmp_path_factory.mktemp("reproduce") / "demo"
    _, results, result = made("table5", folder, tiny)
    return folder, results, result


def test_table_5_on_the_demo(table5: tuple[Path, list[RunResult], SweepResult]) -> None:
    _, results, result = table5
    assert [run.state for run in results] == ["made"] * 6
    assert [row.label for row in result.rows][:3] == ["mean pooling alone", "mean pooling, coarse", "AFA alone"]
    for row in result.rows:
        t2v = row.t2v
        assert t2v["sumr"].mean == pytest.approx(sum(t2v[key].mean for key in ("r1", "r5", "r10")))
        assert row.difference == {}
    assert columns(result)[-2:] == ["paper", "SumR minus paper's"]
    assert result.notes[0] == DEMO_NOTE


def test_table_6_takes_its_students_from_table_5_and_other_clips(
    table5: tuple[Path, list[RunResult], SweepResult],
    tiny: Overrides,
) -> None:
    folder, results, before = table5
    ground, again, result = made("table6", folder, tiny)
    assert {run.run for run in again} <= {run.run for run in results}
    assert [row.tested_on for row in result.rows] == ["own data"] * 3 + ["other-clips"] * 3
    taught = next(row for row in before.rows if row.label == "AFA, coarse and fine")
    assert result.rows[2].t2v == taught.t2v
    assert result.rows[5].t2v["sumr"].mean > 0
    other = ground.tests[0].config
    assert other.frames_folder == folder / "other/work/frames"
    assert other.shapes.seed != 7
    _, third, _ = made("table6", folder, tiny)
    assert {run.state for run in third} == {"found"}


def test_a_dry_run_makes_nothing(
    table5: tuple[Path, list[RunResult], SweepResult], tiny: Overrides, tmp_path: Path
) -> None:
    sweep = table("table5")
    ground = demo_unmade(tmp_path / "demo")
    looked = dry_run(plan_sweep(sweep, ground.base, ground.overrides, check=False))
    assert (looked.left, looked.seconds) == (6, None)
    assert not (tmp_path / "demo").exists()
    ground = demo_unmade(table5[0], tiny)
    assert dry_run(plan_sweep(sweep, ground.base, ground.overrides, check=False)).left == 0


def test_the_demo_goes_on_in_the_same_folder(
    table5: tuple[Path, list[RunResult], SweepResult], tiny: Overrides
) -> None:
    result = run_demo(table5[0], None, tiny)
    assert [step.title for step in result.steps if step.found] == [
        "render captioned clips",
        "prepare: clips to frames",
        "pre-train a small CLIP on pictures",
        "train the teacher",
        "score: the teacher's soft labels, once",
    ]
