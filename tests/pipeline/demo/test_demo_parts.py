"""The parts of the demo that are more than stages in a row: numbered steps, and a budget that validation chooses."""

import multiprocessing
import os
import time
from contextlib import closing
from functools import partial
from typing import Self

import pytest
import torch
from teachclip.errors import DataError
from teachclip.pipeline.demo.chain import Recipe, best_on_validation
from teachclip.pipeline.demo.crew import Crew, Task
from teachclip.pipeline.steps import Steps
from teachclip.stages.runtime.reporting import Progress, Reporter, Silent
from teachclip.stages.train.run import TrainResult


class Lines(Silent):
    """A reporter that remembers what it is told, progress included."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        self.lines.append(f"progress: {title}")
        return super().progress(title, total, unit, done)


def test_a_step_that_finds_everything_is_one_line() -> None:
    lines = Lines()
    steps = Steps(lines, 3)

    def work(output: Reporter) -> int:
        output.info("all there")
        output.progress("count", 5, "thing", done=5)
        return 0

    steps.run("prepare", work, lambda made: made == 0)
    assert len(lines.lines) == 1
    assert lines.lines[0].startswith("1/3 prepare: found, ")
    assert steps.done[0].found


def test_a_step_with_work_is_announced_before_anything_it_shows() -> None:
    lines = Lines()
    steps = Steps(lines, 2)

    def work(output: Reporter) -> int:
        output.info("first")
        output.progress("count", 5, "thing", done=2)
        output.warn("careful")
        output.info("last")
        return 1

    assert steps.run("train", work, lambda made: made == 0) == 1
    steps.run("quiet", lambda output: None)
    expected = [
        "1/2 train",
        "    first",
        "progress:     count",
        "warning: careful",
        "    last",
        "    done in",
        "2/2 quiet",
    ]
    assert [line[: len(want)] for line, want in zip(lines.lines, expected, strict=False)] == expected
    assert lines.lines[-1].startswith("    done in")


def test_a_step_that_fails_keeps_its_error_and_its_heading() -> None:
    lines = Lines()
    steps = Steps(lines, 1)

    def work(output: Reporter) -> None:
        output.progress("count", None, "thing")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        steps.run("train", work)
    assert lines.lines == ["1/1 train", "progress:     count"]
    assert steps.done == []


@pytest.mark.parametrize(("validation", "best"), [((60, 70, 65), 1), ((70, 60, 70), 0), ((1, 2, 3), 2)])
def test_the_student_alone_has_the_budget_that_is_best_on_validation(validation: tuple[float, ...], best: int) -> None:
    budgets = [Recipe(f"{steps} steps", "", f"runs/{steps}") for steps in (50, 100, 200)]
    trained = {
        budget: TrainResult(budget.run, "", 50, 400, 400, 0, (), {"value": value}, 1.0, 0.0, already_done=False)
        for budget, value in zip(budgets, validation, strict=True)
    }
    assert best_on_validation(trained) == budgets[best]


def _counts(steps: int, reporter: Reporter) -> tuple[int, int]:
    reporter.info("begins")
    with reporter.progress("images", 1000, "image") as images, reporter.progress("train", steps, "step") as progress:
        images.advance(1000)
        for _ in range(steps):
            progress.advance()
    return os.getpid(), torch.get_num_threads()


def _fails(reporter: Reporter) -> None:
    reporter.warn("no good")
    raise DataError("the data are no good")


def _takes_long(reporter: Reporter) -> None:
    time.sleep(600)


def _dies(here: int, reporter: Reporter) -> str:
    if os.getpid() != here:
        os._exit(3)
    return "done here"


class Counting(Lines):
    """Also remembers what was counted."""

    counted = 0

    def advance(self, n: int = 1, **fields: float | str) -> None:
        self.counted += n

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> "Counting":
        self.lines.append(f"progress: {title}, {total} {unit}")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_a_crew_does_tasks_side_by_side_with_one_thread_each_and_counts_their_steps() -> None:
    lines = Counting()
    with closing(Crew(2)) as crew:
        tasks = [Task(f"run {k}", partial(_counts, steps), steps) for k, steps in enumerate((5, 7, 9))]
        for task in tasks:
            crew.start(task)
        found = crew.finish(tasks, "train", lines)
    assert len({process for process, _ in found}) <= 2
    assert os.getpid() not in {process for process, _ in found}
    assert [threads for _, threads in found] == [1, 1, 1]
    assert lines.counted == 21
    assert lines.lines[0] == "progress: train, 21 step"
    assert sorted(lines.lines[1:]) == ["run 0: begins", "run 1: begins", "run 2: begins"]


def test_on_one_core_a_crew_is_no_process_and_does_tasks_where_they_are_waited_for() -> None:
    lines = Counting()
    with closing(Crew(1)) as crew:
        tasks = [Task("counts", partial(_counts, 3), 3), Task("bad", _fails, 1)]
        for task in tasks:
            crew.start(task)
        with pytest.raises(DataError, match="the data are no good"):
            crew.finish(tasks, "train", lines)
    assert tasks[0].result == (os.getpid(), 1)
    assert lines.lines == ["begins", "progress: images, 1000 image", "progress: train, 3 step", "warning: no good"]


def test_what_fails_in_a_crew_says_why_here_and_leaves_no_process() -> None:
    lines, before = Counting(), set(multiprocessing.active_children())
    tasks = [Task("bad", _fails, 1), Task("long", _takes_long, 1)]
    with closing(Crew(2)) as crew:
        for task in tasks:
            crew.start(task)
        with pytest.raises(DataError, match="the data are no good"):
            crew.finish(tasks, "train", lines)
    assert lines.lines[1:] == ["warning: bad: no good", "warning: no good"]
    assert set(multiprocessing.active_children()) <= before


def test_what_failed_before_anybody_waited_is_done_here() -> None:
    lines, task = Counting(), Task("dies", partial(_dies, os.getpid()), 5)
    with closing(Crew(2)) as crew:
        crew.start(task)
        crew._workers[0].thread.join(120)  # its end has been heard
        assert crew.finish([task], "train", lines) == ["done here"]


def test_a_process_that_dies_costs_its_task_alone() -> None:
    lines = Counting()
    tasks = [Task("dies", partial(_dies, os.getpid()), 1), Task("counts", partial(_counts, 3), 3)]
    with closing(Crew(2)) as crew:
        for task in tasks:
            crew.start(task)
        died, counted = crew.finish(tasks, "train", lines)
    assert died == "done here"
    assert counted[0] != os.getpid()
