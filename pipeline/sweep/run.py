"""A sweep: what is finished is read, what is missing is trained and measured, and a run that fails stops no other."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ...errors import CacheError, TeachclipError, TrainingError
from ...remedies import Change, Hint, Remedy
from ...stages.analysis.frame_weights import FrameWeights, QueryWeights, frame_weights
from ...stages.evaluate.measured import Measurer
from ...stages.runtime.reporting import Reporter, Silent
from ...stages.runtime.run_folder import RunFolder, told_former
from ...stages.runtime.stopping import StopRequest
from ...stages.train.stage import train
from ..steps import Steps
from .plan import Plan
from .runs import SweepRun

GO_ON = "given again, it goes on from its last checkpoint; other settings (a lower train.optim.lr) make another run"


@dataclass(frozen=True)
class RunResult:
    """A run that ended.

    Attributes:
        state: read as it was found, made now, failed, or left out for want of scores.
        measured: metrics by test set: `t2v` and `v2t` of `evaluate`.
        marks: why its metrics do not compare with others, in words.
        problem, hint: why there are no metrics, and what to do.
    """

    label: str
    seed: int | None
    run: str
    state: Literal["found", "made", "failed", "left out"]
    seconds: float | None = None
    measured: Mapping[str, Mapping[str, Any]] | None = None
    marks: tuple[str, ...] = ()
    problem: str | None = None
    hint: str | None = None


def run_sweep(
    plan: Plan, reporter: Reporter | None = None, stop: StopRequest | None = None, tell: Callable[[Hint], str] = str
) -> list[RunResult]:
    """Train and measure what is missing, read what is there.

    Runs of `plan.problems` are left out. A run that fails is told and the others go on; an interruption ends it all,
    and given again it goes on.

    Args:
        stop: a request to stop where a run can go on later.
        tell: what helps in the words of whoever reads it.

    Raises:
        StoppedEarly: `stop` asked for it; the run that was being trained is saved.
    """
    reporter = reporter or Silent()
    runs, measurer = plan.runs, Measurer(plan.tests)
    steps, results = Steps(reporter, total=len(runs)), {}
    for run in runs:
        if (problem := plan.problems.get(run.folder)) is not None:
            reporter.warn(f"{run.title}: left out, {problem.what}")
            results[run.folder] = RunResult(
                run.label,
                run.seed,
                str(run.folder),
                "left out",
                problem=problem.what,
                hint=None if problem.hint is None else tell(problem.hint),
            )
            steps.total -= 1
        else:
            results[run.folder] = steps.run(
                run.title, _Attempt(run, measurer, stop, tell), lambda made: made.state == "found"
            )
    return [results[run.folder] for run in runs]


class _Attempt:
    """One run, from training to metrics; an error that is its own becomes part of its result."""

    def __init__(
        self, run: SweepRun, measurer: Measurer, stop: StopRequest | None, tell: Callable[[Hint], str]
    ) -> None:
        self.run, self.measurer, self.stop, self.tell = run, measurer, stop, tell

    def __call__(self, reporter: Reporter) -> RunResult:
        run = self.run
        try:
            return self._made(reporter)
        except TeachclipError as error:
            what, details = error.what if error.where is None else f"{error.where}: {error.what}", [*error.details]
            helps = GO_ON if isinstance(error, TrainingError) else error.hint
        except (torch.OutOfMemoryError, MemoryError) as error:
            what, details = "not enough memory", []
            helps = Remedy("take less at a time", Change({"train.chunk": 16}))
            if isinstance(error, torch.OutOfMemoryError):
                helps = Remedy("keep no frames on the GPU", Change({"train.frames": "stream"}), otherwise=helps)
        gc.collect()  # out here the error is gone, and with it what it held of the run
        torch.cuda.empty_cache()
        hint = None if helps is None else self.tell(helps)
        reporter.warn("; ".join([f"{run.title} failed: {what}", *details, *([hint] if hint else [])]))
        return RunResult(run.label, run.seed, str(run.folder), "failed", problem=what, hint=hint)

    def _made(self, reporter: Reporter) -> RunResult:
        run, seconds, found = self.run, None, True
        kept: tuple[str, ...] = ()
        if run.trained:
            kept = told_former(RunFolder(run.folder).former_defaults(run.config), run.config)
            trained = train(run.config, reporter, self.stop)
            seconds, found = trained.seconds, trained.already_done
        measured = self.measurer(run.config, run.folder, reporter)
        for name, error in measured.failed:
            reporter.warn(f"{run.title} on {name}: {error}")
        state: Literal["found", "made", "failed"] = "found" if found and measured.found else "made"
        failed = measured.failed[0] if measured.failed else None
        return RunResult(
            run.label,
            run.seed,
            str(run.folder),
            "failed" if failed else state,
            seconds,
            measured.metrics,
            (*kept, *measured.marks),
            problem=f"{failed[0]}: {failed[1].what}" if failed else None,
            hint=self.tell(failed[1].hint) if failed and failed[1].hint else None,
        )


def weigh_frames(plan: Plan, results: Sequence[RunResult], reporter: Reporter) -> FrameWeights:
    """Frame weights of the rows' first seeds, called by their labels, beside the teacher of the first row that has one
    (TeachCLIP, figure 3).

    Raises:
        TeachclipError: a run is missing, has no AFA, or the teacher cannot be asked.
    """
    made = {result.run for result in results if result.measured}
    first = [runs[0] for _, runs in plan.rows if runs and runs[0].trained]
    lacking = [run.label for run in first if str(run.folder) not in made]
    if lacking:
        raise CacheError(f"no frame weights: {', '.join(lacking)} is missing")
    taught = next((run for run in first if run.config.train.teachers), first[0])
    found = frame_weights(taught.config, [run.folder for run in first], reporter=reporter)
    names = {each.name: run.label for each, run in zip(found.closeness, first, strict=False)}  # last: equal weights
    closeness = tuple(replace(each, name=names.get(each.name, each.name)) for each in found.closeness)
    return replace(found, closeness=closeness, queries=tuple(_renamed(query, names) for query in found.queries))


def _renamed(query: QueryWeights, names: Mapping[str, str]) -> QueryWeights:
    runs, pooling = ({names[run]: row for run, row in rows.items()} for rows in (query.runs, query.pooling))
    return replace(query, runs=runs, pooling=pooling)
