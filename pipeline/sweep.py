"""A sweep: what is finished is read, what is missing is trained and measured, and a run that fails stops no other."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..errors import TeachclipError
from ..stages.reporting import Reporter, Silent
from ..stages.train import train
from .measuring import Measurer
from .steps import Steps
from .sweep_plan import Plan
from .sweep_runs import Run


@dataclass(frozen=True)
class RunResult:
    """A run that ended.

    Attributes:
        state: read as it was found, made now, failed, or left out for want of scores.
        measured: metrics by test set: `t2v` and `v2t` of `evaluate`.
        chosen_by: how its checkpoint was chosen.
        problem, hint: why there are no metrics, and what to do.
    """

    label: str
    seed: int | None
    run: str
    state: Literal["found", "made", "failed", "left out"]
    seconds: float | None = None
    measured: Mapping[str, Mapping[str, Any]] | None = None
    chosen_by: str | None = None
    problem: str | None = None
    hint: str | None = None


def run_sweep(plan: Plan, reporter: Reporter | None = None) -> list[RunResult]:
    """Train and measure what is missing, read what is there.

    Runs of `plan.problems` are left out. A run that fails is told and the others go on; an interruption ends it all,
    and given again it goes on.
    """
    reporter = reporter or Silent()
    runs, measurer = plan.runs, Measurer(plan.tests)
    steps, results = Steps(reporter, total=len(runs)), {}
    for run in runs:
        if (problem := plan.problems.get(run.folder)) is not None:
            reporter.warn(f"{run.title}: left out, {problem.what}")
            results[run.folder] = RunResult(
                run.label, run.seed, str(run.folder), "left out", problem=problem.what, hint=problem.hint
            )
            steps.total -= 1
        else:
            results[run.folder] = steps.run(run.title, _Attempt(run, measurer), lambda made: made.state == "found")
    return [results[run.folder] for run in runs]


class _Attempt:
    """One run, from training to metrics; an error that is its own becomes part of its result."""

    def __init__(self, run: Run, measurer: Measurer) -> None:
        self.run, self.measurer = run, measurer

    def __call__(self, reporter: Reporter) -> RunResult:
        run = self.run
        try:
            return self._made(reporter)
        except TeachclipError as error:
            what, hint = error.what if error.where is None else f"{error.where}: {error.what}", error.hint
            details = [*error.details]
        except (torch.OutOfMemoryError, MemoryError):
            gc.collect()
            torch.cuda.empty_cache()
            what, hint, details = "not enough memory", "take less at a time: --set train.batch_size=32", []
        reporter.warn("; ".join([f"{run.title} failed: {what}", *details, *([hint] if hint else [])]))
        return RunResult(run.label, run.seed, str(run.folder), "failed", problem=what, hint=hint)

    def _made(self, reporter: Reporter) -> RunResult:
        run, seconds, chosen_by, found = self.run, None, None, True
        if run.trained:
            trained = train(run.config, reporter)
            seconds, chosen_by, found = trained.seconds, trained.best["chosen_by"], trained.already_done
        measured, read = self.measurer(run.config, run.folder, reporter)
        state: Literal["found", "made"] = "found" if found and read else "made"
        return RunResult(run.label, run.seed, str(run.folder), state, seconds, measured, chosen_by)
