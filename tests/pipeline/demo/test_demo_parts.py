"""The parts of the demo that are more than stages in a row: numbered steps, and a budget that validation chooses."""

from pathlib import Path

import pytest
from teachclip.configs.schema import Config
from teachclip.pipeline.demo.chain import Chain
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


@pytest.mark.parametrize(("validation", "best"), [((60, 70, 65), 100), ((70, 60, 70), 50), ((1, 2, 3), 200)])
def test_the_student_alone_has_the_budget_that_is_best_on_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: tuple[float, ...], best: int
) -> None:
    def trained(config: Config, reporter: Reporter) -> TrainResult:
        steps = config.train.max_steps
        assert steps is not None
        assert config.train.teachers == ()
        value = {"value": validation[(50, 100, 200).index(steps)]}
        return TrainResult(str(config.run_folder), "", steps, 400, 400, 0, (), value, 1.0, 0.0, already_done=steps > 50)

    monkeypatch.setattr("teachclip.pipeline.demo.chain.train", trained)
    chain = Chain(tmp_path, Silent(), ())
    [(recipe, chosen)] = chain.train_alone().items()
    assert (chosen.steps, Path(chosen.run).name) == (best, f"alone-{best}")
    assert chain.config(recipe).evaluate_run == chain.training_config(recipe).run_folder == Path(chosen.run)
    assert recipe.note.endswith(f"{best} steps, of 50, 100 and 200 the best on validation")
    assert not chain.steps.done[0].found
