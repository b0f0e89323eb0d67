"""The paper's tables on the demo's clips, at a tiny size: made once, shared by tables, read when given again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from teachclip.pipeline.demo import chain
from teachclip.pipeline.demo.chain import run_demo
from teachclip.pipeline.sweep.paper import DEMO_NOTE, Ground, demo_ground, demo_unmade, table
from teachclip.pipeline.sweep.plan import dry_run, plan_sweep, refuse_unready
from teachclip.pipeline.sweep.run import RunResult, run_sweep
from teachclip.pipeline.sweep.table import SweepResult, make_table
from teachclip.pipeline.sweep.text import parts

type Overrides = tuple[str, ...]


def made(name: str, folder: Path, tiny: Overrides) -> tuple[Ground, list[RunResult], SweepResult]:
    sweep = table(name)
    ground = demo_ground(sweep, folder, None, (), tiny)
    plan = plan_sweep(sweep, ground.base, ground.overrides, tests=ground.tests)
    refuse_unready([plan], "")
    results = run_sweep(plan)
    return ground, results, make_table(plan, results, ground.notes)


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Networks are trained one after the other, in this process: none has to be started."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chain, "cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def table5(tmp_path_factory: pytest.TempPathFactory, tiny: Overrides) -> tuple[Path, list[RunResult], SweepResult]:
    folder = tmp_path_factory.mktemp("reproduce") / "demo"
    _, results, result = made("table5", folder, tiny)
    return folder, results, result


def test_table_5_on_the_demo(table5: tuple[Path, list[RunResult], SweepResult]) -> None:
    folder, results, result = table5
    assert [run.state for run in results] == ["made"] * 9
    assert {Path(run.run).parent for run in results} == {folder / "work/runs/paper-table5"}
    assert [row.label[0] for row in result.rows] == list("012345678")
    for row in result.rows:
        t2v = row.t2v
        assert t2v["sumr"].mean == pytest.approx(sum(t2v[key].mean for key in ("r1", "r5", "r10")))
        assert row.difference == {}
        assert row.paper["sumr"] > 190
    [part] = parts(result)
    assert [line[1] for line in part.lines] == ["ours", "paper"] * 9
    assert result.notes[0] == DEMO_NOTE


def test_table_6_takes_its_students_from_table_5_and_other_clips(
    table5: tuple[Path, list[RunResult], SweepResult],
    tiny: Overrides,
) -> None:
    folder, results, before = table5
    ground, again, result = made("table6", folder, tiny)
    assert again[0].run == results[0].run  # the untaught student
    assert [row.tested_on for row in result.rows] == ["own data"] * 4 + ["other-clips"] * 4
    assert result.rows[0].t2v == before.rows[0].t2v
    assert all(row.t2v["sumr"].mean > 0 for row in result.rows)
    other = ground.tests[0].config
    assert other.frames_folder == folder / "other/work/frames"
    assert other.shapes.seed != 7
    _, third, _ = made("table6", folder, tiny)
    assert {run.state for run in third} == {"found"}


def test_rows_that_the_demo_cannot_run_say_what_is_missing(
    table5: tuple[Path, list[RunResult], SweepResult], tiny: Overrides
) -> None:
    sweep = table("table4")
    ground = demo_unmade(sweep, table5[0], tiny)
    planned = {run.label: run for run in dry_run(plan_sweep(sweep, ground.base, ground.overrides, check=False)).runs}
    assert planned["CLIP4Clip-AFA, X-CLIP"].state == "finished"  # that of table 5
    assert planned["CLIP4Clip-AFA, X-CLIP B/16"].problem == "score.teachers names xclip, not xclip-b16"
    alone = planned["CLIP4Clip-AFA B/16 alone"]
    assert (alone.state, alone.paper["sumr"]) == ("waiting", 201.5)
    assert alone.problem is not None
    assert "ViT-B-16-quickgelu" in alone.problem


def test_a_dry_run_makes_nothing(
    table5: tuple[Path, list[RunResult], SweepResult], tiny: Overrides, tmp_path: Path
) -> None:
    sweep = table("table5")
    ground = demo_unmade(sweep, tmp_path / "demo")
    looked = dry_run(plan_sweep(sweep, ground.base, ground.overrides, check=False))
    assert (looked.left, looked.total, looked.seconds) == (9, 9, None)
    assert not (tmp_path / "demo").exists()
    ground = demo_unmade(sweep, table5[0], tiny)
    assert dry_run(plan_sweep(sweep, ground.base, ground.overrides, check=False)).left == 0


def test_the_demo_goes_on_in_the_same_folder(
    table5: tuple[Path, list[RunResult], SweepResult], tiny: Overrides
) -> None:
    result = run_demo(table5[0], None, tiny)
    assert [step.title for step in result.steps if step.found] == [
        "render captioned clips",
        "prepare: clips to frames",
        "pre-train a small CLIP on pictures",
        "score: the teacher's soft labels, once",
    ]
